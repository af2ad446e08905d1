"""Hugging Face's Trainer as every stage uses it: optimiser, schedule, checkpoints, NaN guard."""

from __future__ import annotations

import logging
import math
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from facellava.errors import TrainingStopped
from facellava.whole_files import open_to_others
from train.damage import undamaged
from train.optimisers import OPTIMISERS
from train.run_config import RunConfig, Stage, StageSettings

logger = logging.getLogger(__name__)

# Written last into a checkpoint: one without it was cut off.
WHOLE_MARK: Final = "whole"


class StageTrainer(Trainer):
    """Stops at what is no number, keeps only checkpoints that are whole, and leaves stdout alone.

    Args:
        stage: how the stage learns.
        **settings: as Trainer takes them.
    """

    def __init__(self, *, stage: StageSettings, **settings: Any) -> None:
        optimiser, options = OPTIMISERS[stage.optim]
        options = {"lr": stage.learning_rate, **options}
        if "betas" in options:
            options["betas"] = (options["betas"][0], stage.beta2)
        super().__init__(optimizer_cls_and_kwargs=(optimiser, options), **settings)
        self.remove_callback(ProgressCallback)
        self.add_callback(LoggedProgress)

    def training_step(self, *arguments: Any, **more: Any) -> Tensor:
        loss: Tensor = super().training_step(*arguments, **more)
        if not torch.isfinite(loss):
            raise _not_finite("loss", self.state, self.args)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Stops before a step that would turn the weights into NaN."""
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            raise _not_finite("gradient", self.state, self.args)
        return norm

    def _run_epoch(self, *arguments: Any, **more: Any) -> None:
        # Going on from the checkpoint of its end, Trainer would take one step more.
        before = self.state.stateful_callbacks["TrainerControl"]["args"]
        if before["should_training_stop"]:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **more)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with of_checkpoint(resume_from_checkpoint, "its weights"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with of_checkpoint(checkpoint, "optimizer.pt or scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                self.read_beside(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with of_checkpoint(checkpoint, "its rng_state"):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        stage = Path(self.args.output_dir)
        anew = f"remove '{stage}', and the same command trains the stage anew."
        with undamaged(str(self.state.best_model_checkpoint), anew):
            super()._load_best_model()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.write_beside(folder)
                open_to_others(folder)
                (folder / WHOLE_MARK).write_text("")
        except (OSError, RuntimeError) as error:
            # torch says RuntimeError where the disk is full.
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise TrainingStopped(
                f"{folder} cannot be written ({' '.join(str(error).split())}): free some space and "
                "run the same command again; earlier checkpoints are kept."
            ) from error
        if self.args.should_save:
            self._remove_older(folder)

    def write_beside(self, folder: Path) -> None:
        """Into a checkpoint, what a stage needs to go on besides what every stage does."""

    def read_beside(self, folder: Path) -> None:
        """What :meth:`write_beside` wrote."""

    def _remove_older(self, newest: Path) -> None:
        """Only once the newest is whole; the best so far stays where the run ends with it."""
        kept = {newest.name}
        if self.args.load_best_model_at_end and self.state.best_global_step:
            kept.add(f"checkpoint-{self.state.best_global_step}")
        for folder in newest.parent.glob("checkpoint-*"):
            if folder.name not in kept:
                shutil.rmtree(folder)


def of_checkpoint(folder: str | None, files: str) -> AbstractContextManager[None]:
    """Around the reading of these files of a checkpoint, damage to which is told in a sentence."""
    return undamaged(
        str(folder),
        "remove that checkpoint folder, and the same command goes on from an earlier one or from "
        "the start of the stage.",
        files,
    )


def _not_finite(what: str, state: TrainerState, args: TrainingArguments) -> TrainingStopped:
    return TrainingStopped(
        f"The {what} of step {state.global_step + 1} is not a finite number: set a learning rate "
        f"below {args.learning_rate:g} (or bf16 to {str(not args.bf16).lower()}) in a new out "
        f"folder; checkpoints up to step {state.global_step} are in {args.output_dir}."
    )


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


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; cut-off ones are removed.

    Raises:
        BadCheckpoint: what it says of the run so far is damaged.
    """
    found: dict[int, Path] = {}
    for each in folder.glob("checkpoint-*"):
        if (each / WHOLE_MARK).is_file():
            found[int(each.name.rpartition("-")[2])] = each
        else:
            shutil.rmtree(each)
    if not found:
        return None
    newest = str(found[max(found)])
    with of_checkpoint(newest, TRAINER_STATE_NAME):
        TrainerState.load_from_json(str(Path(newest) / TRAINER_STATE_NAME))
    return newest


def stage_arguments(
    config: RunConfig, stage: Stage, folder: Path, **more: Any
) -> TrainingArguments:
    """What the settings of a stage are in Trainer's words; its checkpoints go to `folder`.

    Args:
        config: the run.
        stage: which of its stages.
        folder: of the stage.
        **more: what is the stage's own; it goes before what the settings say.
    """
    settings = config.of_stage(stage)
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch,
        "per_device_eval_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "lr_scheduler_type": settings.schedule,
        # Below 1: a share of all steps.
        "warmup_steps": settings.warmup,
        "bf16": config.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "dataloader_num_workers": config.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": config.report_to,
        "remove_unused_columns": False,
        "seed": config.seed,
    }
    return TrainingArguments(**(common | more))
