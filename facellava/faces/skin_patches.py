"""The patches of a canonical crop that pixel measurements look at, and the maps they read.

Patches are placed by the landmarks, in eye distances. A patch that leaves the photo is refused:
outside the photo the canonical crop is filled with grey 128.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.faces.crop import PADDING_GREY
from facellava.faces.face import Face
from facellava.faces.pose import Pose
from facellava.faces.quantity import Unmeasurable

Pixels = NDArray[np.float32]
Indices = NDArray[np.int64]

# Runs of exactly padding-coloured pixels shorter than this are picture, not padding.
_PADDING_RUN: Final = 5
# Blurs and magnification carry the padding's edge this many crop pixels into the picture.
_PADDING_REACH: Final = 5
_LARGEST_PADDED_SHARE: Final = 0.08
_SMALLEST_PATCH: Final = 20
# Turned further than this, only the side of the face that is towards the camera is read.
_ONE_SIDE_YAW: Final = 15.0


def padding_mask(crop: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the crop (S, S, 3) lies outside the photo: even runs of the padding's grey."""
    grey = (crop == PADDING_GREY).all(axis=2)
    if np.count_nonzero(grey) < _PADDING_RUN**2:
        return np.zeros(grey.shape, dtype=bool)
    kernel = np.ones((_PADDING_RUN, _PADDING_RUN), np.uint8)
    return cv2.morphologyEx(grey.astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(bool)


class SkinPatches:
    """One crop's patches, and brightness, colour and line maps of it, each made when asked for.

    Attributes:
        face: the face.
        pose: its estimated pose.
        padded: (S, S) true outside the photo.
    """

    def __init__(self, face: Face, pose: Pose, padded: NDArray[np.bool_]) -> None:
        self.face = face
        self.pose = pose
        self.padded = padded
        self._side = face.crop.shape[0]
        self._points = face.landmarks.astype(np.float64) * self._side
        self._eye_distance = pose.scale * self._side

    # maps

    @cached_property
    def luminance(self) -> Pixels:
        """Brightness, 0 to 255."""
        return np.asarray(cv2.cvtColor(self.face.crop, cv2.COLOR_RGB2GRAY), np.float32)

    @cached_property
    def lab(self) -> Pixels:
        """CIELAB in OpenCV's 8-bit levels: lightness, red-green + 128, yellow-blue + 128."""
        return np.asarray(cv2.cvtColor(self.face.crop, cv2.COLOR_RGB2LAB), np.float32)

    @cached_property
    def _percent(self) -> Pixels:
        """Factor that turns a brightness step into percent of the brightness around it."""
        return np.asarray(100.0 / (self._wide_blur(8.0) + 8.0), np.float32)

    @cached_property
    def fine(self) -> Pixels:
        """Structure of 2 to 4 crop pixels, such as wrinkles and hairs; percent."""
        return self._band(0.8, 2.0)

    @cached_property
    def coarse(self) -> Pixels:
        """Structure of 5 to 12 crop pixels, which 60-pixel faces show too; percent."""
        return self._band(2.5, 6.0)

    def _band(self, inner: float, outer: float) -> Pixels:
        narrow = cv2.GaussianBlur(self.luminance, (0, 0), inner)
        return np.asarray((narrow - self._wide_blur(outer)) * self._percent, np.float32)

    def _wide_blur(self, sigma: float) -> Pixels:
        """Gaussian blur; wide ones on a smaller picture, which is the same and much faster."""
        if sigma < 4:
            return np.asarray(cv2.GaussianBlur(self.luminance, (0, 0), sigma), np.float32)
        shrink = int(sigma // 2)
        size = (self._side // shrink, self._side // shrink)
        small = cv2.resize(self.luminance, size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
        return np.asarray(cv2.resize(small, (self._side, self._side)), np.float32)

    @cached_property
    def dark_folds(self) -> Pixels:
        """The dark half of the coarse structure; percent."""
        return np.asarray(np.maximum(-self.coarse, 0.0), np.float32)

    @cached_property
    def dark_level_folds(self) -> Pixels:
        """The dark half of the coarse structure that runs across the picture; percent."""
        return np.asarray(np.maximum(-cv2.blur(self.coarse, (13, 1)), 0.0), np.float32)

    @cached_property
    def level_edges(self) -> Pixels:
        """Steepness of the brightness downwards, percent of the local brightness a pixel."""
        down = cv2.Sobel(self.luminance, cv2.CV_32F, 0, 1, scale=1 / 8)
        return np.asarray(np.abs(down * self._percent), np.float32)

    @cached_property
    def steepness(self) -> Pixels:
        """Gradient of the brightness, percent of the local brightness a pixel."""
        across = cv2.Sobel(self.luminance, cv2.CV_32F, 1, 0, scale=1 / 8)
        return np.asarray(cv2.magnitude(across * self._percent, self.level_edges), np.float32)

    @cached_property
    def sharpness(self) -> float:
        """Mean steepness of the inner face; percent a pixel."""
        return float(self.inside(self.steepness, self.inner_face, "face").mean())

    @cached_property
    def residual(self) -> Pixels:
        """What a 3x3 median takes away: noise and the finest detail, absolute levels."""
        grey = self.luminance.astype(np.uint8)
        return np.abs(self.luminance - np.asarray(cv2.medianBlur(grey, 3), np.float32))

    # patches

    @cached_property
    def _boxes(self) -> dict[str, tuple[float, float, float, float]]:
        """Rectangles (x0, y0, x1, y1) in crop pixels."""
        p, unit = self._points, self._eye_distance
        brow_top = float(p[17:27, 1].min())
        eyes_y = float(p[[36, 39, 42, 45], 1].mean())
        boxes = {
            "forehead": (p[20, 0], brow_top - 0.30 * unit, p[23, 0], brow_top - 0.06 * unit),
            "glabella": (
                p[21, 0] + 0.02 * unit, p[[21, 22], 1].mean() - 0.04 * unit,
                p[22, 0] - 0.02 * unit, p[27, 1] + 0.04 * unit,
            ),
            "bridge": (
                p[27, 0] - 0.12 * unit, p[27, 1] - 0.12 * unit,
                p[27, 0] + 0.12 * unit, p[28, 1] + 0.10 * unit,
            ),
            "chin": (
                p[57, 0] - 0.22 * unit, p[57, 1] + 0.10 * unit,
                p[57, 0] + 0.22 * unit, p[8, 1] - 0.08 * unit,
            ),
            "upper_lip": (
                p[51, 0] - 0.22 * unit, p[33, 1] + 0.05 * unit,
                p[51, 0] + 0.22 * unit, p[51, 1] - 0.02 * unit,
            ),
        }  # fmt: skip
        for side, sign, outer, inner, lid, ala, corner in (
            ("right", -1, 36, 39, (40, 41), 31, 48),
            ("left", 1, 45, 42, (46, 47), 35, 54),
        ):
            lid_y = float(p[list(lid), 1].mean())
            eye_x = float(p[[outer, inner], 0].mean())
            mouth_x = float(p[corner, 0])
            boxes |= {
                f"{side}_eye_corner": _sorted_box(
                    p[outer, 0], p[outer, 1] + 0.08 * unit,
                    p[outer, 0] + sign * 0.22 * unit, p[outer, 1] + 0.26 * unit,
                ),
                f"{side}_under_eye": _sorted_box(
                    p[outer, 0], lid_y + 0.07 * unit, p[inner, 0], lid_y + 0.25 * unit
                ),
                f"{side}_cheek": _sorted_box(
                    eye_x - 0.14 * unit, p[30, 1] - 0.12 * unit,
                    eye_x + 0.14 * unit, p[30, 1] + 0.14 * unit,
                ),
                f"{side}_fold": _sorted_box(
                    mouth_x + sign * 0.10 * unit, p[ala, 1],
                    p[ala, 0] + sign * 0.10 * unit, p[corner, 1] - 0.08 * unit,
                ),
                f"{side}_lid": _sorted_box(
                    p[outer, 0], p[outer, 1] - 0.22 * unit, p[inner, 0], lid_y + 0.04 * unit
                ),
                f"{side}_head_top": _sorted_box(
                    p[27, 0] + sign * 0.30 * unit, eyes_y - 1.12 * unit,
                    p[27, 0] + sign * 0.70 * unit, eyes_y - 0.90 * unit,
                ),
                f"{side}_hair": _sorted_box(
                    p[27, 0] + sign * 0.65 * unit, eyes_y - 1.10 * unit,
                    p[27, 0] + sign * 1.15 * unit, eyes_y - 0.75 * unit,
                ),
            }  # fmt: skip
        return boxes

    def pair(self, name: str) -> tuple[str, ...]:
        """Names of a paired patch: both sides, or the near one where the head is turned."""
        if self.pose.yaw > _ONE_SIDE_YAW:  # turned to the person's left: the right side shows
            return (f"right_{name}",)
        if self.pose.yaw < -_ONE_SIDE_YAW:
            return (f"left_{name}",)
        return (f"right_{name}", f"left_{name}")

    def pixels(self, pixel_map: Pixels, *names: str) -> Pixels:
        """The map's values in the named patches, one after another: (N,) or (N, channels)."""
        parts = [self._cut(pixel_map, name) for name in names]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def mean(self, pixel_map: Pixels, *names: str) -> float:
        """Mean of a one-channel map over patches."""
        return float(self.pixels(pixel_map, *names).mean())

    def strength(self, pixel_map: Pixels, *names: str) -> float:
        """Mean absolute value of a one-channel map over patches."""
        return float(np.abs(self.pixels(pixel_map, *names)).mean())

    def colour(self, *names: str) -> Pixels:
        """Median CIELAB colour of patches, (3,)."""
        return np.asarray(np.median(self.pixels(self.lab, *names), axis=0), np.float32)

    def _cut(self, pixel_map: Pixels, name: str) -> Pixels:
        x0, y0, x1, y1 = self._boxes[name]
        area = max(x1 - x0, 0.0) * max(y1 - y0, 0.0)
        rows = slice(max(round(y0), 0), max(min(round(y1), self._side), 0))
        columns = slice(max(round(x0), 0), max(min(round(x1), self._side), 0))
        padded = self._near_padding[rows, columns]
        if area < _SMALLEST_PATCH:
            raise Unmeasurable(f"the {_spoken(name)} is too small")
        if padded.size < 0.75 * area or padded.mean() > _LARGEST_PADDED_SHARE:
            raise Unmeasurable(f"the {_spoken(name)} lies outside the photo")
        part = pixel_map[rows, columns]
        return part.reshape(-1, *part.shape[2:])

    @cached_property
    def _near_padding(self) -> NDArray[np.bool_]:
        if not self.padded.any():
            return self.padded
        kernel = np.ones((2 * _PADDING_REACH + 1,) * 2, np.uint8)
        return cv2.dilate(self.padded.astype(np.uint8), kernel).astype(bool)

    # parts that follow an outline: flat indices into a map

    def inside(self, pixel_map: Pixels, part: Indices, name: str) -> Pixels:
        """The map's values in a part: (N,) or (N, channels)."""
        if len(part) < _SMALLEST_PATCH:
            raise Unmeasurable(f"the {name} is too small")
        if self.padded.reshape(-1)[part].mean() > _LARGEST_PADDED_SHARE:
            raise Unmeasurable(f"the {name} lies outside the photo")
        flat = pixel_map.reshape(-1, *pixel_map.shape[2:])
        return flat.take(part, axis=0)

    def _polygon(self, points: NDArray[np.float64]) -> NDArray[np.uint8]:
        mask = np.zeros((self._side, self._side), np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
        return mask

    @cached_property
    def mouth_interior(self) -> Indices:
        """Between the inner edges of the lips."""
        return np.flatnonzero(self._polygon(self._points[60:68]))

    @cached_property
    def lips(self) -> Indices:
        """The red of the lips."""
        outer = self._polygon(self._points[48:60])
        return np.flatnonzero(outer > self._polygon(self._points[60:68]))

    @cached_property
    def mouth_surround(self) -> Indices:
        """Skin in a ring around the lips."""
        centre = self._points[48:60].mean(axis=0)
        outer = self._polygon(centre + (self._points[48:60] - centre) * [1.35, 1.8])
        inner = self._polygon(centre + (self._points[48:60] - centre) * [1.12, 1.3])
        return np.flatnonzero(outer > inner)

    @cached_property
    def brows(self) -> Indices:
        """Bands along both brows."""
        mask = np.zeros((self._side, self._side), np.uint8)
        width = max(1, round(0.09 * self._eye_distance))
        for brow in (slice(17, 22), slice(22, 27)):
            line = np.round(self._points[brow]).astype(np.int32)
            cv2.polylines(mask, [line], False, 1, thickness=width)
        return np.flatnonzero(mask)

    @cached_property
    def _inner_face_mask(self) -> NDArray[np.uint8]:
        hull = cv2.convexHull(np.round(self._points[17:60]).astype(np.int32))
        return self._polygon(hull[:, 0].astype(np.float64))

    @cached_property
    def inner_face(self) -> Indices:
        """The hull of brows, eyes, nose and lips."""
        return np.flatnonzero(self._inner_face_mask)

    @cached_property
    def _whole_face_mask(self) -> NDArray[np.uint8]:
        hull = cv2.convexHull(np.round(self._points).astype(np.int32))
        return self._polygon(hull[:, 0].astype(np.float64))

    @cached_property
    def whole_face(self) -> Indices:
        """Inside the hull of all landmarks: the area that swaps and blends replace."""
        return np.flatnonzero(self._whole_face_mask)

    @cached_property
    def face_surround(self) -> Indices:
        """A band outside that hull: forehead, hairline, neck."""
        width = 2 * max(2, round(0.1 * self._eye_distance)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        grown = cv2.dilate(self._whole_face_mask, kernel)
        return np.flatnonzero((grown > self._whole_face_mask) & ~self._near_padding)


def _sorted_box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
