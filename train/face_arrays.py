"""A corpus's faces as arrays: pixels at the model's size, landmarks and labels, made once.

Decoding sixty thousand JPEG crops takes a minute and an epoch would repeat it, so the arrays are
written beside the run as plain .npy files and mapped into memory.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facellava.errors import BadCorpus
from facellava.faces import MEASUREMENTS, measure
from facellava.faces.clips import apex
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.records import FaceRecord
from facellava.tasks import TASKS
from train.damage import undamaged

logger = logging.getLogger(__name__)

EXPRESSIONS = tuple(word.strip() for word in TASKS["expression"].scored_words)
ATTRIBUTES = TASKS["attributes"].labels
UNITS = TASKS["action_units"].labels
# The FER+ votes that we keep as a second, soft label set.
VOTES = (*EXPRESSIONS, "contempt")
MEASURED = tuple(MEASUREMENTS)
ABSENT = -1
SELF_BLENDED = "_self_blended"  # datasets that end so are made of another one's faces
CHUNK = 64


@dataclass
class FaceArrays:
    """N faces. Where a face lacks a label the entry is -1 (NaN for measured quantities).

    Attributes:
        pixels: (N, S, S, 3) uint8 RGB.
        landmarks: (N, 68, 2) float32 in [0, 1] of the crop.
        expression: (N,) int64, index into EXPRESSIONS; words of larger sets count as absent.
        votes: (N, 8) float32, share of FER+ votes; a row of -1 where there are none.
        age: (N,) int64, years.
        attributes: (N, 40) int8, 1 yes, 0 no.
        units: (N, U) int8, 1 active, 0 not; units that nobody coded for the face are absent.
        fake: (N,) int8, 1 fake, 0 real.
        measured: (N, M) float32, the face's measurements in the order of MEASUREMENTS.
        native: (N,) float32, photo pixels along the crop's side.
        source: (N,) str, the corpus's name of the dataset.
    """

    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    expression: NDArray[np.int64]
    votes: NDArray[np.float32]
    age: NDArray[np.int64]
    attributes: NDArray[np.int8]
    units: NDArray[np.int8]
    fake: NDArray[np.int8]
    measured: NDArray[np.float32]
    native: NDArray[np.float32]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.landmarks)

    def save(self, folder: Path) -> None:
        """Write one .npy a field; the folder appears only when it is whole."""
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(partial / f"{field.name}.npy", getattr(self, field.name))
        partial.rename(folder)

    @classmethod
    def open(cls, folder: Path) -> FaceArrays:
        """Map arrays that :meth:`save` wrote.

        Raises:
            BadCheckpoint: a file is damaged.
        """
        arrays = {}
        for field in fields(cls):
            path = folder / f"{field.name}.npy"
            again = f"remove '{folder}', and the same command makes it again."
            with undamaged(path, again):
                arrays[field.name] = np.load(path, mmap_mode="r")
        return cls(**arrays)


def face_arrays(
    records: Iterable[FaceRecord], folder: Path, *, image_size: int, count: int | None = None
) -> FaceArrays:
    """The arrays of these records, from `folder` if they were made before.

    Raises:
        BadCorpus: there are no faces.
        BadCheckpoint: what was made before is damaged.
    """
    if not folder.exists():
        resizer = FaceLlavaImageProcessor(size=(image_size, image_size))
        make = partial(_row, resizer=resizer)
        with ExitStack() as stack:
            made: Iterable[dict[str, Any]] = map(make, records)
            if count is None or count > CHUNK:
                # Measuring takes a few milliseconds a face, more than all the rest; a handful of
                # faces is done before a worker has started.
                context = multiprocessing.get_context("forkserver")
                pool = ProcessPoolExecutor(mp_context=context, initializer=use_one_thread)
                made = stack.enter_context(pool).map(make, records, chunksize=CHUNK)
            rows = list(tqdm(made, total=count, unit="face", desc="faces"))
        if not rows:
            raise BadCorpus("The corpus holds no faces to train on; build it with more of them.")
        FaceArrays(
            **{
                field.name: np.stack([row[field.name] for row in rows])
                for field in fields(FaceArrays)
            }
        ).save(folder)
    return FaceArrays.open(folder)


def use_one_thread() -> None:
    """In a worker: the libraries' own threads would fight the other workers for the cores."""
    cv2.setNumThreads(1)


def _row(record: FaceRecord, resizer: FaceLlavaImageProcessor) -> dict[str, Any]:
    faces = record.faces()
    face = faces[apex(faces)]  # of a clip the frame that its samples speak of
    labels = record.labels
    expression = labels.get("expression")
    votes = labels.get("expression_votes")
    attributes = labels.get("attributes")
    fake = labels.get("deepfake")
    values = measure(face)
    measured = [values[name].value for name in MEASURED]
    return {
        "pixels": resizer.resize(face.crop),
        "landmarks": face.landmarks,
        "expression": np.int64(
            EXPRESSIONS.index(expression) if expression in EXPRESSIONS else ABSENT
        ),
        "votes": _vote_shares(votes),
        "age": np.int64(labels.get("age", ABSENT)),
        "attributes": np.array(
            [int(attributes[name]) for name in ATTRIBUTES] if attributes else [ABSENT] * 40, np.int8
        ),
        "units": coded_units(labels),
        "fake": np.int8(ABSENT if fake is None else int(fake == "fake")),
        "measured": np.array([np.nan if v is None else v for v in measured], np.float32),
        "native": np.float32(face.native_size),
        "source": np.str_(record.source),
    }


def coded_units(labels: Mapping[str, Any]) -> NDArray[np.int8]:
    """(U,) of a face's labels: 1 active, 0 not, ABSENT where nobody looked."""
    active = labels.get("action_units", ())
    coded = labels.get("action_units_coded", UNITS if "action_units" in labels else ())
    return np.array([int(unit in active) if unit in coded else ABSENT for unit in UNITS], np.int8)


def _vote_shares(votes: dict[str, int] | None) -> NDArray[np.float32]:
    total = sum(votes.get(name, 0) for name in VOTES) if votes else 0
    if votes is None or total == 0:
        return np.full(len(VOTES), ABSENT, np.float32)
    return np.array([votes.get(name, 0) / total for name in VOTES], np.float32)
