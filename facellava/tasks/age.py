"""Age in whole years, 0 to 116: the range of UTKFace's labels."""

from __future__ import annotations

import re
from typing import Final

from facellava.tasks.grammar import Grammar
from facellava.tasks.task import Label, Task, every_claim

OLDEST: Final = 116
AGES: Final = range(OLDEST + 1)

_YEARS: Final = re.compile(r"(1) year|(0|[2-9]|[1-9][0-9]{1,2}) years")


def _check(label: object) -> Label:
    # bool is an int in Python, and true is no age.
    if isinstance(label, int) and not isinstance(label, bool) and label in AGES:
        return label
    raise ValueError(f"unknown label {label!r}, allowed are whole years from 0 to {OLDEST}")


def _write(label: Label) -> str:
    return "1 year" if label == 1 else f"{label} years"


def _read(words: str) -> object:
    found = _YEARS.fullmatch(words)
    if found is None:
        raise ValueError(f"{words!r} is not a number of years, such as '34 years'")
    return int(found.group(1) or found.group(2))


QUESTIONS: Final = Grammar(
    templates=(
        "how old {is_he}{here}?",
        "how old {is_he}?",
        "how old {does_he} look{here}?",
        "how old {does_he} seem?",
        "how old {does_he} appear to be{here}?",
        "how old would you say {he_is}?",
        "how old do you think {he_is}{here}?",
        "how old might {he} be{here}?",
        "how old could {he} be?",
        "how old is {face}?",
        "how old does {face} look?",
        "how many years old {is_he}?",
        "how many years {has_he} lived?",
        "what is {his} {age}{here}?",
        "what's {his} {age}?",
        "what {age} {is_he}?",
        "what {age} {does_he} look{here}?",
        "what {age} would you give {him}?",
        "what {age} would you guess{here}?",
        "what {age} do you think {he_is}?",
        "what is the {age} of {him}?",
        "what {age} group {is_he} in?",
        "which {age} group {does_he} belong to?",
        "what age range {is_he} in?",
        "what is the {rough} {age}{here}?",
        "what's the {rough} {age} of {face}?",
        "which {age} fits {face} best?",
        "{estimate} {his} {age}.",
        "{estimate} the {age} of {him}.",
        "{estimate} the {age}{here}.",
        "{estimate} how old {he_is}.",
        "{can_you} {estimate} {his} {age}?",
        "{can_you} {estimate} the {age} of {him}?",
        "{can_you} {estimate} how old {he_is}{here}?",
        "{can_you} {tell} how old {he_is}?",
        "{can_you} {tell} {his} {age}?",
        "{tell} {his} {age}{here}.",
        "{tell} how old {he_is}.",
        "{wonder} how old {he_is}{here}?",
        "{wonder} what {age} {he_is}?",
        "{wonder} {his} {age}?",
        "{wonder} if {he_is} over {number}?",
        "{is_he} {over} {number}?",
        "{is_he} {number}?",
        "{is_he} {number} years old?",
        "{is_he} {over} {number} years old?",
        "{is_he} {number} or {number}?",
        "{does_he} look {over} {number}?",
        "{is_he} {group}{here}?",
        "{is_he} {group} or {group}?",
        "{does_he} look like {group}?",
        "{is_he} in {his} {decade}?",
        "{is_he} old enough to {drink}?",
        "{is_he} of legal age?",
        "{is_he} young or old?",
        "{is_he} old?",
        "{is_he} very old?",
        "{is_he} underage?",
        "{is_he} a minor?",
        "{age}?",
        "{age} please.",
        "{his} {age}?",
        "{age} of {him}?",
        "the {age}?",
        "{age} estimate?",
        "{age} in years?",
        "years?",
        "how old?",
        "how old",
        "old?",
        "{age} estimation please.",
        "run {age} estimation on {this_photo}.",
        "predict the {age}.",
        "look at {face}: how old?",
        "look at {this_photo}. what is {his} {age}?",
        "give me a number: how old {is_he}?",
        "in years, how old {is_he}?",
        "in which decade of life {is_he}?",
        "roughly how old {is_he}?",
        "about how old {is_he}{here}?",
        "when was this person born, roughly?",
        "what birth year would you guess?",
        "based on the face, how old {is_he}, and why?",
        "which facial cues tell {his} {age}?",
        "{does_he} look {his} age?",
        "does {face} look older than {number}?",
        "is {face} younger than {number}?",
        "what {age} does {this_photo} suggest?",
        "what {age} does {face} suggest?",
        "how aged does {face} look?",
        "at what {age} was {this_photo} taken?",
        "what generation {is_he}?",
        "which generation {is_he} from, by {his} {age}?",
        "would {he} be asked for an id to prove {his} {age}?",
        "how many candles on {his} birthday cake?",
        "is {face} {number} or {number}?",
        "{is_he} closer to {number} or {number}?",
        "{is_he} in {his} early or late {decade}?",
        "how young {is_he}?",
        "would you card {him}?",
        "would a bartender card {him}?",
        "how young {does_he} look?",
        "{is_he} {number}ish?",
        "to the nearest year, how old {is_he}?",
    ),
    slots={
        "age": ("age", "age", "age", "age", "approximate age", "apparent age", "estimated age"),
        "rough": (
            "rough", "approximate", "likely", "probable", "apparent", "most likely", "biological",
        ),
        "face": ("this face", "the face", "that face", "{his} face", "the one in {this_photo}"),
        "estimate": (
            "estimate", "guess", "predict", "determine", "judge", "give", "assess", "work out",
            "tell me", "state", "approximate", "figure out", "identify",
        ),
        "over": (
            "over", "under", "above", "below", "older than", "younger than", "at least", "past",
        ),
        "number": (
            "5", "10", "12", "13", "16", "18", "20", "21", "25", "30", "35", "40", "45", "50", "55",
            "60", "65", "70", "80", "90", "thirty", "forty", "fifty", "sixty", "eighteen",
        ),
        "group": (
            "a child", "a teenager", "an adult", "a baby", "a toddler", "a senior", "elderly",
            "a kid", "a teen", "middle-aged", "middle aged", "an old person", "a grown-up",
            "a pensioner", "a young adult", "an infant", "a grandparent's age",
        ),
        "decade": (
            "teens", "twenties", "thirties", "forties", "fifties", "sixties", "20s", "30s", "40s",
            "50s", "60s",
        ),
        "drink": (
            "drink", "vote", "drive", "retire", "go to school", "buy beer", "be a grandparent",
        ),
    },
)  # fmt: skip

