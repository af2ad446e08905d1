"""Stage 2: the language model learns to answer, over cached features of the frozen encoder.

Loss on the assistant's turns only. The words that carry a verdict count more than the reasons
around them, and a year's target is spread over its neighbours, since no face shows its exact age.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from facellava.conversation import face_conversation
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, EncodedText, FaceLlavaProcessor
from facellava.records import Sample
from facellava.tasks import TASKS
from train.face_arrays import ABSENT, UNITS
from train.features import FeatureCache
from train.tokenizer import verdict_words
from train.trainer_runs import last_checkpoint, loader_workers, log_quietly

VERDICT_WEIGHT = 3.0
AGE_SPREAD_YEARS = 2.5
CLIP_EVERY = 25


@dataclass(frozen=True)
class Row:
    """One sample as the model reads it.

    Attributes:
        face: index into the feature cache.
        text: token ids and labels.
        frames: 1 for a photo; more where the face is shown as a clip.
    """

    face: int
    text: EncodedText
    frames: int = 1


def encode_rows(
    samples: Iterable[Sample],
    face_index: dict[str, int],
    processor: FaceLlavaProcessor,
    count: int | None = None,
) -> list[Row]:
    """Samples of cached faces as token ids; the answers of earlier turns are learned too.

    One in CLIP_EVERY faces is shown as a clip of a few frames, so that clips are not foreign.
    """
    rows = []
    for number, sample in enumerate(tqdm(samples, total=count, unit="sample", desc="tokens")):
        if sample.face_id not in face_index:
            continue
        in_clip = number % CLIP_EVERY == 0
        frames = processor.clip_length(2 + number // CLIP_EVERY % 3) if in_clip else 1
        messages = face_conversation(
            "video" if in_clip else "image", sample.question, sample.history, sample.answer
        )
        text = processor.encode_text(messages, [frames], training=True)
        rows.append(Row(face_index[sample.face_id], text, frames))
    return rows


class InstructionRows(Dataset[dict[str, Any]]):
    """Rows with their face's features, in a random variant each time.

    Args:
        rows: the samples.
        cache: features of their faces.
        units: (N, U) of `FaceArrays.units`: an answer that names the active units of a face says
            nothing about those that nobody coded, so these are no wrong choice there.
    """

    def __init__(self, rows: Sequence[Row], cache: FeatureCache, units: NDArray[np.int8]) -> None:
        self.rows, self.cache = rows, cache
        # Where none is coded, the answer's units were measured, and all of them were.
        self.uncoded = (units == ABSENT) & (units != ABSENT).any(axis=1, keepdims=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        variants = torch.randint(self.cache.variants, (row.frames,)).numpy()
        features = np.asarray(self.cache.features[variants, row.face], np.float32)
        return {
            "text": row.text,
            "uncoded": torch.from_numpy(self.uncoded[row.face]),
            "image_features": torch.from_numpy(features),
            "landmarks": torch.from_numpy(self.cache.landmarks[variants, row.face]),
        }


class VerdictLoss(nn.Module):
    """Cross-entropy with a weight a token, soft targets for years, and no blame for uncoded units.

    Args:
        tokenizer: nano's, whose label words are single tokens.
    """

    weights: Tensor
    year_ids: Tensor
    year_targets: Tensor
    year_of_token: Tensor
    unit_ids: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        weights = torch.ones(len(tokenizer))

        def token(word: str) -> int:
            ids = tokenizer.encode(word, add_special_tokens=False)
            return int(ids[0])

        for word in verdict_words():
            weights[token(word)] = VERDICT_WEIGHT
        years = torch.arange(len(TASKS["age"].labels), dtype=torch.float32)
        spread = torch.exp(-((years - years[:, None]) ** 2) / (2 * AGE_SPREAD_YEARS**2))
        self.register_buffer("weights", weights)
        self.register_buffer("year_ids", torch.tensor([token(f" {y}") for y in range(len(years))]))
        self.register_buffer("year_targets", spread / spread.sum(dim=1, keepdim=True))
        index = torch.full((len(tokenizer),), -1)
        index[self.year_ids] = torch.arange(len(years))
        self.register_buffer("year_of_token", index)
        self.register_buffer("unit_ids", torch.tensor([token(f" {unit}") for unit in UNITS]))
        self.colon = token(":")

    def forward(self, logits: Tensor, labels: Tensor, uncoded: Tensor) -> Tensor:
        """The weighted mean over the tokens that are learned; arguments as of :meth:`summed`."""
        return self.summed(logits, labels, uncoded) / self.weight_of(labels)

    def weight_of(self, labels: Tensor) -> Tensor:
        """Sum of the weights of the tokens that are learned, labels (B, L)."""
        targets = labels[:, 1:]
        return self.weights[targets[targets != IGNORED_LABEL]].sum()

    def summed(self, logits: Tensor, labels: Tensor, uncoded: Tensor) -> Tensor:
        """The weighted sum over the tokens that are learned.

        Args:
            logits: (B, L, V).
            labels: (B, L) with -100 where there is no loss.
            uncoded: (B, U) bool, units that nobody coded for the row's face; (B, L, U), for each
                token's face, where a row is packed.
        """
        learned = labels[:, 1:] != IGNORED_LABEL
        scores = logits[:, :-1][learned].float()
        targets = labels[:, 1:][learned]
        # A unit that nobody looked for is neither right nor wrong: it is no choice at all, unless
        # the text itself speaks of it.
        of_token = uncoded if uncoded.ndim == 3 else uncoded[:, None].expand(*labels.shape, -1)
        unknown = of_token[:, 1:][learned] & (self.unit_ids != targets[:, None])
        scores[:, self.unit_ids] = scores[:, self.unit_ids].masked_fill(unknown, -torch.inf)
        # Only behind "Age:" is a number an age; elsewhere (" 5 o'clock shadow") it is a word.
        behind_colon = labels[:, :-1][learned] == self.colon
        weights = self.weights[targets]
        logs = functional.log_softmax(scores, dim=-1)
        errors = -logs.gather(1, targets[:, None])[:, 0]
        years = self.year_of_token[targets]
        aged = (years >= 0) & behind_colon
        if aged.any():
            soft = -(self.year_targets[years[aged]] * logs[aged][:, self.year_ids]).sum(dim=1)
            errors = errors.masked_scatter(aged, soft)
        return (errors * weights).sum()


class LengthGroups(Sampler[int]):
    """Rows of like length side by side; the order depends on seed and epoch only.

    So a resumed run skips exactly the rows that were seen.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))

    def set_epoch(self, epoch: int) -> None:
        """The trainer calls this at the start of each epoch."""
        self.epoch = epoch


