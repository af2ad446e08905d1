"""Hugging Face's Trainer with our loss, order, evaluation, and checkpoints that are whole."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerState,
    TrainingArguments,
)

from facellava.errors import BadSettings, TrainingStopped
from facellava.model import FaceLlavaForConditionalGeneration
from train.clip_choices import ClipWeigher
from train.clip_weights import RunningMean
from train.dataset import Collator, ModalityLengthGroups, TrainingRows
from train.instruct import VerdictLoss
from train.optimisers import OPTIMISERS
from train.packed_rows import PackedRows
from train.packing import PackingPlan
from train.plain_loss import PlainLoss, learned_places
from train.run_config import RunConfig, Stage
from train.tokenizer import verdict_words
from train.trainer_runs import log_quietly

# Written last into a checkpoint: one without it was cut off.
WHOLE_MARK: Final = "whole"
# The mean weight of clips so far, without which a resumed run would differ.
CLIP_MEAN: Final = "clip_weights.json"
Measure = Callable[[FaceLlavaForConditionalGeneration], dict[str, float]]


def answer_loss(tokenizer: PreTrainedTokenizerBase, wanted: str) -> VerdictLoss | PlainLoss:
    """The loss of a run.

    Args:
        tokenizer: the base's.
        wanted: "verdict", "plain" or "auto".

    Raises:
        BadSettings: "verdict" with a tokenizer that splits label words.
    """
    single = all(
        len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in verdict_words()
    )
    if wanted == "verdict" and not single:
        raise BadSettings(
            "The base's tokenizer has no single token for each label word, which the loss "
            '"verdict" needs; set loss to "plain" or "auto".'
        )
    return VerdictLoss(tokenizer) if single and wanted != "plain" else PlainLoss()


class RunTrainer(Trainer):
    """One stage of a run.

    Args:
        base: the Face-LLaVA model inside what is trained.
        measure: task metrics of the model, at each evaluation; None for the loss alone.
        weigher: of clips, by what the model says of their labels; None weighs all alike.
        **settings: as Trainer takes them.
    """

    # The loss is divided by what all forward passes of a step learn.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        base: FaceLlavaForConditionalGeneration,
        loss: VerdictLoss | PlainLoss,
        measure: Measure | None = None,
        weigher: ClipWeigher | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.base, self.measure, self.weigher = base, measure, weigher
        self.answer_loss = loss.to(self.args.device)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        total = torch.zeros((), device=device)
        for batch in batch_samples:
            total = total + self.answer_loss.weight_of(batch["labels"].to(device))
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        # They never learn: their batch statistics must not move either.
        for name, tower in self.base.face_encoder.named_children():
            if name.endswith("_tower"):
                tower.eval()
        rest = dict(inputs)
        labels, uncoded = rest.pop("labels"), rest.pop("uncoded")
        clips = {name: rest.pop(name) for name in list(rest) if name.startswith("clip_")}
        keep = learned_places(labels)
        outputs = model(**rest, use_cache=False, logits_to_keep=keep)
        uncoded = uncoded[:, keep] if uncoded.ndim == 3 else uncoded
        rows = None
        if self.weigher is not None and model.training:
            progress = self.state.global_step / self.state.max_steps
            rows = self.weigher.rows(outputs.logits, keep, clips, progress, self.accelerator)
        total = self.answer_loss.summed(outputs.logits, labels[:, keep], uncoded, rows)
        loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

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

    def evaluate(self, *arguments: Any, **more: Any) -> dict[str, float]:
        """The loss on held-out samples, and the task metrics of answers to some of them."""
        figures: dict[str, float] = super().evaluate(*arguments, **more)
        if self.measure is not None:
            # Only the prepared model's own forward computes in bfloat16 by itself.
            device = self.args.device.type
            with torch.autocast(device, torch.bfloat16, enabled=self.args.bf16):
                # Not the base inside: spread weights come together for the whole model only.
                found = self.measure(self.model)
            self.log(found)
            figures |= found
        return figures

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        dataset: TrainingRows | PackedRows = train_dataset or self.train_dataset
        if isinstance(dataset, PackedRows):
            return PackingPlan(
                dataset.rows.usable.lengths,
                dataset.length,
                self.args.world_size,
                self.args.seed,
                dataset.rows.set_epoch,
            )
        batch = self.args.train_batch_size * self.args.world_size
        usable = dataset.usable
        return ModalityLengthGroups(
            usable.lengths, usable.frames > 1, batch, self.args.seed, dataset.set_epoch
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                if self.weigher is not None:
                    self.weigher.mean.write(folder / CLIP_MEAN)
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

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.weigher is not None and checkpoint is not None:
            self.weigher.mean = RunningMean.read(Path(checkpoint) / CLIP_MEAN)

    def _remove_older(self, newest: Path) -> None:
        """Only once the newest is whole; the best so far stays where the run ends with it."""
        kept = {newest.name}
        if self.args.load_best_model_at_end and self.state.best_global_step:
            kept.add(f"checkpoint-{self.state.best_global_step}")
        for folder in newest.parent.glob("checkpoint-*"):
            if folder.name not in kept:
                shutil.rmtree(folder)


def _not_finite(what: str, state: TrainerState, args: TrainingArguments) -> TrainingStopped:
    return TrainingStopped(
        f"The {what} of step {state.global_step + 1} is not a finite number: set a learning rate "
        f"below {args.learning_rate:g} (or bf16 to {str(not args.bf16).lower()}) in a new out "
        f"folder; checkpoints up to step {state.global_step} are in {args.output_dir}."
    )


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; cut-off ones are removed."""
    found: dict[int, Path] = {}
    for each in folder.glob("checkpoint-*"):
        if (each / WHOLE_MARK).is_file():
            found[int(each.name.rpartition("-")[2])] = each
        else:
            shutil.rmtree(each)
    return str(found[max(found)]) if found else None


