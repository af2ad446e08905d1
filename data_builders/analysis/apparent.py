"""Apparent age and gender of a set's people: a model's guesses, for a table and nothing else.

Sources seldom say who they show. A model's guess tells roughly whom a set is made of; it is never
written into a corpus, where only what a source says may stand. "Gender" is CelebA's attribute
"male", two boxes into which CelebA's annotators put faces. Where a source does say, the guesses
are compared with it, so that the error stands beside the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from facellava.conversation import face_conversation
from facellava.label_scorer import LabelScorer
from facellava.metrics import mae, uar
from facellava.records import FaceRecord
from facellava.tasks import TASKS, Verdict
from facellava.tasks.age import OLDEST

MALE: Final = "male"
MALE_QUESTION: Final = "Is this person male or female?"
# The label only says what kind of answer is scored: the model reads the lead and rates all labels.
AGE_ANSWER: Final = Verdict("age", 0, "")
MALE_ANSWER: Final = Verdict("attributes", {MALE: True}, "")
DECADES: Final = tuple(range(0, OLDEST + 1, 10))


@dataclass(frozen=True)
class Guess:
    """What a model says of one face: the likeliest age, and how likely it would say "male"."""

    age: int
    male: float


@dataclass(frozen=True)
class Apparent:
    """Apparent age and gender of some faces of a set.

    Attributes:
        faces: how many were looked at.
        ages: first year of a decade to faces.
        mean_age: in years.
        male: share of the faces that the model would rather call male.
        age_known: faces whose age the source gives.
        age_error: mean absolute error in years on these; None without any.
        gender_known: faces whose gender the source gives.
        gender_recall: mean over the two of the share told rightly; None unless both occur.
    """

    faces: int
    ages: dict[int, int]
    mean_age: float
    male: float
    age_known: int
    age_error: float | None
    gender_known: int
    gender_recall: float | None


def guesses(scorer: LabelScorer, records: Sequence[FaceRecord]) -> list[Guess]:
    """The model's guess for each face or clip, as one batch; nothing is generated.

    The lead of the answer is given to the model ("Age:"), so it cannot refuse, and the likeliest
    label is taken: what its written answer would say.
    """
    items = [record.faces() if record.media == "clip" else record.faces()[0] for record in records]
    tables = [
        scorer.score(
            [
                face_conversation("video" if record.media == "clip" else "image", question)
                for record in records
            ],
            items,
            [answer] * len(items),
        )
        for question, answer in (
            (TASKS["age"].canonical_question, AGE_ANSWER),
            (MALE_QUESTION, MALE_ANSWER),
        )
    ]
    return [
        Guess(int(max(ages, key=lambda year: ages[year])), attributes[MALE])
        for ages, attributes in zip(*tables, strict=True)
    ]


def summarised(records: Sequence[FaceRecord], guessed: Sequence[Guess]) -> Apparent:
    """The guesses of at least one face as a table, with their error where the source knows."""
    decades = Counter(guess.age // 10 * 10 for guess in guessed)
    ages = [
        (record.labels["age"], guess.age)
        for record, guess in zip(records, guessed, strict=True)
        if isinstance(record.labels.get("age"), int)
    ]
    genders = [
        (said, guess.male > 0.5)
        for record, guess in zip(records, guessed, strict=True)
        if (said := _said_male(record)) is not None
    ]
    both = len({said for said, _ in genders}) == 2
    return Apparent(
        faces=len(guessed),
        ages={decade: decades[decade] for decade in DECADES},
        mean_age=sum(guess.age for guess in guessed) / len(guessed),
        male=sum(guess.male > 0.5 for guess in guessed) / len(guessed),
        age_known=len(ages),
        age_error=mae(*zip(*ages, strict=True)) if ages else None,
        gender_known=len(genders),
        gender_recall=uar(*zip(*genders, strict=True)) if both else None,
    )


def _said_male(record: FaceRecord) -> bool | None:
    """What the source says, as a person's trait or as CelebA's attribute."""
    gender = record.demographics.get("gender")
    if gender in ("male", "female"):
        return bool(gender == "male")
    said = record.labels.get("attributes", {}).get(MALE)
    return said if isinstance(said, bool) else None
