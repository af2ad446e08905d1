"""What both stages ask of Hugging Face's Trainer: where to go on, and where its log goes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)


class LoggedProgress(ProgressCallback):
    """The bar on stderr; figures go to the log, where the Trainer's own would print to stdout."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the figures of a step."""
        if state.is_world_process_zero:
            logger.info("step %d: %s", state.global_step, logs)


def loader_workers() -> int:
    """Processes that prepare batches: none on a small machine, where they would only get in the way
    of the training itself.
    """
    spare = (os.cpu_count() or 1) - 2
    return min(spare, 8) if spare > 2 else 0


def log_quietly(trainer: Trainer) -> None:
    """Keep the trainer off stdout."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LoggedProgress)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint of a run that was stopped; None where there is none yet."""
    found: str | None = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return found
