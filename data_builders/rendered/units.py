"""Which expression shape shows which action unit, and how a face's units are drawn.

A shape stands for a unit where its motion is the one that the Facial Action Coding System (Ekman,
Friesen and Hager, 2002) describes for that unit; the offsets of the 68 points were compared with
that description. Intensities run from 0 to 5 as FACS counts A to E, in proportion to the weight.
AU23 (lip tightener) has no shape of its own and is left uncoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from facellava.tasks.action_units import UNION

HIGHEST: Final = 5.0
ACTIVE: Final = 2.0  # DISFA's rule: a unit of intensity 2 or more counts


@dataclass(frozen=True)
class UnitShape:
    """How one action unit is made.

    Attributes:
        shapes: shape names without side to the weight at intensity 5.
        reason: what FACS says of the unit and the shape does.
        paired: the shapes end in "_L" and "_R".
    """

    shapes: Mapping[str, float]
    reason: str
    paired: bool = True


UNIT_SHAPES: Final[dict[str, UnitShape]] = {
    "AU1": UnitShape(
        {"browInnerUp": 1.0}, "raises the inner ends of the brows, the outer ends stay"
    ),
    "AU2": UnitShape({"browOuterUp": 1.0}, "raises and arches the outer part of the brows"),
    "AU4": UnitShape({"browDown": 1.0}, "lowers the brows and draws them together"),
    "AU6": UnitShape(
        {"cheekSquint": 1.0},
        "lifts the cheeks, narrows the eye from below and the side, lowers the brows' outer ends",
    ),
    "AU7": UnitShape({"eyeSquint": 1.0}, "raises and tightens the lower lids, the cheeks stay"),
    "AU9": UnitShape(
        {"noseSneer": 1.0},
        "pulls the sides of the nose up, with them the upper lip, and the inner brows down",
    ),
    "AU10": UnitShape({"mouthUpperUp": 1.0}, "lifts the upper lip, the nose stays"),
    "AU12": UnitShape({"mouthSmile": 1.0}, "pulls the lip corners back and upwards"),
    "AU14": UnitShape({"mouthDimple": 1.0}, "tightens the lip corners inwards against the teeth"),
    "AU15": UnitShape({"mouthFrown": 1.0}, "pulls the lip corners down"),
    "AU17": UnitShape(
        # Without the second one the lower lip would run into the upper one that it pushes up.
        {"mouthShrugLower": 1.0, "mouthShrugUpper": 1.0},
        "pushes chin and lower lip up",
        paired=False,
    ),
    "AU24": UnitShape({"mouthPress": 1.0}, "presses the lips together and makes them thin"),
    "AU25": UnitShape(
        {"mouthLowerDown": 1.0}, "parts the lips by lowering the lower one, the jaw stays"
    ),
    "AU26": UnitShape(
        # At weight 1 the jaw drops by 28 mm, which FACS calls AU27, mouth stretch.
        {"jawOpen": 0.5},
        "lowers the jaw as when its muscles relax",
        paired=False,
    ),
}
CODED: Final = tuple(unit for unit in UNION if unit in UNIT_SHAPES)

PARTED_AT_REST: Final = 0.08  # model units between the inner lip points of the neutral face
FULLY_PARTED: Final = 1.0  # more than at rest, for intensity 5 of AU25

# Seen together in acted and spontaneous expressions (EMFACS; Du, Tao & Martinez, PNAS 2014).
COMBINATIONS: Final = (
    ("AU6", "AU12"), ("AU6", "AU12", "AU25"), ("AU12", "AU25"), ("AU12",), ("AU1", "AU2"),
    ("AU1", "AU2", "AU25", "AU26"), ("AU1", "AU4"), ("AU1", "AU4", "AU15"),
    ("AU1", "AU4", "AU15", "AU17"), ("AU1", "AU2", "AU4", "AU25"), ("AU4", "AU7"),
    ("AU4", "AU7", "AU24"), ("AU4", "AU17", "AU24"), ("AU9",), ("AU9", "AU10", "AU25"),
    ("AU4", "AU9", "AU17"), ("AU10", "AU17"), ("AU14",), ("AU15", "AU17"), ("AU25", "AU26"),
    ("AU6", "AU7", "AU12", "AU25", "AU26"), ("AU6", "AU9", "AU25"),
)  # fmt: skip
APART: Final = tuple(
    frozenset(pair)
    for pair in (
        ("AU24", "AU25"), ("AU24", "AU26"), ("AU24", "AU9"), ("AU24", "AU10"), ("AU17", "AU25"),
        ("AU17", "AU26"), ("AU12", "AU15"), ("AU14", "AU26"),
    )
)  # fmt: skip
"""Pairs whose shapes undo each other: with both, neither would be seen."""

# Motions outside the set, so that a model does not take every motion for a unit of it. None is
# near a coded unit: AU5, AU18, AU20, AU34, AU30.
OTHER_SHAPES: Final = {
    "eyeWide": True, "mouthPucker": False, "mouthStretch": True, "cheekPuff": True,
    "jawLeft": False, "jawRight": False,
}  # fmt: skip
NO_UNIT: Final = 0.12
COMBINED: Final = 0.5
ONE_SIDED: Final = 0.07
ASYMMETRY: Final = 0.12  # of the weaker side, at most
CLOSED_JAW: Final = 0.12  # of the dropped jaws: the lips stay shut
OTHER_MOTION: Final = 0.2
EYES_SHUT: Final = 0.04
LIDS_COVER_TIGHTENING: Final = 0.5


@dataclass(frozen=True)
class Expression:
    """What a face does.

    Attributes:
        weights: shape name to weight.
        intensities: coded unit to (0, 5], AU25 not among them: it is measured.
        lids: how far the eyes are shut, 0 to 1.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    intensities: Mapping[str, float] = field(default_factory=dict)
    lids: float = 0.0


