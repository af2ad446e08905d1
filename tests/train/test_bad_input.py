"""What the command refuses before it spends time: one sentence, an exit code, nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facellava import checkpoint
from facellava.cli import main
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train import run_checks, run_trainer
from train.run import train_run
from train.run_config import load_config

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
Refused = Callable[..., str]


@pytest.fixture
def base(new_parts: Callable[[], Parts], tmp_path: Path) -> Path:
    return checkpoint.save(*new_parts(), tmp_path / "base")


@pytest.fixture
def settings(base: Path, run_corpus: Path, tmp_path: Path) -> list[str]:
    given = [f"base={base}", f"corpus={run_corpus}", f"out={tmp_path / 'out'}", "workers=0"]
    return [*given, "instruct.max_steps=2", "save_steps=10", "bf16=false"]


@pytest.fixture
def refused(
    settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Refused:
    """What the command says with further settings, which it must refuse."""

    def say(*more: str) -> str:
        words = ["run", "nano-lora", *(f"--set={each}" for each in (*settings, *more))]
        monkeypatch.setattr(sys, "argv", ["facellava", "train", *words])
        before = sorted(tmp_path.rglob("*"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert (ended.value.code, said.out) == (1, "")
        assert sorted(tmp_path.rglob("*")) == before
        lines = [line for line in said.err.splitlines() if line.strip()]
        assert len(lines) == 1, said.err
        return lines[0]

    return say


def test_a_corpus_that_fails_validation(refused: Refused, run_corpus: Path, tmp_path: Path) -> None:
    broken = tmp_path / "corpus"
    shutil.copytree(run_corpus, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    name = "samples/train-mini-00000.parquet"
    manifest["files"][name]["rows"] += 1
    (broken / "manifest.json").write_text(json.dumps(manifest))
    assert name.rpartition("/")[2] in refused(f"corpus={broken}")


def test_an_unknown_key(refused: Refused) -> None:
    said = refused("quantize=nf4")
    assert said == "There is no setting quantize; did you mean quantise?"


@pytest.mark.parametrize(
    ("part", "key", "value", "sentence"),
    [
        ("text_config", "hidden_size", 64, "do not fit its config.json: "),
        ("vision_config", "hidden_sizes", [8, 12, 24], "do not fit its config.json: "),
        (None, "region_heads", 5, "does not divide the language model's width of 48"),
    ],
)
def test_a_backbone_whose_sizes_do_not_fit(
    refused: Refused, base: Path, part: str | None, key: str, value: Any, sentence: str
) -> None:
    file = base / "config.json"
    values = json.loads(file.read_text())
    (values[part] if part else values)[key] = value
    file.write_text(json.dumps(values))
    assert sentence in refused()


def test_an_adapter_of_another_base(
    refused: Refused, settings: list[str], new_parts: Callable[[], Parts], tmp_path: Path
) -> None:
    first = tmp_path / "first"
    steps = ["stage=regions", "regions.max_steps=1", f"out={first}"]
    adapter = train_run(load_config("nano-lora", [*settings, *steps]))
    model, processor = new_parts()
    with torch.no_grad():
        model.face_encoder.mm_projector[0].bias.add_(0.1)
    other = checkpoint.save(model, processor, tmp_path / "other")
    said = refused(f"base={other}", f"start={adapter}")
    assert said.startswith(f"{adapter} was trained on other weights than those in {other}")
    described = adapter / "adapter_config.json"
    described.write_text(described.read_text().replace("dummy-target-modules", "q_proj"))
    assert "holds LoRA, which the adapter of this run would not hold" in refused(f"start={adapter}")


def test_too_little_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(run_checks.shutil, "disk_usage", lambda path: usage)
    assert refused().endswith("GiB are free; free some, or give another out folder.")


def test_a_whole_model_to_start_from(refused: Refused, base: Path) -> None:
    said = refused(f"start={base}")
    assert (
        said == f"'{base}' is a whole model and no adapter: give it as base, and leave start out."
    )


def test_an_out_folder_that_cannot_be_made(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert refused(f"out={file}").startswith(f"'{file}' cannot be made (File exists)")
    assert "cannot be made (Not a directory)" in refused(f"out={file / 'out'}")


def test_a_loss_that_does_not_go_with_the_tokenizer(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_trainer, "verdict_words", lambda: ["two words"])
    assert refused("loss=verdict").startswith("The base's tokenizer has no single token for each")


def test_a_sample_that_is_too_long(refused: Refused, settings: list[str]) -> None:
    said = refused("max_length=5")
    assert said.endswith("and max_length is 5: raise it, or set bad_samples to skip.")
    # The same folder then takes what the sentence asks for.
    train_run(load_config("nano-lora", settings))
