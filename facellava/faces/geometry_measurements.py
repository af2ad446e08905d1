"""Measurements from the 68 points alone, with the pose taken out as far as they allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facellava.faces.face import Face
from facellava.faces.pose import Pose
from facellava.faces.quantity import MeasurementSpec, Unmeasurable

Points = NDArray[np.float64]
_EYE_CORNERS: Final = {"right": (36, 39), "left": (42, 45)}
_BROWS: Final = {"right": slice(17, 22), "left": slice(22, 27)}
_INNER_BROW: Final = {"right": (20, 21), "left": (22, 23)}
_OUTER_BROW: Final = {"right": (17, 18), "left": (25, 26)}
_LIDS: Final = {
    "right": ((37, 41), (38, 40), (36, 39)),
    "left": ((43, 47), (44, 46), (42, 45)),
}


class Geometry:
    """The points of one face for the formulas below.

    Attributes:
        face: the face.
        pose: its estimated pose.
        points: (68, 2), seen from the front, in eye distances, y down.
        hidden: (68,) true where a point lies outside the photo.
    """

    def __init__(self, face: Face, pose: Pose, hidden: NDArray[np.bool_]) -> None:
        self.face = face
        self.pose = pose
        self.points: Points = pose.frontal
        self.hidden = hidden

    def height(self, *indices: int) -> float:
        """Mean distance below the origin; raises where a point lies outside the photo."""
        return float(self._take(indices)[:, 1].mean())

    def across(self, first: int, second: int) -> float:
        """Distance from one point to the other along x."""
        pair = self._take((first, second))
        return float(pair[1, 0] - pair[0, 0])

    def distance(self, first: int, second: int) -> float:
        """Distance between two points."""
        pair = self._take((first, second))
        return float(math.hypot(*(pair[1] - pair[0])))

    def _take(self, indices: tuple[int, ...]) -> Points:
        chosen = list(indices)
        if self.hidden[chosen].any():
            raise Unmeasurable("a point that is needed lies outside the photo")
        return self.points[chosen]


def _brow_height(side: str) -> Callable[[Geometry], float]:
    brow = _BROWS[side]

    def compute(seen: Geometry) -> float:
        return seen.height(*_EYE_CORNERS[side]) - seen.height(*range(brow.start, brow.stop))

    return compute


def _part_of_brow_height(seen: Geometry, part: Mapping[str, tuple[int, ...]]) -> float:
    rise = [seen.height(*_EYE_CORNERS[side]) - seen.height(*part[side]) for side in part]
    return sum(rise) / len(rise)


def _inner_brow_height(seen: Geometry) -> float:
    return _part_of_brow_height(seen, _INNER_BROW)


def _outer_brow_height(seen: Geometry) -> float:
    return _part_of_brow_height(seen, _OUTER_BROW)


def _brow_arch(seen: Geometry) -> float:
    return seen.height(21, 22) - seen.height(19, 24)


def _eye_opening(side: str) -> Callable[[Geometry], float]:
    first, second, corners = _LIDS[side]

    def compute(seen: Geometry) -> float:
        opening = (seen.distance(*first) + seen.distance(*second)) / 2
        return opening / max(seen.distance(*corners), 1e-6)

    return compute


_right_brow, _left_brow = _brow_height("right"), _brow_height("left")
_right_eye, _left_eye = _eye_opening("right"), _eye_opening("left")


def _mouth_opening(seen: Geometry) -> float:
    return seen.height(65, 66, 67) - seen.height(61, 62, 63)


def _corner_height(seen: Geometry, corner: int) -> float:
    # With these shares an opening jaw, which carries the lower lip and some of the corners down,
    # leaves the height as it was (checked on a morphable face's jaw shape).
    middle = 0.65 * seen.height(51, 62) + 0.35 * seen.height(66, 57)
    return middle - seen.height(corner)


def _lip_thickness(seen: Geometry) -> float:
    upper = seen.height(61, 62, 63) - seen.height(50, 51, 52)
    lower = seen.height(56, 57, 58) - seen.height(65, 66, 67)
    return upper + lower


def _roll(seen: Geometry) -> float:
    matrix = seen.face.crop_to_photo
    return math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))


def _side_measurements(
    name: str, regions: dict[str, str], formula: str, unit: str, dead_band: float,
    action_units: tuple[int, ...], right: Callable[[Geometry], float],
    left: Callable[[Geometry], float],
) -> list[MeasurementSpec[Geometry]]:  # fmt: skip
    """Four quantities of a paired part: right, left, mean, and right minus left."""
    both = (regions["right"], regions["left"])

    def spec(
        suffix: str, places: tuple[str, ...], words: str, band: float,
        units: tuple[int, ...], compute: Callable[[Geometry], float], yaw: float,
    ) -> MeasurementSpec[Geometry]:  # fmt: skip
        return MeasurementSpec(
            f"{name}_{suffix}", places, f"{formula}{words}", unit, band, units, compute,
            largest_yaw=yaw,
        )  # fmt: skip

    return [
        spec("right", both[:1], ", the person's right side", dead_band, action_units, right, 25.0),
        spec("left", both[1:], ", the person's left side", dead_band, action_units, left, 25.0),
        spec(
            "mean", both, ", mean of both sides", dead_band, action_units,
            lambda seen: (right(seen) + left(seen)) / 2, 35.0,
        ),
        spec(
            "asymmetry", both, ", right side minus left side", dead_band, (),
            lambda seen: right(seen) - left(seen), 15.0,
        ),
    ]  # fmt: skip


_BROW_REGIONS: Final = ("right_brow", "left_brow")
_LIPS: Final = ("outer_lips",)
_EYES: Final = "eye distances"

GEOMETRY_SPECS: Final[tuple[MeasurementSpec[Geometry], ...]] = (
    MeasurementSpec(
        "yaw", ("nose_bridge", "nostrils"),
        "turn of the head by a weak-perspective fit of a mean 3-D face to eye corners and nose; "
        "positive to the person's left",
        "degrees", 3.0, (), lambda seen: seen.pose.yaw, largest_yaw=90.0, largest_pitch=90.0,
    ),
    MeasurementSpec(
        "pitch", ("nose_bridge", "nostrils"),
        "nod of the head by the same fit; positive upwards; a long nose reads as a lowered head",
        "degrees", 3.0, (), lambda seen: seen.pose.pitch, largest_yaw=90.0, largest_pitch=90.0,
    ),
    MeasurementSpec(
        "roll", ("face",),
        "turn of the canonical crop in the photo; positive where the head tilts to the person's "
        "left shoulder",
        "degrees", 2.0, (), _roll, largest_yaw=90.0, largest_pitch=90.0,
    ),
    *_side_measurements(
        "brow_height", {"right": "right_brow", "left": "left_brow"},
        "height of the five brow points over the eye corners", _EYES, 0.018, (1, 2, 4),
        _right_brow, _left_brow,
    ),
    MeasurementSpec(
        "inner_brow_height", _BROW_REGIONS,
        "height of the inner two brow points over the eye corners", _EYES, 0.018, (1, 4),
        _inner_brow_height,
    ),
    MeasurementSpec(
        "outer_brow_height", _BROW_REGIONS,
        "height of the outer two brow points over the eye corners", _EYES, 0.02, (2,),
        _outer_brow_height, largest_yaw=25.0,
    ),
    MeasurementSpec(
        "brow_slant", _BROW_REGIONS,
        "inner brow height minus outer brow height", _EYES, 0.02, (1, 4),
        lambda seen: _inner_brow_height(seen) - _outer_brow_height(seen), largest_yaw=25.0,
    ),
    MeasurementSpec(
        "brow_arch", _BROW_REGIONS,
        "height of the brows' peaks over their inner ends",
        _EYES, 0.018, (), _brow_arch, largest_yaw=25.0,
    ),
    MeasurementSpec(
        "brow_gap", _BROW_REGIONS,
        "distance between the inner ends of the brows", _EYES, 0.03, (4,),
        lambda seen: seen.across(21, 22),
    ),
    *_side_measurements(
        "eye_opening", {"right": "right_eye", "left": "left_eye"},
        "distance between the lids divided by the length of the eye", "ratio", 0.035, (5, 6, 7),
        _right_eye, _left_eye,
    ),
    MeasurementSpec(
        "mouth_opening", ("inner_lips",),
        "distance between the inner edges of the lips, mean of three points", _EYES, 0.018,
        (25, 26), _mouth_opening,
    ),
    MeasurementSpec(
        "mouth_width", _LIPS, "distance between the corners of the mouth", _EYES, 0.03,
        (12, 20), lambda seen: seen.across(48, 54),
    ),
    MeasurementSpec(
        "lip_corner_height", _LIPS,
        "height of the mouth's corners over the middle of the lips (0.65 upper, 0.35 lower lip)",
        _EYES, 0.015, (12, 15),
        lambda seen: (_corner_height(seen, 48) + _corner_height(seen, 54)) / 2,
    ),
    MeasurementSpec(
        "lip_corner_asymmetry", _LIPS,
        "height of the right corner of the mouth minus that of the left", _EYES, 0.024, (12, 14),
        lambda seen: seen.height(54) - seen.height(48), largest_yaw=15.0,
    ),
    MeasurementSpec(
        "nose_to_lip", ("nostrils", "outer_lips"),
        "distance from the base of the nose to the upper lip", _EYES, 0.025, (10, 12),
        lambda seen: seen.height(51) - seen.height(33),
    ),
    MeasurementSpec(
        "lip_thickness", ("outer_lips", "inner_lips"),
        "height of the upper lip's red plus the lower lip's", _EYES, 0.02, (23, 24),
        _lip_thickness,
    ),
    MeasurementSpec(
        "jaw_drop", ("face", "nostrils"),
        "distance from the base of the nose to the chin", _EYES, 0.03, (26, 17),
        lambda seen: seen.height(8) - seen.height(33),
    ),
    MeasurementSpec(
        "nose_width", ("nostrils",), "distance between the outer nostril points", _EYES, 0.025,
        (9,), lambda seen: seen.across(31, 35),
    ),
    MeasurementSpec(
        "face_length_ratio", ("face",),
        "distance from the eyes to the chin divided by the jaw's width at the mouth's height",
        "ratio", 0.02, (),
        lambda seen: (seen.height(8) - seen.height(36, 39, 42, 45)) / max(seen.across(3, 13), 1e-6),
        largest_yaw=20.0,
    ),
)  # fmt: skip
"""Quantities of the points; the ids are stable."""
