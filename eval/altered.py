"""A picture of one face as other people's photos might show it: the ways, a small function each.

Most datasets give tight crops. A way sets the picture into a surround, its own edges mirrored and
blurred, so that the finder has to look for the face as in any photo and nothing is assumed; then
one thing is changed. All sizes are relative to the face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

VERSION: Final = 1
"""Counts changes of what the ways do."""

MARGIN: Final = 1.0  # face widths of surround on each side
SURROUND_BLUR: Final = 0.5  # face widths; of a mirrored face nothing is left to find
FAR: Final = 1 / 3  # how far the picture is shrunk
LEAST_FACE: Final = 48.0  # pixels; a finder that needs 40 is given a little more
FAR_PHOTO: Final = 9.0  # face widths along the side of a photo that was taken from far away
CORNER_PHOTO: Final = 2.5  # sides of the picture along that of a photo with the face in a corner
TURN: Final = 20.0  # degrees in the plane, either way
MAGNIFIED: Final = 3
JPEG_QUALITY: Final = 30
BLUR: Final = 0.03  # face widths, the Gaussian's sigma
DARK: Final = 0.4  # of all levels
BRIGHT: Final = 1.3  # more would wash pale faces away
WARM: Final = (1.15, 1.0, 0.7)  # of red, green and blue, as under a light bulb

Photo = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shown:
    """A photo with one face.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        box: (x0, y0, x1, y1) of the face in photo pixels.
    """

    photo: Photo
    box: tuple[float, float, float, float]

    @property
    def face(self) -> float:
        """The face's width in pixels."""
        return self.box[2] - self.box[0]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the face, (x, y)."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


Way = Callable[[Shown, np.random.Generator], Shown]


def in_a_photo(shown: Shown, _: np.random.Generator) -> Shown:
    """In a surround, and else as it is."""
    margin = round(MARGIN * shown.face)
    return _surrounded(shown, margin, margin, margin, margin)


def far_away(shown: Shown, _: np.random.Generator) -> Shown:
    """Shrunk to a third, though never to fewer pixels than the finder needs, in a large photo."""
    small = _scaled(shown, min(1.0, max(FAR, LEAST_FACE / shown.face)), cv2.INTER_AREA)
    height, width = small.photo.shape[:2]
    across, down = (max(0, round(FAR_PHOTO * small.face) - side) for side in (width, height))
    return _surrounded(small, across // 2, down // 2, across - across // 2, down - down // 2)


def off_centre(shown: Shown, rng: np.random.Generator) -> Shown:
    """In one of the photo's corners."""
    height, width = shown.photo.shape[:2]
    across, down = (round((CORNER_PHOTO - 1) * side) for side in (width, height))
    left, top = (int(each) for each in rng.integers(2, size=2) * (across, down))
    return _surrounded(shown, left, top, across - left, down - top)


def turned(shown: Shown, rng: np.random.Generator) -> Shown:
    """Turned in the plane about the face's middle."""
    seen = in_a_photo(shown, rng)
    turn = cv2.getRotationMatrix2D(seen.centre, TURN * float(rng.choice((-1, 1))), 1.0)
    size = (seen.photo.shape[1], seen.photo.shape[0])
    pixels = cv2.warpAffine(
        seen.photo, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return replace(seen, photo=np.asarray(pixels, np.uint8))


def magnified(shown: Shown, rng: np.random.Generator) -> Shown:
    """Three times as large, with no more to see."""
    return _scaled(in_a_photo(shown, rng), MAGNIFIED, cv2.INTER_CUBIC)


def grey(shown: Shown, rng: np.random.Generator) -> Shown:
    """Without colour."""
    seen = in_a_photo(shown, rng)
    levels = cv2.cvtColor(seen.photo, cv2.COLOR_RGB2GRAY)
    return replace(seen, photo=np.repeat(np.asarray(levels, np.uint8)[..., None], 3, axis=2))


def jpeg(shown: Shown, rng: np.random.Generator) -> Shown:
    """What JPEG of a low quality leaves, its colours at half the resolution."""
    seen = in_a_photo(shown, rng)
    bgr = np.ascontiguousarray(seen.photo[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    again = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return replace(seen, photo=np.ascontiguousarray(again[:, :, ::-1]))


def blurred(shown: Shown, rng: np.random.Generator) -> Shown:
    """Out of focus."""
    seen = in_a_photo(shown, rng)
    pixels = cv2.GaussianBlur(seen.photo, (0, 0), BLUR * seen.face)
    return replace(seen, photo=np.asarray(pixels, np.uint8))


def _lit(*gains: float) -> Way:
    """In another light: levels times a gain, or one each for red, green and blue."""

    def relit(shown: Shown, rng: np.random.Generator) -> Shown:
        seen = in_a_photo(shown, rng)
        levels = np.clip(seen.photo * np.asarray(gains, np.float32), 0, 255)
        return replace(seen, photo=levels.round().astype(np.uint8))

    return relit


WAYS: Final[dict[str, Way]] = {
    "in_a_photo": in_a_photo,
    "far_away": far_away,
    "off_centre": off_centre,
    "turned": turned,
    "magnified": magnified,
    "grey": grey,
    "jpeg": jpeg,
    "blurred": blurred,
    "dark": _lit(DARK),
    "bright": _lit(BRIGHT),
    "warm": _lit(*WARM),
}


def _surrounded(shown: Shown, left: int, top: int, right: int, bottom: int) -> Shown:
    """The picture in a photo that reaches so many pixels farther on each side."""
    height, width = shown.photo.shape[:2]
    mirrored = cv2.copyMakeBorder(shown.photo, top, bottom, left, right, cv2.BORDER_REFLECT)
    reach = 2 * round(SURROUND_BLUR * shown.face) + 1
    photo = np.asarray(cv2.stackBlur(mirrored, (reach, reach)), np.uint8)
    photo[top : top + height, left : left + width] = shown.photo
    x0, y0, x1, y1 = shown.box
    return Shown(photo, (x0 + left, y0 + top, x1 + left, y1 + top))


def _scaled(shown: Shown, factor: float, interpolation: int) -> Shown:
    size: Sequence[int] = [max(1, round(factor * side)) for side in shown.photo.shape[1::-1]]
    pixels = cv2.resize(shown.photo, size, interpolation=interpolation)
    x0, y0, x1, y1 = (factor * edge for edge in shown.box)
    return Shown(np.asarray(pixels, np.uint8), (x0, y0, x1, y1))
