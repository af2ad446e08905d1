"""The trainer of the stages that teach through answers: their loss, order and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase

from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from train.clip_choices import ClipWeigher
from train.clip_weights import RunningMean
from train.dataset import Collator, ModalityLengthGroups, TrainingRows
from train.instruct import CachedCollator, InstructionRows
from train.packed_rows import PackedRows
from train.packing import PackingPlan
from train.plain_loss import PlainLoss, learned_places
from train.run_config import RunConfig, Stage
from train.shape_head import ShapeHead
from train.soft_targets import Targets, apart_from_targets
from train.stage_trainer import StageTrainer, stage_arguments
from train.tokenizer import verdict_words
from train.twins import Choices, Verdicts, disagreement
from train.verdict_loss import VerdictLoss

# The mean weight of clips so far, without which a resumed run would differ.
CLIP_MEAN: Final = "clip_weights.json"
TWIN_WEIGHT: Final = 0.5
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


def decided_places(
    twins: Sequence[tuple[Verdicts, Verdicts]], targets: Sequence[Targets]
) -> list[int]:
    """Where a batch's twins and soft labels decide."""
    places = {d.place for pair in twins for verdicts in pair for d in verdicts.decisions}
    places |= {target.decision.place for row in targets for target in row.targets}
    return sorted(places)


class RunTrainer(StageTrainer):
    """One stage of a run.

    Args:
        base: the Face-LLaVA model inside what is trained.
        measure: task metrics of the model, at each evaluation; None for the loss alone.
        weigher: of clips, by what the model says of their labels; None weighs all alike.
        shape: reads the landmarks from the visual tokens, which must go on to hold them; it does
            not learn. Of photos and clips that are kept as features.
        choices: what twins and soft labels decide; None where there are none.
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
        shape: ShapeHead | None = None,
        choices: Choices | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.choices = choices.to(self.args.device) if choices else None
        self.base, self.measure, self.weigher = base, measure, weigher
        self.shape = shape.requires_grad_(False).to(self.args.device) if shape else None
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
        labels, uncoded, twins = rest.pop("labels"), rest.pop("uncoded"), rest.pop("twins", [])
        targets = rest.pop("targets", [])
        clips = {name: rest.pop(name) for name in list(rest) if name.startswith("clip_")}
        keep = learned_places(labels, decided_places(twins, targets))
        outputs = model(**rest, use_cache=False, logits_to_keep=keep)
        uncoded = uncoded[:, keep] if uncoded.ndim == 3 else uncoded
        rows = None
        if self.weigher is not None and model.training:
            progress = self.state.global_step / self.state.max_steps
            rows = self.weigher.rows(outputs.logits, keep, clips, progress, self.accelerator)
        total = self.answer_loss.summed(outputs.logits, labels[:, keep], uncoded, rows)
        loss = total / num_items_in_batch * self.accelerator.num_processes
        if self.choices is not None and twins and model.training:
            apart = TWIN_WEIGHT * disagreement(outputs.logits, keep, twins, self.choices)
            loss = loss + apart / self.args.gradient_accumulation_steps
        if self.choices is not None and targets and model.training:
            apart = apart_from_targets(outputs.logits, keep, targets, self.choices)
            loss = loss + apart / self.args.gradient_accumulation_steps
        if self.shape is not None and model.training:
            tokens = self.base.face_encoder(rest["image_features"], rest["landmarks"]).tokens
            away = self.shape(tokens, rest["landmarks"])
            loss = loss + away / self.args.gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

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
        dataset: TrainingRows | PackedRows | InstructionRows = train_dataset or self.train_dataset
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
        # Rows that are kept as features draw no frames anew. A pair of twins takes one place.
        groups = (usable.lengths, usable.frames > 1, batch, self.args.seed)
        if isinstance(dataset, InstructionRows):
            return ModalityLengthGroups(*groups)
        return ModalityLengthGroups(*groups, dataset.set_epoch)

    def write_beside(self, folder: Path) -> None:
        if self.weigher is not None:
            self.weigher.mean.write(folder / CLIP_MEAN)

    def read_beside(self, folder: Path) -> None:
        if self.weigher is not None:
            self.weigher.mean = RunningMean.read(folder / CLIP_MEAN)


def new_trainer(
    model: nn.Module,
    base: FaceLlavaForConditionalGeneration,
    config: RunConfig,
    stage: Stage,
    folder: Path,
    collate: Collator | CachedCollator,
    train: TrainingRows | InstructionRows,
    held_out: TrainingRows | None,
    measure: Measure | None,
    shape: ShapeHead | None = None,
) -> RunTrainer:
    """The trainer of one stage; its checkpoints go to `folder`."""
    if config.tune == "full" and base.config.text_config.tie_word_embeddings:
        # Stored once, under the embedding's name; on resuming the trainer would miss the other.
        base._keys_to_ignore_on_save = ["language_model.lm_head.weight"]
    best = config.early_stopping is not None
    tokenizer = collate.processor.tokenizer
    decides = isinstance(train, InstructionRows) and (bool(train.twins) or bool(train.soft))
    trainer = RunTrainer(
        base=base,
        loss=answer_loss(tokenizer, config.loss),
        choices=Choices(tokenizer) if decides else None,
        measure=measure,
        weigher=ClipWeigher() if config.clip_noise_weights else None,
        shape=shape,
        model=model,
        stage=config.of_stage(stage),
        args=stage_arguments(
            config,
            stage,
            folder,
            per_device_train_batch_size=1 if config.packing else config.of_stage(stage).batch,
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            # Every sample shows a face, so everything that learns takes part in every step.
            ddp_find_unused_parameters=False,
            eval_strategy="steps" if held_out is not None else "no",
            eval_steps=config.eval_steps,
            prediction_loss_only=True,
            load_best_model_at_end=best,
            # The patience that is used up; what says so lies in the checkpoint.
            restore_callback_states_from_checkpoint=best,
            metric_for_best_model="eval_loss" if best else None,
            label_names=["labels"],
        ),
        data_collator=collate,
        train_dataset=PackedRows(train, config.row_length)
        if config.packing and isinstance(train, TrainingRows)
        else train,
        eval_dataset=held_out,
    )
    if config.early_stopping is not None:
        trainer.add_callback(EarlyStoppingCallback(config.early_stopping))
    return trainer
