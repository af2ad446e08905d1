import json
import shutil
from pathlib import Path

import pytest

from data_builders import remove as module
from data_builders.remove import remove
from facellava.corpus import read_faces, read_manifest, read_samples, validate
from facellava.errors import BadCorpus
from tests.data_builders.small_corpus import contents
from tests.data_builders.written_corpus import record, sample, usual_corpus, write_corpus


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    return usual_corpus(tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def corpus(untouched, tmp_path) -> Path:
    return shutil.copytree(untouched, tmp_path / "corpus")


def people(folder: Path) -> set[tuple[str, str | None]]:
    return {(face.source, face.subject) for face in read_faces(folder)}


def test_a_source_goes_with_its_blends_and_nothing_else_is_touched(corpus):
    before = contents(corpus)
    assert remove(corpus, sources=["celeba"]) == {"faces": 6, "samples": 7}
    assert validate(corpus) == {"faces": 1, "samples": 2}
    after = contents(corpus)
    for table in ("faces", "samples"):
        name = f"{table}/train-dfew-00000.parquet"
        assert after.pop(name) == before[name]
    assert sorted(after) == ["README.md", "manifest.json"]
    manifest = read_manifest(corpus)
    assert list(manifest["sources"]) == list(manifest["dropped"]) == ["dfew"]
    assert manifest["removed"] == [{"source": "celeba", "faces": 6, "samples": 7}]
    card = (corpus / "README.md").read_text()
    assert "from dfew with seed 0" in card
    assert "- all of celeba: 6 faces, 7 samples" in card


def test_a_person_goes_with_all_that_was_made_of_them(corpus, tmp_path):
    assert remove(corpus, subjects=["celeba:p0"]) == {"faces": 3, "samples": 4}
    assert people(corpus) == {
        ("celeba", "p1"), ("celeba", "p2"), ("celeba", "p3"), ("dfew", None),
    }  # fmt: skip
    assert validate(corpus) == {"faces": 4, "samples": 5}
    assert not [s for s in read_samples(corpus, dropped=True) if "-0/" in s.face_id]
    # The counts are those of a corpus that never had the person, but for what cannot be known.
    kept = list(read_faces(corpus))
    fresh = write_corpus(tmp_path / "fresh", kept, list(read_samples(corpus, dropped=True)))
    counts = read_manifest(fresh)["counts"]
    assert counts.pop("unwritten") == {"age: fewer than two measured claims": 3}
    assert read_manifest(corpus)["counts"] == counts
    assert read_manifest(corpus)["files"] == read_manifest(fresh)["files"]
    assert read_manifest(corpus)["removed"] == [
        {"source": "celeba", "subject": "p0", "faces": 3, "samples": 4}
    ]


def test_blends_alone_can_go(corpus):
    assert remove(corpus, sources=["celeba_self_blended"]) == {"faces": 2, "samples": 1}
    assert ("celeba", "p0") in people(corpus)
    assert "real faces from: none" in (corpus / "README.md").read_text()


def test_doing_it_again_changes_nothing(corpus):
    remove(corpus, subjects=["celeba:p1"])
    once = contents(corpus)
    assert remove(corpus, subjects=["celeba:p1"]) == {"faces": 0, "samples": 0}
    assert contents(corpus) == once
    remove(corpus, sources=["celeba"])
    assert remove(corpus, subjects=["celeba:p1"]) == {"faces": 0, "samples": 0}
    assert [entry["faces"] for entry in read_manifest(corpus)["removed"]] == [1, 5]


def test_the_page_that_shows_the_faces_and_unfinished_answers_go_too(corpus):
    (corpus / "report.html").write_text("faces")
    (corpus / ".annotate").mkdir()
    (corpus / ".annotate" / "train-celeba-00000.parquet").write_text("answers")
    remove(corpus, subjects=["celeba:p1"])
    assert {path.name for path in corpus.iterdir()} == {
        "README.md", "faces", "manifest.json", "samples",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"sources": ["lfw"]}, "no source 'lfw'; it holds celeba, celeba_self_blended, dfew"),
        ({"subjects": ["lfw:p1"]}, "no source 'lfw'"),
        ({"subjects": ["celeba:p1", "celeba:p9"]}, "no face of celeba:p9; nothing was withdrawn"),
        ({"subjects": ["p1"]}, "write the source and the person as 'source:subject'"),
        ({"sources": ["celeba", "dfew"]}, "Nothing would be left"),
    ],
)
def test_what_nobody_knows_is_refused_and_changes_nothing(corpus, request_, message):
    before = contents(corpus)
    with pytest.raises(BadCorpus, match=message):
        remove(corpus, **request_)
    assert contents(corpus) == before


class Killed(BaseException):
    """Stands for a kill: no `except Exception` catches it."""


def steps_until_killed(patch, allowed: int) -> None:
    """Let so many renames and deletions of files happen, and no more."""
    done = [0]

    def counting(real):
        def step(self, *args, **options):
            if done[0] >= allowed:
                raise Killed
            done[0] += 1
            return real(self, *args, **options)

        return step

    patch.setattr(Path, "replace", counting(Path.replace))
    patch.setattr(Path, "unlink", counting(Path.unlink))


def test_a_kill_at_any_step_leaves_the_old_corpus_or_one_that_is_finished_next(
    untouched, tmp_path, monkeypatch
):
    wanted = {"sources": ["dfew"], "subjects": ["celeba:p0"]}
    old = contents(untouched)
    remove(shutil.copytree(untouched, tmp_path / "new"), **wanted)
    new = contents(tmp_path / "new")
    seen = set()
    for allowed in range(100):
        corpus = shutil.copytree(untouched, tmp_path / f"at-{allowed}")
        killed = False
        with monkeypatch.context() as patch:
            steps_until_killed(patch, allowed)
            try:
                remove(corpus, **wanted)
            except Killed:
                killed = True
        if (corpus / "manifest.json").is_file():
            validate(corpus)
            here = contents(corpus)
            shown = {name: here[name] for name in here if name.endswith((".parquet", "t.json"))}
            seen.add("old" if shown.items() <= old.items() else "new")
            assert shown.items() <= old.items() or shown.items() <= new.items()
        else:
            seen.add("none")
            with pytest.raises(BadCorpus, match="did not finish"):
                list(read_faces(corpus))
        assert remove(corpus, **wanted)["faces"] in (4, 0)
        assert contents(corpus) == new, allowed
        if not killed:
            break
    assert not killed
    assert seen == {"old", "none", "new"}


def test_another_removal_finishes_the_one_before(corpus, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_card_and_manifest", kill)
        with pytest.raises(Killed):
            remove(corpus, sources=["dfew"])
    assert remove(corpus, subjects=["celeba:p3"]) == {"faces": 1, "samples": 1}
    assert [entry["source"] for entry in read_manifest(corpus)["removed"]] == ["dfew", "celeba"]
    assert validate(corpus) == {"faces": 5, "samples": 6}


def kill(*_):
    raise Killed


def test_a_person_without_samples_and_one_with_a_colon(tmp_path):
    faces = [record(0, subject="a:b"), record(1), record(2)]
    corpus = write_corpus(tmp_path, faces, [sample(faces[1])])
    before = json.loads((corpus / "manifest.json").read_text())["files"]
    assert remove(corpus, subjects=["celeba:a:b"]) == {"faces": 1, "samples": 0}
    after = read_manifest(corpus)["files"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"faces/train-celeba-00000.parquet"}
    assert validate(corpus) == {"faces": 2, "samples": 1}
