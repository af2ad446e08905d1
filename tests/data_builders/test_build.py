"""Small corpora from the astronaut portrait: same bytes, resumable, refusing, loadable."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest

from data_builders.build import BuildOptions, build
from data_builders.mixture import MixtureEntry
from data_builders.report import summary
from facellava.corpus import read_faces, read_manifest, read_samples, shards, validate
from facellava.errors import BadCorpus, BadSample
from facellava.evidence import verify
from facellava.tasks import parse_answer
from tests.data_builders.small_corpus import FACES, OPTIONS, contents, start_and_kill


def test_a_corpus_is_whole_and_says_what_it_holds(corpus):
    counts = validate(corpus)
    assert counts["faces"] == FACES + 6 + 2 * FACES
    manifest = read_manifest(corpus)
    assert manifest["dropped"]["utkface"] == {
        "file name lacks age, gender, race or date": {
            "count": 1, "examples": ["39_1_20170116174525125.jpg"],
        }
    }  # fmt: skip
    faces = manifest["counts"]["faces"]
    assert sum(faces["utkface"].values()) == FACES
    assert sum(faces["utkface_self_blended"].values()) == 2 * FACES
    assert sum(faces["real_fake_faces"].values()) == 6
    kept = sum(sum(splits.values()) for splits in manifest["counts"]["samples"].values())
    assert kept == len(list(read_samples(corpus))) > 20
    assert sum(manifest["counts"]["ratings"]["overall"].values()) == counts["samples"]


def test_samples_can_be_read_and_hold_on_the_stored_face(corpus):
    faces = {record.face_id: record for record in read_faces(corpus)}
    for sample in read_samples(corpus):
        verdict = parse_answer(sample.answer)
        assert verdict.task == sample.task
        face = faces[sample.face_id].faces()[0]
        wrong = [e.phrase for e in verify(verdict.reasons, face) if e.verdict == "contradicted"]
        assert not wrong, f"{sample.sample_id}: {wrong}"


def test_blends_are_pairs_of_one_face_and_split(corpus):
    plain = {record.face_id: record for record in read_faces(corpus, source="utkface")}
    blends = list(read_faces(corpus, source="utkface_self_blended"))
    for real, fake in zip(blends[::2], blends[1::2], strict=True):
        assert real.origin == fake.origin
        assert plain[real.origin].split == real.split == fake.split
        assert real.labels == {"deepfake": "real"}
        assert fake.labels["deepfake"] == "fake"
        assert fake.labels["blend"]["ratio"] in (0.25, 0.5, 0.75, 1.0)
        crops = [record.faces()[0].crop.astype(int) for record in (real, fake)]
        assert np.abs(crops[0] - crops[1]).max() > 3


def test_one_worker_gives_the_same_bytes_as_two(raw, corpus, tmp_path):
    build(raw, tmp_path / "one", OPTIONS, workers=1)
    assert contents(tmp_path / "one") == contents(corpus)


def test_another_seed_gives_other_samples(raw, corpus, tmp_path):
    build(raw[1:], tmp_path / "c", BuildOptions(seed=8, self_blends=()), workers=1)
    source = "real_fake_faces"
    questions = [
        [sample.question for sample in read_samples(folder, source=source)]
        for folder in (corpus, tmp_path / "c")
    ]
    assert questions[0] != questions[1]


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(raw, corpus, tmp_path):
    out = tmp_path / "corpus"
    start_and_kill(raw, out, shards_wanted=2)
    assert not (out / "manifest.json").exists()
    with pytest.raises(BadCorpus, match="did not finish"):
        list(read_faces(out))
    notes = sorted(out.glob(".progress/*-*.json"))
    kept, lost = (json.loads(note.read_text())["files"] for note in notes[:2])
    kept_path, lost_path = (out / next(iter(files)) for files in (kept, lost))
    lost_path.write_bytes(lost_path.read_bytes()[:100])
    (out / "faces" / "train-utkface-00000.parquet.1.partial").write_bytes(b"half")
    written = kept_path.stat().st_mtime_ns

    build(raw, out, OPTIONS, workers=1)
    assert contents(out) == contents(corpus)
    assert kept_path.stat().st_mtime_ns == written, "a finished shard was built again"


def test_a_finished_corpus_is_left_alone_and_other_settings_are_refused(raw, corpus):
    before = contents(corpus)
    assert build(raw, corpus, OPTIONS, workers=1) == read_manifest(corpus)
    with pytest.raises(BadCorpus, match=r"other settings \(seed\)"):
        build(raw, corpus, replace(OPTIONS, seed=8), workers=1)
    assert contents(corpus) == before


def test_both_tables_load_by_the_dataset_card(corpus, tmp_path):
    for table in ("faces", "samples"):
        loaded = datasets.load_dataset(str(corpus), table, cache_dir=str(tmp_path))
        rows = {split: loaded[split].num_rows for split in loaded}
        listed = read_manifest(corpus)["files"]
        assert rows == {
            split: sum(f["rows"] for n, f in listed.items() if n.startswith(f"{table}/{split}-"))
            for split in rows
        }
        assert len(shards(corpus, table)) == sum(name.startswith(table) for name in listed)


def test_the_report_shows_counts_ratings_and_drops(corpus):
    text = summary(corpus)
    for words in ("Faces ", "utkface_self_blended", "Rating: text agrees with face", "Dropped",
                  "1 rows of utkface: file name lacks age"):  # fmt: skip
        assert words in text
    assert text in (corpus / "README.md").read_text()


def test_limit_counts_faces_of_each_split(raw, tmp_path):
    manifest = build(raw[1:], tmp_path / "c", BuildOptions(limit=1, self_blends=()), workers=1)
    assert set(manifest["counts"]["faces"]["real_fake_faces"].values()) == {1}


def test_bad_arguments_leave_nothing_behind(raw, tmp_path):
    out = tmp_path / "c"
    with pytest.raises(BadCorpus, match="no source 'imdb'"):
        build([MixtureEntry(name="imdb", root=tmp_path)], out)
    with pytest.raises(BadSample, match="limit is 0"):
        BuildOptions(limit=0)
    with pytest.raises(BadCorpus, match="each source once"):
        build([raw[0], raw[0]], out)
    assert not out.exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadCorpus, match="holds other files"):
        build(raw, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_wrong_folder_is_named_and_no_corpus_appears(tmp_path):
    with pytest.raises(BadCorpus, match="list_attr_celeba.txt' is missing"):
        build([MixtureEntry(name="celeba", root=tmp_path)], tmp_path / "c", workers=1)
    assert not (tmp_path / "c").exists()


def test_a_mixture_takes_a_share_of_a_sources_rows(raw, corpus, tmp_path):
    half = raw[0].model_copy(update={"weight": 0.5})
    manifest = build([half], tmp_path / "c", BuildOptions(self_blends=()), workers=1)
    taken = [record.face_id for record in read_faces(tmp_path / "c")]
    whole = [record.face_id for record in read_faces(corpus, source="utkface")]
    assert 0 < len(taken) < FACES
    assert set(taken) < set(whole)
    assert manifest["settings"]["weights"] == {"utkface": 0.5}
