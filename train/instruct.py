"""Stage 2 over cached features of the frozen encoder: its rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from facellava.conversation import face_conversation
from facellava.errors import BadSample
from facellava.processor import IGNORED_LABEL, EncodedText, FaceLlavaProcessor
from facellava.records import Sample
from facellava.tasks import ANSWERABLE, parse_prose
from train.dataset import check_taught, learned_tokens
from train.face_arrays import ABSENT
from train.features import FeatureCache
from train.rare_fakes import MixedFakes
from train.resting_faces import RestingFaces
from train.rows import Row
from train.soft_targets import SoftTargets, Target, Targets
from train.sure_reasons import Readings, learning_sure_reasons
from train.twins import Decision, Verdicts
from train.usable import Usable

CLIP_EVERY = 25
NO_REASONS = 0.3  # of first answers of conversations that turn to another task


@dataclass(frozen=True)
class Twins:
    """Two rows whose verdicts are to be alike, with the places where they are decided.

    The second one learns the first one's probabilities (see train.twins).
    """

    first: Row
    second: Row
    decided: tuple[tuple[Decision, ...], tuple[Decision, ...]]


def encode_rows(
    samples: Iterable[Sample],
    face_index: dict[str, int],
    processor: FaceLlavaProcessor,
    count: int | None = None,
    readings: Readings | None = None,
    doubt: float = 1.0,
) -> list[Row]:
    """Samples of cached faces as token ids; the answers of earlier turns are learned too.

    One in CLIP_EVERY faces is shown as a clip of a few frames, so that clips are not foreign.

    Args:
        readings: what the visual tokens tell of the faces; None learns every reason.
        doubt: the highest chance of being contradicted with which a reason is still learned.

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
        face = face_index[sample.face_id]
        if readings is not None:
            text = learning_sure_reasons(text, face, readings, doubt, processor.tokenizer)
        rows.append(
            Row(
                face,
                text,
                frames,
                naming,
                sample.task,
                sample.form,
                sample.label,
                not sample.history,
            )
        )
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
    Some first answers end with their verdict, as a caller may have asked for no more.
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
        said = first.answer
        bare = draw.random() < NO_REASONS and first.task in ANSWERABLE
        if bare and not said.startswith("{"):
            said = said.removesuffix(parse_prose(said).reasons).strip()
        turns = [(first.question, said)]
        messages = face_conversation("image", then.question, turns, then.answer)
        text = processor.encode_text(messages, [1], training=True)
        naming = naming_places(then.answer, text, processor.tokenizer)
        rows.append(Row(face_index[first.face_id], learning_only(text, naming), naming=naming))
    return rows


def naming_places(answer: str, text: EncodedText, tokenizer: PreTrainedTokenizerBase) -> range:
    """Where the text's last answer names its task: "Age:", or in JSON all up to the word "label".

    Not farther there, since the next token may hold the verdict already, as `":[],"` does.

    Raises:
        ValueError: it names none.
    """
    mark = '"label' if answer.startswith("{") else ":"
    part = answer[: answer.index(mark) + len(mark)]
    labels = text.labels or ()
    start = len(labels)
    while start and labels[start - 1] != IGNORED_LABEL:
        start -= 1
    return range(start, start + len(tokenizer.encode(part, add_special_tokens=False)))


