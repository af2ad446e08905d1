"""Raw datasets to shards of work: rows in the source's order, without repeats, cut by split."""

from __future__ import annotations

import csv
import hashlib
import heapq
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from data_builders.checksums import check_sums
from data_builders.media import Unusable
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
    fold: int | None = 1,
    weight: float = 1.0,
    splits: Collection[str] | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> Iterator[RawFace]:
    """The rows of a source that a corpus is made of, in the source's order.

    What was given is looked at now, the rows as they are asked for.

    Args:
        source: the dataset.
        root: its folder.
        drops: counts the rows that cannot be used, not those that nobody asked for.
        fold: of a source with folds: the one whose rows become the split "test"; none where None.
        weight: the share of the rows that is taken (`data_builders.mixture.is_taken`).
        splits: rows of others are only looked at for what they share with these.
        limit: at most so many rows of each split; the first where `seed` is None.
        seed: draws the limit's rows evenly, as many of each fold where there are folds. A greater
            limit draws the same rows and more.

    Raises:
        BadCorpus: no such folder; as rows are read: another layout, a file that cannot be read, or
            no room for temporary files.
        BadSample: the source has no such fold.
    """
    if source.folds and fold is not None and not 1 <= fold <= source.folds:
        raise BadSample(f"{source.title} has the folds 1 to {source.folds}, and no fold {fold}.")
    if not root.exists():
        raise BadCorpus(f"{source.title}: there is no '{root}'; expected {source.layout}.")
    check_sums(root, source.title)
    rows = _sound_rows(source, root, drops, fold, weight, splits)
    if limit is None:
        return rows
    return _first(rows, limit) if seed is None else _drawn(rows, limit, seed)


def _sound_rows(
    source: Source,
    root: Path,
    drops: Drops,
    fold: int | None,
    weight: float,
    splits: Collection[str] | None,
) -> Iterator[RawFace]:
    """Rows of the splits and the share that are taken, without those that have a fault."""
    with _Seen() as seen:
        for row in _read(source, root, drops):
            if source.folds and fold is not None and row.fold == fold:
                row = replace(row, split="test")
            reason = seen.fault(row, check_subject=not source.people_cross_splits)
            if splits is not None and row.split not in splits:
                continue
            if reason:
                drops.add(reason, row.key)
            elif is_taken(row.key, weight):
                yield row


def _read(source: Source, root: Path, drops: Drops) -> Iterator[RawFace]:
    """The rows of a source; that one of its files cannot be read is told in one sentence."""
    try:
        yield from source.rows(root, drops)
    except OSError as error:
        raise BadCorpus(
            f"{source.title}: '{error.filename or root}' cannot be read ({error.strerror}); "
            f"expected {source.layout}."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadCorpus(
            f"{source.title}: a table or list in '{root}' is damaged or not UTF-8 text ({error}); "
            "get the dataset's files again."
        ) from error


def _first(rows: Iterable[RawFace], limit: int) -> Iterator[RawFace]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.split] = counts.get(row.split, 0) + 1
        if counts[row.split] <= limit:
            yield row


def _drawn(rows: Iterable[RawFace], limit: int, seed: int) -> Iterator[RawFace]:
    """Of each fold or split the rows whose hashes with the seed are smallest, in their order.

    No more rows are held than are drawn: a row of a pack carries its picture.
    """
    drawn: dict[int | str, list[tuple[int, int, RawFace]]] = {}
    for place, row in enumerate(rows):
        # The greatest hash is the first of its heap, and two places are never the same.
        entry = (-_hash(seed, row.key), place, row)
        heap = drawn.setdefault(row.fold or row.split, [])
        if len(heap) < limit:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    for _, _, row in sorted(chain.from_iterable(drawn.values()), key=itemgetter(1)):
        yield row


def _hash(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest())


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
        """Why the row cannot be taken; empty where it can, and it is remembered then.

        Raises:
            BadCorpus: there is no room for the database.
        """
        try:
            return self._fault(row, check_subject=check_subject)
        except sqlite3.OperationalError as error:
            raise BadCorpus(
                f"The disk for temporary files is full or cannot be written ({error}): free some "
                "space, or set TMPDIR to a folder with room, and run the same command again."
            ) from error

    def _fault(self, row: RawFace, *, check_subject: bool) -> str:
        if self._split("names", row.key) is not None:
            return NAME_TWICE
        try:
            digest = row.media.digest()
        except OSError:
            return "file cannot be read"
        except Unusable as error:
            return error.reason
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
