"""Self-blended images: a fake made of one real face, which a swap's traces can be learned from.

Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022 (arXiv 2204.08376).
The face is blended into itself: one of the two copies gets another colour and sharpness, the copy
on top is moved by a few pixels, and a soft, rippled mask from the landmarks joins them. What is
left is what every swap leaves: a border, and an inside that does not quite fit its surround.

Lengths are scaled by the face's size, so that the paper's ranges (meant for faces of 110 to 180
pixels) hold for any. Everything happens at the resolution that the face has in its photo; otherwise
a magnified face would carry traces finer than its own pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.errors import BadSample
from facellava.faces import CROP_SIZE, Face
from facellava.regions import REGIONS

RATIOS: Final = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # section 3.2, drawn evenly
MIN_SIDE: Final = 32  # pixels; below, nothing of a blend could be seen

RGB_SHIFT: Final = 20.0  # levels of 255, a channel, in 30% of the pictures
BRIGHTNESS: Final = 0.1  # of full scale
CONTRAST: Final = 0.1
# The published +-0.3 counts in levels of 255 and rounds to nothing. These can just be seen.
HUE: Final = 4.0  # degrees
SATURATION: Final = 0.15  # relative, so that grey stays grey
VALUE: Final = 0.05  # of full scale
SHRINK: Final = (2.0, 4.0)
LEAST_SHRUNK_FACE: Final = 28.0  # pixels across; keeps small faces from turning into mosaics
SHARPEN_ALPHA: Final = (0.2, 0.5)  # at full face size; a small face has steeper edges
SHARPEN_LIGHTNESS: Final = (0.5, 1.0)
# Shares of the face's size: 3% and 1.5% of a picture in which the face takes half.
SHIFT_X: Final = 0.06
SHIFT_Y: Final = 0.035
SCALE: Final = (0.95, 1 / 0.95)
# The public code blurs the mask where the face is about 112 pixels wide; all else it does on the
# picture, where faces are about 180 wide.
BLUR_FACE: Final = 112.0
FULL_FACE: Final = 180.0
RIPPLE_ALPHA: Final = 50.0
RIPPLE_SIGMA: Final = 7.0
GREY_DIFFERENCE: Final = 1.5  # levels between channels, mean; above, the picture has colour


@dataclass(frozen=True, eq=False)
class Blend:
    """A self-blended fake with the real face that differs from it by the blend alone.

    Attributes:
        real: the target: same face, same resolution, same colour change where it got one.
        fake: `real` with the source blended in.
        pictures: `real` and `fake` at the resolution of the blend, (S, S, 3) uint8 RGB with S up to
            192; the crops are these, magnified.
        ratio: the source's share where the mask is full, (0, 1].
        mask: (192, 192) float32 in [0, ratio], the source's share at each pixel of the crop.
        shape: the mask's outline, a key of :data:`SHAPES`.
        inside: regions that lie in the blended area.
        crossed: regions that the blend's border runs through.
    """

    real: Face
    fake: Face
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    ratio: float
    mask: NDArray[np.float32]
    shape: str
    inside: tuple[str, ...]
    crossed: tuple[str, ...]


Points = NDArray[np.float32]
Picture = NDArray[np.float32]


def self_blend(face: Face, rng: np.random.Generator, ratio: float | None = None) -> Blend:
    """Make one fake of a real face.

    Args:
        rng: decides everything; the same state and face give the same pixels.
        ratio: the source's share; drawn from :data:`RATIOS` where None. The other draws are the
            same for every ratio.

    Raises:
        BadSample: a ratio outside (0, 1].
    """
    drawn = float(rng.choice(RATIOS))
    ratio = drawn if ratio is None else ratio
    if not 0 < ratio <= 1:
        raise BadSample(f"The blend ratio is {ratio}; it must be above 0 and at most 1.")
    side = int(np.clip(round(face.native_size), MIN_SIDE, CROP_SIZE))
    picture = _resized(face.crop, side, cv2.INTER_AREA).astype(np.float32)
    points = face.landmarks * side - 0.5
    size = float(np.ptp(points, axis=0).mean())

    shape = str(rng.choice(list(SHAPES)))
    outline = _filled(SHAPES[shape](points), side)
    target = source = picture
    if rng.random() < 0.5:
        source = _restyled(picture, size, rng)
    else:
        target = _restyled(picture, size, rng)
    source, outline = _moved(source, outline, points, rng)
    mask = _softened(_rippled(outline, size, rng), size, rng) * np.float32(ratio)
    blended = mask[:, :, None] * source + (1 - mask[:, :, None]) * target

    pictures = (_levels(target), _levels(blended))
    share = np.clip(_resized(mask, CROP_SIZE, cv2.INTER_LINEAR), 0, ratio)
    inside, crossed = _regions(share / ratio, face.landmarks)
    return Blend(
        real=replace(face, crop=_magnified(pictures[0])),
        fake=replace(face, crop=_magnified(pictures[1])),
        pictures=pictures,
        ratio=ratio,
        mask=share,
        shape=shape,
        inside=inside,
        crossed=crossed,
    )


def _resized(picture: NDArray, side: int, interpolation: int) -> NDArray:
    if picture.shape[0] == side:
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=interpolation))


def _levels(picture: Picture) -> NDArray[np.uint8]:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _magnified(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_resized(picture, CROP_SIZE, cv2.INTER_CUBIC), dtype=np.uint8)


def _whole(points: Points) -> list[Points]:
    return [points]


def _extended(points: Points) -> list[Points]:
    """With the lower forehead: brows lifted by half their distance from the eyes."""
    lifted = points.copy()
    eyes = points[36:48].mean(axis=0)
    down = points[48:60].mean(axis=0) - eyes
    down = down / max(float(np.hypot(*down)), 1e-6)
    gap = float(((eyes - points[17:27]) @ down).mean())
    lifted[17:27] -= down * gap / 2
    return [lifted]


def _inner(points: Points) -> list[Points]:
    """Brows to mouth, without cheeks and chin."""
    return [points[17:]]


def _band_and_chin(points: Points) -> list[Points]:
    """A band over the eyes from temple to temple, and nose to chin below it."""
    band = np.concatenate([points[[0, 1, 15, 16]], points[17:31], points[36:48]])
    return [band, np.concatenate([points[4:13], points[27:36], points[48:60]])]


SHAPES: Final[dict[str, Callable[[Points], list[Points]]]] = {
    "whole_face": _whole,
    "with_forehead": _extended,
    "inner_face": _inner,
    "band_and_chin": _band_and_chin,
}
"""Outline name to the point sets whose convex hulls are blended."""


def _filled(parts: list[Points], side: int) -> Picture:
    """1 inside the hulls of the point sets, 0 outside, with sixteenths of a pixel."""
    mask = np.zeros((side, side), dtype=np.float32)
    for part in parts:
        hull = cv2.convexHull(part.astype(np.float32))
        cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 1.0, shift=4)
    return mask


def _restyled(picture: Picture, size: float, rng: np.random.Generator) -> Picture:
    """Another colour, and less or more fine detail."""
    colourless = float(np.ptp(picture, axis=2).mean()) < GREY_DIFFERENCE
    shift = rng.uniform(-RGB_SHIFT, RGB_SHIFT, 3) * (rng.random() < 0.3)
    hue, saturation, value = rng.uniform(-1, 1, 3) * [HUE, SATURATION, VALUE]
    contrast, brightness = rng.uniform(-1, 1, 2) * [CONTRAST, BRIGHTNESS]
    styled = picture + np.float32(shift[0] if colourless else shift)
    if not colourless:
        hsv = cv2.cvtColor(np.clip(styled / 255, 0, 1).astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0] + hue) % 360
        hsv[:, :, 1] = np.clip(hsv[:, :, 1] * (1 + saturation), 0, 1)
        styled = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    gain, bias = 1 + contrast, 255 * (brightness + value)
    styled = np.clip(styled * np.float32(gain) + np.float32(bias), 0, 255)
    shrink, alpha = rng.choice(SHRINK), rng.uniform(*SHARPEN_ALPHA) * min(1.0, size / FULL_FACE)
    lightness = rng.uniform(*SHARPEN_LIGHTNESS)
    if rng.random() < 0.5:
        return _coarsened(styled, min(shrink, size / LEAST_SHRUNK_FACE))
    return _sharpened(styled, alpha, lightness)


def _coarsened(picture: Picture, shrink: float) -> Picture:
    side = picture.shape[0]
    small = _resized(picture, max(8, round(side / max(shrink, 1.0))), cv2.INTER_NEAREST)
    return np.asarray(_resized(small, side, cv2.INTER_LINEAR), np.float32)


def _sharpened(picture: Picture, alpha: float, lightness: float) -> Picture:
    kernel = np.full((3, 3), -alpha, dtype=np.float32)
    kernel[1, 1] = 1 - alpha + alpha * (8 + lightness)
    return np.clip(cv2.filter2D(picture, -1, kernel), 0, 255)


def _moved(
    source: Picture, mask: Picture, points: Points, rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """Source and mask together: a slight stretch about the face, and a slight shift."""
    centre = points.mean(axis=0)
    stretch = rng.uniform(*SCALE, 2)
    shift = rng.uniform(-1, 1, 2) * [SHIFT_X, SHIFT_Y] * np.ptp(points, axis=0)
    matrix = np.array(
        [
            [stretch[0], 0, centre[0] * (1 - stretch[0]) + shift[0]],
            [0, stretch[1], centre[1] * (1 - stretch[1]) + shift[1]],
        ]
    )
    frame = source.shape[1::-1]
    moved = cv2.warpAffine(source, matrix, frame, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved), np.asarray(cv2.warpAffine(mask, matrix, frame))


def _rippled(mask: Picture, size: float, rng: np.random.Generator) -> Picture:
    """Elastic deformation: every pixel is taken from a smooth random way off."""
    scale = size / FULL_FACE
    side = mask.shape[0]
    ways = rng.uniform(-1, 1, (side, side, 2)).astype(np.float32)
    # Squared: after smoothing over a length that shrinks with the face, the ways must shrink too.
    ways = cv2.GaussianBlur(ways, (0, 0), RIPPLE_SIGMA * scale) * (RIPPLE_ALPHA * scale**2)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    return np.asarray(
        cv2.remap(mask, columns + ways[:, :, 0], rows + ways[:, :, 1], cv2.INTER_LINEAR)
    )


def _softened(mask: Picture, size: float, rng: np.random.Generator) -> Picture:
    """The mask eaten away by the first blur's reach and given a soft edge by the second."""
    scale = size / BLUR_FACE
    first, second = (_odd(width * scale) for width in rng.integers(2, 13, 2) * 2 + 1)
    sigma = float(rng.uniform(5, 45)) * scale
    core = cv2.GaussianBlur(mask, (first, first), 0)
    core = (core >= core.max() - 1e-3).astype(np.float32)
    soft = cv2.GaussianBlur(core, (second, second), sigma)
    return np.asarray(soft / max(float(soft.max()), 1e-6), np.float32)


def _odd(width: float) -> int:
    return max(3, 2 * int(width // 2) + 1)


def _regions(
    share: NDArray[np.floating], landmarks: NDArray[np.float32]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Regions inside the blend and regions across its border, by their points' share."""
    columns, rows = np.clip((landmarks * CROP_SIZE).astype(int), 0, CROP_SIZE - 1).T
    at_points = share[rows, columns]
    inside, crossed = [], []
    for name, part in REGIONS.items():
        values = at_points[part]
        if (values > 0.9).all():
            inside.append(name)
        elif values.max() > 0.1 and values.mean() > 0.05:
            crossed.append(name)
    return tuple(inside), tuple(crossed)
