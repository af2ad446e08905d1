"""Stage 2 over cached features of the frozen encoder: its rows, and the loss of nano's answers.

Loss on the assistant's turns only. The words that carry a verdict count more than the reasons
around them, and a year's target is spread over its neighbours, since no face shows its exact age.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from facellava.conversation import face_conversation
from facellava.errors import BadSample
from facellava.processor import IGNORED_LABEL, EncodedText, FaceLlavaProcessor
from facellava.records import Sample
from facellava.tasks import TASKS
from train.dataset import check_taught, learned_tokens
from train.face_arrays import ABSENT, UNITS
from train.features import FeatureCache
from train.tokenizer import json_words, verdict_words
from train.usable import Usable

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
        naming: the places in the text where the last answer names its task.
    """

    face: int
    text: EncodedText
    frames: int = 1
    naming: range = range(0)


def encode_rows(
    samples: Iterable[Sample],
    face_index: dict[str, int],
    processor: FaceLlavaProcessor,
    count: int | None = None,
) -> list[Row]:
    """Samples of cached faces as token ids; the answers of earlier turns are learned too.

    One in CLIP_EVERY faces is shown as a clip of a few frames, so that clips are not foreign.

    Raises:
        BadSample: a sample that teaches nothing, or whose answer does not name its task.
    """
    rows = []
    for number, sample in enumerate(tqdm(samples, total=count, unit="sample", desc="tokens")):
        if sample.face_id not in face_index:
            continue
        check_taught(sample)
        kind: Literal["image", "video"] = "image"
        frames = 1
        if number % CLIP_EVERY == 0:
            kind, frames = "video", processor.clip_length(2 + number // CLIP_EVERY % 3)
        messages = face_conversation(kind, sample.question, sample.history, sample.answer)
        text = processor.encode_text(messages, [frames], training=True)
        try:
            naming = naming_places(sample.answer, text, processor.tokenizer)
        except ValueError as error:
            raise BadSample(
                f"Sample {sample.sample_id} cannot be used: its answer does not name its task."
            ) from error
        rows.append(Row(face_index[sample.face_id], text, frames, naming))
    return rows


def switching_rows(
    samples: Sequence[Sample],
    face_index: dict[str, int],
    processor: FaceLlavaProcessor,
    count: int,
    seed: int = 0,
) -> list[Row]:
    """Conversations that turn to another task, made of two samples; none of samples of one task.

    The faces of a dataset have labels of one kind, so that no corpus asks for the age behind an
    expression. The two samples are of two faces: what is taught is the second task's name alone.
    """
    known = [sample for sample in samples if sample.face_id in face_index and not sample.history]
    if len({sample.task for sample in known}) < 2:
        return []
    draw = random.Random(seed)
    rows: list[Row] = []
    while len(rows) < count:
        first, then = draw.sample(known, 2)
        if first.task == then.task:
            continue
        turns = [(first.question, first.answer)]
        messages = face_conversation("image", then.question, turns, then.answer)
        text = processor.encode_text(messages, [1], training=True)
        naming = naming_places(then.answer, text, processor.tokenizer)
        rows.append(Row(face_index[first.face_id], _learning_only(text, naming), naming=naming))
    return rows


def naming_places(answer: str, text: EncodedText, tokenizer: PreTrainedTokenizerBase) -> range:
    """Where the text's last answer names its task: "Age:", or in JSON all up to the word "label".

    Not farther there, since the next token may hold the verdict already, as `":[],"` does.

    Raises:
        ValueError: it names none.
    """
    mark = '"label' if answer.startswith("{") else ":"
    name = answer[: answer.index(mark) + len(mark)]
    labels = text.labels or ()
    start = len(labels)
    while start and labels[start - 1] != IGNORED_LABEL:
        start -= 1
    return range(start, start + len(tokenizer.encode(name, add_special_tokens=False)))


class InstructionRows(Dataset[dict[str, Any]]):
    """Rows with their face's features, in a random variant each time.

    A dataset has one kind of label, so its look gives the task away, and the question need not be
    read. Some rows are therefore shown with any other face, and then teach the task's name alone.

    Args:
        rows: the samples.
        cache: features of their faces.
        swapped: share of the rows that are shown with another face.
        units: (N, U) of `FaceArrays.units`: an answer that names the active units of a face says
            nothing about those that nobody coded, so these are no wrong choice there.

    Attributes:
        usable: what grouping needs of the rows; all of them can be used.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        cache: FeatureCache,
        units: NDArray[np.int8],
        swapped: float = 0.0,
    ) -> None:
        self.rows, self.cache, self.swapped = rows, cache, swapped
        # Where none is coded, the answer's units were measured, and all of them were.
        self.uncoded = (units == ABSENT) & (units != ABSENT).any(axis=1, keepdims=True)
        self.usable = Usable(
            rows=np.arange(len(rows)),
            lengths=np.array([len(row.text.input_ids) for row in rows], np.int32),
            frames=np.array([row.frames for row in rows], np.int32),
            learned=np.array([learned_tokens(row.text) for row in rows], np.int32),
            skipped=(),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if self.swapped and torch.rand(()) < self.swapped:
            row = replace(
                row,
                face=int(torch.randint(len(self.cache), ())),
                text=_learning_only(row.text, row.naming),
            )
        variants = torch.randint(self.cache.variants, (row.frames,)).numpy()
        features = np.asarray(self.cache.features[variants, row.face], np.float32)
        return {
            "text": row.text,
            "uncoded": torch.from_numpy(self.uncoded[row.face]),
            "image_features": torch.from_numpy(features),
            "landmarks": torch.from_numpy(self.cache.landmarks[variants, row.face]),
        }


def _learning_only(text: EncodedText, places: range) -> EncodedText:
    labels = [IGNORED_LABEL] * len(text.input_ids)
    for place in places:
        labels[place] = text.input_ids[place]
    return EncodedText(text.input_ids, labels)


@dataclass(frozen=True)
class CachedCollator:
    """Rows to the model's tensors, padded on the right, frames in order of their rows."""

    processor: FaceLlavaProcessor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return {
            **self.processor.pad([row["text"] for row in rows], side="right"),
            "image_features": torch.cat([row["image_features"] for row in rows]),
            "landmarks": torch.cat([row["landmarks"] for row in rows]),
            "uncoded": torch.stack([row["uncoded"] for row in rows]),
        }


class VerdictLoss(nn.Module):
    """Cross-entropy with a weight a token, soft targets for years, and no blame for uncoded units.

    Args:
        tokenizer: nano's, whose label words are single tokens.
    """

    weights: Tensor
    year_ids: Tensor  # (F, Y), of each form in which years are written
    year_targets: Tensor
    year_of_token: Tensor  # (V, 2), year and form
    colons: Tensor
    unit_ids: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        weights = torch.ones(len(tokenizer))

        def token(word: str) -> int:
            ids = tokenizer.encode(word, add_special_tokens=False)
            return int(ids[0])

        def is_whole(word: str) -> bool:
            return len(tokenizer.encode(word, add_special_tokens=False)) == 1

        for word in (*verdict_words(), *filter(is_whole, json_words())):
            weights[token(word)] = VERDICT_WEIGHT
        years = torch.arange(len(TASKS["age"].labels), dtype=torch.float32)
        spread = torch.exp(-((years - years[:, None]) ** 2) / (2 * AGE_SPREAD_YEARS**2))
        self.register_buffer("weights", weights)
        self.register_buffer("year_targets", spread / spread.sum(dim=1, keepdim=True))
        # " 26" in prose, "26" in JSON, which some tokenizers write as two tokens.
        numbers = range(len(years))
        forms = [[f" {y}" for y in numbers], [str(y) for y in numbers]]
        whole = [form for form in forms if all(map(is_whole, form))]
        self.register_buffer("year_ids", torch.tensor([[*map(token, form)] for form in whole]))
        index = torch.full((len(tokenizer), 2), -1)
        for form, ids in enumerate(self.year_ids):
            index[ids] = torch.stack([torch.arange(len(ids)), torch.full_like(ids, form)], dim=1)
        self.register_buffer("year_of_token", index)
        self.register_buffer("unit_ids", torch.tensor([token(f" {unit}") for unit in UNITS]))
        self.register_buffer("colons", torch.tensor([token(":"), token('":')]))

    def forward(self, logits: Tensor, labels: Tensor, uncoded: Tensor) -> Tensor:
        """The weighted mean over the tokens that are learned; arguments as of :meth:`summed`."""
        return self.summed(logits, labels, uncoded) / self.weight_of(labels)

    def weight_of(self, labels: Tensor) -> Tensor:
        """Sum of the weights of the tokens that are learned, labels (B, L)."""
        targets = labels[:, 1:]
        return self.weights[targets[targets != IGNORED_LABEL]].sum()

    def summed(
        self, logits: Tensor, labels: Tensor, uncoded: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """The weighted sum over the tokens that are learned.

        Args:
            logits: (B, L, V).
            labels: (B, L) with -100 where there is no loss.
            uncoded: (B, U) bool, units that nobody coded for the row's face; (B, L, U), for each
                token's face, where a row is packed.
            rows: (B,) further weight of each row; None for 1.
        """
        learned = labels[:, 1:] != IGNORED_LABEL
        scores = logits[:, :-1][learned].float()
        targets = labels[:, 1:][learned]
        # A unit that nobody looked for is neither right nor wrong: it is no choice at all, unless
        # the text itself speaks of it.
        of_token = uncoded if uncoded.ndim == 3 else uncoded[:, None].expand(*labels.shape, -1)
        unknown = of_token[:, 1:][learned] & (self.unit_ids != targets[:, None])
        scores[:, self.unit_ids] = scores[:, self.unit_ids].masked_fill(unknown, -torch.inf)
        # Only behind "Age:" or "label": is a number an age; elsewhere (" 5 o'clock") it is a word.
        behind_colon = torch.isin(labels[:, :-1][learned], self.colons)
        weights = self.weights[targets]
        if rows is not None:
            weights = weights * rows[:, None].expand_as(learned)[learned]
        logs = functional.log_softmax(scores, dim=-1)
        errors = -logs.gather(1, targets[:, None])[:, 0]
        years, forms = self.year_of_token[targets].unbind(dim=1)
        aged = (years >= 0) & behind_colon
        if aged.any():
            offered = logs[aged].gather(1, self.year_ids[forms[aged]])
            soft = -(self.year_targets[years[aged]] * offered).sum(dim=1)
            errors = errors.masked_scatter(aged, soft)
        return (errors * weights).sum()
