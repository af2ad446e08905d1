"""From a corpus to batches: what is learned, in which order, and what cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from facellava.corpus import read_faces, read_samples, sha256, validate, write_shard
from facellava.errors import BadCorpus, BadSample
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from train.dataset import (
    Collator,
    CorpusTables,
    ModalityLengthGroups,
    Reader,
    TrainingRows,
    check_taught,
    scan,
)
from train.face_arrays import UNITS
from train.usable import Usable

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def reader(run_corpus: Path, cache: Path, new_parts: Callable[[], Parts]) -> Reader:
    return Reader(CorpusTables(run_corpus, "train", cache), new_parts()[1], 1024, 8)


def test_the_fixture_is_a_whole_corpus(run_corpus: Path) -> None:
    assert validate(run_corpus) == {"faces": 12, "samples": 48}


def test_every_kept_sample_is_read_with_its_own_face(reader: Reader, run_corpus: Path) -> None:
    usable = scan(reader, skip=False)
    faces = {record.face_id: record for record in read_faces(run_corpus, "train")}
    samples = list(read_samples(run_corpus, "train"))
    rows = TrainingRows(reader, usable)
    assert len(rows) == len(samples) == 32
    tokenizer = reader.processor.tokenizer
    for number, sample in enumerate(samples):
        found = rows[number]
        assert found.sample_id == sample.sample_id
        wanted = faces[sample.face_id].faces()
        shown = found.item if isinstance(found.item, list) else [found.item]
        assert len(shown) == len(wanted) == usable.frames[number]
        for one, other in zip(shown, wanted, strict=True):
            np.testing.assert_array_equal(one.crop, other.crop)
        assert usable.lengths[number] == len(found.text.input_ids)
        # Answers of earlier turns are learned too, questions and images never.
        learned = [token for token in found.text.labels or () if token != IGNORED_LABEL]
        spoken = [answer for _, answer in sample.history] + [sample.answer]
        assert tokenizer.decode(learned) == "".join(f"{answer}</s>" for answer in spoken)
        assert usable.learned[number] == len(learned)


def test_a_batch_of_photos_and_clips_is_what_the_model_takes(
    reader: Reader, new_parts: Callable[[], Parts]
) -> None:
    usable = scan(reader, skip=False)
    rows = TrainingRows(reader, usable)
    places = [int(np.flatnonzero(usable.frames == n)[0]) for n in (3, 1)]
    batch = Collator(reader.processor)([rows[place] for place in places])
    assert batch["pixel_values"].shape == (4, 3, 96, 96)
    assert batch["landmarks"].shape == (4, 68, 2)
    assert batch["uncoded"].shape == (2, len(UNITS))
    assert batch["input_ids"].shape == batch["labels"].shape
    uncoded = batch.pop("uncoded")
    assert not uncoded.any()
    assert new_parts()[0](**batch).loss.isfinite()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"landmarks": np.full((1, 68, 2), np.nan, np.float32)}, "Landmarks reach nan; allowed"),
        ({"landmarks": np.full((1, 68, 2), 96, np.float32)}, "Landmarks reach 96; allowed"),
        ({"answer": "  "}, "its answer is empty"),
        ({"label": None}, "its label is null, and the task .* has labels"),
    ],
)
def test_a_sample_that_teaches_nothing_is_a_bad_one(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sentence: str
) -> None:
    usable = scan(reader, skip=False)
    row = int(usable.rows[usable.frames == 1][0])
    sample, face = reader.tables.sample(row), reader.tables.face(row)
    if "landmarks" in change:
        face = replace(face, **change)
    else:
        sample = replace(sample, **change)
    monkeypatch.setattr(type(reader.tables), "sample", lambda self, row: sample)
    monkeypatch.setattr(type(reader.tables), "face", lambda self, row: face)
    with pytest.raises(BadSample, match=f"Sample {sample.sample_id} cannot be used: .*{sentence}"):
        reader.read(row)


def test_a_question_without_an_answer_has_no_label(reader: Reader) -> None:
    row = int(scan(reader, skip=False).rows[0])
    sample = replace(reader.tables.sample(row), task="unanswerable", label=None)
    check_taught(sample)


def test_clips_are_thinned_evenly(reader: Reader) -> None:
    usable = scan(reader, skip=False)
    row = int(usable.rows[usable.frames == 3][0])
    whole = reader.read(row).item
    ends = replace(reader, clip_frames=2).read(row).item
    assert isinstance(whole, list)
    assert isinstance(ends, list)
    assert [face.crop.tobytes() for face in ends] == [
        whole[place].crop.tobytes() for place in (0, 2)
    ]


def test_units_that_nobody_coded_are_marked(
    run_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]
) -> None:
    folder = tmp_path / "coded"
    record = next(read_faces(run_corpus, "train"))
    labels = {"action_units": ["AU6"], "action_units_coded": ["AU6", "AU12"]}
    samples = [s for s in read_samples(run_corpus) if s.face_id == record.face_id]
    write_shard(folder / "faces/train-mini-0.parquet", [replace(record, labels=labels)], "faces")
    write_shard(folder / "samples/train-mini-0.parquet", samples, "samples")
    (folder / "manifest.json").write_text("{}")
    reader = Reader(CorpusTables(folder, "train", tmp_path), new_parts()[1], 1024, 8)
    coded = [UNITS[n] for n in np.flatnonzero(~reader.read(0).uncoded)]
    assert coded == ["AU6", "AU12"]


@pytest.fixture
def broken_corpus(run_corpus: Path, tmp_path: Path) -> Path:
    """The corpus with one face whose picture is no JPEG."""
    folder = tmp_path / "broken"
    shutil.copytree(run_corpus, folder)
    path = folder / "faces" / "train-mini-00000.parquet"
    faces = list(read_faces(run_corpus, "train"))
    faces[3] = replace(faces[3], frames=(b"\xff\xd8 no picture",))
    write_shard(path, faces, "faces")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["faces/train-mini-00000.parquet"]["sha256"] = sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_bad_sample_stops_with_its_id_or_is_counted(
    reader: Reader, broken_corpus: Path, tmp_path: Path
) -> None:
    broken = replace(reader, tables=CorpusTables(broken_corpus, "train", tmp_path / "t"))
    with pytest.raises(BadSample, match="Sample mini-103-0 cannot be used: A frame of the corpus"):
        scan(broken, skip=False)
    usable = scan(broken, skip=True, workers=1)
    assert len(usable.rows) == 28
    assert [line.split()[1] for line in usable.skipped] == [f"mini-103-{n}" for n in range(4)]
    usable.save(tmp_path / "usable.npz")
    again = Usable.load(tmp_path / "usable.npz")
    np.testing.assert_array_equal(again.rows, usable.rows)
    assert again.skipped == usable.skipped


def test_samples_over_the_limit_are_bad_and_none_is_cut(reader: Reader) -> None:
    short = replace(reader, max_length=120)
    with pytest.raises(BadSample, match=r"has \d+ tokens and max_length is 120: raise it"):
        scan(short, skip=False)
    usable = scan(short, skip=True)
    assert usable.lengths.max() <= 120
    assert len(usable.rows) + len(usable.skipped) == 32
    with pytest.raises(BadCorpus, match=r"no sample of split 'train' .* \(32 were skipped\)"):
        scan(replace(reader, max_length=5), skip=True)


def test_a_split_that_is_not_there(run_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="holds no samples of split 'test'"):
        CorpusTables(run_corpus, "test", tmp_path)


def test_batches_are_of_one_modality_and_like_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 400, 1000).astype(np.int32)
    clips = rng.random(1000) < 0.3
    sampler = ModalityLengthGroups(lengths, clips, batch=8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(1000))
    assert list(ModalityLengthGroups(lengths, clips, batch=8, seed=3)) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    whole = np.array(first[: sum(int((clips == m).sum()) // 8 * 8 for m in (0, 1))])
    batches = whole.reshape(-1, 8)
    assert {len(set(clips[batch])) for batch in batches} == {1}
    spans = np.ptp(lengths[batches], axis=1)
    assert np.median(spans) < 20
    kinds = clips[batches[:, 0]]
    assert 0 < kinds[: len(kinds) // 2].mean() < 1


def test_workers_change_nothing(reader: Reader) -> None:
    rows = TrainingRows(reader, scan(reader, skip=False))

    def batches(workers: int) -> list[dict[str, torch.Tensor]]:
        collate = Collator(reader.processor)
        return list(DataLoader(rows, 9, num_workers=workers, collate_fn=collate))

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone.keys() == shared.keys()
        for name, value in alone.items():
            torch.testing.assert_close(value, shared[name], rtol=0, atol=0)
