import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data

from facellava.corpus import (
    CORPUS_VERSION,
    FACES_SCHEMA,
    FaceRecord,
    Ratings,
    Sample,
    decode_frame,
    encode_frame,
    read_faces,
    read_samples,
    record_of,
    sha256,
    shards,
    validate,
    write_shard,
)
from facellava.errors import BadCorpus, BadSample
from facellava.faces import Face


def face(brightness: int = 0) -> Face:
    """A 192-pixel cut of the astronaut portrait, with made-up landmarks."""
    crop = np.ascontiguousarray(skimage.data.astronaut()[20:212, 130:322])
    return Face(
        crop=np.clip(crop.astype(int) + brightness, 0, 255).astype(np.uint8),
        landmarks=np.random.default_rng(brightness).random((68, 2)).astype(np.float32),
        box=(10.0, 20.0, 110.0, 120.0),
        index=0,
        score=1.5,
        source="dlib_hog",
        crop_to_photo=np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]),
    )


def record(number: int, split: str = "train", **facts) -> FaceRecord:
    facts = {"subject": f"person-{number}", "labels": {"age": 30 + number}} | facts
    return record_of(
        [face(number)],
        face_id=f"utkface-{number}",
        source="utkface",
        split=split,
        demographics={"gender": "female"},
        licence="non-commercial research",
        origin=f"row {number}",
        **facts,
    )


def sample(number: int, face_id: str, **facts) -> Sample:
    return Sample(
        sample_id=f"{face_id}-{number}",
        face_id=face_id,
        task="age",
        question="How old is she?",
        history=(("What is her expression?", "Expression: happiness. Her lip corners rise."),),
        answer="Age: 31 years. The skin is smooth.",
        label=31,
        annotator="measured",
        ratings=Ratings(8, 9, 10, 9, "The claims agree with the measurements."),
        **facts,
    )


def make_corpus(folder: Path, faces=None, samples=None) -> Path:
    faces = [record(0), record(1), record(2, "validation")] if faces is None else faces
    if samples is None:
        samples = [sample(n, item.face_id) for item in faces for n in range(2)]
    for split in sorted({item.split for item in faces}):
        own = [item for item in faces if item.split == split]
        ids = {item.face_id for item in own}
        name = f"{split}-utkface-00000.parquet"
        write_shard(folder / "faces" / name, own, "faces")
        first = split == min(item.split for item in faces)
        rows = [row for row in samples if row.face_id in ids or (first and "ghost" in row.face_id)]
        write_shard(folder / "samples" / name, rows, "samples")
    list_files(folder)
    return folder


def list_files(folder: Path) -> None:
    """Write the manifest that fits the shards, and a card."""
    files, counts = {}, {"faces": {}, "samples": {}}
    for path in sorted(folder.glob("*/*.parquet")):
        table, split = path.parent.name, path.name.split("-")[0]
        rows = pq.read_table(path).to_pylist()
        files[f"{table}/{path.name}"] = {
            "sha256": sha256(path), "bytes": path.stat().st_size, "rows": len(rows),
        }  # fmt: skip
        for row in rows:
            if row.get("kept", True):
                found = counts[table].setdefault(row["source" if table == "faces" else "task"], {})
                found[split] = found.get(split, 0) + 1
    manifest = {"version": CORPUS_VERSION, "files": files, "counts": counts}
    manifest |= {"settings": {}, "sources": {}, "dropped": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "README.md").write_text("A corpus.")


def change_manifest(corpus: Path, **parts) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text()) | parts
    (corpus / "manifest.json").write_text(json.dumps(manifest))


def test_a_face_comes_back_as_it_was_written(tmp_path):
    corpus = make_corpus(tmp_path)
    written, read = record(1), list(read_faces(corpus, "train"))[1]
    assert read.labels == {"age": 31}
    assert read.demographics == {"gender": "female"}
    assert (read.face_id, read.subject, read.fold) == ("utkface-1", "person-1", None)
    np.testing.assert_array_equal(read.landmarks, written.landmarks)
    [back] = read.faces()
    assert (back.source, back.weak, back.native_size, back.box) == (
        "dlib_hog", False, 96.0, (10.0, 20.0, 110.0, 120.0),
    )  # fmt: skip
    difference = np.abs(back.crop.astype(int) - face(1).crop.astype(int))
    assert difference.mean() < 2
    assert difference.max() < 40


