"""Claims in a text, measured on the face: supported, contradicted or unmeasurable.

The model writes clauses of the inventory; this module finds them, reads the face again and says
what the numbers say. Nothing in the text is ever changed. A denied or quoted claim ("it is not so
that ...") is read as the claim: the annotator writes no such sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from facellava.claims import CLAIMS, Claim
from facellava.faces.face import Face
from facellava.faces.measurements import MEASUREMENTS, Measurement, measure

__all__ = [
    "CLAIMS", "Claim", "Evidence", "Verdict", "action_units", "check", "find_claims",
    "holding_claims", "supported_claims", "verdict", "verify",
]  # fmt: skip

Verdict = Literal["supported", "contradicted", "unmeasurable"]
WEAK_NOTE: Final = "weak landmarks"
SHORT_NOTE: Final = "too close to the threshold"


@dataclass(frozen=True)
class Evidence:
    """One claim of a text and what its face says about it.

    Attributes:
        claim: id in CLAIMS.
        phrase: the words as they stand in the text.
        span: their start and end in the text.
        regions: face regions that the claim is about.
        measurement: id in facellava.faces.measurements.MEASUREMENTS.
        value: the measured value; None where it could not be measured.
        unit: of value, threshold, width and dead_band.
        threshold: the claim's threshold, or the centre of its band.
        direction: +1 above the threshold, -1 below it, 0 within `width` of it.
        width: half the band's width where direction is 0.
        dead_band: how far short of the threshold nothing is said.
        verdict: "supported", "contradicted" or "unmeasurable".
        note: why it is unmeasurable, or that the landmarks are weak.
    """

    claim: str
    phrase: str
    span: tuple[int, int]
    regions: tuple[str, ...]
    measurement: str
    value: float | None
    unit: str
    threshold: float
    direction: int
    width: float
    dead_band: float
    verdict: Verdict
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tuples become lists."""
        fields = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


_BY_PHRASE: Final = {phrase: claim for claim in CLAIMS.values() for phrase in claim.phrases}
# Longest first, so that the longer clause wins where two begin alike.
_PHRASES: Final = re.compile(
    r"\b(?:"
    + "|".join(
        r"\s+".join(map(re.escape, phrase.split()))
        for phrase in sorted(_BY_PHRASE, key=len, reverse=True)
    )
    + r")\b",
    re.IGNORECASE,
)


def find_claims(text: str) -> list[tuple[Claim, tuple[int, int]]]:
    """The inventory's clauses in a text, in order, with (start, end) of each.

    Case and line breaks do not matter; the words must be the inventory's.
    """
    return [
        (_BY_PHRASE[" ".join(found.group().lower().split())], found.span())
        for found in _PHRASES.finditer(text)
    ]


def verdict(claim: Claim, measurement: Measurement) -> Verdict:
    """Supported on the claim's side of the threshold, contradicted beyond the dead band.

    Between the threshold and the dead band's end, or without a value: unmeasurable.
    """
    if measurement.value is None:
        return "unmeasurable"
    excess = claim.excess(measurement.value)
    if excess >= 0:
        return "supported"
    return "contradicted" if excess < -1 else "unmeasurable"


def check(text: str, measurements: Mapping[str, Measurement]) -> list[Evidence]:
    """Every claim of the text against measurements made before."""
    return [_weigh(text, claim, span, measurements) for claim, span in find_claims(text)]


def verify(text: str, face: Face) -> list[Evidence]:
    """Every claim of the text against the face, measured now."""
    return check(text, measure(face)) if _PHRASES.search(text) else []


