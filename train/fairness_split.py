"""Faces for the study of optimisers and fairness: two answers, groups, and too few of most groups.

In training and validation one group has the share that the settings say and the others divide the
rest evenly; inside each group "yes" and "no" are equally many, so that groups differ in number
only. The test part is all of the corpus's test split. Pictures are small JPEGs in one Parquet
file, which is all that a study on another machine needs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from facellava.corpus import read_faces, read_manifest
from facellava.errors import BadCorpus, BadSettings
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.records import SPLITS, FaceRecord, decode_frame

JPEG_QUALITY: Final = 92
LEAST: Final = 2
"""Faces of a group and answer below which a part cannot be used."""
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


def write_split(corpus: Path, path: Path, settings: SplitSettings) -> None:
    """Draw the faces of every task from a corpus and write them to one Parquet file, whole.

    The same corpus gives the same file.

    Raises:
        BadCorpus: the corpus cannot be read or lacks faces of a task or group.
    """
    rows: list[dict[str, Any]] = []
    counts = read_manifest(corpus)["counts"]["faces"]
    for name in settings.tasks:
        source = GROUP_TASKS[name].source
        if source not in counts:
            raise BadCorpus(
                f"Task {name} needs faces of {source}, which the corpus '{corpus}' lacks; build a "
                "corpus with them, or leave the task out."
            )
        for part in SPLITS:
            found = list(_rows(corpus, name, part, settings.size, counts[source].get(part, 0)))
            groups = {row["group"] for row in found}
            if GROUP_TASKS[name].large not in groups or len(groups) < 2:
                raise BadCorpus(
                    f"Task {name} needs {part} faces of group {GROUP_TASKS[name].large} and of "
                    f"another, and corpus '{corpus}' has no two such groups; build a larger one."
                )
            rows += found if part == "test" else _imbalanced(found, settings, GROUP_TASKS[name])
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(
        table.replace_schema_metadata({"settings": json.dumps(asdict(settings))}), partial
    )
    partial.replace(path)


def _rows(corpus: Path, name: str, part: str, size: int, count: int) -> Iterator[dict[str, Any]]:
    """Every face of a part that the task can ask about."""
    task, resizer = GROUP_TASKS[name], FaceLlavaImageProcessor(size=(size, size))
    records = read_faces(corpus, part, task.source)
    for record in tqdm(records, total=count, unit="face", desc=f"{name}, {part}"):
        label, group = task.label(record), task.group(record)
        if label is not None and group is not None:
            pixels = resizer.resize(decode_frame(record.frames[0]))
            yield {
                "task": name,
                "part": part,
                "face_id": record.face_id,
                "group": group,
                "label": label,
                "picture": _jpeg(pixels),
            }


def _imbalanced(
    rows: Sequence[dict[str, Any]], settings: SplitSettings, task: GroupTask
) -> list[dict[str, Any]]:
    """So many of each group and answer that the large group has its share; as many as there are.

    Which faces of a group are taken depends on their ids only.
    """
    cells: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: _draw(row["face_id"])):
        cells.setdefault((row["group"], row["label"]), []).append(row)
    groups = sorted({group for group, _ in cells})
    shares = dict.fromkeys(groups, (1 - settings.share) / (len(groups) - 1))
    shares[task.large] = settings.share
    most = min(
        2 * len(cells.get((group, label), ())) / share
        for group, share in shares.items()
        for label in (False, True)
    )
    total = min(most, settings.faces)
    # A hair more, or the share of just as many faces as there are would be rounded down.
    wanted = {group: int(total * share / 2 + 1e-9) for group, share in shares.items()}
    scarce = min(wanted, key=lambda group: wanted[group])
    if wanted[scarce] < LEAST:
        raise BadCorpus(
            f"Of {rows[0]['task']} the {rows[0]['part']} part would hold {2 * wanted[scarce]} "
            f"faces of group {scarce}; take a larger corpus, more faces or a less extreme share."
        )
    return [
        row
        for group in groups
        for label in (False, True)
        for row in cells[group, label][: wanted[group]]
    ]


def _draw(face_id: str) -> str:
    return hashlib.sha256(face_id.encode()).hexdigest()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return bytes(data)


def read_split(path: Path) -> Split:
    """A split that :func:`write_split` wrote.

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
            for part in SPLITS
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
