"""Skin, brows, lips, hair and eyes, painted on flat canvases that lie before the neutral face.

A vertex takes the colour of the canvas at its own (x, y) in the neutral face. So paint sticks to
the skin when it moves, and neither seams nor a layout of textures are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from data_builders.rendered.looks import Colour, Person
from data_builders.rendered.morphable import Points

SIDE: Final = 512  # pixels of the skin's canvas
EYE_SIDE: Final = 128
BROWS_OVER_NOSE: Final = 2.3  # model units from the top of the nose
EARS_OVER_NOSE: Final = 2.0

Canvas = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies: its lower left corner (x, y) and its side, in model units."""

    left: float
    bottom: float
    span: float

    def places(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """(x, y, ...) of points (N, 2 or 3) as texture coordinates (N, 2) in [0, 1], y up."""
        corner = np.array([self.left, self.bottom])
        return ((points[:, :2] - corner) / self.span).astype(np.float32)

    def pixels(self, points: NDArray[np.floating], side: int = SIDE) -> NDArray[np.float32]:
        """The same in pixels, y down."""
        places = self.places(points)
        return np.stack([places[:, 0], 1 - places[:, 1]], axis=1) * np.float32(side)


def frame_around(points: Points) -> Frame:
    """The square before all points (N, 3), with a margin."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    span = float((high - low).max()) * 1.02
    left, bottom = (low + high - span) / 2
    return Frame(float(left), float(bottom), span)


def paint_skin(person: Person, marks: Points, frame: Frame) -> NDArray[np.uint8]:
    """The face's skin (512, 512, 3) uint8 sRGB.

    Args:
        marks: the 68 points of the neutral face, (68, 3).
        frame: where the canvas lies.
    """
    rng = np.random.default_rng(person.painting)
    unit = SIDE / frame.span  # pixels a model unit
    skin = np.ones((SIDE, SIDE, 3), np.float32) * _rgb(person.skin)
    spots = frame.pixels(marks)
    _blush(skin, spots, unit, rng)
    _grain(skin, unit, rng)
    _freckle(skin, spots, unit, person.freckles, rng)
    _shave(skin, spots, unit, person, rng)
    _lips(skin, spots, unit, person.lips)
    _lids(skin, spots, unit, person)
    _brows(skin, spots, unit, person, rng)
    _hairline(skin, spots, unit, person, rng)
    return np.clip(skin * 255 + 0.5, 0, 255).astype(np.uint8)


def _rgb(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def _mix(canvas: Canvas, share: NDArray[np.float32], paint: Colour | NDArray[np.floating]) -> None:
    canvas += share[:, :, None] * (np.asarray(paint, np.float32) - canvas)


def _soft(mask: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.3)), np.float32)


def _glow(centre: NDArray[np.floating], sigma: float) -> NDArray[np.float32]:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    distance = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
    return np.exp(-distance / (2 * sigma**2), dtype=np.float32)


def _blush(skin: Canvas, spots: NDArray[np.float32], unit: float, rng: np.random.Generator) -> None:
    """Blood in cheeks and nose, and the darker skin under and around the eyes."""
    red, dark = rng.uniform(0, 0.14), rng.uniform(0.02, 0.18)
    cheeks = [(spots[a] + spots[b]) / 2 for a, b in ((41, 48), (46, 54))]
    for centre in (*cheeks, spots[30]):
        share = _glow(centre, 1.5 * unit) * red
        skin *= 1 - share[:, :, None] * _rgb([0.0, 1.0, 0.8])
    for eye in (slice(36, 42), slice(42, 48)):
        centre = spots[eye].mean(axis=0) + [0, 0.25 * unit]
        skin *= 1 - _glow(centre, 1.1 * unit)[:, :, None] * dark * _rgb([0.8, 1.0, 0.9])


def _grain(skin: Canvas, unit: float, rng: np.random.Generator) -> None:
    """Uneven pigment at three sizes."""
    for size, strength in ((1.6, 0.04), (0.35, 0.02), (0.07, 0.03)):
        noise = _soft(rng.normal(size=(SIDE, SIDE)).astype(np.float32), size * unit / 2)
        skin *= 1 + (noise / noise.std() * strength * rng.uniform(0.3, 1.0))[:, :, None]


def _freckle(
    skin: Canvas, spots: NDArray[np.float32], unit: float, count: int, rng: np.random.Generator
) -> None:
    mask = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(count):
        centre = spots[29] + rng.normal(0, 1, 2) * [3.0 * unit, 1.4 * unit]
        radius = max(1, round(rng.uniform(0.03, 0.09) * unit))
        cv2.circle(mask, tuple(map(int, centre)), radius, float(rng.uniform(0.1, 0.35)), -1)
    skin *= 1 - _soft(mask, 0.6)[:, :, None] * _rgb([0.6, 0.9, 1.0])


def _shave(
    skin: Canvas, spots: NDArray[np.float32], unit: float, person: Person, rng: np.random.Generator
) -> None:
    """Stubble to a short beard: moustache, chin and jaw."""
    if not person.stubble:
        return
    mask = np.zeros((SIDE, SIDE), np.float32)
    jaw = np.concatenate([spots[2:15], spots[[54, 35, 33, 31, 48]]])
    below = spots[2:15][::-1] + [0, 3 * unit]
    for area in (jaw, np.concatenate([spots[2:15], below])):
        cv2.fillPoly(mask, [np.rint(area).astype(np.int32)], 1.0)
    hairs = _soft(rng.normal(size=(SIDE, SIDE)).astype(np.float32), 0.05 * unit)
    share = _soft(mask, 0.5 * unit) * person.stubble
    _mix(skin, np.clip(share * (0.75 + 0.4 * hairs / hairs.std()), 0, 0.92), person.hair)


def _lips(skin: Canvas, spots: NDArray[np.float32], unit: float, paint: Colour) -> None:
    mask = np.zeros((SIDE, SIDE), np.float32)
    cv2.fillPoly(mask, [np.rint(_smooth(spots[48:60]) * 16).astype(np.int32)], 1.0, shift=4)
    _mix(skin, _soft(mask, 0.09 * unit), paint)


def _smooth(ring: NDArray[np.floating]) -> NDArray[np.floating]:
    """A closed line with Chaikin's corners cut twice."""
    for _ in range(2):
        after = np.roll(ring, -1, axis=0)
        ring = np.stack([0.75 * ring + 0.25 * after, 0.25 * ring + 0.75 * after], axis=1)
        ring = ring.reshape(-1, 2)
    return ring


def _lids(skin: Canvas, spots: NDArray[np.float32], unit: float, person: Person) -> None:
    """Lashes as a dark line along each lid, the lower one weaker."""
    dark = np.asarray(person.hair, np.float32) * 0.4
    for line, strength in (
        ((36, 37, 38, 39), 0.85), ((42, 43, 44, 45), 0.85),
        ((36, 41, 40, 39), 0.35), ((42, 47, 46, 45), 0.35),
    ):  # fmt: skip
        mask = np.zeros((SIDE, SIDE), np.float32)
        points = [np.rint(spots[list(line)] * 16).astype(np.int32)]
        cv2.polylines(mask, points, False, 1.0, max(1, round(0.16 * unit)), cv2.LINE_AA, 4)
        _mix(skin, _soft(mask, 0.04 * unit) * strength, dark)


def _brows(
    skin: Canvas, spots: NDArray[np.float32], unit: float, person: Person, rng: np.random.Generator
) -> None:
    """Single hairs along each brow's line, thick at the inner end."""
    mask = np.zeros((SIDE, SIDE), np.float32)
    for line in (spots[17:22], spots[22:27][::-1]):  # from the temple to the nose
        for _ in range(round(320 * person.brow_density)):
            place = rng.beta(1.3, 1.0) * 4
            low = min(int(place), 3)
            along = line[low + 1] - line[low]
            root = line[low] + along * (place - low)
            along = along / max(float(np.hypot(*along)), 1e-6)
            width = person.brow_width * (0.35 + 0.65 * min(place / 2.5, 1.0)) * unit
            # The points run along the brow's upper edge.
            root = root + [0, (0.6 + rng.uniform(-1, 1)) * width]
            # Hairs lie towards the temple and upwards, steeper near the nose.
            tip = root + (-along + [0, -0.2 - 0.25 * place / 2]) * rng.uniform(0.25, 0.6) * unit
            ends = [np.rint(np.stack([root, tip]) * 16).astype(np.int32)]
            cv2.polylines(mask, ends, False, float(rng.uniform(0.7, 1)), 1, cv2.LINE_AA, 4)
    _mix(skin, np.clip(_soft(mask, 0.45) * 1.25, 0, 0.95), person.hair)


def _hairline(
    skin: Canvas, spots: NDArray[np.float32], unit: float, person: Person, rng: np.random.Generator
) -> None:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    places = np.stack([columns - spots[27, 0], spots[27, 1] - rows], axis=2).reshape(-1, 2) / unit
    width = float(spots[16, 0] - spots[0, 0]) / unit
    share = hair_share(places, person, width).reshape(SIDE, SIDE)
    strands = _soft(rng.normal(size=(SIDE, SIDE)).astype(np.float32), 0.06 * unit)
    shade = 1 + np.float32(0.25) * strands / strands.std()
    _mix(skin, share * 0.95, np.clip(_rgb(person.hair) * shade[:, :, None], 0, 1))


def hair_share(
    places: NDArray[np.floating], person: Person, face_width: float
) -> NDArray[np.float32]:
    """How far places are under hair, (N,) from 0 to 1.

    Args:
        places: (N, 2 or 3), (x, y, ...) from the top of the nose, y up.
        face_width: from jaw to jaw at the ears, in the same unit.
    """
    if person.bald:
        return np.zeros(len(places), np.float32)
    # Level over the forehead, then down the temples to before the ears.
    out = np.abs(places[:, 0]) / (face_width / 2)
    line = BROWS_OVER_NOSE + person.hairline - 3.75 * (np.clip(out - 0.72, 0, 0.28) / 0.28) ** 1.2
    ears = (out > 1.0) & (places[:, 1] < EARS_OVER_NOSE)
    share = np.clip((places[:, 1] - line) / 0.5 + 0.5, 0, 1)
    return np.where(ears, 0, share).astype(np.float32)


def paint_eye(iris: Colour, painting: int) -> NDArray[np.uint8]:
    """An eyeball seen from the front (128, 128, 3) uint8 sRGB; the canvas's side is its width."""
    rng = np.random.default_rng(painting)
    rows, columns = (np.mgrid[0:EYE_SIDE, 0:EYE_SIDE] + 0.5) / EYE_SIDE * 2 - 1
    radius = np.hypot(rows, columns).astype(np.float32)
    eye = np.ones((EYE_SIDE, EYE_SIDE, 3), np.float32) * _rgb([0.86, 0.83, 0.81])
    eye *= 1 - np.clip(radius - 0.5, 0, 1)[:, :, None] * _rgb([0.25, 0.5, 0.5])
    spokes = np.cos(np.arctan2(rows, columns) * rng.integers(18, 40) + rng.uniform(0, 6))
    shade = 0.85 + 0.25 * spokes + 0.5 * np.clip((0.28 - radius) / 0.16, 0, 1)
    edge = float(rng.uniform(0.35, 0.39))
    inside = np.clip((edge - radius) / 0.04 + 0.5, 0, 1)
    _mix(eye, inside, _rgb(iris) * shade[:, :, None].astype(np.float32))
    rim = np.exp(-(((radius - edge) / 0.04) ** 2))
    _mix(eye, rim * 0.6, _rgb(iris) * 0.3)
    _mix(eye, np.clip((rng.uniform(0.11, 0.18) - radius) / 0.03 + 0.5, 0, 1), (0.01, 0.01, 0.01))
    return np.clip(eye * 255 + 0.5, 0, 255).astype(np.uint8)


def paint_ground(
    kind: str, colours: tuple[Colour, Colour], size: int, painting: int
) -> NDArray[np.float32]:
    """A background (size, size, 3) sRGB in [0, 1]: plain, gradient, or blobs out of focus."""
    rng = np.random.default_rng(painting)
    first, second = np.asarray(colours, np.float32)
    if kind == "plain":
        share = np.zeros((size, size), np.float32)
    elif kind == "gradient":
        turn = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
        share = np.clip(0.5 + (columns - 0.5) * np.cos(turn) + (rows - 0.5) * np.sin(turn), 0, 1)
    else:
        share = _soft(
            rng.normal(size=(size, size)).astype(np.float32), size * rng.uniform(0.02, 0.1)
        )
        share = np.clip(0.5 + 0.35 * share / share.std(), 0, 1)
    return np.asarray(first + (second - first) * share[:, :, None].astype(np.float32))