def _weigh(
    text: str, claim: Claim, span: tuple[int, int], measurements: Mapping[str, Measurement]
) -> Evidence:
    measurement = measurements[claim.measurement]
    decided = verdict(claim, measurement)
    notes = [measurement.note] if measurement.value is None else []
    if measurement.value is not None and decided == "unmeasurable":
        notes.append(SHORT_NOTE)
    if measurement.weak:
        notes.append(WEAK_NOTE)
    return Evidence(
        claim=claim.id,
        phrase=text[slice(*span)],
        span=span,
        regions=claim.regions,
        measurement=claim.measurement,
        value=measurement.value,
        unit=claim.unit,
        threshold=claim.threshold,
        direction=claim.direction,
        width=claim.width,
        dead_band=claim.dead_band,
        verdict=decided,
        note="; ".join(notes),
    )


def supported_claims(measurements: Mapping[str, Measurement]) -> frozenset[str]:
    """Ids of the claims that may be said of the face."""
    return frozenset(claim.id for claim, _ in holding_claims(measurements, margin=0.0))


def holding_claims(
    measurements: Mapping[str, Measurement], margin: float = 1.0
) -> list[tuple[Claim, float]]:
    """Claims that hold by at least `margin` dead bands, the strongest first.

    The second value is the strength: how far the value lies on the claim's side of the threshold,
    in dead bands. A band's strength ends at half its width.
    """
    held = []
    for claim in CLAIMS.values():
        value = measurements[claim.measurement].value
        if value is not None and (strength := claim.excess(value)) >= margin:
            held.append((claim, strength))
    return sorted(held, key=lambda pair: -pair[1])


@dataclass(frozen=True)
class _Rule:
    """One condition of an action unit: a measurement beyond a threshold."""

    measurement: str
    direction: int
    threshold: float


# Weak readings: a face at rest is not known, so a person with high brows reads as AU1. Left out are
# AU14 (dimples), AU17 (chin boss): neither 68 points nor these patches show them.
ACTION_UNIT_RULES: Final[dict[str, tuple[_Rule, ...]]] = {
    "AU1": (_Rule("inner_brow_height", 1, 0.34),),
    "AU2": (_Rule("outer_brow_height", 1, 0.33),),
    "AU4": (_Rule("inner_brow_height", -1, 0.27), _Rule("brow_gap", -1, 0.36)),
    "AU6": (_Rule("lip_corner_height", 1, 0.075), _Rule("eye_opening_mean", -1, 0.29)),
    "AU7": (_Rule("eye_opening_mean", -1, 0.245),),
    "AU9": (_Rule("nose_to_lip", -1, 0.17), _Rule("inner_brow_height", -1, 0.253)),
    "AU10": (_Rule("nose_to_lip", -1, 0.15), _Rule("lip_corner_height", -1, 0.05)),
    "AU12": (_Rule("lip_corner_height", 1, 0.075), _Rule("mouth_width", 1, 0.9)),
    "AU15": (_Rule("lip_corner_height", -1, -0.01),),
    "AU20": (_Rule("mouth_width", 1, 0.9), _Rule("lip_corner_height", -1, 0.025)),
    "AU23": (_Rule("lip_thickness", -1, 0.2), _Rule("mouth_width", -1, 0.83)),
    "AU24": (_Rule("lip_thickness", -1, 0.2), _Rule("mouth_opening", -1, 0.02)),
    "AU25": (_Rule("mouth_opening", 1, 0.09),),
    "AU26": (_Rule("mouth_opening", 1, 0.15), _Rule("jaw_drop", 1, 1.03)),
}
"""The action units that measurements bear on, with all conditions that must hold."""


def action_units(measurements: Mapping[str, Measurement]) -> dict[str, float]:
    """Action units that the measurements speak for, with a strength in dead bands.

    A weak reading from one picture, for answers marked as such; no accuracy is claimed.
    The strength is that of the unit's weakest condition. Units whose conditions fail or cannot be
    measured are not in the result.
    """
    read = {}
    for unit, rules in ACTION_UNIT_RULES.items():
        strengths = []
        for rule in rules:
            value = measurements[rule.measurement].value
            band = MEASUREMENTS[rule.measurement].dead_band
            strengths.append(
                -1.0 if value is None else rule.direction * (value - rule.threshold) / band
            )
        if min(strengths) > 0:
            read[unit] = min(strengths)
    return read
