"""Ages in the prose of other models: "34 years old", "30-35", "in her late twenties".

A range of at most ten years or a decade is read as its middle; a bound ("over 18") is no age.
"""

from __future__ import annotations

import re
from typing import Final

from facellava.errors import UnreadableAnswer
from facellava.tasks.age import OLDEST
from facellava.tasks.clauses import is_denied

_WIDEST: Final = 10

_DECADE_WORDS: Final = {
    "teens": 10, "twenties": 20, "thirties": 30, "forties": 40, "fifties": 50, "sixties": 60,
    "seventies": 70, "eighties": 80, "nineties": 90,
}  # fmt: skip
_PART: Final = {"early": (0, 3), "mid": (4, 6), "late": (7, 9), "": (0, 9)}
_DECADE: Final = re.compile(
    rf"\b(?:(early|mid|late)(?:dle)?[- ](?:to[- ](early|mid|late)[- ])?)?"
    rf"(?:([2-9]0)'?s\b|({'|'.join(_DECADE_WORDS)})\b)",
    re.IGNORECASE,
)
_BETWEEN_DECADES: Final = re.compile(r"\s*(?:-|to|or|and)\s*", re.IGNORECASE)
_RANGE: Final = re.compile(r"\b(\d{1,3})\s*(?:-|to|or|and)\s*(\d{1,3})\b(?!\s*(?:cm|mm|px|%))")
_NUMBER: Final = re.compile(r"(?<![\d.,])\b(\d{1,3})(?:\.\d+)?\b(?![\d%])")
_UNIT_AFTER: Final = re.compile(
    r"\s*-?\s*(?:years?|yrs?|y/?o|yo)\b(?!\s+of\b(?! age))(?!\s+(?:ago|later|experience))",
    re.IGNORECASE,
)
_CUE_BEFORE: Final = re.compile(
    r"(?:\bage\b[^\d]{0,30}|\baged\b[^\d]{0,15}|\b(?:years? old|old)\b[^\d]{0,15}"
    r"|(?:\b(?:is|looks?|appears?|seems?|be|about|around|approximately|roughly|probably|likely"
    r"|estimate|say|guess)|~)\s*)$",
    re.IGNORECASE,
)
_OR_AFTER: Final = re.compile(r"\s*,?\s*or\s+(?:\w+\s+)?\d")
_THING_AFTER: Final = re.compile(
    r"\s*-?\s*(?:cm|mm|px|percent|people|persons|faces|times|x\d|st|nd|rd|th)"
)
_BOUND_BEFORE: Final = re.compile(
    r"\b(?:over|under|above|below|at least|at most|older than|younger than|more than|less than"
    r"|no older than|no younger than|up to|not|minimum|maximum)\s*$",
    re.IGNORECASE,
)
_BARE: Final = re.compile(
    r"\W*(?:age\W*)?\d{1,3}(?:\s*(?:-|to)\s*\d{1,3})?\W*(?:years?\W*(?:old\W*)?)?"
)


def read_age(statements: list[str]) -> int:
    """The one age that the statements agree on, in whole years.

    Raises:
        UnreadableAnswer: No age, several, a range wider than ten years, or over 116.
    """
    exact: set[int] = set()
    ranges: set[tuple[int, int]] = set()
    for clause in statements:
        rest = _take_decades(clause, ranges)
        rest = _take_ranges(rest, ranges)
        exact.update(_numbers(rest))
    if any(age > OLDEST for age in exact):
        raise UnreadableAnswer(f"The prose names an age over {OLDEST}.")
    if len(exact) > 1:
        raise UnreadableAnswer(f"The prose names several ages: {sorted(exact)}.")
    if exact:
        age = exact.pop()
        if any(not low <= age <= high for low, high in ranges):
            raise UnreadableAnswer(f"The prose names the age {age} and a range without it.")
        return age
    if len(ranges) != 1:
        raise UnreadableAnswer(f"The prose names {'several age ranges' if ranges else 'no age'}.")
    low, high = ranges.pop()
    if not 0 <= high - low <= _WIDEST or high > OLDEST:
        raise UnreadableAnswer(f"The prose names the age range {low}-{high}, which is no estimate.")
    return (low + high + 1) // 2


def _take_decades(clause: str, ranges: set[tuple[int, int]]) -> str:
    last_end: int | None = None
    last: tuple[int, int] | None = None
    for found in _DECADE.finditer(clause):
        start = int(found.group(3)) if found.group(3) else _DECADE_WORDS[found.group(4).lower()]
        first_part, second_part = (found.group(1) or "").lower(), (found.group(2) or "").lower()
        low = start + _PART[first_part][0]
        high = start + _PART[second_part or first_part][1]
        if start == 10:
            low, high = max(low, 13), max(high, 15)
        span = (low, high)
        joined = last_end is not None and _BETWEEN_DECADES.fullmatch(
            clause, last_end, found.start()
        )
        if joined and last is not None:
            ranges.discard(last)
            # "late twenties to early thirties" is about thirty, however wide its two parts.
            span = (last[0], high)
        if not is_denied(clause, found.start(), found.end()):
            ranges.add(span)
        last, last_end = span, found.end()
    return _DECADE.sub(" ", clause)


def _take_ranges(clause: str, ranges: set[tuple[int, int]]) -> str:
    kept = clause
    for found in _RANGE.finditer(clause):
        before, after = clause[: found.start()], clause[found.end() :]
        cued = (
            _UNIT_AFTER.match(after)
            or _CUE_BEFORE.search(before)
            or re.search(r"\bbetween\s*(?:the ages of\s*)?$", before, re.IGNORECASE)
            or re.search(r"\bage", clause, re.IGNORECASE)
            or _BARE.fullmatch(clause)
        )
        if cued and not is_denied(clause, found.start(), found.end()):
            ranges.add((int(found.group(1)), int(found.group(2))))
        kept = kept.replace(found.group(), " ", 1)
    return kept


def _numbers(clause: str) -> list[int]:
    ages = []
    for found in _NUMBER.finditer(clause):
        before, after = clause[: found.start()], clause[found.end() :]
        if _BOUND_BEFORE.search(before) or _THING_AFTER.match(after):
            continue
        if is_denied(clause, found.start(), found.end()):
            continue
        if re.match(r"\s*-?\s*months?\b", after, re.IGNORECASE):
            ages.append(int(found.group(1)) // 12)
        elif any(
            (
                _UNIT_AFTER.match(after),
                _OR_AFTER.match(after),
                _CUE_BEFORE.search(before),
                _BARE.fullmatch(clause),
            )
        ):
            ages.append(int(found.group(1)))
    return ages
