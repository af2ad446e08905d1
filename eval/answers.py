"""Answers on disk: one JSON line a face, kept before the next is asked, so no run loses or repeats.

The first line says what was asked of whom about which data; a file of another question is refused.
Raw text is kept and read when it is scored, so a better parser needs no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import TypeAdapter, ValidationError

from facellava.errors import FacellavaError

VERSION: Final = 1


@dataclass(frozen=True)
class Reply:
    """What an engine said about one face.

    Attributes:
        face_id: of the faces table.
        text: word for word; empty where there is none.
        problem: why there is no text, such as "refused"; empty where there is one.
        table: label to probability in [0, 1], rounded to six places; empty where the engine gives
            none.
        calibrated: the same with the checkpoint's temperature.
        claims: the claims of the text with "claim", "regions" and "verdict", where the engine
            measured them.
    """

    face_id: str
    text: str
    problem: str = ""
    table: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()


_REPLY: Final = TypeAdapter(Reply)


class AnswerFile:
    """The answers of one protocol in one run. Use it as a context; writes are on disk at once."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        """Open a new file, or one that an earlier run left; half a line at its end is cut off.

        Args:
            path: the file.
            head: what decides the answers: protocol, question, data, engine.

        Raises:
            FacellavaError: the file holds answers to something else, or cannot be read or written.
        """
        self.path = path
        head = {"version": VERSION, **json.loads(json.dumps(head))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._cut_torn_line()
            if self._file.tell() == 0:
                self._write([head])
        except OSError as error:
            raise FacellavaError(
                f"'{path}' cannot be written; give --out a folder that is writable."
            ) from error
        found, self.replies = read_answers(path)
        if found != head:
            self._file.close()
            odd = sorted(name for name in {*found, *head} if found.get(name) != head.get(name))
            raise FacellavaError(
                f"'{path}' holds answers of another run ({', '.join(odd)} differ); give another "
                "--out, or delete it."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, replies: Iterable[Reply]) -> None:
        """Add replies.

        Raises:
            FacellavaError: the disk is full; what was written before stays.
        """
        new = list(replies)
        try:
            self._write([asdict(reply) for reply in new])
        except OSError as error:
            raise FacellavaError(
                f"'{self.path}' cannot be written ({error.strerror}); free some space and run the "
                "same command again, it goes on from there."
            ) from error
        self.replies |= {reply.face_id: reply for reply in new}

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # Half a character pair of a broken reply becomes a question mark.
        self._file.write(lines.encode("utf-8", "replace"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut_torn_line(self) -> None:
        """Leave whole lines only: a process that dies may die while it writes."""
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)
        self._file.seek(whole)


def read_answers(path: Path) -> tuple[dict[str, Any], dict[str, Reply]]:
    """The head of a file of answers, and its replies by face.

    Raises:
        FacellavaError: there is no such file, or it is not one of ours.
    """
    try:
        # Not splitlines: texts may hold other characters that it takes for the end of a line.
        head, *rows = path.read_text("utf-8").removesuffix("\n").split("\n")
        facts: dict[str, Any] = json.loads(head)
        known = facts.get("version") == VERSION
    except (OSError, ValueError, AttributeError) as error:
        raise FacellavaError(
            f"'{path}' is no file of answers that can be read; delete it and run the evaluation "
            "again."
        ) from error
    if not known:
        raise FacellavaError(
            f"'{path}' has answers of form {facts.get('version')}, and this facellava reads form "
            f"{VERSION}; run the evaluation again."
        )
    found = {}
    for number, row in enumerate(rows, start=2):
        try:
            reply = _REPLY.validate_json(row)
        except ValidationError as error:
            raise FacellavaError(
                f"Line {number} of '{path}' is no answer; delete that line and run the evaluation "
                "again, it asks about that face only."
            ) from error
        found[reply.face_id] = reply
    return facts, found
