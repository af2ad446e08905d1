"""Raw datasets to shards of work: rows in the source's order, without repeats, cut by split."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from data_builders.mixture import is_taken
from data_builders.raw_face import Drops, RawFace, Source
from data_builders.shard import ShardJob, ShardSettings
from facellava.errors import BadCorpus, BadSample

SUBJECT_TWICE: Final = "the person is in another split"
PICTURE_TWICE: Final = "the same picture is in another split"
NAME_TWICE: Final = "the row's name is used twice"


def planned_rows(
    source: Source,
    root: Path,
    drops: Drops,
    *,
    fold: int = 1,
    weight: float = 1.0,
    limit: int | None = None,
) -> Iterator[RawFace]:
    """The rows of a source that a corpus is made of, in the source's order.

    Args:
        source: the dataset.
        root: its folder.
        drops: counts what is left out.
        fold: of a source with folds: the one whose rows become the split "test".
        weight: the share of the rows that is taken (`data_builders.mixture.is_taken`).
        limit: at most so many rows of each split.

    Raises:
        BadCorpus: another layout.
        BadSample: the source has no such fold.
    """
    if source.folds and not 1 <= fold <= source.folds:
        raise BadSample(f"{source.title} has the folds 1 to {source.folds}, and no fold {fold}.")
    if not root.exists():
        raise BadCorpus(f"{source.title}: there is no '{root}'; expected {source.layout}.")
    counts: dict[str, int] = {}
    with _Seen() as seen:
        for row in source.rows(root, drops):
            if source.folds and row.fold == fold:
                row = replace(row, split="test")
            reason = seen.fault(row, check_subject=not source.people_cross_splits)
            if reason:
                drops.add(reason, row.key)
                continue
            if not is_taken(row.key, weight):
                continue
            counts[row.split] = counts.get(row.split, 0) + 1
            if limit is None or counts[row.split] <= limit:
                yield row


def jobs(
    name: str, rows: Iterable[RawFace], out: Path, settings: ShardSettings, shard_rows: int
) -> Iterator[ShardJob]:
    """Rows of one source as shards of one split each, numbered in the order of the source."""
    waiting: dict[str, list[RawFace]] = {}
    numbers: dict[str, int] = {}

    def job(split: str) -> ShardJob:
        number = numbers.get(split, 0)
        numbers[split] = number + 1
        return ShardJob(out, name, split, number, tuple(waiting.pop(split)), settings)

    for row in rows:
        waiting.setdefault(row.split, []).append(row)
        if len(waiting[row.split]) == shard_rows:
            yield job(row.split)
    for split in list(waiting):
        yield job(split)


class _Seen:
    """Names, pictures and people of the rows so far.

    In a temporary database, so that the memory of a build does not grow with the corpus.
    """

    def __enter__(self) -> Self:
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("PRAGMA journal_mode = OFF")
        for table in ("names", "pictures", "people"):
            self._base.execute(f"CREATE TABLE {table} (id BLOB PRIMARY KEY, split TEXT)")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._base.close()

    def fault(self, row: RawFace, *, check_subject: bool) -> str:
        """Why the row cannot be taken; empty where it can, and it is remembered then."""
        if self._split("names", row.key) is not None:
            return NAME_TWICE
        try:
            digest = row.media.digest()
        except OSError:
            return "file cannot be read"
        if self._split("pictures", digest) not in (None, row.split):
            return PICTURE_TWICE
        person = row.subject if check_subject else None
        if person is not None and self._split("people", person) not in (None, row.split):
            return SUBJECT_TWICE
        new: Mapping[str, str | bytes | None] = {
            "names": row.key,
            "pictures": digest,
            "people": person,
        }
        for table, value in new.items():
            if value is not None:
                self._base.execute(
                    f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", (value, row.split)
                )
        return ""

    def _split(self, table: str, value: str | bytes) -> str | None:
        found = self._base.execute(f"SELECT split FROM {table} WHERE id = ?", (value,)).fetchone()
        return None if found is None else str(found[0])
