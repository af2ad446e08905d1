"""Photo to faces: where they are, their 68 landmarks, and a chain of looks for hard photos.

1. Upright, at 640 pixels, by HOG (and the named backend, where there is one).
2. Finer, where the faces found are small or none is found and the photo has the pixels.
3. At 320 pixels or fewer, turned by 30 degrees each way, the surround mirrored: tilted heads,
   which HOG loses from 45 degrees, and faces cut by the edge, which the mirror makes whole.
4. Only where all that found nothing: lower thresholds, and turned by 90 and 180 degrees.

On 110 photos the first look finds 0.995 of the clear faces with no false one; below a threshold
of -0.3 false faces become common. What the third and fourth look find is marked weak.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.errors import NoFaceFound
from facellava.faces.crop import canonical_face
from facellava.faces.detectors import (
    MAX_OVERLAP,
    Box,
    Detection,
    FaceBackend,
    detect,
    overlap,
)
from facellava.faces.face import Face
from facellava.faces.landmarks import fit_landmarks, plausible

SEARCH_SIDE: Final = 640  # longest side of the picture that is searched, pixels
SMALL_SIDE: Final = 192  # smaller pictures are magnified to this first
COARSE_SIDE: Final = 320  # longest side for the turned looks, whose faces are rarely small
# Beside an upright face, tilted ones are looked for down to half its size: the larger the face,
# the coarser the look. On 49 photos it finds what the look at 320 pixels does, a tenth faster.
BESIDE: Final = 0.5
LEAST_BOX: Final = 40.0  # the smallest face that HOG sees, pixels
FINE_SIDE: Final = 1280
CROWD_BOX: Final = 60.0  # faces below this many pixels at 640 call for the finer look
WEAK_THRESHOLD: Final = -0.3
SURE_OF_TURNED: Final = 0.2  # score in a turned look; false faces beside true ones had below 0.05
BORDER_SHARE: Final = 0.25
TILTS: Final = (30, -30)
ALL_TILTS: Final = (*TILTS, 60, -60)  # of a declared crop, which nobody stores on its side
RIGHT_ANGLES: Final = (90, -90, 180)
MIN_INSIDE: Final = 0.5  # share of a turned box that must lie in the photo
# A declared face crop needs no detection: this part of it gives landmarks as good as a found box.
ASSUMED_BOX: Final = (0.06, 0.125, 0.94, 1.0)
# Shares of a declared crop's side that its face may have; beyond, it is a mouth or a pattern.
FILLED: Final = (0.35, 1.5)
FILLED_WEAK: Final = (0.55, 1.0)
MAX_FACES: Final = 64
# A low score is asked for again at three sizes. On 900 dataset faces the mean of true ones was
# nearly always above 0.15, that of false ones below 0.1.
SURE_AT_ONCE: Final = 0.5
SEEN_AGAIN: Final = 0.15
SEEN_AGAIN_ALONE: Final = -0.15  # where the photo shows nothing better
SECOND_SIZES: Final = (90.0, 120.0, 160.0)
PATCH_MARGIN: Final = 0.4  # of the box, on each side of it
PATCH_SIDE: Final = 200.0  # a face of this many pixels is enough for the landmark model

logger = logging.getLogger(__name__)

Affine = NDArray[np.float64]  # (2, 3)


@dataclass(frozen=True)
class _Look:
    """A picture to search: RGB pixels, and the affine from its pixels to those of the photo."""

    pixels: NDArray[np.uint8]
    to_photo: Affine


@dataclass(frozen=True)
class _Found:
    """A box in the pixels of a look, in which the face is upright."""

    detection: Detection
    look: _Look
    source: str

    @property
    def extent(self) -> Box:
        """The box in photo pixels: the same middle and side, without the turn.

        The square around a turned square would reach far past the face.
        """
        x0, y0, x1, y1 = self.detection.box
        matrix = self.look.to_photo
        centre = matrix[:, :2] @ np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + matrix[:, 2]
        half = np.array([x1 - x0, y1 - y0]) / 2 * float(np.hypot(matrix[0, 0], matrix[1, 0]))
        low, high = centre - half, centre + half
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def find_faces(
    photo: NDArray[np.uint8], *, declared_crop: bool = False, backend: FaceBackend | None = None
) -> list[Face]:
    """Every face of the photo, the largest first, then from left to right.

    Args:
        photo: (H, W, 3) uint8 RGB, upright (:func:`facellava.faces.read_photo`).
        declared_crop: the caller knows that the picture is one face, tightly cropped, down to
            48x48 pixels (dataset images). If nothing is detected the face is taken to fill it,
            and is marked "assumed_box".
        backend: a further detector with its model file; None reads the environment variables
            FACELLAVA_FACE_BACKEND and FACELLAVA_FACE_MODEL.

    Raises:
        NoFaceFound: no face in the photo, or only ones turned too far away for landmarks.
        MissingBackend: the named backend or the landmark file is not there.
    """
    search = _upright_look(photo, SEARCH_SIDE)
    found, doubtful = _upright(search, backend or FaceBackend.from_environment())
    if declared_crop:
        found = [one for one in found if _fills(search, one, FILLED)]
        if not found:
            hidden = _hidden(photo, search, [], ALL_TILTS, ())
            found = [one for one in hidden if _fills(search, one, FILLED_WEAK)]
        return [_face_at(photo, found[0] if found else _assumed(search))]
    smallest = min((one.detection.box[2] - one.detection.box[0] for one in found), default=0.0)
    if smallest < CROWD_BOX and max(photo.shape[:2]) > SEARCH_SIDE:
        finer, doubtful_finer = _upright(_upright_look(photo, FINE_SIDE), FaceBackend())
        found, doubtful = found + finer, doubtful + doubtful_finer
    kept = [one for one in found if _seen_again(photo, one, SEEN_AGAIN)]
    if kept:
        smallest = min(one.extent[2] - one.extent[0] for one in kept)
        side = min(COARSE_SIDE, round(max(photo.shape[:2]) * LEAST_BOX / (BESIDE * smallest)))
        beside = _turned(photo, search, TILTS, side)
        turned = [one for one in beside if _sure_turned(photo, one)]
        found = _largest_first(kept + turned, photo)
    else:
        found = _hidden(photo, search, doubtful + found, TILTS, RIGHT_ANGLES)
        alone = len(found) == 1 and not _sure_turned(photo, found[0])
        found = [
            one
            for one in _largest_first(found, photo)
            if _seen_again(photo, one, SEEN_AGAIN_ALONE if alone else SEEN_AGAIN)
        ]
    if len(found) > MAX_FACES:
        logger.warning("The photo shows %d faces; the largest %d are kept.", len(found), MAX_FACES)
    fitted = [_face_at(photo, one) for one in found[:MAX_FACES]]
    faces = [face for face in fitted if not face.weak or plausible(face.photo_landmarks)]
    if not faces:
        raise NoFaceFound(
            "The face is turned too far away; use a photo that shows both eyes."
            if fitted
            else "No face was found; use a photo where the face is large and in view."
        )
    return [face.with_index(index) for index, face in enumerate(faces)]


def _upright_look(photo: NDArray[np.uint8], side: int) -> _Look:
    """The photo with its longest side at most `side`, and at least 192, pixels."""
    longest = max(photo.shape[:2])
    scale = side / longest if longest > side else max(1.0, SMALL_SIDE / longest)
    if scale == 1.0:
        return _Look(photo, np.eye(2, 3))
    size = (max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(photo, size, interpolation=interpolation), np.uint8)
    return _Look(pixels, np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]]))


def _upright(look: _Look, backend: FaceBackend) -> tuple[list[_Found], list[_Found]]:
    """Faces that stand upright: sure ones, the largest first, and doubtful ones."""
    boxes = detect(look.pixels, WEAK_THRESHOLD)
    sure = [_Found(one, look, "dlib_hog") for one in boxes if one.score >= 0]
    doubtful = [_Found(one, look, "dlib_hog_weak") for one in boxes if one.score < 0]
    detector = backend.detector()
    for one in detector(look.pixels) if detector else []:
        if all(overlap(one.box, other.detection.box) <= MAX_OVERLAP for other in sure):
            sure.append(_levelled(look, one, backend.name))
    sure.sort(key=lambda one: (-round(_area(one.extent)), one.extent[0]))
    return sure, doubtful


def _levelled(look: _Look, seen: Detection, source: str) -> _Found:
    """What another detector saw, turned upright; its score is what HOG then says, or 0.

    Landmarks are as good as HOG's score says, whatever found the box: under a mask or a hand
    other detectors are sure of a face whose landmarks are invented.
    """
    x0, y0, x1, y1 = seen.box
    side = x1 - x0
    size = max(16, round(1.8 * side))
    turn = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), seen.roll, 1.0)
    turn[:, 2] += [size / 2 - (x0 + x1) / 2, size / 2 - (y0 + y1) / 2]
    pixels = np.asarray(
        cv2.warpAffine(look.pixels, turn, (size, size), borderMode=cv2.BORDER_REFLECT), np.uint8
    )
    back = np.asarray(cv2.invertAffineTransform(turn))
    low, high = (size - side) / 2, (size + side) / 2
    box = (low, low, high, high)
    scores = [one.score for one in detect(pixels) if overlap(one.box, box) > MAX_OVERLAP]
    upright = _Look(pixels, _compose(back, look.to_photo))
    return _Found(Detection(box, max(scores, default=0.0)), upright, source)


def _turned(
    photo: NDArray[np.uint8], search: _Look, angles: Iterable[int], side: int = COARSE_SIDE
) -> list[_Found]:
    """All that HOG sees in the picture turned by each angle in degrees, down to doubtful ones."""
    height, width = search.pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(search.pixels, size, interpolation=cv2.INTER_AREA)
    to_search = np.array([[width / size[0], 0, 0], [0, height / size[1], 0]])
    middle = (size[0] / 2, size[1] / 2)
    found = []
    for angle in angles:
        turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
        reach = np.abs(turn[:, :2]) @ np.array(size)
        if angle == 0:
            reach += 2 * BORDER_SHARE * max(size)
        turn[:, 2] += reach / 2 - middle
        canvas = (int(np.ceil(reach[0])), int(np.ceil(reach[1])))
        pixels = cv2.warpAffine(small, turn, canvas, borderMode=cv2.BORDER_REFLECT)
        back = _compose(np.asarray(cv2.invertAffineTransform(turn)), to_search)
        look = _Look(np.asarray(pixels, np.uint8), _compose(back, search.to_photo))
        found += [_Found(one, look, "dlib_hog_weak") for one in detect(look.pixels, WEAK_THRESHOLD)]
    return [one for one in found if _mostly_inside(one, photo)]


def _hidden(
    photo: NDArray[np.uint8],
    search: _Look,
    doubtful: list[_Found],
    tilts: Sequence[int],
    quarters: Sequence[int],
) -> list[_Found]:
    """Faces of a picture in which none stands upright in full view.

    Either those that are fairly sure in some turn, or the single best of the doubtful ones.
    """
    found = doubtful + _turned(photo, search, (0, *tilts))
    if all(one.detection.score <= SURE_OF_TURNED for one in found):
        for angle in quarters:
            seen = _turned(photo, search, (angle,))
            # A whole photo that lies on its side may show small faces too.
            found += seen and seen + _turned(photo, search, (angle,), SEARCH_SIDE)
    found.sort(key=lambda one: -one.detection.score)
    return [one for one in found if one.detection.score > SURE_OF_TURNED] or found[:1]


def _fills(search: _Look, found: _Found, limits: tuple[float, float]) -> bool:
    """Whether a box has the size that the face of a declared crop has."""
    height, width = search.pixels.shape[:2]
    side = (found.extent[2] - found.extent[0]) / search.to_photo[0, 0]
    return limits[0] <= side / min(height, width) <= limits[1]


def _assumed(search: _Look) -> _Found:
    """The face that fills a declared crop."""
    height, width = search.pixels.shape[:2]
    x0, y0, x1, y1 = ASSUMED_BOX
    box = (x0 * width, y0 * height, x1 * width, y1 * height)
    return _Found(Detection(box, 0.0), search, "assumed_box")


def _largest_first(found: list[_Found], photo: NDArray[np.uint8]) -> list[_Found]:
    """Each face once, by its area in the photo, then from left to right."""
    kept: list[_Found] = []
    for one in sorted(found, key=lambda one: (one.source == "dlib_hog_weak", -one.detection.score)):
        if all(not _same_face(one, other) for other in kept):
            kept.append(one)

    def order(one: _Found) -> tuple[float, float]:
        box = _clipped(one.extent, photo)
        return -round(_area(box)), box[0]

    return sorted(kept, key=order)


def _same_face(one: _Found, other: _Found) -> bool:
    """Whether two looks saw one face; a weak box also when it is half covered by the other."""
    if overlap(one.extent, other.extent) > MAX_OVERLAP:
        return True
    x0, y0, x1, y1 = (
        max(one.extent[0], other.extent[0]),
        max(one.extent[1], other.extent[1]),
        min(one.extent[2], other.extent[2]),
        min(one.extent[3], other.extent[3]),
    )
    shared = max(0.0, x1 - x0) * max(0.0, y1 - y0)
    smaller = min(_area(one.extent), _area(other.extent))
    return one.source == "dlib_hog_weak" and shared > 0.5 * smaller


def _mostly_inside(found: _Found, photo: NDArray[np.uint8]) -> bool:
    """False for the mirror image of a face, whose middle lies beyond the photo's edge."""
    return _area(_clipped(found.extent, photo)) >= MIN_INSIDE * _area(found.extent)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _clipped(box: Box, photo: NDArray[np.uint8]) -> Box:
    height, width = photo.shape[:2]
    return (
        min(max(box[0], 0.0), float(width)),
        min(max(box[1], 0.0), float(height)),
        min(max(box[2], 0.0), float(width)),
        min(max(box[3], 0.0), float(height)),
    )


