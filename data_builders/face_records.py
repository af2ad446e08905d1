"""Faces of one split of a dataset without building a corpus: what eval asks about, what is blended.

The same finder, crop and JPEG as in a corpus, one face after the other as they are asked for.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from data_builders.media import DEFAULT_LOOK, Look
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops, RawFace
from data_builders.shard import find_face, record_of_row
from data_builders.sources import find_source
from facellava.corpus import SPLITS, FaceRecord
from facellava.errors import BadCorpus, BadSample

logger = logging.getLogger(__name__)


def face_records(
    source: str,
    data: Path,
    *,
    split: str,
    limit: int | None = None,
    seed: int = 0,
    fold: int = 1,
    look: Look = DEFAULT_LOOK,
) -> tuple[Iterator[FaceRecord], int]:
    """The faces of one split, found as they are drawn.

    Args:
        source: a name of :data:`data_builders.sources.SOURCES`.
        data: the dataset's folder, or one Parquet file of it.
        limit: at most so many faces, drawn evenly by `seed`.
        fold: of a source with folds: the one that is the split "test".
        look: how clips are looked at.

    Returns:
        The records, and how many rows they come from. A row whose picture cannot be read is left
        out with a warning, so there may be fewer records.

    Raises:
        BadCorpus: no such source or data, another layout, or no rows in the split.
        BadSample: an unknown split, or a limit below 1.
    """
    rows = _rows(source, data, split, limit, seed, fold)
    return _found(source, rows, look), len(rows)


def _rows(
    source: str, data: Path, split: str, limit: int | None, seed: int, fold: int
) -> Sequence[RawFace]:
    found_source = find_source(source)
    if split not in SPLITS:
        raise BadSample(f"The split is {split!r}; allowed are {', '.join(SPLITS)}.")
    if limit is not None and limit < 1:
        raise BadSample(f"The limit is {limit}; it must be at least 1.")
    if not data.exists():
        raise BadCorpus(f"There is no '{data}'; give the folder of {source} or a Parquet file.")
    drops, found = Drops(), set()
    rows = []
    for row in planned_rows(found_source, data, drops, fold=fold):
        found.add(row.split)
        if row.split == split:
            rows.append(row)
    _warn(source, drops)
    if not rows:
        held = ", ".join(sorted(found)) or "none"
        raise BadCorpus(f"'{data}' holds no {split!r} faces of {source}; its splits are: {held}.")
    if limit is not None and limit < len(rows):
        chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))
        rows = [rows[place] for place in chosen]
    return rows


def _found(source: str, rows: Sequence[RawFace], look: Look) -> Iterator[FaceRecord]:
    drops = Drops()
    for row in tqdm(rows, unit="face", desc=f"{source}, {rows[0].split}"):
        frames = find_face(row, drops, look)
        if frames:
            yield record_of_row(source, row, frames)
    _warn(source, drops)


def _warn(source: str, drops: Drops) -> None:
    for reason, found in drops.to_dict().items():
        names = ", ".join(found["examples"])
        logger.warning("%d rows of %s left out: %s (%s)", found["count"], source, reason, names)
