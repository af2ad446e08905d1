"""What a command of ours printed, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def trouble(self) -> list[str]:
        """The lines on stderr but for progress bars, which return the carriage."""
        lines = [line.strip() for line in re.split(r"[\n\r]", self.err)]
        return [line for line in lines if line and not re.search(r"photo(/s)?\]", line)]


Facellava = Callable[..., Outcome]
