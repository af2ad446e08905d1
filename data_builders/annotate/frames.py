"""Sentence frames of the measured annotator: plain English around the clauses of claims.

Slots: {a}, {b} clauses; {A}, {B} the same opening a sentence; {u}, {v} action units. Vocabulary and
grammar are kept small on purpose: a model of a few million parameters learns them from scratch.
"Because" and its like stand only in frames whose clauses all speak for the label.
"""

from __future__ import annotations

from typing import Final

_TWO_SIGNS: Final = (
    "{A} and {b}.",
    "{A}, and {b}.",
    "{A}, while {b}.",
    "{A}. Also, {b}.",
    "{A}. At the same time {b}.",
    "First, {a}. Second, {b}.",
    "Two signs point this way: {a} and {b}.",
    "One sign is that {a}, another is that {b}.",
    "The main sign is that {a}. Besides, {b}.",
    "This rests on two signs: {a} and {b}.",
)
TWO_SIGNS: Final[dict[str, tuple[str, ...]]] = {
    "expression": (
        *_TWO_SIGNS,
        "The face gives this impression because {a} and {b}.",
        "I read the expression from this: {a}, and {b}.",
        "The expression fits, as {a} and {b}.",
        "It shows in the face because {a}, and {b}.",
        "What shows it best is that {a}. In addition, {b}.",
    ),
    "age": (
        *_TWO_SIGNS,
        "This age is likely, as {a} and {b}.",
        "I judge the age from this: {a}, and {b}.",
        "The age fits because {a} and {b}.",
        "It is an estimate: {a}, and {b}.",
        "What tells the age best is that {a}. In addition, {b}.",
    ),
    "attributes": (
        *_TWO_SIGNS,
        "What can be measured agrees: {a} and {b}.",
        "The face was checked: {a}, and {b}.",
        "The answer fits, as {a} and {b}.",
        "I say so because {a} and {b}.",
        "What shows it best is that {a}. In addition, {b}.",
    ),
    "deepfake": (
        *_TWO_SIGNS,
        "I judge the picture from this: {a}, and {b}.",
        "The picture speaks for it: {a} and {b}.",
        "The answer fits, as {a} and {b}.",
        "I say so because {a} and {b}.",
        "What shows it best is that {a}. In addition, {b}.",
    ),
    "action_units": (
        "Nothing stands out: {a} and {b}.",
        "The face is at rest: {a}, and {b}.",
        "No movement stands out, as {a} and {b}.",
        "The face hardly moves: {a}, and {b}.",
        "{A} and {b}.",
        "{A}. Also, {b}.",
        "I see no movement because {a} and {b}.",
    ),
}
"""Both clauses speak for the label. For action units: for "none"."""

_ONE_SIGN: Final = (
    "{A}. Apart from that, {b}.",
    "The sign is that {a}. Otherwise {b}.",
    "One sign speaks for it: {a}. Besides, {b}.",
    "{A}, and {b}.",
    "{A}. For the rest, {b}.",
    "It shows in one thing: {a}. Otherwise {b}.",
    "{A}. Also, {b}.",
    "There is one clear sign: {a}. Besides, {b}.",
    "{A}, while {b}.",
)
ONE_SIGN: Final[dict[str, tuple[str, ...]]] = {
    "expression": (*_ONE_SIGN, "I read the expression from this: {a}. Otherwise {b}."),
    "age": (*_ONE_SIGN, "It is an estimate, as {a}. Otherwise {b}."),
    "attributes": (*_ONE_SIGN, "I say so because {a}. For the rest, {b}."),
    "deepfake": (*_ONE_SIGN, "The picture speaks for it: {a}. For the rest, {b}."),
    "action_units": (
        "{A}. For the rest, {b}.",
        "{A}, and {b}.",
        "The face hardly moves: {a}. Otherwise {b}.",
    ),
}
"""The first clause speaks for the label, the second is true beside it."""

