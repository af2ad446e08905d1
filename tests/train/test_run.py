"""Whole runs on a tiny model: what they leave behind, how they go on, what stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from typer.testing import CliRunner

from facellava import checkpoint
from facellava.cli import training
from facellava.conversation import face_conversation
from facellava.corpus import read_faces
from facellava.errors import BadCheckpoint, BadCorpus, BadSettings, MissingBackend, TrainingStopped
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import embedded_weights
from facellava.processor import FaceLlavaProcessor
from tests.train.short_run import QUICK, losses, refuses_damage, short_run
from train import run_checks
from train.merge import merge_adapter
from train.run import train_run
from train.run_config import RunConfig
from train.run_trainer import RunTrainer
from train.stage_trainer import last_whole_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
CommonSettings = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny base goes; it is written once."""
    return tmp_path_factory.mktemp("base") / "tiny"


@pytest.fixture
def configured(
    base: Path, run_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]
) -> CommonSettings:
    """Settings of a short run over the tiny base; the keywords are those that differ."""
    if not base.exists():
        checkpoint.save(*new_parts(), base)

    def make(**settings: Any) -> RunConfig:
        common = {"base": base, "corpus": run_corpus, "out": tmp_path / "run"}
        return short_run(**(common | settings))

    return make


def test_both_stages_into_one_adapter(
    configured: CommonSettings, base: Path, run_corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configured(stage="all", eval_steps=2, eval_samples=8, eval_tokens=12)
    shown: dict[str, Any] = {}
    result = train_run(config, lambda stage, rows: shown.update({stage: rows}))
    assert capfd.readouterr().out == ""
    assert list(shown) == ["regions", "instruct"]
    assert result == config.out / "adapter"
    settings = json.loads((result / "adapter_config.json").read_text())
    assert settings["modules_to_save"] == ["mm_projector", "region_attention"]
    assert settings["base_model_name_or_path"] == str(base)
    with safe_open(result / "adapter_model.safetensors", framework="pt") as opened:
        kinds = {name.split(".")[3] for name in opened.keys()}  # noqa: SIM118
    assert kinds == {"mm_projector", "region_attention", "model"}
    assert not [path for path in config.out.rglob("*") if "partial" in path.name]
    assert [path.name for path in (config.out / "instruct").glob("checkpoint-*")] == [
        "checkpoint-4"
    ]

    report = json.loads((config.out / "report.json").read_text())
    assert report["samples"] == {"used": 32, "skipped": []}
    assert [stage["stage"] for stage in report["stages"]] == ["regions", "instruct"]
    held_out = report["stages"][1]["held_out"]
    assert held_out["eval_action_units_n"] + held_out["eval_age_n"] == 4
    assert 0 <= held_out["eval_expression_WAR"] <= 1
    assert len(report["answers"]) == 8
    assert "<svg" in (config.out / "curves.svg").read_text()
    assert "| FRLP | " in (config.out / "report.md").read_text()

    # Merged and unmerged give the same answers, and other ones than the base.
    model, processor = checkpoint.load(base)
    faces = [record.faces()[0] for record in read_faces(run_corpus, "validation")][:3]
    asked = [face_conversation("image", "Which expression does this face show?")] * 3
    batch = processor.encode(asked, faces)

    def answers(of: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Greedy answers, all tokens of them, and the logits at the start of each."""
        with torch.inference_mode():
            ids = of.generate(**batch, do_sample=False, max_new_tokens=16)  # type: ignore[operator]
            return ids, of(**batch).logits[:, -1]

    plain = answers(model)
    adapted = answers(PeftModel.from_pretrained(model, result).eval())
    merged = checkpoint.load(merge_adapter(base, result, config.out / "merged"))[0]
    assert torch.equal(answers(merged)[0], adapted[0])
    torch.testing.assert_close(answers(merged)[1], adapted[1], atol=1e-4, rtol=1e-4)
    assert (adapted[1] - plain[1]).abs().max() > 0.05
    # The tower's weights and running statistics are the base's.
    wanted = checkpoint.load(base)[0].face_encoder.vision_tower.state_dict()
    for name, value in merged.face_encoder.vision_tower.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)


def test_stage_regions_alone_starts_stage_instruct(configured: CommonSettings) -> None:
    half = {"bf16": True, "eval_steps": 4, "eval_samples": 2, "eval_tokens": 4}
    first = configured(stage="regions", out=configured().out / "first", **half)
    adapter = train_run(first)
    second = configured(start=adapter, out=configured().out / "second", **half)
    both = configured(stage="all", out=configured().out / "both", **half)
    train_run(second)
    train_run(both)
    assert losses(second.out) == losses(both.out)


def test_lora_alone_is_what_a_server_can_switch(configured: CommonSettings, base: Path) -> None:
    from serve.adapters import check_adapter

    result = train_run(configured(lora_only=True))
    check_adapter(result, checkpoint.load(base)[0].config)


def test_full_tuning_gives_a_checkpoint(configured: CommonSettings, base: Path) -> None:
    config = configured(tune="full", gradient_checkpointing=True)
    result = train_run(config)
    assert result == config.out / "model"
    before, after = (checkpoint.load(path)[0].state_dict() for path in (base, result))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learned = {name for name in before if ".vision_tower." not in name}
    assert changed == learned
    plain = configured(tune="full", out=config.out.with_name("plain"))
    train_run(plain)
    assert losses(config.out) == pytest.approx(losses(plain.out), rel=1e-5)


def test_accumulated_batches_are_one_large_batch(configured: CommonSettings) -> None:
    sgd = {"max_steps": 3, "learning_rate": 0.05, "optim": "sgd", "warmup": 0.0}
    no_dropout = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0}}
    out = configured().out
    # A batch of the whole split, so that both see the same samples.
    curves = []
    for batch, accumulation in ((32, 1), (8, 4)):
        settings = {**sgd, "batch": batch, "accumulation": accumulation}
        config = configured(instruct=settings, out=out / str(batch), **no_dropout)
        train_run(config)
        curves.append(losses(config.out))
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][0] > curves[0][-1]


def test_a_killed_run_goes_on_to_the_same_curve(configured: CommonSettings, tmp_path: Path) -> None:
    steps = {"instruct": {**QUICK, "max_steps": 8, "accumulation": 2}}
    whole = configured(out=tmp_path / "whole", **steps)
    train_run(whole)
    config = configured(out=tmp_path / "killed", **steps)
    (tmp_path / "run.json").write_text(config.model_dump_json())
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\n"
            "from train.run import train_run\nfrom train.run_config import RunConfig\n"
            "train_run(RunConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text()))",
            str(tmp_path / "run.json"),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    marks = config.out / "instruct"
    while not list(marks.glob("checkpoint-*/whole")):
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (config.out / "adapter").exists()
    # A checkpoint that was cut off is not gone on from.
    (marks / "checkpoint-7").mkdir()
    last = last_whole_checkpoint(marks)
    assert last is not None
    assert 0 < int(last.rpartition("-")[2]) < 8
    assert not (marks / "checkpoint-7").exists()
    result = train_run(config)
    assert losses(config.out) == losses(whole.out)
    assert len(losses(config.out)) == 8
    with (
        safe_open(result / "adapter_model.safetensors", framework="pt") as one,
        safe_open(whole.out / "adapter" / "adapter_model.safetensors", framework="pt") as other,
    ):
        for name in one.keys():  # noqa: SIM118
            assert torch.equal(one.get_tensor(name), other.get_tensor(name)), name


def test_a_finished_run_is_not_run_again_and_another_is_refused(
    configured: CommonSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured()
    train_run(config)
    monkeypatch.setattr(RunTrainer, "train", None)
    for lost in ("report.md", "report.json"):
        (config.out / lost).unlink()
        assert train_run(configured(workers=1)) == config.out / "adapter"
    assert "| LoRA | " in (config.out / "report.md").read_text()
    with pytest.raises(BadCheckpoint, match="holds a run with another seed; give another out"):
        train_run(configured(seed=1))


def test_a_loss_that_is_no_number_stops(configured: CommonSettings) -> None:
    with pytest.raises(TrainingStopped, match=r"The (loss|gradient) of step \d+ is not a finite"):
        train_run(configured(instruct={**QUICK, "learning_rate": 1e30, "max_grad_norm": 1e30}))
    assert not (configured().out / "adapter").exists()


def test_a_full_disk_keeps_the_checkpoints_before(
    configured: CommonSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured()
    real = RunTrainer._save_rng_state

    def full(self: RunTrainer, folder: str) -> None:
        if self.state.global_step == 4:
            raise OSError(28, "No space left on device")
        real(self, folder)

    monkeypatch.setattr(RunTrainer, "_save_rng_state", full)
    with pytest.raises(TrainingStopped, match="checkpoint-4 cannot be written .*No space left"):
        train_run(config)
    assert [p.name for p in (config.out / "instruct").iterdir()] == ["checkpoint-2"]
    monkeypatch.setattr(RunTrainer, "_save_rng_state", real)
    assert train_run(config).is_dir()


def test_the_command_trains_the_embedded_model(run_corpus: Path, tmp_path: Path) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text(f'preset = "nano-lora"\ncorpus = "{run_corpus}"\nworkers = 0\n')
    out = tmp_path / "out"
    words = ["run", str(settings), "--set", f"out={out}", "--set", "instruct.max_steps=2"]
    outcome = CliRunner().invoke(training.app, words)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == f"What was learned is in {out / 'adapter'}, and a report beside it\n"
    assert "Stage instruct" in outcome.stderr
    merged = merge_adapter(embedded_weights(), out / "adapter", tmp_path / "merged")
    assert checkpoint.load(merged)


def test_what_is_refused_before_anything_is_written(
    configured: CommonSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = configured().out
    with pytest.raises(BadCorpus, match="There is no corpus folder"):
        train_run(configured(corpus=tmp_path / "none"))
    with pytest.raises(BadCheckpoint, match="is not a folder"):
        train_run(configured(base=str(tmp_path / "none")))
    with pytest.raises(BadSettings, match="no linear layer named c_attn"):
        train_run(configured(lora={"targets": ("c_attn",)}))
    with pytest.raises(MissingBackend, match="wandb is not installed: pip install wandb"):
        train_run(configured(report_to="wandb"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(run_checks.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BadSettings, match=r"needs about 0\.0 GiB in '.*' and 0\.0 GiB are free"):
        train_run(configured())
    assert not out.exists()


def test_an_adapter_of_another_base(
    configured: CommonSettings, new_parts: Callable[[], Parts], tmp_path: Path
) -> None:
    adapter = train_run(configured(stage="regions", out=tmp_path / "first"))
    model, processor = new_parts()
    with torch.no_grad():
        model.face_encoder.mm_projector[0].bias.add_(0.1)
    other = checkpoint.save(model, processor, tmp_path / "other")
    with pytest.raises(BadCheckpoint, match="was trained on other weights than those in"):
        train_run(configured(base=str(other), start=adapter, out=tmp_path / "second"))
    with pytest.raises(BadCheckpoint, match="was trained on other weights than those in"):
        merge_adapter(other, adapter, tmp_path / "merged")


class Stopped(BaseException):
    """A stop that nothing on the way may catch."""


def test_damage_to_what_a_run_goes_on_from_is_told_in_a_sentence(
    configured: CommonSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured()
    save = RunTrainer._save_checkpoint

    def save_and_stop(self: RunTrainer, *arguments: Any) -> None:
        save(self, *arguments)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "_save_checkpoint", save_and_stop)
        with pytest.raises(Stopped):
            train_run(config)
    newest = config.out / "instruct" / "checkpoint-2"
    whole_one = "; remove that checkpoint folder, and the same command goes on from an earlier one"
    for name, part in (
        ("optimizer.pt", "optimizer.pt or scheduler.pt"),
        ("scheduler.pt", "optimizer.pt or scheduler.pt"),
        ("rng_state.pth", "its rng_state"),
        ("trainer_state.json", "trainer_state.json"),
        ("adapter_model.safetensors", "its weights"),
    ):
        refuses_damage(
            config, newest / name, rf"checkpoint-2' is damaged \({part}: \w+\){whole_one}"
        )
    [table] = (config.out / "tables" / "train-faces").rglob("*.arrow")
    refuses_damage(config, table, r"train-faces' is damaged \(\w+\); remove that folder")
    refuses_damage(config, config.out / "train.npz", r"train.npz' is damaged \(\w+\); remove it")
    refuses_damage(config, config.out / "run.json", "run.json' is damaged .*; give another out")
    result = train_run(config)
    mask = os.umask(0)
    os.umask(mask)
    for folder in (result, config.out / "instruct" / "checkpoint-4"):
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~mask}
        assert folder.stat().st_mode & 0o777 == 0o777 & ~mask
    (config.out / "report.json").unlink()
    history = config.out / "instruct" / "history.json"
    before = losses(config.out)
    refuses_damage(config, history, f"history.json' is damaged .*; remove '{result}', and the same")
    # What the sentence asks for.
    history.unlink()
    shutil.rmtree(result)
    assert train_run(config) == result
    assert losses(config.out) == before
