"""Prose cut into clauses, and what a clause says to be absent: for `facellava.tasks.prose`."""

from __future__ import annotations

import re
from typing import Final

# Where one statement ends and another may contradict it.
_BREAK: Final = re.compile(
    r"[!;\n]+|\.(?!\d)|,?\s+\b(?:but|however|although|though|whereas|while|yet|instead,)\b"
    r"|,?\s+and\s+(?=(?:is|are|looks?|appears?|seems?|shows?|has|have|therefore|so|thus)\b)"
    r"|,\s*(?:and\s+)?(?=(?:he|she|they|it|this|there|the (?:person|man|woman|face|subject))\b)",
    re.IGNORECASE,
)
_QUESTION: Final = re.compile(r"[^.!?\n]*\?")
_MARKUP: Final = re.compile(r"```(?:json)?|[*`#>\"]+")
_DECLINED: Final = re.compile(
    r"\b(?:can(?:no|')t|cannot|can not|could not|couldn't|unable|impossible|not possible"
    r"|(?:difficult|hard) to|not able|won't|will not|not appropriate|sorry|whether)\b",
    re.IGNORECASE,
)
_NEGATOR: Final = re.compile(
    r"\b(?:not(?! only| just)|no(?! doubt)|never|neither|nor|without|lacks?|lacking|absen(?:t|ce)"
    r"|rather than|instead of|as opposed to|unlikely|hardly|free (?:of|from)|rules? out"
    r"|ruled out|than|non|too \w+(?: \w+)? to be)\b|n't\b",
    re.IGNORECASE,
)
_ABSENT_AFTER: Final = re.compile(
    r"(?:\s+\([^)]*\))?\s*(?::|-|=)?\s*(?:is|are|was|were|seems?|appears?)?\s*"
    r"(?:\bnot\b|n't\b|\babsent\b|\binactive\b|\bmissing\b|\bno\b(?! doubt)|\bunlikely\b)",
    re.IGNORECASE,
)
# "no signs of strong negative emotion such as anger" is a long reach, "not angry" a short one.
_REACH: Final = 7


def clean(text: str) -> str:
    """The text with plain quotes and dashes and without Markdown marks."""
    for fancy, plain in (("\u2019", "'"), ("\u2018", "'"), ("\u2013", "-"), ("\u2014", "-")):
        text = text.replace(fancy, plain)
    return _MARKUP.sub("", text).strip()


def clauses(text: str) -> list[str]:
    """The statements of cleaned text: no questions, nothing that the speaker declines to say."""
    stated = _QUESTION.sub(" ", text)
    parts = (part.strip(" ,:") for part in _BREAK.split(stated))
    return [part for part in parts if part and not _DECLINED.search(part)]


def is_denied(clause: str, start: int, end: int) -> bool:
    """Whether the words at [start, end) of the clause are said to be absent."""
    if _ABSENT_AFTER.match(clause, end):
        return True
    before = clause[:start].split()[-_REACH:]
    return _NEGATOR.search(" ".join(before)) is not None


def stated_words(clause: str, pattern: re.Pattern[str]) -> list[str]:
    """The pattern's matches in the clause that are not denied, in lower case, in order."""
    return [
        found.group().lower()
        for found in pattern.finditer(clause)
        if not is_denied(clause, found.start(), found.end())
    ]
