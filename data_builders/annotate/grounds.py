"""Which measured claims an answer may rest on: for its label, against it, or neither.

Only claims that hold on the face with a margin are considered. What speaks for a label is the
tasks' table (`Task.claims_for`); what speaks against it follows from that table: a claim on the
other side of the same measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from facellava.errors import BadSample
from facellava.evidence import CLAIMS, Claim, holding_claims
from facellava.faces.measurements import Measurement
from facellava.tasks import TASKS, Label, Task

MARGIN: Final = 1.0  # dead bands that a value must lie on the claim's side of its threshold
# A claim of a band cannot lie far inside it: it must lie within this share of the half width.
BAND_SHARE: Final = 0.5

# Measurements that a reader takes for one thing; an answer names each topic once.
_TOPICS: Final[dict[str, str]] = {
    "inner_brow_height": "brow_height_mean",
    "outer_brow_height": "brow_height_mean",
    "lip_corner_asymmetry": "lip_corner_height",
    "teeth_brightness": "mouth_darkness",
    "lip_contrast": "lip_redness",
    "under_eye_folds": "under_eye_lines",
    "forehead_cover": "forehead_darkness",
    "cheek_redness": "skin_brightness",
    "colourfulness": "skin_brightness",
    "noise_step": "grain",
}
# True of a face and no reason for anything but its own label.
_NEVER_IN_PASSING: Final = frozenset({"skin_dark", "skin_light"})
# What is true of a face and says nothing; for answers that have no second claim otherwise.
_PLAIN: Final = (
    "facing_camera", "turned_left", "turned_right", "head_level", "head_raised", "head_lowered",
    "mouth_closed", "lips_parted", "lip_corners_level", "mouth_even", "brows_at_rest",
    "brows_even", "eyes_usual",
)  # fmt: skip
# Keys of `Task.claims_for` for a face at rest; their claims may stand beside any label.
_NO_UNITS: Final = "none"
_AT_REST: Final = {"expression": "neutral", "action_units": _NO_UNITS}


@dataclass(frozen=True)
class Sides:
    """What the tasks' table says about a label.

    Attributes:
        speaking: claim ids that speak for the label, strongest first.
        against: claim ids that speak against it.
        elsewhere: claim ids that speak for another expression or for action units that the label
            does not hold: true or not, no answer names them in passing.
    """

    speaking: tuple[str, ...]
    against: frozenset[str]
    elsewhere: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Grounds:
    """Claims that hold on one face, sorted by what they mean for one label.

    Attributes:
        speaking: for the label, best first (see :func:`grounds_of`).
        close: neither for nor against, about a region that the label is about.
        neutral: neither for nor against, about other regions.
        plain: neither for nor against and nothing that the task speaks of, as a last resort.
        against: against the label, best first.
    """

    speaking: tuple[Claim, ...]
    close: tuple[Claim, ...]
    neutral: tuple[Claim, ...]
    plain: tuple[Claim, ...]
    against: tuple[Claim, ...]


def topic(claim: Claim) -> str:
    """What the claim is about; two claims of one topic say nearly the same."""
    return _TOPICS.get(claim.measurement, claim.measurement)


def grade(claim: Claim, strength: float) -> int:
    """How clearly a claim holds: 1, 2 or 3 dead bands, or 1 or 2 for a claim of a band."""
    if claim.direction:
        return min(int(strength), 3)
    return 2 if strength * claim.dead_band >= 0.75 * claim.width else 1


def held_claims(measurements: Mapping[str, Measurement]) -> dict[str, int]:
    """Claims that hold with a margin beyond the dead band: id to :func:`grade`."""
    held = {}
    for claim, strength in holding_claims(measurements, margin=0.0):
        band = BAND_SHARE * claim.width / claim.dead_band
        if strength >= (MARGIN if claim.direction else band):
            held[claim.id] = grade(claim, strength)
    return held


def sides(task: Task, label: Label) -> Sides:
    """The claims for and against a label of the task.

    A claim of a band ("the lip corners are level") never speaks against a label: it says that
    nothing stands out. Where the claims for several parts of a label (40 attributes, several
    action units) disagree, the majority decides. In a list of attributes, those that are there
    come first.
    """
    words = _label_words(task, label)
    votes: dict[str, int] = {}
    rank: dict[str, tuple[bool, int]] = {}
    for word in words:
        named = task.claims_for.get(word, ())
        for place, claim_id in enumerate(named):
            votes[claim_id] = votes.get(claim_id, 0) + 1
            here = (isinstance(label, dict) and not word.endswith(" yes"), place)
            rank[claim_id] = min(rank.get(claim_id, here), here)
        for claim_id in _opposed(named):
            votes[claim_id] = votes.get(claim_id, 0) - 1
    passing = _NEVER_IN_PASSING if len(words) > 1 else ()
    speaking = [claim_id for claim_id in rank if votes[claim_id] > 0 and claim_id not in passing]
    return Sides(
        speaking=tuple(sorted(speaking, key=rank.__getitem__)),
        against=frozenset(claim_id for claim_id, balance in votes.items() if balance < 0),
        elsewhere=_signs_of_others(task.name, words) if task.name in _AT_REST else frozenset(),
    )


def grounds_of(
    task: Task, label: Label, held: Mapping[str, int], near: Collection[str] = ()
) -> Grounds:
    """Sorts the claims that hold by what they mean for the label.

    The order of speaking claims is fixed, so that a small model can learn it: claims that hold
    most clearly first, those of equal grade in the order of the tasks' table.

    Args:
        held: from :func:`held_claims`.
        near: face regions to be named first, such as those of a blend; empty for no preference.
    """
    table = sides(task, label)

    def best_first(ids: Sequence[str]) -> tuple[Claim, ...]:
        claims = [CLAIMS[claim_id] for claim_id in ids if claim_id in held]
        far = {claim.id: bool(near) and not set(near) & set(claim.regions) for claim in claims}
        return tuple(sorted(claims, key=lambda claim: (far[claim.id], -held[claim.id])))

    decided = {*table.speaking, *table.against, *table.elsewhere, *_NEVER_IN_PASSING}
    open_ids = [claim_id for claim_id in CLAIMS if claim_id in held and claim_id not in decided]
    beside = [CLAIMS[claim_id] for claim_id in open_ids if claim_id in task.claim_ids]
    about = {
        region
        for claim_id in (*table.speaking, *table.against)
        for region in CLAIMS[claim_id].regions
    }
    return Grounds(
        speaking=best_first(table.speaking),
        close=tuple(claim for claim in beside if about & set(claim.regions)),
        neutral=tuple(claim for claim in beside if not about & set(claim.regions)),
        plain=tuple(CLAIMS[claim_id] for claim_id in _PLAIN if claim_id in open_ids),
        against=best_first([claim_id for claim_id in CLAIMS if claim_id in table.against]),
    )


def unit_of(task: Task, label: Label, claim: Claim) -> str | None:
    """The first action unit of the label that the claim speaks for; None for other tasks."""
    if not isinstance(label, tuple):
        return None
    return next((unit for unit in label if claim.id in task.claims_for[unit]), None)


def _label_words(task: Task, label: Label) -> tuple[str, ...]:
    """The keys of `Task.claims_for` that make up a label."""
    if isinstance(label, dict):
        return tuple(f"{name} {'yes' if present else 'no'}" for name, present in label.items())
    if isinstance(label, tuple):
        return label or (_NO_UNITS,)
    if label is None:
        raise BadSample(f"A sample of task {task.name!r} has no label; no claim can speak for it.")
    return (str(label),)


@cache
def _opposed(named: tuple[str, ...]) -> frozenset[str]:
    """Claims with a side of their own on another side of a named claim's measurement."""
    directions: dict[str, set[int]] = {}
    for claim_id in named:
        claim = CLAIMS[claim_id]
        directions.setdefault(claim.measurement, set()).add(claim.direction)
    return frozenset(
        claim.id
        for claim in CLAIMS.values()
        if claim.direction
        and claim.measurement in directions
        and claim.direction not in directions[claim.measurement]
    )


@cache
def _signs_of_others(name: str, words: tuple[str, ...]) -> frozenset[str]:
    """Claims that speak for other labels of the task only, those of a face at rest left out."""
    table = TASKS[name].claims_for
    allowed = {claim_id for word in (*words, _AT_REST[name]) for claim_id in table[word]}
    return frozenset(
        claim_id
        for word, named in table.items()
        if word not in words
        for claim_id in named
        if claim_id not in allowed
    )
