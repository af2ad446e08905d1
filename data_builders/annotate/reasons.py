"""Reasons for a label: which claims, in which order, in which words."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from data_builders.annotate import frames
from data_builders.annotate.frames import fill, sentence
from data_builders.annotate.grounds import Grounds, topic, unit_of
from facellava.evidence import Claim
from facellava.tasks import Label, Task

FEWEST: Final = 2  # distinct claims in an answer
# Share of answers with a third claim: a further sign, or one that is true beside one or two signs.
_THIRD_SIGN: Final = 0.55
_THIRD_BESIDE: Final = 0.25
_DISSENT_BESIDE_SIGNS: Final = 0.15  # share that names a claim against the label, if one holds
_DISSENT_ELSE: Final = 0.5


@dataclass(frozen=True)
class Reasons:
    """The reasons of one answer.

    Attributes:
        prose: one to four sentences.
        sentences: the same claims, a sentence each: the reasons of a JSON answer.
        claims: their ids.
    """

    prose: str
    sentences: tuple[str, ...]
    claims: tuple[str, ...]


@dataclass(frozen=True)
class _Clause:
    """A claim in the words chosen for it; for action units, the unit that it is a sign of."""

    claim: Claim
    words: str
    unit: str | None

    def as_sentence(self) -> str:
        """For the list of JSON reasons."""
        return (
            f"{sentence(self.words)}, a sign of {self.unit}."
            if self.unit
            else f"{sentence(self.words)}."
        )


@dataclass(frozen=True)
class _Choice:
    """The clauses of one answer: those for the label, those beside it, the one against it."""

    signs: tuple[_Clause, ...]
    beside: tuple[_Clause, ...]
    dissent: _Clause | None

    @property
    def clauses(self) -> tuple[_Clause, ...]:
        return (*self.signs, *self.beside, *((self.dissent,) if self.dissent else ()))


def write_reasons(
    task: Task,
    label: Label,
    grounds: Grounds,
    rng: random.Random,
    *,
    used: Collection[str] = (),
    again: bool = False,
) -> Reasons | None:
    """Reasons from claims that hold, at least two of them, in natural English.

    Signs of the label come first, in the fixed order of `grounds`; what fills up is drawn.

    Args:
        used: claim ids of an earlier turn; others are preferred.
        again: the question was "Why?" or the like.

    Returns:
        None where fewer than two claims of different topics hold; a claim against the label
        counts only beside one for it.
    """
    choice = _choose(task, label, grounds, rng, used)
    if len(choice.clauses if choice.signs else choice.beside) < FEWEST:
        return None
    with_units = any(clause.unit for clause in choice.signs)
    return Reasons(
        prose=_unit_prose(choice, rng) if with_units else _prose(task, choice, rng, again),
        sentences=tuple(clause.as_sentence() for clause in choice.clauses),
        claims=tuple(clause.claim.id for clause in choice.clauses),
    )


def _choose(
    task: Task, label: Label, grounds: Grounds, rng: random.Random, used: Collection[str]
) -> _Choice:
    topics: set[str] = set()

    def take(claims: Sequence[Claim], most: int) -> tuple[_Clause, ...]:
        fresh_first = sorted(claims, key=lambda claim: claim.id in used)
        taken: list[_Clause] = []
        for claim in fresh_first:
            if len(taken) < most and topic(claim) not in topics:
                topics.add(topic(claim))
                taken.append(_Clause(claim, rng.choice(claim.phrases), unit_of(task, label, claim)))
        return tuple(taken)

    further_sign, further_beside = rng.random() < _THIRD_SIGN, rng.random() < _THIRD_BESIDE
    signs = take(_spread_over_units(task, label, grounds.speaking), FEWEST + further_sign)
    missing = FEWEST - len(signs)
    fillers = [*_shuffled(grounds.close, rng), *_shuffled(grounds.neutral, rng)]
    beside = take(fillers, max(0, missing + (further_beside and 0 < len(signs) <= FEWEST)))
    beside += take(_shuffled(grounds.plain, rng), max(0, missing - len(beside)))
    objects = rng.random() < (_DISSENT_BESIDE_SIGNS if missing <= 0 else _DISSENT_ELSE)
    dissent = take(grounds.against, 1) if objects or len(beside) < missing else ()
    return _Choice(signs, beside, dissent[0] if dissent else None)


def _shuffled(claims: Sequence[Claim], rng: random.Random) -> list[Claim]:
    return rng.sample(claims, len(claims))


def _spread_over_units(task: Task, label: Label, claims: Sequence[Claim]) -> Sequence[Claim]:
    """For action units: a sign of each unit in their order, then the second signs; else as is."""
    if not isinstance(label, tuple) or not label:
        return claims
    rounds: dict[str, int] = {}
    places = []
    for claim in claims:
        unit = unit_of(task, label, claim) or ""
        rounds[unit] = rounds.get(unit, -1) + 1
        places.append((rounds[unit], label.index(unit)))
    return [
        claim for _, claim in sorted(zip(places, claims, strict=True), key=lambda pair: pair[0])
    ]


def _prose(task: Task, choice: _Choice, rng: random.Random, again: bool) -> str:
    plain = [clause.words for clause in (*choice.signs, *choice.beside)]
    dissent = choice.dissent.words if choice.dissent else None
    if len(plain) == 1:
        return _with_dissent(fill(rng.choice(frames.ONE_CLAUSE), a=plain[0]), dissent, rng)
    a, b, *others = plain
    if dissent and len(choice.signs) >= FEWEST and rng.random() < 0.5:
        text = fill(rng.choice(frames.ALTHOUGH), a=a, b=b, x=dissent)
        dissent = None
    else:
        by_signs = (frames.NO_SIGN, frames.ONE_SIGN, frames.TWO_SIGNS)[min(len(choice.signs), 2)]
        pool = by_signs[task.name]
        if again and len(choice.signs) >= FEWEST and rng.random() < 0.5:
            pool = frames.AGAIN
        text = fill(rng.choice(pool), a=a, b=b)
    tails = frames.MORE if len(choice.signs) > FEWEST else frames.MORE_BESIDE
    for words in others:
        text += fill(rng.choice(frames.unused(tails, text)), a=words)
    return _with_dissent(text, dissent, rng)


def _unit_prose(choice: _Choice, rng: random.Random) -> str:
    """As `_prose`, naming the action unit that each clause is a sign of."""
    dissent = choice.dissent.words if choice.dissent else None
    first, *other_signs = choice.signs
    unit = first.unit or ""
    if not other_signs and not choice.beside:
        text = fill("For {u}, {a}.", a=first.words, u=unit)
        return _with_dissent(text, dissent, rng)
    if not other_signs:
        second, *others = choice.beside
        text = fill(rng.choice(frames.ONE_UNIT), a=first.words, b=second.words, u=unit)
    else:
        second, *others = (*other_signs, *choice.beside)
        pool = frames.SAME_UNIT if second.unit == first.unit else frames.TWO_UNITS
        units = {"u": unit, "v": second.unit or ""}
        text = fill(rng.choice(pool), a=first.words, b=second.words, **units)
    for other in others:
        tails = frames.MORE_UNITS if other.unit else frames.MORE_BESIDE
        text += fill(rng.choice(frames.unused(tails, text)), a=other.words, u=other.unit or "")
    return _with_dissent(text, dissent, rng)


def _with_dissent(text: str, dissent: str | None, rng: random.Random) -> str:
    return text + fill(rng.choice(frames.AGAINST), a=dissent) if dissent else text
