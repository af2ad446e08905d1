import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_builders.exports import FORMS, escaped, export, unescaped
from data_builders.imports import import_corpus
from data_builders.remove import remove
from facellava.corpus import read_faces, read_manifest, shards, validate
from facellava.errors import BadCorpus, BadSample
from tests.data_builders.small_corpus import contents
from tests.data_builders.written_corpus import record, usual_corpus, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return usual_corpus(tmp_path_factory.mktemp("corpus"))


def records(path: Path) -> list[dict]:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_back_is_the_same_to_the_last_byte(corpus, tmp_path, form):
    assert export(corpus, tmp_path / "out", form) == 7
    manifest = import_corpus(tmp_path / "out", tmp_path / "back")
    assert manifest == read_manifest(corpus)
    assert contents(tmp_path / "back") == contents(corpus)
    for table in ("faces", "samples"):
        for path in shards(corpus, table):
            assert pq.read_table(tmp_path / "back" / table / path.name).equals(pq.read_table(path))


def test_a_withdrawal_is_remembered_by_what_comes_back(corpus, tmp_path):
    changed = usual_corpus(tmp_path / "corpus")
    remove(changed, sources=["dfew"])
    export(changed, tmp_path / "out", "llava")
    import_corpus(tmp_path / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(changed)


def test_llava_records_are_those_of_faceinstruct(corpus, tmp_path):
    export(corpus, tmp_path, "llava")
    first, _, with_turns, *_ = records(tmp_path / "train.json")
    extra = json.loads(first.pop("facellava"))
    assert first == {
        "id": "celeba-0/é#0",
        "conversations": [
            {"from": "human", "value": "<image>\nHow old is she?"},
            {"from": "gpt", "value": "Age: 31 years. The skin is smooth."},
        ],
        "image": "media/train-celeba-00000/00000.jpg",
        "landmarks_2d": "media/train-celeba-00000/00000.npy",
    }
    assert (extra["shard"], extra["row"], extra["label"]) == ("train-celeba-00000", 0, "31")
    assert [turn["value"] for turn in with_turns["conversations"]] == [
        "<image>\nWhat is <\\image> here?",
        "Age: 30 years. <\\video> it is.",
        "And <\\\\image>?",
        "Age: 31 years. The skin is smooth.",
    ]
    [face] = [face for face in read_faces(corpus) if face.face_id == "celeba-0/é"]
    assert (tmp_path / first["image"]).read_bytes() == face.frames[0]
    points = np.load(tmp_path / first["landmarks_2d"])
    assert points.shape == (68, 2)
    np.testing.assert_array_equal(points, face.landmarks[0] * 256)


def test_a_clip_is_a_film_with_landmarks_for_each_frame(corpus, tmp_path):
    export(corpus, tmp_path, "llava")
    [clip] = [item for item in records(tmp_path / "train.json") if "video" in item]
    assert clip["conversations"][0]["value"] == "<video>\nHow old is she?"
    assert np.load(tmp_path / clip["landmarks_2d"]).shape == (3, 68, 2)
    film = cv2.VideoCapture(str(tmp_path / clip["video"]))
    [face] = [face for face in read_faces(corpus) if face.media == "clip"]
    for frame in face.frames:
        there, pixels = film.read()
        assert there
        wanted = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(pixels.astype(int) - wanted).mean() < 2
    assert film.read()[0] is False


def test_marks_and_media_are_equal_in_number(corpus, tmp_path):
    export(corpus, tmp_path / "share", "sharegpt")
    export(corpus, tmp_path / "messages", "messages")
    listed = json.loads((tmp_path / "share" / "dataset_info.json").read_text())
    assert listed["facellava_train"] == {
        "file_name": "train.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images", "videos": "videos"},
    }
    assert sorted(listed) == ["facellava_test", "facellava_train", "facellava_validation"]
    for path, turns, text in (
        (tmp_path / "share" / "train.json", "conversations", "value"),
        (tmp_path / "messages" / "train.jsonl", "messages", "content"),
    ):
        for item in records(path):
            said = "".join(turn[text] for turn in item[turns])
            for mark, kind in (("<image>", "images"), ("<video>", "videos")):
                assert said.count(mark) == len(item[kind])
                assert all((path.parent / name).is_file() for name in item[kind])
    roles = [turn["role"] for turn in records(tmp_path / "messages" / "train.jsonl")[2]["messages"]]
    assert roles == ["user", "assistant"] * 2


def test_dropped_samples_are_in_no_file_that_is_trained_on(corpus, tmp_path):
    export(corpus, tmp_path, "llava")
    dropped = {item["id"] for item in records(tmp_path / "not_kept.jsonl")}
    assert dropped == {"celeba-0/é#1", "dfew-1#1"}
    assert not dropped & {item["id"] for item in records(tmp_path / "train.json")}


@pytest.mark.parametrize("text", ["<image>", r"<\image>", r"a <\\video><audio> b", "<bbox", ""])
def test_escaping_can_be_undone(text):
    assert "<image>" not in escaped(text)
    assert "<video>" not in escaped(text)
    assert unescaped(escaped(text)) == text


def test_one_split_comes_back_alone_and_is_no_whole_build(corpus, tmp_path):
    export(corpus, tmp_path / "out", "messages", split="test")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        "faces.jsonl", "not_kept.jsonl", "test.jsonl",
    ]  # fmt: skip
    manifest = import_corpus(tmp_path / "out", tmp_path / "back")
    assert validate(tmp_path / "back") == {"faces": 1, "samples": 1}
    assert manifest["counts"]["faces"] == {"celeba": {"test": 1}}
    assert manifest["settings"]["split"] == "test"


