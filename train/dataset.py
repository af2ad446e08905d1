"""A corpus as training reads it: mapped from disk, encoded by the shared processor, by row.

Every sample is read once before training (`scan`), so that a sample that cannot be used is known,
with its id, before an hour is spent. Nothing is ever replaced by another sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from facellava.conversation import FaceItem, face_conversation
from facellava.corpus import FACES_SCHEMA, SAMPLES_SCHEMA, shards
from facellava.errors import BadCorpus, BadModelInput, BadSample
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.records import FaceRecord, Sample
from facellava.region_attention import check_landmarks
from facellava.tasks import TASKS
from train.clip_choices import Choice, ClipChoices, choice_tensors
from train.clip_frames import FrameAugment, FrameDraw
from train.damage import undamaged
from train.face_arrays import ABSENT, coded_units
from train.usable import Usable

logger = logging.getLogger(__name__)

# Batches of one sorting window: enough for like lengths, few enough for a random order.
WINDOW_BATCHES = 50


class CorpusTables:
    """The faces and samples of one split, mapped into memory by `datasets`; rows by number.

    Args:
        corpus: a finished corpus.
        split: "train", "validation" or "test".
        cache: folder where `datasets` keeps its copy of the tables.

    Raises:
        BadCorpus: the split holds no samples.
        BadCheckpoint: that copy is damaged.
    """

    def __init__(self, corpus: Path, split: str, cache: Path) -> None:
        self.corpus, self.split = corpus, split
        faces, samples = shards(corpus, "faces", split), shards(corpus, "samples", split)
        if not faces or not samples:
            raise BadCorpus(
                f"Corpus '{corpus}' holds no samples of split {split!r}; build it with some."
            )
        self.faces = _mapped(faces, cache / f"{split}-faces", FACES_SCHEMA.names)
        self.samples = _mapped(samples, cache / f"{split}-samples", SAMPLES_SCHEMA.names)
        row_of = {face_id: row for row, face_id in enumerate(self._column("faces", "face_id"))}
        self.face_rows = np.array(
            [row_of[face_id] for face_id in self._column("samples", "face_id")], np.int64
        )
        self.kept = np.array(self._column("samples", "kept"), bool)

    def _column(self, table: str, name: str) -> list[Any]:
        values: list[Any] = getattr(self, table).data.column(name).to_pylist()
        return values

    def face(self, row: int) -> FaceRecord:
        """The face that sample number `row` speaks of."""
        return FaceRecord.from_row(self.faces[int(self.face_rows[row])])

    def sample(self, row: int) -> Sample:
        """Sample number `row`."""
        return Sample.from_row(self.samples[int(row)])

    def ids(self) -> list[str]:
        """The id of every sample."""
        return self._column("samples", "sample_id")


def _mapped(paths: Sequence[Path], cache: Path, columns: list[str]) -> datasets.Dataset:
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        again = "remove that folder, and the same command makes it again."
        with undamaged(cache, again):
            return datasets.Dataset.from_parquet(
                [str(path) for path in paths], cache_dir=str(cache), columns=columns
            )
    finally:
        if bars:
            datasets.enable_progress_bars()


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample as the model reads it.

    Attributes:
        sample_id: of the corpus.
        text: token ids and labels.
        item: the face, or the clip's frames.
        uncoded: (U,) bool, action units that nobody coded for the face.
        choice: where a clip's answer says its one label; None for others and where nobody asks.
    """

    sample_id: str
    text: EncodedText
    item: FaceItem
    uncoded: NDArray[np.bool_]
    choice: Choice | None = None


