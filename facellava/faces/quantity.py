"""What a measurement is: its written definition, and its value on one face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Seen = TypeVar("Seen")


class Unmeasurable(Exception):
    """Raised inside a measurement's formula; becomes the note of a Measurement without value."""


@dataclass(frozen=True)
class MeasurementSpec(Generic[Seen]):
    """A measurable quantity of a face.

    Attributes:
        id: stable name, as stored in corpora and shown beside evidence.
        regions: names of facellava.regions.REGIONS that a picture of the evidence marks.
        formula: the definition in words.
        unit: "eye distances" (between the eye centres, with the pose taken out), "degrees",
            "ratio", "percent" (of the local brightness) or "levels" (CIELAB steps, 0 to 255).
        dead_band: smallest difference that means something, in the unit. Measured on a photo and
            on its mirror, fitted anew, four of five faces differ by less (400 faces of CelebA and
            UTKFace); rounded up, most for pixel quantities, which a mirror hardly changes.
        action_units: FACS action units that the quantity bears on, if any.
        compute: the formula in code.
        smallest_native_size: photo pixels along the crop's side that it needs.
        largest_yaw: degrees of turn up to which the value is given.
        largest_pitch: degrees of nod up to which the value is given.
    """

    id: str
    regions: tuple[str, ...]
    formula: str
    unit: str
    dead_band: float
    action_units: tuple[int, ...]
    compute: Callable[[Seen], float]
    smallest_native_size: float = 0.0
    largest_yaw: float = 35.0
    largest_pitch: float = 30.0


@dataclass(frozen=True)
class Measurement:
    """One quantity of one face.

    Attributes:
        id: key of MEASUREMENTS.
        value: in `unit`; None where it could not be measured.
        unit: as in the definition.
        note: why there is no value; empty where there is one.
        weak: the landmarks may be wrong (Face.weak), so the value may be too.
    """

    id: str
    value: float | None
    unit: str
    note: str = ""
    weak: bool = False