def _sure_turned(photo: NDArray[np.uint8], found: _Found) -> bool:
    return found.detection.score > SURE_OF_TURNED and _seen_again(photo, found, SEEN_AGAIN)


def _seen_again(photo: NDArray[np.uint8], found: _Found, least: float) -> bool:
    """Whether HOG holds to a low score when it sees the box alone, at several sizes."""
    if found.detection.score >= SURE_AT_ONCE or not found.source.startswith("dlib_hog"):
        return True
    scores = []
    for wanted in SECOND_SIZES:
        patch, middle = _patch(photo, found, wanted, cv2.BORDER_REFLECT)
        near = [
            one.score
            for one in detect(patch, -1.0, magnify=False)
            if overlap(one.box, middle) > MAX_OVERLAP
        ]
        scores.append(max(near, default=-1.0))
    return float(np.mean(scores)) >= least


def _face_at(photo: NDArray[np.uint8], found: _Found) -> Face:
    """Landmarks on an upright patch of about 200 pixels, mapped back to the photo.

    Where the photo is finer than the look, the patch is cut from the photo: finer points at the
    same cost.
    """
    x0, _, x1, _ = found.detection.box
    matrix = found.look.to_photo
    zoom = max(1.0, min(PATCH_SIDE / (x1 - x0), float(np.hypot(matrix[0, 0], matrix[1, 0]))))
    # A plain find keeps the border that the landmarks of the training faces were fitted with.
    border = cv2.BORDER_REPLICATE if found.source == "dlib_hog" else cv2.BORDER_REFLECT
    patch, box = _patch(photo, found, zoom * (x1 - x0), border)
    patch_to_photo = _compose(_patch_to_look(found, zoom * (x1 - x0)), matrix)
    points = fit_landmarks(patch, box)
    return canonical_face(
        photo,
        points @ patch_to_photo[:, :2].T + patch_to_photo[:, 2],
        box=_clipped(found.extent, photo),
        score=found.detection.score,
        source=found.source,
    )


