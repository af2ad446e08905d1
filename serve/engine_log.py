"""What the engine writes, kept in a file of bounded size, and the one line of it that says why."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import IO, Final

from facellava.errors import FacellavaError

MAX_FILE_BYTES: Final = 16 * 2**20
MAX_LINE: Final = 2000
KEPT_LINES: Final = 4000

NO_PLUGIN: Final = (
    "facellava's vLLM plugin did not load in the engine, so vLLM does not know the model"
)
_UNKNOWN_MODEL = re.compile(
    r"model type `?face_llava`?|FaceLlava\w+'?\]? (are|is) not supported|Cannot find model module"
)
_PLUGIN_FAILED = re.compile(r"Failed to load plugin facellava")
_ERROR = re.compile(
    r"(?:^|\s)((?:[\w.]*(?:Error|Exception|Interrupt|MissingBackend|BadModelInput|BadCheckpoint)"
    r"|error)\b(?::\s*\S.*)?)$"
)
# What vLLM adds in front: "(EngineCore pid=12) ERROR 11-24 04:51:02 [core.py:123] ".
_PREFIX = re.compile(r"^\(\w+ pid=\d+\)\s*|^[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\]\s?")
# Errors that only say that there was another.
_ECHOES = (
    "root cause",
    "Engine core initialization failed",
    "EngineDeadError",
    "CancelledError",
    "See stack trace",
)


class EngineLog:
    """The engine's output: the last lines in memory, the last megabytes on disk.

    Args:
        path: the file; it is begun anew, and a full one goes to the same name with `.1`.

    Raises:
        FacellavaError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        try:
            self._file = self._open()
        except OSError as error:
            raise FacellavaError(
                f"The engine's log {path} cannot be written ({error.strerror}); name another file."
            ) from error

    def _open(self) -> IO[bytes]:
        # What the engine says of its work is nobody else's business.
        return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def add(self, line: bytes) -> None:
        """Keep one line of output."""
        if self._file.tell() > MAX_FILE_BYTES:
            self._file.close()
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
            self._file = self._open()
        self._file.write(line)
        self._file.flush()
        text = line.decode(errors="replace").rstrip()[:MAX_LINE]
        while prefix := _PREFIX.match(text):
            text = text[prefix.end() :]
        self.lines.append(text)

    def forget(self) -> None:
        """A new start: earlier lines explain nothing any more; the file keeps them."""
        self.lines.clear()

    def close(self) -> None:
        self._file.close()

    @property
    def plugin_failed(self) -> str:
        """Why our plugin could not be loaded; "" where nothing says so."""
        lines = list(self.lines)
        for start, line in enumerate(lines):
            if _PLUGIN_FAILED.search(line):
                found = (_ERROR.search(later) for later in lines[start + 1 : start + 200])
                return next((match[1] for match in found if match), "no reason was given")
        return ""

    def reason(self) -> str:
        """The one line that explains an end, without a stack trace; "" where there is none."""
        if any(_UNKNOWN_MODEL.search(line) for line in self.lines) or self.plugin_failed:
            why = self.plugin_failed
            return NO_PLUGIN + (f": {why}" if why else "")
        errors = [match[1] for line in self.lines if (match := _ERROR.search(line))]
        telling = [error for error in errors if not any(echo in error for echo in _ECHOES)]
        return next(reversed(telling or errors), "")
