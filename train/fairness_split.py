"""Faces for the study of optimisers and fairness: two answers, groups, and too few of most groups.

In training and validation one group has the share that the settings say and the others divide the
rest evenly; inside each group "yes" and "no" are equally many, so that groups differ in number
only. The test part is all of the corpus's test split. Pictures are small JPEGs in one Parquet
file, which is all that a study on another machine needs: to read it takes no face finder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from facellava.errors import BadCorpus, BadSettings

if TYPE_CHECKING:
    from facellava.records import FaceRecord

PARTS: Final = ("train", "validation", "test")
SCHEMA: Final = pa.schema(
    [
        ("task", pa.string()),
        ("part", pa.string()),
        ("face_id", pa.string()),
        ("group", pa.string()),
        ("label", pa.bool_()),
        ("picture", pa.binary()),
    ]
)


def check_study_folder(out: Path) -> None:
    """Refuse a place that no folder can have, before a corpus is read.

    Raises:
        BadSettings: there is a file at it, or above it.
    """
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir():
        raise BadSettings(f"'{out}' cannot be a folder ('{there}' is a file); give another --out.")


def make_study_folder(out: Path) -> None:
    """The folder of a study, and what is above it.

    Raises:
        BadSettings: there is a file at its place, or it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings(
            f"'{out}' cannot be a folder ({error.strerror}); give another --out."
        ) from error


@dataclass(frozen=True)
class GroupTask:
    """A yes-or-no question about faces of one source, and the groups it should be fair to.

    Attributes:
        source: of the corpus.
        yes: the answer that counts as positive.
        large: the group that most training faces are of.
        label: the answer to a face; None where the source does not say.
        group: the face's group; None where the source does not say.
    """

    source: str
    yes: str
    large: str
    label: Callable[[FaceRecord], bool | None]
    group: Callable[[FaceRecord], str | None]


def _is_female(record: FaceRecord) -> bool | None:
    gender = record.demographics.get("gender")
    return None if gender is None else gender == "female"


def _race(record: FaceRecord) -> str | None:
    race = record.demographics.get("race")
    return None if race is None else str(race)


def _attribute(name: str) -> Callable[[FaceRecord], bool | None]:
    def read(record: FaceRecord) -> bool | None:
        value = record.labels.get("attributes", {}).get(name)
        return None if value is None else bool(value)

    return read


def _male_attribute(record: FaceRecord) -> str | None:
    male = _attribute("male")(record)
    return None if male is None else ("male" if male else "female")


GROUP_TASKS: Final[Mapping[str, GroupTask]] = {
    "gender-by-race": GroupTask("utkface", "female", "White", _is_female, _race),
    "smiling-by-gender": GroupTask(
        "celeba", "smiling", "female", _attribute("smiling"), _male_attribute
    ),
    "attractive-by-gender": GroupTask(
        "celeba", "attractive", "female", _attribute("attractive"), _male_attribute
    ),
}


@dataclass(frozen=True)
class SplitSettings:
    """How the faces of a study are drawn.

    Attributes:
        tasks: names out of GROUP_TASKS.
        share: of the large group in training and validation, in (0, 1).
        faces: at most so many training faces of a task; fewer where the corpus has too few.
        size: side of the pictures in pixels.
    """

    tasks: tuple[str, ...] = ("gender-by-race", "smiling-by-gender")
    share: float = 0.9
    faces: int = 4000
    size: int = 64

    def __post_init__(self) -> None:
        unknown = [name for name in self.tasks if name not in GROUP_TASKS]
        if unknown or not self.tasks:
            raise BadSettings(
                f"There is no fairness task {', '.join(unknown) or 'named'}; "
                f"use some of {', '.join(GROUP_TASKS)}."
            )
        if not 0 < self.share < 1:
            raise BadSettings(f"The share {self.share} is not between 0 and 1; 0.9 is 90 to 10.")
        if self.faces < 1 or self.size < 1:
            raise BadSettings(
                f"{self.faces} faces of {self.size} pixels cannot be drawn; give more."
            )


@dataclass(frozen=True, eq=False)
class Part:
    """N faces of a task.

    Attributes:
        pixels: (N, S, S, 3) uint8 RGB.
        labels: (N,) bool.
        groups: N names.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    groups: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Faces of each group."""
        return dict(sorted(Counter(self.groups).items()))


@dataclass(frozen=True, eq=False)
class Split:
    """A split on disk, read.

    Attributes:
        settings: how it was drawn.
        sha256: of the file.
        parts: of each task "train", "validation" and "test".
    """

    settings: SplitSettings
    sha256: str
    parts: Mapping[str, Mapping[str, Part]]


def read_split(path: Path) -> Split:
    """A split that :func:`train.fairness_faces.write_split` wrote.

    Raises:
        BadCorpus: it is no such file.
    """
    try:
        data = path.read_bytes()
        table = pq.read_table(pa.BufferReader(data))
        stored = json.loads((table.schema.metadata or {})[b"settings"])
        settings = SplitSettings(**{**stored, "tasks": tuple(stored["tasks"])})
        rows = table.cast(SCHEMA).to_pylist()
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadCorpus(
            f"'{path}' is not a whole faces.parquet of an optimiser study; name a corpus folder "
            "and have it made."
        ) from error
    parts = {
        task: {
            part: _part([row for row in rows if (row["task"], row["part"]) == (task, part)])
            for part in PARTS
        }
        for task in settings.tasks
    }
    return Split(settings, hashlib.sha256(data).hexdigest(), parts)


def _part(rows: Iterable[dict[str, Any]]) -> Part:
    kept = list(rows)
    return Part(
        pixels=np.stack([_pixels(row["picture"]) for row in kept]),
        labels=np.array([row["label"] for row in kept]),
        groups=tuple(row["group"] for row in kept),
    )


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(np.asarray(decoded), cv2.COLOR_BGR2RGB), np.uint8)