def _patch_to_look(found: _Found, wanted: float) -> Affine:
    """From a patch in which the box is `wanted` pixels wide, with a margin, to its look."""
    x0, y0, x1, y1 = found.detection.box
    pixel, margin = (x1 - x0) / wanted, PATCH_MARGIN * max(x1 - x0, y1 - y0)
    return np.array([[pixel, 0, x0 - margin], [0, pixel, y0 - margin]])


def _patch(
    photo: NDArray[np.uint8], found: _Found, wanted: float, border: int
) -> tuple[NDArray[np.uint8], Box]:
    """The upright surround of a box, magnified from the photo where the look is too coarse."""
    x0, y0, x1, y1 = found.detection.box
    to_look = _patch_to_look(found, wanted)
    zoom = 1 / to_look[0, 0]
    margin = PATCH_MARGIN * max(x1 - x0, y1 - y0)
    size = max(16, round((max(x1 - x0, y1 - y0) + 2 * margin) * zoom))
    coarse = zoom > 1.0
    patch = cv2.warpAffine(
        np.ascontiguousarray(photo if coarse else found.look.pixels),
        _compose(to_look, found.look.to_photo) if coarse else to_look,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    box = (margin * zoom, margin * zoom, (margin + x1 - x0) * zoom, (margin + y1 - y0) * zoom)
    return np.asarray(patch, np.uint8), box


def _compose(first: Affine, then: Affine) -> Affine:
    """One (2, 3) affine that applies `first`, then `then`."""
    linear = then[:, :2] @ first[:, :2]
    return np.concatenate([linear, (then[:, :2] @ first[:, 2] + then[:, 2])[:, None]], axis=1)
