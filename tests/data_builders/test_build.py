"""Small corpora from the astronaut portrait: same bytes, resumable, refusing, loadable."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from data_builders.build import BuildOptions, build
from data_builders.finished import card
from data_builders.mixture import MixtureEntry
from data_builders.rate import Threshold
from data_builders.report import summary
from facellava.corpus import read_faces, read_manifest, read_samples, shards, validate
from facellava.errors import BadCorpus, BadSample
from facellava.evidence import verify
from facellava.tasks import parse_answer
from tests.data_builders.small_corpus import (
    FACES,
    OPTIONS,
    contents,
    start_and_kill,
    write_pictures,
)


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


def test_a_finished_corpus_is_left_alone_and_other_settings_are_refused(raw, corpus, capsys):
    before = contents(corpus)
    assert build(raw, corpus, OPTIONS, workers=1) == read_manifest(corpus)
    assert capsys.readouterr().err == (
        f"The corpus '{corpus}' is already built with these settings; no dataset was read.\n"
    )
    with pytest.raises(BadCorpus, match=r"other settings \(seed\)"):
        build(raw, corpus, replace(OPTIONS, seed=8), workers=1)
    assert contents(corpus) == before


def copied(corpus: Path, folder: Path) -> Path:
    shutil.copytree(corpus, folder)
    return folder


def test_what_validate_finds_is_mended_by_building_again(raw, corpus, tmp_path):
    out = copied(corpus, tmp_path / "c")
    damaged = out / "faces" / "train-utkface-00000.parquet"
    data = bytearray(damaged.read_bytes())
    data[-20] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(BadCorpus, match=f"{damaged}.*; delete it and run the build again"):
        validate(out)
    damaged.unlink()
    blends = next((out / "samples").glob("*-utkface_self_blended-*"))
    blends.write_bytes(blends.read_bytes()[:-9])
    # Not seen by its size; but once one file is amiss, all are read.
    other = next((out / "samples").glob("*-real_fake_faces-*"))
    other.write_bytes(bytes(other.stat().st_size))
    (out / "README.md").unlink()
    kept = out / "faces" / other.name
    written = kept.stat().st_mtime_ns
    assert build(raw, out, OPTIONS, workers=1) == read_manifest(corpus)
    assert contents(out) == contents(corpus)
    assert kept.stat().st_mtime_ns == written, "a whole file was written again"


def test_a_lost_file_is_not_replaced_by_another(raw, corpus, tmp_path):
    out = copied(corpus, tmp_path / "c")
    lost = next((out / "faces").glob("*-real_fake_faces-*"))
    lost.unlink()
    before = contents(out)
    write_pictures(tmp_path / "rff" / "real", ["0.jpg", "1.jpg"], first=12)
    write_pictures(tmp_path / "rff" / "fake", ["3.jpg", "4.jpg"], first=15)
    changed = raw[1].model_copy(update={"root": tmp_path / "rff"})
    with pytest.raises(BadCorpus, match=f"'{lost}' cannot be built again: the datasets are not"):
        build([raw[0], changed], out, OPTIONS, workers=1)
    assert contents(out) == before


def test_tables_that_lost_their_manifest_are_not_built_over(raw, corpus, tmp_path):
    out = copied(corpus, tmp_path / "c")
    (out / "manifest.json").unlink()
    with pytest.raises(BadCorpus, match="lost, delete the folder and run the build again"):
        build(raw, out, OPTIONS, workers=1)


def test_all_folders_are_looked_for_before_anything_is_done(raw, corpus, tmp_path):
    gone = raw[1].model_copy(update={"root": tmp_path / "nowhere"})
    for out in (tmp_path / "c", corpus):
        with pytest.raises(BadCorpus, match=f"real_fake_faces: there is no '{gone.root}'"):
            build([raw[0], gone], out, OPTIONS, workers=1)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("below", ["notes.txt/c", "closed/c"])
def test_a_place_that_cannot_be_written_is_one_sentence(raw, tmp_path, below, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    if below.startswith("closed"):  # the administrator may write anywhere

        def refuse(path, *args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BadCorpus, match=rf"'{tmp_path / below}' cannot be written \(.+\); give"):
        build(raw, tmp_path / below, OPTIONS, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_card_offers_only_tables_with_rows(raw, tmp_path):
    out = tmp_path / "c"
    build(raw[1:], out, BuildOptions(limit=1, self_blends=(), measured=False), workers=1)
    loaded = datasets.load_dataset(str(out), "faces", cache_dir=str(tmp_path / "cache"))
    assert sum(table.num_rows for table in loaded.values()) == validate(out)["faces"]
    with pytest.raises(ValueError, match="'samples' not found"):
        datasets.load_dataset(str(out), "samples", cache_dir=str(tmp_path / "cache"))
    assert '"samples"' not in (out / "README.md").read_text()


def test_the_card_lists_the_terms_alike_whoever_writes_it(raw, corpus):
    assert list(read_manifest(corpus)["settings"]["sources"]) == ["utkface", "real_fake_faces"]
    assert (corpus / "README.md").read_text() == card(read_manifest(corpus))


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


def test_the_lowest_rating_of_a_label_is_a_choice(raw, tmp_path):
    kept = {}
    for label in (1, 9):
        options = BuildOptions(limit=1, self_blends=(), threshold=Threshold(label=label))
        build(raw[1:], tmp_path / str(label), options, workers=1)
        kept[label] = [s.sample_id for s in read_samples(tmp_path / str(label))]
    # A label given by hand is rated 8: only refusals are left.
    assert set(kept[9]) < set(kept[1])


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