def test_a_clip_keeps_frames_and_landmarks_in_order(tmp_path):
    clip = record_of(
        [face(0), face(40)], face_id="c", source="utkface", split="test", labels={},
        licence="", origin="",
    )  # fmt: skip
    make_corpus(tmp_path, [clip], [])
    [read] = read_faces(tmp_path)
    assert read.media == "clip"
    first, second = read.faces()
    assert second.crop.mean() - first.crop.mean() > 20
    np.testing.assert_array_equal(second.landmarks, face(40).landmarks)


def test_samples_come_back_and_dropped_ones_only_when_asked(tmp_path):
    faces = [record(0)]
    rows = [sample(0, "utkface-0"), sample(1, "utkface-0", kept=False, weak=True)]
    make_corpus(tmp_path, faces, rows)
    assert list(read_samples(tmp_path)) == rows[:1]
    assert list(read_samples(tmp_path, dropped=True)) == rows


def test_both_tables_load_with_datasets(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    for table in ("faces", "samples"):
        loaded = datasets.load_dataset(
            "parquet",
            data_files={"train": [str(path) for path in shards(corpus, table, "train")]},
            cache_dir=str(tmp_path / "cache"),
        )["train"]
        assert len(loaded) == {"faces": 2, "samples": 4}[table]
        read = (FaceRecord if table == "faces" else Sample).from_row(loaded[1])
        assert read.face_id == ("utkface-1" if table == "faces" else "utkface-0")
    streamed = datasets.load_dataset(
        "parquet",
        data_files=[str(path) for path in shards(corpus, "faces")],
        streaming=True,
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert [FaceRecord.from_row(row).split for row in streamed] == ["train", "train", "validation"]


def test_validate_counts_a_good_corpus(tmp_path):
    assert validate(make_corpus(tmp_path)) == {"faces": 3, "samples": 6}


def test_a_shard_cut_in_half_is_named(tmp_path):
    corpus = make_corpus(tmp_path)
    path = shards(corpus, "faces", "train")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadCorpus, match=f"'{path}' is damaged or cut off"):
        list(read_faces(corpus))
    with pytest.raises(BadCorpus, match="damaged or cut off"):
        validate(corpus)


def test_a_shard_with_broken_pages_is_named(tmp_path):
    corpus = make_corpus(tmp_path)
    path = shards(corpus, "samples", "train")[0]
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    with pytest.raises(BadCorpus, match=path.name):
        list(read_samples(corpus))


def test_unknown_columns_are_refused(tmp_path):
    corpus = make_corpus(tmp_path)
    path = shards(corpus, "faces", "train")[0]
    pq.write_table(pq.read_table(path).rename_columns(["id", *FACES_SCHEMA.names[1:]]), path)
    with pytest.raises(BadCorpus, match=r"unknown or missing columns \(face_id, id\)"):
        list(read_faces(corpus))


@pytest.mark.parametrize(
    ("faces", "samples", "message"),
    [
        ([record(0)], [sample(0, "ghost")], "speaks of face ghost"),
        ([record(0), record(0)], [], "utkface-0 of .* is used twice"),
        ([record(0)], [sample(0, "utkface-0")] * 2, "utkface-0-0 of .* is used twice"),
        ([record(0), record(1, "test", subject="person-0")], [], "subject .* the splits leak"),
        (
            [record(0), replace(record(0, "test", subject=None), face_id="other")],
            [],
            "picture .* the splits leak",
        ),
    ],
)
def test_broken_links_and_leaks_are_found(tmp_path, faces, samples, message):
    with pytest.raises(BadCorpus, match=message):
        validate(make_corpus(tmp_path, faces, samples))


def test_landmarks_that_do_not_fit_the_frames(tmp_path):
    row = record(0).to_row()
    with pytest.raises(BadCorpus, match="134 landmark numbers for 1 frames"):
        FaceRecord.from_row(row | {"landmarks": row["landmarks"][:-2]})
    with pytest.raises(BadSample, match=r"landmarks of shape \(1, 67, 2\)"):
        write_shard(
            tmp_path / "x.parquet",
            [replace(record(0), landmarks=record(0).landmarks[:, :67])],
            "faces",
        )
    assert not list(tmp_path.iterdir()), "a refused shard must leave nothing behind"


@pytest.mark.parametrize("value", [np.nan, np.inf, 96.0])
def test_landmarks_that_are_no_place_in_the_crop(tmp_path, value):
    landmarks = record(1).landmarks.copy()
    landmarks[0, 30, 1] = value
    corpus = make_corpus(tmp_path, [record(0), replace(record(1), landmarks=landmarks)], [])
    with pytest.raises(BadCorpus, match=f"landmarks of face utkface-1 in .* reach {value:g}; "):
        validate(corpus)


def test_people_may_be_in_two_splits_where_the_protocol_has_them_so(tmp_path):
    faces = [record(0, subject="7"), record(1, "test", subject="7")]
    corpus = make_corpus(tmp_path, faces)
    with pytest.raises(BadCorpus, match="the splits leak"):
        validate(corpus)
    change_manifest(corpus, sources={"utkface": {"people_cross_splits": True}})
    assert validate(corpus)["faces"] == 2


def test_a_corpus_of_another_form_is_refused(tmp_path):
    corpus = make_corpus(tmp_path)
    change_manifest(corpus, version=1)
    with pytest.raises(BadCorpus, match="has the form 1, and this facellava reads form 2"):
        validate(corpus)


def test_files_must_be_those_of_the_manifest(tmp_path):
    corpus = make_corpus(tmp_path)
    path = shards(corpus, "samples", "train")[0]
    write_shard(path, [sample(9, "utkface-0")], "samples")
    with pytest.raises(BadCorpus, match="checksum"):
        validate(corpus)
    path.unlink()
    with pytest.raises(BadCorpus, match="in the manifest and missing"):
        validate(corpus)


def test_a_lost_card_and_a_manifest_that_says_otherwise_are_found(tmp_path):
    corpus = make_corpus(tmp_path)
    (corpus / "README.md").unlink()
    with pytest.raises(BadCorpus, match=r"lost its dataset card README\.md"):
        validate(corpus)
    (corpus / "README.md").write_text("A corpus.")
    manifest = json.loads((corpus / "manifest.json").read_text())
    faces = manifest["counts"]["faces"]
    assert faces == {"utkface": {"train": 2, "validation": 1}}
    change_manifest(corpus, counts=manifest["counts"] | {"faces": {"utkface": {"train": 9000}}})
    with pytest.raises(BadCorpus, match="holds the faces .* its manifest counts .*9000"):
        validate(corpus)
    change_manifest(corpus, counts={"faces": faces, "samples": {"age": {"train": 5}}})
    with pytest.raises(BadCorpus, match="holds the samples .* its manifest counts"):
        validate(corpus)
    files = {name: entry | {"rows": 7} for name, entry in manifest["files"].items()}
    change_manifest(corpus, counts=manifest["counts"], files=files)
    with pytest.raises(BadCorpus, match="has 2 rows and the manifest says 7"):
        validate(corpus)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"{}", "has the form None"),
        (b"\xff\xfe{}", "cannot be read .*utf-8"),
        (b"not json", "is not JSON"),
        (b'{"version": 2}', "lacks what it says about settings"),
        (b'{"version": 2, "settings": {}, "sources": {}, "counts": {}, "dropped": {}, "files": '
         b'{"faces/x.parquet": {}}}', "lacks what it says about faces/x.parquet"),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_one_sentence(tmp_path, contents, message):
    corpus = make_corpus(tmp_path)
    (corpus / "manifest.json").write_bytes(contents)
    with pytest.raises(BadCorpus, match=message):
        validate(corpus)


def test_an_unfinished_corpus_is_refused(tmp_path):
    corpus = make_corpus(tmp_path)
    (corpus / "manifest.json").unlink()
    with pytest.raises(BadCorpus, match="did not finish: run the same command again"):
        list(read_faces(corpus))
    with pytest.raises(BadCorpus, match="no corpus folder"):
        validate(tmp_path / "nowhere")


def test_ratings_stay_in_their_range():
    with pytest.raises(BadSample, match="from 1 to 10"):
        Ratings(0, 5, 5, 5, "")


def test_frames_are_encoded_alike_and_checked():
    crop = face().crop
    assert encode_frame(crop) == encode_frame(crop.copy())
    with pytest.raises(BadCorpus, match="192x192 JPEG"):
        decode_frame(encode_frame(crop)[:100])
    with pytest.raises(BadCorpus, match="192x192 JPEG"):
        decode_frame(b"")