def unit_weights(unit: str, right: float, left: float) -> dict[str, float]:
    """Shape weights of one unit at intensities 0 to 5 of the person's two sides."""
    made = UNIT_SHAPES[unit]
    if not made.paired:
        return {name: full * max(right, left) / HIGHEST for name, full in made.shapes.items()}
    sides = {"R": right, "L": left}
    return {
        f"{name}_{side}": full * intensity / HIGHEST
        for name, full in made.shapes.items()
        for side, intensity in sides.items()
    }


def shape_names() -> set[str]:
    """Every shape that :func:`draw_expression` may ask for."""
    names = {name for unit in UNIT_SHAPES for name in unit_weights(unit, 1, 1)}
    for name, paired in OTHER_SHAPES.items():
        names |= {f"{name}_R", f"{name}_L"} if paired else {name}
    looks = ("eyeBlink", "eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut")
    return names | {f"{name}_{side}" for name in looks for side in "RL"} | {"mouthClose"}


def draw_expression(rng: np.random.Generator) -> Expression:
    """Up to five action units with intensities, and motions that no unit of the set names."""
    weights: dict[str, float] = {}
    intensities: dict[str, float] = {}
    level = rng.uniform(1.0, HIGHEST)
    for unit in _units(rng):
        intensity = float(np.clip(level + rng.normal(0, 0.9), 0.6, HIGHEST))
        weaker = 0.0 if rng.random() < ONE_SIDED else 1 - rng.uniform(0, ASYMMETRY)
        sides = (intensity, intensity * weaker)
        right, left = sides if rng.random() < 0.5 else sides[::-1]
        weights |= unit_weights(unit, right, left)
        if unit != "AU25":
            intensities[unit] = intensity
    if "AU26" in intensities and "AU25" not in intensities and rng.random() < CLOSED_JAW:
        weights = {name: w for name, w in weights.items() if "mouthLowerDown" not in name}
        weights["mouthClose"] = weights["jawOpen"]
    if {"AU9", "AU10"} & set(intensities):
        weights.pop("mouthShrugUpper", None)  # the upper lip is out of the lower one's way
    lids = _other_motions(rng, weights)
    return Expression(weights, intensities, lids)


def _units(rng: np.random.Generator) -> list[str]:
    """Names without pairs that undo each other."""
    if rng.random() < NO_UNIT:
        return []
    if rng.random() < COMBINED:
        row = COMBINATIONS[rng.integers(len(COMBINATIONS))]
        return [unit for unit in row if rng.random() < 0.9]
    wanted = int(rng.integers(1, 6))
    units: list[str] = []
    for unit in rng.permutation(CODED):
        if len(units) < wanted and not any({unit, other} in APART for other in units):
            units.append(str(unit))
    return units


def _other_motions(rng: np.random.Generator, weights: dict[str, float]) -> float:
    """Adds lids, gaze and, in some faces, a motion outside the set; returns how shut the eyes are.

    Raised lids need open eyes, and a mouth that moves otherwise would hide the units of a mouth
    that is already moving.
    """
    lids = 1.0 if rng.random() < EYES_SHUT else float(np.clip(rng.normal(0.04, 0.06), 0, 0.25))
    weights |= {"eyeBlink_R": lids, "eyeBlink_L": lids}
    across, up = rng.normal(0, 0.35, 2)
    side = ("eyeLookIn_R", "eyeLookOut_L") if across > 0 else ("eyeLookOut_R", "eyeLookIn_L")
    weights |= dict.fromkeys(side, float(min(abs(across), 1)))
    if lids < LIDS_COVER_TIGHTENING:
        height = "eyeLookUp" if up > 0 else "eyeLookDown"
        weights |= {f"{height}_{eye}": float(min(abs(up), 0.7)) for eye in "RL"}
    if rng.random() < OTHER_MOTION:
        name = str(rng.choice(list(OTHER_SHAPES)))
        moving = any(shape.startswith(("mouth", "jaw")) for shape in weights)
        if name == "eyeWide" and lids < LIDS_COVER_TIGHTENING or name != "eyeWide" and not moving:
            strength = float(rng.uniform(0.2, 0.9))
            weights |= (
                {f"{name}_R": strength, f"{name}_L": strength}
                if OTHER_SHAPES[name]
                else {name: strength}
            )
    return lids


def unit_labels(expression: Expression, lip_gap: float) -> dict[str, Any]:
    """The labels of a face that does this, its lips `lip_gap` model units apart.

    AU25 is what the lips show, whatever parted them: jaw, upper lip or lower lip.
    """
    parted = (lip_gap - PARTED_AT_REST) / FULLY_PARTED * HIGHEST
    intensities = dict(expression.intensities)
    if parted > 0:
        intensities["AU25"] = min(parted, HIGHEST)
    unclear = set()
    if "AU24" in intensities and "AU17" not in intensities:
        unclear.add("AU17")  # this shape of AU24 also lifts the chin, half as far as AU17
    if expression.lids >= LIDS_COVER_TIGHTENING:
        unclear.add("AU7")  # tight lids cannot be told in shut eyes
        unclear.add("AU6")
    coded = [unit for unit in CODED if unit not in unclear]
    return {
        "action_units": [unit for unit in coded if intensities.get(unit, 0) >= ACTIVE],
        "action_units_coded": coded,
        "action_unit_intensity": {
            unit: round(intensities[unit], 2) for unit in coded if unit in intensities
        },
    }