def new_trainer(
    model: nn.Module,
    base: FaceLlavaForConditionalGeneration,
    config: RunConfig,
    stage: Stage,
    folder: Path,
    collate: Collator,
    train: TrainingRows,
    held_out: TrainingRows | None,
    measure: Measure | None,
) -> RunTrainer:
    """The trainer of one stage; its checkpoints go to `folder`."""
    settings = config.of_stage(stage)
    optimiser, options = OPTIMISERS[settings.optim]
    if config.tune == "full" and base.config.text_config.tie_word_embeddings:
        # Stored once, under the embedding's name; on resuming the trainer would miss the other.
        base._keys_to_ignore_on_save = ["language_model.lm_head.weight"]
    best = config.early_stopping is not None
    trainer = RunTrainer(
        base=base,
        loss=answer_loss(collate.processor.tokenizer, config.loss),
        measure=measure,
        weigher=ClipWeigher() if config.clip_noise_weights else None,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=1 if config.packing else settings.batch,
            per_device_eval_batch_size=settings.batch,
            gradient_accumulation_steps=settings.accumulation,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            lr_scheduler_type=settings.schedule,
            # Below 1: a share of all steps.
            warmup_steps=settings.warmup,
            bf16=config.bf16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            # Every sample shows a face, so everything that learns takes part in every step.
            ddp_find_unused_parameters=False,
            eval_strategy="steps" if held_out is not None else "no",
            eval_steps=config.eval_steps,
            prediction_loss_only=True,
            load_best_model_at_end=best,
            metric_for_best_model="eval_loss" if best else None,
            save_strategy="steps",
            save_steps=config.save_steps,
            logging_steps=config.log_steps,
            logging_nan_inf_filter=False,
            dataloader_num_workers=config.workers,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to=config.report_to,
            remove_unused_columns=False,
            label_names=["labels"],
            seed=config.seed,
        ),
        data_collator=collate,
        train_dataset=PackedRows(train, config.row_length) if config.packing else train,
        eval_dataset=held_out,
        optimizer_cls_and_kwargs=(optimiser, {"lr": settings.learning_rate, **options}),
    )
    if config.early_stopping is not None:
        trainer.add_callback(EarlyStoppingCallback(config.early_stopping))
    log_quietly(trainer)
    return trainer