class InstructionRows(Dataset[list[dict[str, Any]]]):
    """Rows with their face's features, in a random variant each time; twins come together.

    A dataset has one kind of label, so its look gives the task away, and the question need not be
    read. Some rows are therefore shown with any other face, and then teach the task's name alone.

    Args:
        rows: the samples.
        cache: features of their faces.
        units: (N, U) of `FaceArrays.units`: an answer that names the active units of a face says
            nothing about those that nobody coded, so these are no wrong choice there.
        swapped: share of the rows that are shown with another face.
        twins: pairs of further rows.
        resting: who stands beside the face in clips of which some frames are at rest.
        soft: what verdicts learn besides their labels; None for the labels alone.
        mixes: who is shown beside the face of a mixed row, whose targets soft has.

    Attributes:
        usable: what grouping needs of the rows, a pair counting as its longer one; all of them can
            be used.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        cache: FeatureCache,
        units: NDArray[np.int8],
        swapped: float = 0.0,
        twins: Sequence[Twins] = (),
        resting: RestingFaces | None = None,
        soft: SoftTargets | None = None,
        mixes: MixedFakes | None = None,
    ) -> None:
        self.rows, self.cache, self.swapped = rows, cache, swapped
        self.twins, self.resting, self.soft, self.mixes = twins, resting, soft, mixes
        # Where none is coded, the answer's units were measured, and all of them were.
        self.uncoded = (units == ABSENT) & (units != ABSENT).any(axis=1, keepdims=True)
        longer = [*rows, *(max(t.first, t.second, key=_length) for t in twins)]
        learned = [learned_tokens(row.text) for row in rows]
        learned += [learned_tokens(t.first.text) + learned_tokens(t.second.text) for t in twins]
        self.usable = Usable(
            rows=np.arange(len(longer)),
            lengths=np.array([_length(row) for row in longer], np.int32),
            frames=np.array([row.frames for row in longer], np.int32),
            learned=np.array(learned, np.int32),
            skipped=(),
        )

    def __len__(self) -> int:
        return len(self.rows) + len(self.twins)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        if index >= len(self.rows):
            twins = self.twins[index - len(self.rows)]
            return [
                self._shown(row) | {"decided": decided}
                for row, decided in zip((twins.first, twins.second), twins.decided, strict=True)
            ]
        row = self.rows[index]
        if self.swapped and torch.rand(()) < self.swapped and not row.mixed:
            row = replace(
                row,
                face=int(torch.randint(len(self.cache), ())),
                text=learning_only(row.text, row.naming),
                # Without a task it has no verdict, and another face has nobody beside it.
                task="",
                at_rest=0,
            )
        return [self._shown(row)]

    def _shown(self, row: Row) -> dict[str, Any]:
        faces = [row.face] * (row.frames - row.at_rest)
        if row.at_rest and self.resting is not None:
            # What is shown stays together, at its start, in its middle or at its end.
            beside = self.resting.beside(row.face, row.at_rest)
            before = int(torch.randint(row.at_rest + 1, ()))
            faces = [*beside[:before], *faces, *beside[before:]]
        features, landmarks = self._cached(faces)
        targets: tuple[Target, ...] = ()
        if row.mixed and self.mixes and self.soft:
            other, share = self.mixes.beside(row.face)
            others, points = self._cached([other])
            features = share * features + (1 - share) * others
            landmarks = share * landmarks + (1 - share) * points
            targets = self.soft.of_mixed(row, other, share)
        elif self.soft:
            targets = self.soft.of_row(row)
        return {
            "text": row.text,
            "form": row.form,
            "targets": targets,
            "uncoded": torch.from_numpy(self.uncoded[row.face]),
            "image_features": features,
            "landmarks": landmarks,
        }

    def _cached(self, faces: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features and landmarks, each face's in a variant of its own."""
        variants = torch.randint(self.cache.variants, (len(faces),)).numpy()
        features = np.asarray(self.cache.features[variants, faces], np.float32)
        return torch.from_numpy(features), torch.from_numpy(self.cache.landmarks[variants, faces])


def _length(row: Row) -> int:
    return len(row.text.input_ids)


def learning_only(text: EncodedText, places: range) -> EncodedText:
    """The text, of which nothing but these places is learned."""
    labels = [IGNORED_LABEL] * len(text.input_ids)
    for place in places:
        labels[place] = text.input_ids[place]
    return EncodedText(text.input_ids, labels)


@dataclass(frozen=True)
class CachedCollator:
    """Rows to the model's tensors, padded on the right, frames in order of their rows.

    Beside the tensors "twins": pairs of train.twins.Verdicts; and "targets": train.soft_targets'
    Targets of the rows that have some.
    """

    processor: FaceLlavaProcessor

    def __call__(self, items: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        twins = []
        for item in items:
            if len(item) > 1:
                first, second = (
                    Verdicts(len(rows) + number, row["form"], row["decided"])
                    for number, row in enumerate(item)
                )
                twins.append((first, second))
            rows += item
        tensors: dict[str, Tensor] = {
            **self.processor.pad([row["text"] for row in rows], side="right"),
            "image_features": torch.cat([row["image_features"] for row in rows]),
            "landmarks": torch.cat([row["landmarks"] for row in rows]),
            "uncoded": torch.stack([row["uncoded"] for row in rows]),
        }
        targets = [
            Targets(number, row["form"], row["targets"])
            for number, row in enumerate(rows)
            if row["targets"]
        ]
        return {**tensors, "twins": twins, "targets": targets}
