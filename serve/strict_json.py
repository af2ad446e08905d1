"""JSON of strangers: one reading, no surprises.

Python's reader takes NaN, repeated keys, numbers without end and nesting down to its own limit.
Here each of these is refused, before anything else looks at the data.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 40
MAX_DIGITS: Final = 30
# An empty list costs 56 bytes of memory for 3 of text: what may be large are texts, not structures.
MAX_ENTRIES: Final = 200_000
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class BadJson(ValueError):
    """The bytes are not JSON that we take; the message says why, in one sentence."""


def read_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        BadJson: not UTF-8, not JSON, too deep, too many entries, NaN or infinite numbers, numbers
            of more than 30 digits, repeated keys, broken characters.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_ENTRIES:
        raise BadJson(f"The body has more than {MAX_ENTRIES} entries; send less at once.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson("The body is not UTF-8; encode it anew.") from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_whole,
            parse_float=_real,
        )
    except BadJson:
        raise
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise BadJson("The body is not valid JSON.") from error
    if isinstance(value, dict | list):
        _check_depth(value)
    if _SURROGATE.search(body):
        _check_characters(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise BadJson("The body names a field twice; name each once.")
    return table


def _no_constant(_: str) -> None:
    raise BadJson("The body holds NaN or Infinity, which JSON does not have.")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadJson(f"The body holds a number of more than {MAX_DIGITS} digits.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if len(digits) > 10 * MAX_DIGITS or not math.isfinite(value):
        raise BadJson("The body holds a number that is too large.")
    return value


def _too_deep() -> BadJson:
    return BadJson(f"The body is nested more than {MAX_DEPTH} deep.")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    """The objects and lists that lie directly inside one."""
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    return [inner for inner in value if isinstance(inner, dict | list)]


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadJson("The body holds broken characters; encode it anew.") from error