@dataclass(frozen=True)
class Reader:
    """How a sample of the tables becomes token ids and frames.

    Attributes:
        tables: where the rows are.
        processor: the shared one.
        max_length: in tokens, image tokens included.
        clip_frames: most frames of a clip.
    """

    tables: CorpusTables
    processor: FaceLlavaProcessor
    max_length: int
    clip_frames: int

    def read(
        self, row: int, draw: FrameDraw | None = None, choices: ClipChoices | None = None
    ) -> Encoded:
        """Sample number `row`.

        Args:
            row: in the tables.
            draw: how a clip's frames are drawn; None spreads them evenly.
            choices: finds where a clip's answer says its label; None where nobody asks.

        Raises:
            BadSample: with its id and why it cannot be used.
        """
        sample_id = str(row)
        try:
            sample = self.tables.sample(row)
            sample_id = sample.sample_id
            record = self.tables.face(row)
            check_landmarks(torch.from_numpy(record.landmarks), len(record.frames))
            check_taught(sample)
            item = shown(record, self.clip_frames)
            if draw is not None and isinstance(item, Sequence):
                item = draw.of(record.faces(), self.clip_frames, row)
            n_frames = len(self.processor.frames_of(item))
            kind = "video" if isinstance(item, Sequence) else "image"
            messages = face_conversation(
                kind,  # type: ignore[arg-type]
                sample.question,
                sample.history,
                sample.answer,
            )
            text = self.processor.encode_text(messages, [n_frames], training=True)
            choice = choices.of(sample, text) if choices and kind == "video" else None
        except (BadCorpus, BadModelInput) as error:
            raise BadSample(f"Sample {sample_id} cannot be used: {error}") from error
        if len(text.input_ids) > self.max_length:
            raise BadSample(
                f"Sample {sample_id} has {len(text.input_ids)} tokens and max_length is "
                f"{self.max_length}: raise it, or set bad_samples to skip."
            )
        return Encoded(sample_id, text, item, _uncoded(record), choice)


def check_taught(sample: Sample) -> None:
    """Refuse a sample that teaches nothing.

    Raises:
        BadSample: its answer is empty, or it has no label where its task has labels.
    """
    if not sample.answer.strip():
        raise BadSample(f"Sample {sample.sample_id} cannot be used: its answer is empty.")
    if sample.label is None and sample.task in TASKS and TASKS[sample.task].labels:
        raise BadSample(
            f"Sample {sample.sample_id} cannot be used: its label is null, and the task "
            f"{sample.task} has labels."
        )


def shown(record: FaceRecord, clip_frames: int) -> FaceItem:
    """What the model sees of a face: the photo's, or the clip's frames, spread evenly."""
    faces = record.faces()
    if record.media == "image":
        return faces[0]
    places = np.linspace(0, len(faces) - 1, min(len(faces), clip_frames)).round().astype(int)
    return [faces[place] for place in places]


def _uncoded(record: FaceRecord) -> NDArray[np.bool_]:
    units = coded_units(record.labels)
    # Where none is coded, the answer's units were measured, and all of them were.
    found: NDArray[np.bool_] = (units == ABSENT) & bool((units != ABSENT).any())
    return found


class _Scanned(Dataset[tuple[int, int, int, int, str]]):
    def __init__(self, reader: Reader, rows: NDArray[np.int64]) -> None:
        self.reader, self.rows = reader, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, int, int, int, str]:
        row = int(self.rows[index])
        try:
            found = self.reader.read(row)
        except BadSample as error:
            return row, 0, 0, 0, str(error)
        n_frames = len(self.reader.processor.frames_of(found.item))
        return row, len(found.text.input_ids), n_frames, learned_tokens(found.text), ""


def learned_tokens(text: EncodedText) -> int:
    """How many tokens of a sample have a loss."""
    return int((np.array(text.labels)[1:] >= 0).sum())