class InstructionTrainer(Trainer):
    """Trainer with our loss and batches of rows of like length."""

    def __init__(self, *, processor: FaceLlavaProcessor, **settings: Any) -> None:
        super().__init__(**settings)
        self.verdict_loss = VerdictLoss(processor.tokenizer).to(self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        labels, uncoded = inputs.pop("labels"), inputs.pop("uncoded")
        outputs = model(**inputs)
        loss = self.verdict_loss(outputs.logits, labels, uncoded)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset: InstructionRows = train_dataset or self.train_dataset
        lengths = [len(row.text.input_ids) for row in dataset.rows]
        return LengthGroups(lengths, self.args.train_batch_size, self.args.seed)


def train_instructions(
    model: FaceLlavaForConditionalGeneration,
    processor: FaceLlavaProcessor,
    rows: InstructionRows,
    out: Path,
    *,
    epochs: float = 2.0,
    learning_rate: float = 1.5e-3,
    batch: int = 64,
    save_steps: int = 250,
    seed: int = 0,
) -> None:
    """Train everything but the vision tower in place; goes on from the last checkpoint in `out`."""
    model.face_encoder.vision_tower.requires_grad_(False)

    def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch_of_text = processor.pad([item["text"] for item in items], side="right")
        return (
            batch_of_text
            | {
                name: torch.cat([item[name] for item in items])
                for name in ("image_features", "landmarks")
            }
            | {"uncoded": torch.stack([item["uncoded"] for item in items])}
        )

    if model.config.text_config.tie_word_embeddings:
        # Stored once, under the embedding's name; on resuming the trainer would miss the other.
        model._keys_to_ignore_on_save = ["language_model.lm_head.weight"]
    trainer = InstructionTrainer(
        processor=processor,
        model=model,
        args=TrainingArguments(
            output_dir=str(out),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            weight_decay=0.05,
            adam_beta2=0.98,
            lr_scheduler_type="cosine",
            # Below 1: a share of all steps.
            warmup_steps=0.03,
            max_grad_norm=1.0,
            use_cpu=not torch.cuda.is_available(),
            dataloader_num_workers=loader_workers(),
            bf16=True,
            save_strategy="steps",
            save_steps=save_steps,
            save_total_limit=1,
            logging_steps=50,
            report_to="none",
            remove_unused_columns=False,
            seed=seed,
        ),
        train_dataset=rows,
        data_collator=collate,
    )
    log_quietly(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
