"""Every reply that an endpoint was paid for, in one SQLite file, and what it cost.

A reply is on disk before anybody sees it, so no process that dies loses one. What is sent leaves a
mark until its reply is booked: a mark that stays is a request that may have been charged without a
reply of it, and counts at its worst case.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from facellava.endpoint.request import Failure, Reply, Usage
from facellava.errors import FacellavaError

VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT, attempt INTEGER, model TEXT, text TEXT, finish TEXT, refusal TEXT,
    problem TEXT, input INTEGER, cached INTEGER, output INTEGER, dollars REAL, time REAL,
    PRIMARY KEY (key, attempt)
);
CREATE TABLE IF NOT EXISTS marks (number INTEGER PRIMARY KEY, model TEXT, dollars REAL, time REAL);
"""


@dataclass(frozen=True)
class Totals:
    """What one model did and cost, in all runs on one cache.

    Attributes:
        replies: that were paid for, and with them tokens and dollars.
        unusable: replies among them that are not what was asked for.
        lost: requests whose reply never came, charged or not.
        lost_dollars: what they cost at most.
    """

    replies: int = 0
    unusable: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    lost: int = 0
    lost_dollars: float = 0.0


class EndpointCache:
    """The file. One run holds it at a time; it belongs to the thread that opened it."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file, new or of earlier runs.

        Args:
            path: of the file; None for a cache in memory that ends with the run.

        Raises:
            FacellavaError: another run holds the file, or it is none of ours.
        """
        where = str(path or ":memory:")
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(where, timeout=0, isolation_level=None)
            self._prepare()
        except (sqlite3.OperationalError, OSError) as error:
            raise FacellavaError(
                f"Another run holds the cache of replies '{where}', or it cannot be written; wait "
                "for that run, or name another file."
            ) from error
        except sqlite3.DatabaseError as error:
            raise FacellavaError(
                f"'{where}' is no cache of replies of this version; name another file."
            ) from error

    def _prepare(self) -> None:
        try:
            # The lock ends with the process, however it ends. Without it two runs would pay twice.
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            self._base.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._base.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            self._base.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def reply(self, key: str, attempt: int) -> Reply | None:
        """The reply to that attempt at the request, if it came."""
        row = self._base.execute(
            "SELECT model, text, finish, refusal, input, cached, output, dollars FROM replies "
            "WHERE key = ? AND attempt = ?",
            (key, attempt),
        ).fetchone()
        if row is None:
            return None
        model, text, finish, refusal, *tokens, dollars = row
        return Reply(model, text, finish, refusal, Usage(*tokens), dollars)

    def mark(self, model: str, dollars: float) -> int:
        """Note that a request is about to be sent that may cost so much; the mark's number."""
        with self._writing() as cursor:
            cursor.execute(
                "INSERT INTO marks (model, dollars, time) VALUES (?, ?, ?)",
                (model, dollars, time.time()),
            )
            return int(cursor.lastrowid or 0)

    def unmark(self, mark: int) -> None:
        """The request was certainly not charged."""
        with self._writing() as cursor:
            cursor.execute("DELETE FROM marks WHERE number = ?", (mark,))

    def book(
        self, mark: int, key: str, attempt: int, reply: Reply, problem: Failure | None
    ) -> None:
        """Keep the reply in the place of the mark."""
        usage = reply.usage
        row = (
            *(key, attempt, reply.model, reply.text, reply.finish, reply.refusal),
            *(problem.reason if problem else None, usage.input, usage.cached, usage.output),
            *(reply.dollars, time.time()),
        )
        with self._writing() as cursor:
            cursor.execute(f"INSERT INTO replies VALUES ({', '.join('?' * len(row))})", row)
            cursor.execute("DELETE FROM marks WHERE number = ?", (mark,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """A transaction: all of it is on the disk afterwards, or nothing."""
        try:
            with closing(self._base.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    cursor.execute("COMMIT")
                except BaseException:
                    if self._base.in_transaction:
                        cursor.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise FacellavaError(
                f"The cache of replies cannot be written ({error}); make room on the disk and run "
                "again."
            ) from error

    def spent(self) -> float:
        """Dollars of all runs, lost requests at their worst case."""
        totals = self.totals().values()
        return sum(found.dollars + found.lost_dollars for found in totals)

    def totals(self) -> dict[str, Totals]:
        """What each model did and cost in all runs."""
        found: dict[str, Totals] = {}
        rows = self._base.execute(
            "SELECT model, COUNT(*), COUNT(problem), SUM(input), SUM(cached), SUM(output), "
            "SUM(dollars), 0, 0.0 FROM replies GROUP BY model UNION ALL "
            "SELECT model, 0, 0, 0, 0, 0, 0.0, COUNT(*), SUM(dollars) FROM marks GROUP BY model"
        )
        for model, *numbers in rows:
            before = found.get(model, Totals())
            together = zip(vars(before).values(), numbers, strict=True)
            found[model] = Totals(*(old + new for old, new in together))
        return dict(sorted(found.items()))