def scan(
    reader: Reader,
    *,
    skip: bool,
    workers: int = 0,
    wanted: Callable[[FaceRecord], bool] | None = None,
) -> Usable:
    """Read every kept sample once.

    Args:
        reader: how they are read.
        skip: leave out samples that cannot be used; otherwise the first one stops the run.
        workers: processes.
        wanted: of which faces; None for all.

    Raises:
        BadSample: a sample cannot be used, and `skip` is off.
        BadCorpus: nothing is left.
    """
    rows = np.flatnonzero(reader.tables.kept)
    if wanted is not None:
        chosen = {face: wanted(FaceRecord.from_row(reader.tables.faces[face])) for face in
                  np.unique(reader.tables.face_rows[rows]).tolist()}  # fmt: skip
        rows = rows[[chosen[face] for face in reader.tables.face_rows[rows].tolist()]]
    loader = DataLoader(_Scanned(reader, rows), batch_size=64, num_workers=workers, collate_fn=list)
    found, skipped = [], []
    with tqdm(total=len(rows), unit="sample", desc="checking", disable=None) as bar:
        for batch in loader:
            for *numbers, trouble in batch:
                if trouble and not skip:
                    raise BadSample(trouble)
                if trouble:
                    skipped.append(trouble)
                else:
                    found.append(numbers)
            bar.update(len(batch))
    if not found:
        raise BadCorpus(
            f"Corpus '{reader.tables.corpus}' has no sample of split {reader.tables.split!r} that "
            f"training can use ({len(skipped)} were skipped)."
        )
    table = np.array(found, np.int64)
    lengths, frames, learned = (table[:, column].astype(np.int32) for column in (1, 2, 3))
    return Usable(table[:, 0], lengths, frames, learned, tuple(skipped))


class TrainingRows(Dataset[Encoded]):
    """The usable samples, encoded when they are asked for.

    Args:
        reader: how they are read.
        usable: which they are.
        augment: how frames of clips are drawn, other ones each epoch; "none" spreads them evenly.
        seed: of those draws.
        choices: see :meth:`Reader.read`.

    Raises:
        BadSample: a sample that was fine when it was scanned cannot be read any more.
    """

    def __init__(
        self,
        reader: Reader,
        usable: Usable,
        augment: FrameAugment = "none",
        seed: int = 0,
        choices: ClipChoices | None = None,
    ) -> None:
        self.reader, self.usable = reader, usable
        self.augment, self.seed, self.choices = augment, seed, choices
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.usable.rows)

    def __getitem__(self, index: int) -> Encoded:
        drawn = self.augment != "none"
        draw = FrameDraw(self.augment, self.seed, self.epoch) if drawn else None
        return self.reader.read(int(self.usable.rows[index]), draw, self.choices)

    def set_epoch(self, epoch: int) -> None:
        """Draw the frames of clips as in that epoch."""
        self.epoch = epoch


@dataclass(frozen=True)
class Collator:
    """Samples to the model's tensors, padded on the right, frames in order of their samples."""

    processor: FaceLlavaProcessor

    def __call__(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        return {
            **self.processor.pad([sample.text for sample in samples], side="right"),
            **self.processor.encode_faces([sample.item for sample in samples]),
            "uncoded": torch.from_numpy(np.stack([sample.uncoded for sample in samples])),
            **choice_tensors([sample.choice for sample in samples]),
        }


class ModalityLengthGroups(Sampler[int]):
    """Batches of one modality and like lengths; the order depends on seed and epoch only.

    So a resumed run skips exactly the rows that were seen. Only the rows that fill no batch are
    mixed, at the end.

    Args:
        lengths: (N,) tokens of each row.
        clips: (N,) whether it is a clip.
        batch: rows of one batch over all processes.
        seed: of the run.
        on_epoch: told of each epoch before it starts, in every process.
    """

    def __init__(
        self,
        lengths: NDArray[np.int32],
        clips: NDArray[np.bool_],
        batch: int,
        seed: int,
        on_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        self.lengths, self.clips, self.batch = lengths, clips, batch
        self.seed, self.epoch, self.on_epoch = seed, 0, on_epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """The trainer calls this at the start of each epoch."""
        self.epoch = epoch
        self.on_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches: list[NDArray[np.int64]] = []
        left: list[NDArray[np.int64]] = []
        for modality in (False, True):
            order = rng.permutation(np.flatnonzero(self.clips == modality))
            window = self.batch * WINDOW_BATCHES
            for start in range(0, len(order), window):
                part = order[start : start + window]
                part = part[np.argsort(-self.lengths[part], kind="stable")]
                whole = len(part) // self.batch * self.batch
                batches += np.split(part[:whole], whole // self.batch) if whole else []
                left.append(part[whole:])
        shuffled = [batches[place] for place in rng.permutation(len(batches))]
        return iter(np.concatenate([*shuffled, *left]).tolist())
