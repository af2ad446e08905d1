"""What facellava does not answer, and says so: identity, health, character, no face at all.

A face does not show identity, illness, personality, intelligence, guilt, orientation, belief,
politics or income; claims to read those from faces are unsound and do harm, so the answer is a
refusal with its reason and a hint at what can be asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from facellava.tasks.grammar import Grammar, roughen
from facellava.tasks.task import Label, Task
from facellava.tasks.unanswerable_questions import FOLLOW_UP_TEMPLATES, SLOTS, TEMPLATES


@dataclass(frozen=True)
class Kind:
    """One kind of question without an answer: the reason that is said, and its questions."""

    reason: str
    questions: Grammar


def _kind(reason: str, key: str) -> Kind:
    return Kind(reason, Grammar(TEMPLATES[key], SLOTS))


KINDS: Final[Mapping[str, Kind]] = {
    "identity": _kind("I do not identify people", "identity"),
    "health": _kind("I do not judge health from a face", "health"),
    "character": _kind("a face does not show this", "character"),
    "thoughts": _kind("a face does not show what somebody thinks", "thoughts"),
    "scene": _kind("I only look at the face, not at the rest of the picture", "scene"),
    "other": _kind(
        "I only answer about expression, action units, attributes, age and signs of a fake face",
        "other",
    ),
}

HINTS: Final = (
    "You can ask about the expression, action units, attributes, age or signs of a fake face.",
    "I can say which expression a face shows, which action units are active and how old it looks.",
    "Ask about the expression, the age, an attribute such as glasses, or whether the face is fake.",
    "What I can describe is the expression, the facial movements, the attributes and the age.",
    "Try a question such as: how old is this person, or what expression is this?",
)


def _check(label: object) -> Label:
    if label is None:
        return None
    raise ValueError(f"the label is {label!r}, where only null is allowed")


def _write(label: Label) -> str:
    return KINDS["other"].reason


def _read(words: str) -> object:
    if not words:
        raise ValueError("no reason is given")
    return None


_ALL: Final = Grammar(
    tuple(template for templates in TEMPLATES.values() for template in templates), SLOTS
)

UNANSWERABLE: Final = Task(
    name="unanswerable",
    title="Cannot answer",
    labels=(),
    canonical_question="Who is this person?",
    questions=_ALL,
    follow_ups=Grammar(FOLLOW_UP_TEMPLATES, SLOTS),
    label_schema={"type": "null"},
    check=_check,
    write=_write,
    read=_read,
    closed_words=(),
    scored_words=(),
)


def unanswerable_question(kind: str, rng: random.Random) -> str:
    """A question of one kind of `KINDS`; KeyError for another kind."""
    return roughen(KINDS[kind].questions.draw(rng), rng)


def refusal(kind: str, rng: random.Random) -> str:
    """The whole prose answer to a question of that kind: lead with reason, and a hint."""
    return f"{UNANSWERABLE.title}: {KINDS[kind].reason}. {rng.choice(HINTS)}"


def refusal_reasons(kind: str, rng: random.Random) -> tuple[str, str]:
    """The sentences of `refusal` without its title, for the JSON answer."""
    return f"{KINDS[kind].reason}.", rng.choice(HINTS)
