"""Early stopping: the best is kept, and a stop in between costs no patience."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from facellava import checkpoint
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from tests.train.short_run import QUICK, losses, refuses_damage, short_run
from train.run import train_run
from train.run_config import RunConfig
from train.run_trainer import RunTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


class Stopped(BaseException):
    """A stop at a bad moment, which nothing on the way may catch."""


@pytest.fixture
def config(run_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]) -> RunConfig:
    """A run that waits for two evaluations, one every two steps, to be better than the best."""
    checkpoint.save(*new_parts(), tmp_path / "base")
    return short_run(
        tmp_path / "base",
        run_corpus,
        tmp_path / "run",
        eval_steps=2,
        eval_samples=0,
        early_stopping=2,
        instruct={**QUICK, "max_steps": 20},
    )


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[float]], None]:
    """Gives the next evaluations these losses."""
    real = RunTrainer.evaluation_loop

    def give(values: Iterable[float]) -> None:
        following = iter(values)

        def loop(self: RunTrainer, *arguments: Any, **more: Any) -> Any:
            output = real(self, *arguments, **more)
            output.metrics["eval_loss"] = float(next(following))
            return output

        monkeypatch.setattr(RunTrainer, "evaluation_loop", loop)

    return give


def test_the_best_of_a_run_that_gets_worse_is_kept(
    config: RunConfig, evaluated: Callable[[Iterable[float]], None]
) -> None:
    evaluated(range(100))
    train_run(config)
    assert len(losses(config.out)) == 6
    kept = {path.name for path in (config.out / "instruct").glob("checkpoint-*")}
    assert kept == {"checkpoint-2", "checkpoint-6"}
    file = "adapter_model.safetensors"
    best = config.out / "instruct" / "checkpoint-2" / file
    assert (config.out / "adapter" / file).read_bytes() == best.read_bytes()
    shutil.rmtree(config.out / "adapter")
    refuses_damage(config, best, r"checkpoint-2' is damaged .*; remove '.*/instruct', and the same")
    train_run(config)
    assert len(losses(config.out)) == 6


def test_a_run_that_was_stopped_waits_no_longer(
    config: RunConfig, evaluated: Callable[[Iterable[float]], None]
) -> None:
    def stopped_after(*values: float) -> Iterator[float]:
        yield from values
        raise Stopped

    # Worse once at step 4; the run dies while step 6 is evaluated, and is worse there too.
    evaluated(stopped_after(0, 1))
    with pytest.raises(Stopped):
        train_run(config)
    evaluated(range(2, 100))
    train_run(config)
    assert len(losses(config.out)) == 6
