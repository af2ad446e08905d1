"""The whole way from a corpus to a checkpoint that answers, with stops in between."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from facellava.cli import training
from facellava.corpus import read_faces, read_manifest, read_samples, sha256
from facellava.errors import BadCheckpoint, BadSettings
from facellava.predictor import FaceLlava
from train import run_checks
from train.run import train_run
from train.run_config import RunConfig, load_config
from train.run_report import StageReport


def test_a_stopped_run_goes_on_where_it_was(resumed_run: RunConfig) -> None:
    def rounds(name: str) -> list[int]:
        log = (resumed_run.out / name / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in log]

    # The teacher's first round was saved, and stopped before it was logged.
    assert rounds("teacher_run") == [2]
    assert rounds("encoder_run") == [1, 2, 3, 4]
    assert not list(resumed_run.out.rglob("*.partial"))


def test_the_weights_load_and_answer(resumed_run: RunConfig, mini_corpus: Path) -> None:
    folder = resumed_run.out / "model"
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


def test_the_report_tells_what_learned_and_how_well(resumed_run: RunConfig) -> None:
    report = json.loads((resumed_run.out / "report.json").read_text())
    regions, instruct = report["stages"]
    learned = {
        stage["stage"]: {row["part"] for row in stage["table"] if row["trainable"]}
        for stage in (regions, instruct)
    }
    assert learned == {
        "regions": {"projector", "FRLP", "FRGCA", "all"},
        "instruct": {"projector", "FRLP", "FRGCA", "language model", "all"},
    }
    assert 0 <= regions["held_out"]["eval_expression_WAR"] <= 1
    assert instruct["history"][-1]["step"] == -(-report["samples"]["used"] // 64) * 2
    assert report["samples"]["skipped"] == []


@pytest.mark.usefixtures("one_thread")
def test_every_stage_of_the_fast_mode_learns(mini_corpus: Path, tmp_path: Path) -> None:
    """What `make nano FAST=1` runs, on the miniature: all of its losses fall."""
    out = tmp_path / "out"
    few = ["pictures=960", "round_pictures=96", "batch=16"]
    settings = [f"scratch.encoder.{setting}" for setting in few]
    settings += ["regions.batch=8", "regions.epochs=12", "instruct.epochs=24"]
    folder = train_run(
        load_config("nano-fast", [f"corpus={mini_corpus}", f"out={out}", *settings, "log_steps=1"])
    )
    rounds = [json.loads(line) for line in (out / "encoder_run" / "log.jsonl").open()]
    assert rounds[-1]["loss"] < 0.9 * rounds[0]["loss"]
    for stage, share in (("regions", 0.8), ("instruct", 0.4)):
        history = StageReport.read(out / stage, stage).history
        losses = [entry["loss"] for entry in history if "loss" in entry]
        few = len(losses) // 10
        assert sum(losses[-few:]) < share * sum(losses[:few]), stage
    model = FaceLlava.load(folder)
    faces = {record.face_id: record.faces()[0] for record in read_faces(mini_corpus)}
    samples = [sample for sample in read_samples(mini_corpus) if not sample.history][:24]
    answers = model.ask_many([faces[s.face_id] for s in samples], [s.question for s in samples])
    named = [answer.task == s.task for answer, s in zip(answers, samples, strict=True)]
    assert sum(named) >= 0.5 * len(named)


def test_a_finished_run_is_not_done_again(resumed_run: RunConfig, mini_corpus: Path) -> None:
    out = resumed_run.out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    words = ["run", "nano", "--set", f"corpus={mini_corpus}", "--set", f"out={out}"]
    settings = resumed_run.model_dump(mode="json")
    for key in ("regions", "instruct"):
        for name in ("epochs", "batch"):
            words += ["--set", f"{key}.{name}={settings[key][name]}"]
    for key, value in settings["scratch"].items():
        given = value if isinstance(value, dict) else {"": value}
        for name, inner in given.items():
            words += ["--set", f"scratch.{key}{'.' * bool(name)}{name}={json.dumps(inner)}"]
    words += ["--set", "aside_share=0.2", "--set", "workers=1"]
    outcome = CliRunner().invoke(training.app, words)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == f"What was learned is in {out / 'model'}, and a report beside it\n"
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert after == before


def test_damage_to_what_was_made_before_is_told_in_a_sentence(
    resumed_run: RunConfig, tmp_path: Path
) -> None:
    config = resumed_run.model_copy(update={"out": tmp_path / "copy"})
    out = config.out
    shutil.copytree(resumed_run.out, out)
    (out / "report.json").unlink()
    for name, remedy in (
        ("train/pixels.npy", f"remove '{out}/train', "),
        ("tokenizer/tokenizer.json", "remove that folder, "),
        ("teacher_run/state.safetensors", "remove it, and the same command trains that encoder"),
        ("encoder_run/state.safetensors", "remove it, and the same command trains that encoder"),
        ("encoder_run/encoder/model.safetensors", f"remove '{out}/encoder_run', "),
        ("train_features/features.npy", "remove that folder, "),
        ("regions/shape_head.safetensors", f"remove '{out}/regions/face_encoder.safetensors', "),
        ("regions/face_encoder.safetensors", f"remove '{out}/regions/face_encoder.safetensors', "),
        ("regions/readings.safetensors", f"remove '{out}/regions/face_encoder.safetensors', "),
        ("regions/soft_labels.safetensors", "remove it, and the same command makes it again"),
        ("regions/history.json", f"remove '{out}/regions/face_encoder.safetensors', "),
    ):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[: len(whole) // 3])
        with pytest.raises(BadCheckpoint, match=rf" is damaged \(\w+\); {remedy}"):
            train_run(config)
        (out / name).write_bytes(whole)
    (out / "regions" / "face_encoder.safetensors").unlink()
    assert train_run(config) == out / "model"


def test_the_weights_are_for_others_to_read(resumed_run: RunConfig) -> None:
    mask = os.umask(0)
    os.umask(mask)
    weights = list(resumed_run.out.rglob("*.safetensors"))
    assert {path.name for path in weights} == {
        "model.safetensors",
        "state.safetensors",
        "face_encoder.safetensors",
        "shape_head.safetensors",
        "soft_labels.safetensors",
        "readings.safetensors",
    }
    assert {path.stat().st_mode & 0o777 for path in weights} == {0o666 & ~mask}


def test_another_runs_folder_is_refused(resumed_run: RunConfig) -> None:
    assert resumed_run.scratch is not None
    scratch = resumed_run.scratch.model_copy(update={"width": 128})
    with pytest.raises(BadCheckpoint, match="holds a run with another scratch"):
        train_run(resumed_run.model_copy(update={"scratch": scratch}))


def test_what_is_refused_before_an_hour_is_spent(
    resumed_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = resumed_run.model_copy(update={"out": tmp_path / "new"})
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(BadSettings, match="is trained in one process"):
            train_run(elsewhere)
    assert not elsewhere.out.exists()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(run_checks.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BadSettings, match=r"The run needs about 0\.0 GiB in '.*new' and 0\.0 GiB"):
        train_run(elsewhere)
