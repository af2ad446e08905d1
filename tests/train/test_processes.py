"""Several processes of one run: the same loss as one, and every file written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from safetensors.torch import load_file

from facellava import checkpoint
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.run import train_run
from train.run_report import StageReport

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
LAUNCH = Path(str(files("train") / "accelerate"))
RUN = "from facellava.cli import main; main()"


@pytest.fixture
def settings(new_parts: Callable[[], Parts], run_corpus: Path, tmp_path: Path) -> Path:
    """A run's file for one process: a batch of eight."""
    base = checkpoint.save(*new_parts(), tmp_path / "base")
    stage = "{max_steps = 3, batch = 8, learning_rate = 3e-3, warmup = 0.0}"
    lines = [
        f'base = "{base}"',
        f'corpus = "{run_corpus}"',
        f'out = "{tmp_path / "one"}"',
        'stage = "all"',
        f"regions = {stage}",
        f"instruct = {stage}",
        "lora = {r = 4, alpha = 8, dropout = 0.0}",
        "save_steps = 2",
        "log_steps = 1",
        "workers = 0",
        "eval_steps = 3",
        "eval_samples = 2",
        "eval_tokens = 3",
    ]
    file = tmp_path / "run.toml"
    file.write_text("\n".join(lines))
    return file


def launched(settings: Path, out: Path, *options: str, **environment: str) -> str:
    """Two processes, each with a batch of four."""
    words = ["run", str(settings), "--set", f"out={out}"]
    words += ["--set", "regions.batch=4", "--set", "instruct.batch=4"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            "-m",
            "facellava",
            "train",
            *words,
            *options,
        ],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def curves(out: Path) -> list[float]:
    """Training and held-out losses of both stages."""
    stages = [StageReport.read(out / stage, stage) for stage in ("regions", "instruct")]  # type: ignore[arg-type]
    return [
        value
        for stage in stages
        for name in ("loss", "eval_loss")
        for value in stage.curve(name)[1]
    ]


def test_two_processes_learn_what_one_does(settings: Path, tmp_path: Path) -> None:
    from train.run_config import load_config

    one, two = tmp_path / "one", tmp_path / "two"
    adapter = train_run(load_config(settings))
    said = launched(settings, two)
    assert said == f"What was learned is in {two / 'adapter'}, and a report beside it\n"
    assert curves(two) == pytest.approx(curves(one), rel=1e-4)
    wanted = load_file(adapter / "adapter_model.safetensors")
    found = load_file(two / "adapter" / "adapter_model.safetensors")
    assert found.keys() == wanted.keys()
    report = json.loads((two / "report.json").read_text())
    assert report["machine"]["processes"] == 2
    assert report["machine"]["attention"] == "sdpa"
    assert len(report["answers"]) == 2
