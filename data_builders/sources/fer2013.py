"""FER2013 (Goodfellow et al., 2013): 48x48 grey faces with one of seven expressions.

Original layout: ``fer2013.csv``, and beside it, if wanted, Microsoft's FER+ votes
``fer2013new.csv`` (Barsoum et al., 2016), row for row::

    emotion,pixels,Usage
    0,70 80 82 72 58 58 60 63 ... 106 109 82,Training

    Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
    Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0

Parquet: ``image, label, split, pixel_md5`` and, where known, ``fer_index, ferplus_neutral ...
ferplus_nf, label_ambiguous, source_path``.

A training picture that a later split shows too is left out, and so is one that stands there under
two labels or that most FER+ voters called no face.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, pack_files, read_pack, require
from facellava.corpus import SPLITS
from facellava.errors import BadCorpus
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "FER2013"
LICENCE: Final = "FER2013: web pictures of their owners, research use; FER+ votes: MIT"
SIDE: Final = 48
USAGES: Final = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
COLUMNS: Final = ("emotion", "pixels", "Usage")
NOT_A_FACE: Final = "not_a_face"
# FER+ column to the name in `expression_votes`.
VOTES: Final = {
    **dict(zip(LABEL_SETS["ferplus"].words, LABEL_SETS["ferplus"].labels, strict=True)),
    "unknown": "unknown",
    "NF": NOT_A_FACE,
}
LAYOUT: Final = (
    "fer2013.csv (emotion,pixels,Usage), optionally with fer2013new.csv beside it, or Parquet "
    "files with the columns image, label, split, pixel_md5"
)


@dataclass(frozen=True)
class _Row:
    """What the two layouts share: everything but the picture."""

    key: str
    md5: str
    emotion: str
    split: str
    origin: str
    votes: Mapping[str, int] | None
    ambiguous: bool


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of FER2013.

    Raises:
        BadCorpus: neither layout is there, or FER+ does not fit.
    """
    read = _read_pack if pack_files(root) else _read_csv
    last_split: dict[str, int] = {}
    emotions: dict[str, set[str]] = {}
    for row, _ in read(root, Drops(), pictures=False):
        if row.split in SPLITS:
            order = SPLITS.index(row.split)
            last_split[row.md5] = max(order, last_split.get(row.md5, 0))
            emotions.setdefault(row.md5, set()).add(row.emotion)
    for row, picture in read(root, drops, pictures=True):
        reason = _fault(row, last_split, emotions)
        if reason:
            drops.add(reason, row.key, row.split)
            continue
        label = LABEL_SETS["fer2013"].label_of(int(row.emotion))
        labels: dict[str, object] = {"expression": label}
        if row.votes is not None:
            labels["expression_votes"] = dict(row.votes)
        yield RawFace(
            key=row.key,
            media=Picture(picture),
            labels=labels,
            split=row.split,
            licence=LICENCE,
            origin=row.origin,
        )


def _fault(row: _Row, last_split: Mapping[str, int], emotions: Mapping[str, set[str]]) -> str:
    """Why the row is left out; empty where it stays."""
    if row.split not in SPLITS:
        return f"unknown split {row.split!r}"
    if not row.emotion.isdigit() or int(row.emotion) >= len(LABEL_SETS["fer2013"].labels):
        return f"unknown emotion {row.emotion!r}"
    if last_split[row.md5] > SPLITS.index(row.split):
        return "the same picture is in a later split"
    if row.split == "train" and (row.ambiguous or len(emotions[row.md5]) > 1):
        return "the same picture has two labels"
    votes = row.votes or {}
    if row.split == "train" and votes.get(NOT_A_FACE, 0) * 2 > sum(votes.values()):
        return "most FER+ voters saw no face"
    return ""


def _read_pack(root: Path, drops: Drops, *, pictures: bool) -> Iterator[tuple[_Row, bytes]]:
    votes = {f"ferplus_{column.lower()}": name for column, name in VOTES.items()}
    needed: tuple[str, ...] = ("label", "split", "pixel_md5")
    optional: tuple[str, ...] = ()
    if pictures:
        needed = (*needed, "image")
        optional = ("fer_index", "label_ambiguous", "source_path", *votes)
    pack = read_pack(root, NAME, needed, optional, named_by="pixel_md5", drops=drops)
    for number, row in enumerate(pack):
        index = row.get("fer_index")
        given: list[Any] = [row.get(column) for column in votes]
        yield (
            _Row(
                key=f"{row['pixel_md5'][:12]}-{number:05d}" if index is None else f"{index:05d}",
                md5=row["pixel_md5"],
                emotion=str(row["label"]),
                split=row["split"],
                origin=row.get("source_path") or f"row {number}",
                votes=None if None in given else dict(zip(votes.values(), given, strict=True)),
                ambiguous=bool(row.get("label_ambiguous")),
            ),
            row["image"] if pictures else b"",
        )


def _read_csv(root: Path, drops: Drops, *, pictures: bool) -> Iterator[tuple[_Row, bytes]]:
    path = require(root / "fer2013.csv", NAME, LAYOUT)
    plus = root / "fer2013new.csv"
    votes = _read_votes(plus) if plus.exists() else None
    number = -1
    with path.open(newline="", encoding="utf-8") as file:
        csv.field_size_limit(min(sys.maxsize, 2**20))
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise BadCorpus(
                f"{NAME}: '{path}' has the columns {table.fieldnames}; expected {LAYOUT}."
            )
        for number, row in enumerate(table):
            if votes is not None and number >= len(votes):
                break
            values = (row["pixels"] or "").split()
            grey = np.array([v if v.isdigit() else -1 for v in values], dtype=np.int64)
            if grey.size != SIDE * SIDE or grey.min() < 0 or grey.max() > 255:
                raise BadCorpus(
                    f"{NAME}: row {number} of '{path}' has {grey.size} pixels or one outside "
                    f"0..255; expected {SIDE * SIDE} grey levels, so get the file again."
                )
            levels = grey.astype(np.uint8)
            usage = row["Usage"] or ""
            yield (
                _Row(
                    key=f"{number:05d}",
                    md5=hashlib.md5(levels.tobytes()).hexdigest(),
                    emotion=row["emotion"] or "",
                    split=USAGES.get(usage.strip(), usage),
                    origin=f"fer2013.csv:{number}",
                    votes=votes[number] if votes is not None else None,
                    ambiguous=False,
                ),
                _png(levels) if pictures else b"",
            )
    if votes is not None and number + 1 != len(votes):
        raise BadCorpus(
            f"{NAME}: '{plus}' has {len(votes)} rows and '{path}' has another number; the two "
            "belong together row for row."
        )


def _read_votes(path: Path) -> list[dict[str, int]]:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        for column in VOTES:
            if column not in (table.fieldnames or ()):
                raise BadCorpus(
                    f"{NAME}: '{path}' has no column '{column}'; expected FER+'s fer2013new.csv."
                )
        try:
            return [{name: int(row[column]) for column, name in VOTES.items()} for row in table]
        except (TypeError, ValueError) as error:
            raise BadCorpus(
                f"{NAME}: '{path}' has votes that are not whole numbers; get the file again."
            ) from error


def _png(levels: np.ndarray) -> bytes:
    _, data = cv2.imencode(".png", levels.reshape(SIDE, SIDE))
    return bytes(data)


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="web pictures, not asked",
)