def test_a_full_or_half_made_folder_is_refused(corpus, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadCorpus, match="holds files"):
        export(corpus, tmp_path, "llava")
    assert (tmp_path / "mine.txt").read_text() == "keep"
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("data_builders.exports._write_clip", broken)
        with pytest.raises(BadCorpus, match=r"cannot be written \(broken\)"):
            export(corpus, out, "llava")
    assert not out.exists()
    export(corpus, out, "llava")
    (out / "export.json").unlink()  # what a killed export lacks
    with pytest.raises(BadCorpus, match="no export, or one not finished"):
        import_corpus(out, tmp_path / "back")
    with pytest.raises(BadCorpus, match="run that was killed"):
        export(corpus, out, "llava")


def broken(*_):
    raise OSError("broken")


def test_what_does_not_exist_is_refused(corpus, tmp_path):
    with pytest.raises(BadSample, match="no form 'alpaca'; the forms are llava"):
        export(corpus, tmp_path / "out", "alpaca")
    with pytest.raises(BadSample, match="split is 'dev'"):
        export(corpus, tmp_path / "out", "llava", split="dev")
    only_train = write_corpus(tmp_path / "corpus", [record(0)], [])
    with pytest.raises(BadCorpus, match="no faces of the split 'test'"):
        export(only_train, tmp_path / "out", "llava", split="test")


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train.json", "<image>\\n", "", "no mark of a medium"),
        ("train.json", '{"id"', '{"id', r"train.json' is not JSON in UTF-8 \(.* line 2 "),
        ("train.json", "[", '{"rows": [', r"train.json' is not JSON in UTF-8 \("),
        (
            "faces.jsonl",
            '"split": "train"',
            '"split": "test"',
            "'test' and stands in a shard",
        ),
        ("faces.jsonl", '"face_id"', '"face_id', r"Line 1 of '.*faces.jsonl' is not JSON"),
        ("export.json", '"version": 1', '"version": 9', "an export of version 9"),
        ("export.json", '"form": "llava"', '"form": "tar"', "none that this facellava wrote"),
        ("export.json", '"counts"', '"count"', "lacks what it says about counts; take"),
        ("train.json", '\\"row\\": 0', '\\"rank\\": 0', "not as it was exported"),
        ("faces.jsonl", "00000.jpg", "../../../etc/hosts", "outside of the folder"),
        ("faces.jsonl", "00000.jpg", "99999.jpg", "cannot be read"),
        ("faces.jsonl", "test-celeba-00000", "../../celeba-0", "names a shard"),
        ("not_kept.jsonl", '{"id"', '\n{"id": 1}\n{"id"', "'facellava' of a record"),
    ],
)
def test_a_changed_export_is_told(corpus, tmp_path, name, old, new, message):
    export(corpus, tmp_path / "out", "llava")
    path = tmp_path / "out" / name
    path.write_text(change(path.read_text(), old, new))
    with pytest.raises(BadCorpus, match=message):
        import_corpus(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["train.jsonl", "faces.jsonl", "export.json"])
def test_what_is_not_utf_8_is_told(corpus, tmp_path, name):
    export(corpus, tmp_path / "out", "messages")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes().replace(b"celeba", b"celeb\xe9"))
    with pytest.raises(BadCorpus, match=rf"{name}'.* (is not JSON|none that this facellava)"):
        import_corpus(tmp_path / "out", tmp_path / "back")


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_a_list_that_another_tool_wrote_comes_back(corpus, tmp_path, indent):
    export(corpus, tmp_path / "out", "sharegpt")
    for path in tmp_path.glob("out/t*.json"):
        path.write_text(json.dumps(records(path), indent=indent))
    path = tmp_path / "out" / "validation.json"
    path.write_text(change(path.read_text(), ' "facellava"', '\n"facellava"'))  # by hand
    import_corpus(tmp_path / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(corpus)


def test_an_error_quotes_no_whole_file(corpus, tmp_path):
    export(corpus, tmp_path / "out", "messages")
    path = tmp_path / "out" / "train.jsonl"
    path.write_text(json.dumps(records(path)))
    with pytest.raises(BadCorpus, match=r"Line 1 of .* is '\[\{.* \.\.\.; a JSON dict") as caught:
        import_corpus(tmp_path / "out", tmp_path / "back")
    assert len(str(caught.value)) < 200 + len(str(path))


def test_the_terms_are_sentences(corpus, tmp_path):
    export(corpus, tmp_path, "llava")
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "- dfew: research. Consent of the people: unknown." in lines


def test_a_corpus_that_lost_a_file_is_not_exported(tmp_path):
    corpus = usual_corpus(tmp_path / "corpus")
    (corpus / "samples" / "train-dfew-00000.parquet").unlink()
    with pytest.raises(BadCorpus, match="lost 1 of the 10 files .* samples/train-dfew-00000.parq"):
        export(corpus, tmp_path / "out", "llava")
    assert not (tmp_path / "out").exists()


def test_a_record_that_was_taken_away_is_told(corpus, tmp_path):
    export(corpus, tmp_path / "out", "messages")
    path = tmp_path / "out" / "train.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(BadCorpus, match="holds 6 of the 7 rows of samples"):
        import_corpus(tmp_path / "out", tmp_path / "back")


def test_a_mended_answer_comes_back(corpus, tmp_path):
    export(corpus, tmp_path / "out", "messages")
    path = tmp_path / "out" / "test.jsonl"
    path.write_text(change(path.read_text(), "The skin is smooth.", "The brow is high."))
    import_corpus(tmp_path / "out", tmp_path / "back")
    [table] = [pq.read_table(path) for path in shards(tmp_path / "back", "samples", "test")]
    assert table["answer"].to_pylist() == ["Age: 31 years. The brow is high."]