FOLLOW_UPS: Final = Grammar(
    templates=(
        "and how old?", "and how old {is_he}?", "and {his} {age}?", "and the {age}?", "and {age}?",
        "what about {his} {age}?", "what about the {age}?", "how about {age}?",
        "also, how old {is_he}?", "ok, and {his} {age}?", "now the {age}.",
        "now tell me the {age}.", "next: {age}?", "thanks. how old {is_he}?",
        "then how old {is_he}?", "so how old {is_he}?", "and {is_he} {over} {number}?",
        "one more thing: how old {is_he}?", "back to {his} {age}.", "but how old {does_he} look?",
        "great, and the {age}?", "and in years?", "{is_he} {group} then?", "how old then?",
    ),
    slots=QUESTIONS.slots,
)  # fmt: skip

_AGE_WORDS: Final = tuple(f" {years}" for years in AGES)

# Youngest age of each band, and what its skin and shape show.
_BANDS: Final[dict[int, tuple[str, ...]]] = {
    0: (
        "cheeks_smooth", "folds_soft", "under_eyes_smooth", "eye_corners_smooth", "face_broad",
        "forehead_smooth", "glabella_smooth", "jaw_raised", "brows_faint",
    ),
    13: (
        "cheeks_smooth", "under_eyes_smooth", "eye_corners_smooth", "forehead_smooth",
        "folds_soft", "glabella_smooth", "no_under_eye_bags", "lips_full",
    ),
    30: (
        "folds_deep", "under_eye_bags", "under_eyes_lined", "beard_dark", "forehead_smooth",
        "glabella_smooth", "cheeks_lined", "eye_corners_lined", "face_long",
    ),
    50: (
        "forehead_lined", "eye_corners_lined", "under_eyes_lined", "folds_deep", "cheeks_lined",
        "glabella_lined", "under_eye_bags", "lips_thin", "hair_light", "brows_faint",
    ),
}  # fmt: skip
CLAIMS_FOR: Final[dict[str, tuple[str, ...]]] = {
    str(years): _BANDS[max(start for start in _BANDS if start <= years)] for years in AGES
}

AGE: Final = Task(
    name="age",
    title="Age",
    labels=tuple(str(years) for years in AGES),
    canonical_question="How old is this person?",
    questions=QUESTIONS,
    follow_ups=FOLLOW_UPS,
    label_schema={"type": "integer", "minimum": 0, "maximum": OLDEST},
    check=_check,
    write=_write,
    read=_read,
    closed_words=_AGE_WORDS,
    scored_words=_AGE_WORDS,
    claim_ids=every_claim(CLAIMS_FOR),
    claims_for=CLAIMS_FOR,
)
