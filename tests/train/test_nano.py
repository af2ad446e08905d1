"""The whole way from a corpus to a checkpoint that answers, with stops in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facellava.corpus import read_faces, read_manifest, sha256
from facellava.errors import BadCheckpoint
from facellava.predictor import FaceLlava
from train.nano import NanoSettings, set_aside, train_nano

Trained = tuple[Path, NanoSettings]


def test_a_stopped_run_goes_on_where_it_was(resumed_run: Trained) -> None:
    log = (resumed_run[0] / "encoder_run" / "log.jsonl").read_text().splitlines()
    # The first round was saved, and stopped before it was logged.
    assert [json.loads(line)["step"] for line in log] == [2, 3, 4]
    assert not list(resumed_run[0].rglob("*.partial"))


def test_the_weights_load_and_answer(resumed_run: Trained, mini_corpus: Path) -> None:
    folder = resumed_run[0] / "nano"
    weights = load_file(folder / "model.safetensors")
    assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    assert not any("lm_head" in name for name in weights)
    model = FaceLlava.load(folder)
    faces = [record.faces()[0] for record in read_faces(mini_corpus)][:2]
    answers = model.ask_many(faces, ["How old is she?", "Is it fake?"], max_new_tokens=8)
    assert len(answers) == 2
    # So short a training teaches nothing: the answers say that they cannot be read.
    assert all(answer.task or answer.unreadable for answer in answers)
    assert set(model.model.config.calibration) <= {"expression", "age", "attributes", "deepfake"}
    assert model.model.config.region_variant == "paper"
    card = (folder / "README.md").read_text()
    [terms] = read_manifest(mini_corpus)["sources"].values()
    seen = json.loads((folder / "training_data.json").read_text())
    assert seen == {
        "corpus_sha256": sha256(mini_corpus / "manifest.json"),
        "fold": None,
        "sources": {"mini": {"train": 36}},
    }
    assert f"| {terms['title']} | 36 | {terms['licence']} | {terms['consent']} |" in card


def test_finished_steps_are_not_done_again(
    resumed_run: Trained, mini_corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, settings = resumed_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    kept = (out / "nano" / "model.safetensors").read_bytes()
    train_nano(mini_corpus, out, settings)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    changed = {path.relative_to(out).parts[0] for path in after if before.get(path) != after[path]}
    assert changed == {"nano"}
    assert (out / "nano" / "model.safetensors").read_bytes() == kept


def test_another_runs_folder_is_refused(resumed_run: Trained, mini_corpus: Path) -> None:
    out, settings = resumed_run
    with pytest.raises(BadCheckpoint, match="other settings"):
        train_nano(mini_corpus, out, replace(settings, width=128))


def test_one_persons_faces_are_set_aside_together(mini_corpus: Path) -> None:
    one = next(read_faces(mini_corpus))
    records = [replace(one, face_id=f"x-{n}") for n in range(300)]
    kept_out = [record for record in records if set_aside(record, 0.2)]
    assert 30 < len(kept_out) < 90
    for record in records:
        made = replace(
            record,
            face_id=f"{record.face_id}-blend-fake",
            source="mini_self_blended",
            origin=record.face_id,
        )
        assert set_aside(made, 0.2) == set_aside(record, 0.2)
    same = [replace(record, subject="Ann") for record in records]
    assert len({set_aside(record, 0.2) for record in same}) == 1
