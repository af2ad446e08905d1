"""Short runs over a tiny base: their settings, their curves, and what they say of cut-off files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facellava.errors import BadCheckpoint
from train.run import train_run
from train.run_config import RunConfig
from train.run_report import StageReport

QUICK = {"max_steps": 4, "batch": 4, "learning_rate": 3e-3, "warmup": 0.0}


def short_run(base: Path, corpus: Path, out: Path, **settings: Any) -> RunConfig:
    """Settings of a short run; the keywords are those that differ."""
    common: dict[str, Any] = {
        "base": str(base),
        "corpus": corpus,
        "out": out,
        "regions": QUICK,
        "instruct": QUICK,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "save_steps": 2,
        "log_steps": 1,
        "workers": 0,
    }
    return RunConfig.model_validate(common | settings)


def losses(folder: Path, stage: str = "instruct") -> list[float]:
    return StageReport.read(folder / stage, stage).curve("loss")[1]  # type: ignore[arg-type]


def refuses_damage(config: RunConfig, file: Path, sentence: str) -> None:
    """The run says the sentence while the file is cut off."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(BadCheckpoint, match=sentence):
        train_run(config)
    file.write_bytes(whole)