_NO_SIGN: Final = (
    "The signs are weak. {A} and {b}.",
    "No strong sign stands out: {a} and {b}.",
    "This is hard to measure. {A}, and {b}.",
    "The measurements show it only a little: {a}, and {b}.",
    "What can be measured does not decide it. {A} and {b}.",
)
NO_SIGN: Final[dict[str, tuple[str, ...]]] = {
    "expression": (*_NO_SIGN, "I read this from the whole face. {A} and {b}."),
    "age": (
        *_NO_SIGN,
        "I read this from the whole face. {A} and {b}.",
        "It is a rough estimate. {A}, and {b}.",
    ),
    "attributes": (
        "I read this from the picture. {A} and {b}.",
        "No measurement settles this. Of the face I can say that {a} and {b}.",
        "This is hard to measure. {A}, and {b}.",
        "What can be measured does not decide it. {A} and {b}.",
        "I see this in the picture. What was measured is that {a} and {b}.",
        "The picture says so. Measured are other things: {a} and {b}.",
    ),
    "deepfake": (*_NO_SIGN, "I judge the picture as a whole. {A} and {b}."),
    "action_units": ("The signs are weak. {A} and {b}.", "This is hard to measure. {A}, and {b}."),
}
"""Neither clause speaks for the label."""

ONE_CLAUSE: Final = (
    "One sign speaks for it: {a}.",
    "There is one sign: {a}.",
    "The sign is that {a}.",
)
"""The only clause, which speaks for the label; always followed by one of `AGAINST`."""

AGAINST: Final = (
    " Against it, {a}.",
    " What does not fit is that {a}.",
    " On the other hand, {a}.",
    " This holds although {a}.",
)
"""A true clause that speaks against the label, after those that do not."""
ALTHOUGH: Final = (
    "Although {x}, {a} and {b}.",
    "{A} and {b}, although {x}.",
    "The signs are mixed: {x}, but {a} and {b}.",
    "{X}, yet {a} and {b}.",
)
"""{x}: a true clause that speaks against the label; the other two do not."""

MORE: Final = (
    " In addition, {a}.",
    " I also see that {a}.",
    " It also shows that {a}.",
    " Moreover, {a}.",
)
"""A further clause that speaks for the label."""
MORE_BESIDE: Final = (
    " Otherwise {a}.",
    " For the rest, {a}.",
    " Apart from that, {a}.",
    " I also see that {a}.",
)
"""A further clause that is true beside it."""

TWO_UNITS: Final = (
    "{A}, a sign of {u}. {B}, a sign of {v}.",
    "For {u}, {a}. For {v}, {b}.",
    "{A}, which fits {u}, and {b}, which fits {v}.",
    "I read {u} because {a}, and {v} because {b}.",
    "The sign of {u} is that {a}. The sign of {v} is that {b}.",
    "First {u}: {a}. Then {v}: {b}.",
)
"""Each clause is a sign of its own action unit."""
SAME_UNIT: Final = (
    "{A} and {b}, two signs of {u}.",
    "For {u}, {a} and {b}.",
    "I read {u} because {a} and {b}.",
    "Two signs point to {u}: {a}, and {b}.",
    "The main sign of {u} is that {a}. Besides, {b}.",
)
"""Both clauses are signs of one action unit."""
ONE_UNIT: Final = (
    "{A}, a sign of {u}. Otherwise {b}.",
    "For {u}, {a}. Apart from that, {b}.",
    "I read {u} because {a}. For the rest, {b}.",
    "The sign of {u} is that {a}. Besides, {b}.",
)
"""The first clause is a sign of the action unit, the second is true beside it."""
MORE_UNITS: Final = (" For {u}, {a}.", " {A}, a sign of {u}.", " I read {u} because {a}.")
"""A further clause with its action unit."""

AGAIN: Final = (
    "Looking again, {a} and {b}.",
    "I still see two signs: {a} and {b}.",
    "I stay with this, as {a} and {b}.",
    "Once more: {a}, and {b}.",
    "The measured face supports this: {a}, and {b}.",
)
"""Answers to "Why?": both clauses speak for the label."""

HARD_TO_READ: Final = (
    " The face is hard to read here.",
    " The face is hard to see, so take this with care.",
)
"""After an answer about a face whose landmarks are weak."""


def sentence(clause: str) -> str:
    """The clause with a capital letter: "the jaw is dropped" to "The jaw is dropped"."""
    return clause[:1].upper() + clause[1:]


def fill(frame: str, **clauses: str) -> str:
    """The frame with its clauses; each clause also fills the slot of its capital letter."""
    if any(" and " in words for words in clauses.values()):
        # "cheeks and forehead have the same colour and ..." needs a comma to be read.
        frame = frame.replace("a} and {b}", "a}, and {b}").replace("A} and {b}", "A}, and {b}")
    openings = {slot.upper(): sentence(text) for slot, text in clauses.items()}
    return frame.format(**clauses, **openings)


def unused(tails: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The tails whose opening words do not stand in the text yet; all where all do."""
    fresh = tuple(tail for tail in tails if tail.split("{")[0].strip().lower() not in text.lower())
    return fresh or tails
