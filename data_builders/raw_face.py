"""What a source hands over: one labelled photo or clip, before any face was looked for in it.

A source's ``rows(root, drops)`` reads the dataset as its publisher gives it out or as Parquet with
the same facts, refuses a folder of another layout by naming what is missing, and counts each row
that it leaves out. It guesses no label and no split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.media import Media
from facellava.errors import BadCorpus
from facellava.records import SPLITS

EXAMPLES_KEPT: Final = 5
BATCH_ROWS: Final = 256
PARQUET: Final = b"PAR1"  # how each such file begins

Consent = Literal[
    "participants agreed", "public figures, not asked", "web pictures, not asked", "no real person",
    "unknown",
]  # fmt: skip
"""What is known of the consent of those who are shown."""


@dataclass(frozen=True)
class RawFace:
    """One photo or clip of a dataset with what the dataset says about it.

    Attributes:
        key: names the row within its source; the same in every build.
        media: the photo or clip.
        labels: see `facellava.corpus.FaceRecord.labels`.
        split: "train", "validation" or "test".
        subject: who it is, where the source says.
        demographics: what the source says about the person.
        licence: the source's terms in one line.
        origin: path or row in the source.
        fold: the benchmark's fold in which the row is tested, where it has folds; `split` is then
            "train", and the build takes one fold out as "test".
        reference: a description that the source gives, kept as it is.
        conversations: questions and their answers that the source gives, in turn.
    """

    key: str
    media: Media
    labels: Mapping[str, Any]
    split: str
    licence: str
    origin: str
    subject: str | None = None
    demographics: Mapping[str, Any] = field(default_factory=dict)
    fold: int | None = None
    reference: str | None = None
    conversations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset, or one protocol of it, that a corpus can be built from.

    Attributes:
        title: as its publishers spell it.
        rows: reads it; see the head of this module.
        layout: what the folder must hold, in one phrase.
        licence: the terms in one line.
        consent: of the people shown.
        folds: how many folds the benchmark has; 0 for fixed splits.
        people_cross_splits: the protocol itself has one person in several splits.
    """

    title: str
    rows: Callable[[Path, Drops], Iterator[RawFace]]
    layout: str
    licence: str
    consent: Consent
    folds: int = 0
    people_cross_splits: bool = False


class Drops:
    """Rows left out: how many for each reason, and the first few of them by name.

    Args:
        splits: where only rows of these splits are wanted, what is known to be of another is no
            loss and is not counted.
    """

    def __init__(self, splits: Collection[str] | None = None) -> None:
        self.splits = splits
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: str, split: str | None = None) -> None:
        """Count one row; give its split where it is known."""
        if self.splits is not None and split in SPLITS and split not in self.splits:
            return
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_KEPT:
            examples.append(name)

    def merge(self, other: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what :meth:`to_dict` of others gave."""
        for reason, found in other.items():
            self.counts[reason] = self.counts.get(reason, 0) + found["count"]
            examples = self.examples.setdefault(reason, [])
            examples.extend(found["examples"][: EXAMPLES_KEPT - len(examples)])

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Reason to count and examples, by reason."""
        return {
            reason: {"count": self.counts[reason], "examples": self.examples[reason]}
            for reason in sorted(self.counts)
        }


def require(path: Path, dataset: str, expected: str) -> Path:
    """The path, if it is there.

    Raises:
        BadCorpus: naming the path and the layout that was expected.
    """
    if not path.exists():
        raise BadCorpus(f"{dataset}: '{path}' is missing; expected {expected}.")
    return path


def pack_files(root: Path) -> list[Path]:
    """Parquet files of a folder, in the order of their names, or the one file that `root` is."""
    return [root] if root.is_file() else sorted(root.glob("*.parquet"))


def read_pack(
    root: Path,
    dataset: str,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    named_by: str,
    drops: Drops,
) -> Iterator[dict[str, Any]]:
    """Rows of :func:`pack_files`, streamed; "image" as bytes, none where a row has no picture.

    Args:
        named_by: the column that names a row; `drops` counts the rows without a name.

    Raises:
        BadCorpus: a file is damaged, is no Parquet or lacks a column.
    """
    for path in pack_files(root):
        try:
            for number, row in enumerate(_pack_rows(path, dataset, columns, optional)):
                if not (row[named_by] and isinstance(row[named_by], str)):
                    drops.add(f"{named_by} is missing", f"row {number} of {path.name}")
                else:
                    yield row | {"image": _bytes(row["image"])} if "image" in row else row
        except (pa.ArrowException, OSError) as error:
            raise BadCorpus(_trouble(path, dataset)) from error


def _pack_rows(
    path: Path, dataset: str, columns: Sequence[str], optional: Sequence[str]
) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        present = set(file.schema_arrow.names)
        for name in columns:
            if name not in present:
                raise BadCorpus(
                    f"{dataset}: '{path}' has no column '{name}'; expected the columns "
                    f"{', '.join(columns)}."
                )
        wanted = [*columns, *(name for name in optional if name in present)]
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            yield from batch.to_pylist()


def _bytes(picture: object) -> bytes:
    """The encoded picture; `datasets` stores it as a struct of bytes and path."""
    if isinstance(picture, dict):
        picture = picture.get("bytes")
    return picture if isinstance(picture, bytes) else b""


def _trouble(path: Path, dataset: str) -> str:
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(PARQUET)) == PARQUET
    except OSError as error:
        return f"{dataset}: '{path}' cannot be read ({error.strerror}); get the file again."
    if is_parquet:
        return f"{dataset}: '{path}' is damaged or cut off; get the file again."
    return f"{dataset}: '{path}' is no Parquet file; give the dataset's folder or a Parquet file."


def stable_split(key: str) -> str:
    """80% train, 10% validation, 10% test, by the key alone: the same on every machine."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"
