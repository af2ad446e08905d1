"""Head pose from 68 points, and the points as they would lie on the face seen from the front.

The head is fitted by weak perspective (a scaled orthographic camera): the affine map from a mean
3-D face to the points is found by least squares and brought to the nearest scaled rotation.
The fit uses points that expressions leave in place: the eye corners and the nose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facellava.regions import FLIP_PERMUTATION, N_LANDMARKS

# The mean face in eye distances, origin between the eyes; x to the right of the picture, y down,
# z to the camera. x and y: medians of dlib fits on frontal faces (CelebA and UTKFace), made
# symmetric. z: the iBUG points of USC ICT-FaceKit's neutral face (MIT licence).
# fmt: off
_RIGHT_HALF: Final = {
    0: (-1.10, -0.01, -0.85), 1: (-1.08, 0.28, -0.81), 2: (-1.04, 0.56, -0.72),
    3: (-0.99, 0.85, -0.62), 4: (-0.90, 1.11, -0.48), 5: (-0.73, 1.35, -0.29),
    6: (-0.52, 1.54, -0.07), 7: (-0.28, 1.70, 0.16), 8: (0.0, 1.74, 0.19),
    17: (-0.92, -0.21, -0.20), 18: (-0.78, -0.33, -0.04), 19: (-0.58, -0.35, 0.09),
    20: (-0.38, -0.33, 0.19), 21: (-0.20, -0.25, 0.23),
    27: (0.0, -0.02, 0.23), 28: (0.0, 0.17, 0.35), 29: (0.0, 0.37, 0.47), 30: (0.0, 0.57, 0.59),
    31: (-0.21, 0.68, 0.25), 32: (-0.11, 0.72, 0.34), 33: (0.0, 0.75, 0.36),
    36: (-0.69, 0.0, -0.10), 37: (-0.57, -0.07, 0.02), 38: (-0.42, -0.07, 0.05),
    39: (-0.30, 0.03, 0.0), 40: (-0.44, 0.05, 0.03), 41: (-0.58, 0.05, 0.0),
    48: (-0.43, 1.00, 0.15), 49: (-0.27, 0.94, 0.31), 50: (-0.12, 0.91, 0.38),
    51: (0.0, 0.94, 0.40), 57: (0.0, 1.26, 0.36), 58: (-0.13, 1.24, 0.33),
    59: (-0.28, 1.17, 0.26), 60: (-0.36, 1.01, 0.14), 61: (-0.12, 1.01, 0.29),
    62: (0.0, 1.02, 0.32), 66: (0.0, 1.10, 0.31), 67: (-0.12, 1.09, 0.28),
}
# fmt: on
_RIGID_POINTS: Final = (36, 39, 42, 45, 27, 28, 29, 30, 31, 32, 33, 34, 35)


def _mean_face() -> NDArray[np.float64]:
    points = np.zeros((N_LANDMARKS, 3))
    for index, (x, y, z) in _RIGHT_HALF.items():
        points[index] = (x, y, z)
        points[FLIP_PERMUTATION[index]] = (-x, y, z)
    return points


MEAN_FACE: Final = _mean_face()
_RIGID_MEAN: Final = MEAN_FACE[list(_RIGID_POINTS)].mean(axis=0)
_RIGID_INVERSE: Final = np.linalg.pinv(MEAN_FACE[list(_RIGID_POINTS)] - _RIGID_MEAN)


@dataclass(frozen=True, eq=False)
class Pose:
    """How the head is held, and its points seen from the front.

    Attributes:
        yaw: degrees; positive where the person turns to their left (the picture's right).
        pitch: degrees; positive where the face looks up.
        scale: one eye distance in units of the landmarks.
        frontal: (68, 2) points in eye distances with the pose taken out, y down, origin at the
            middle of the rigid points. The depth of each point is the mean face's.
    """

    yaw: float
    pitch: float
    scale: float
    frontal: NDArray[np.float64]


def estimate_pose(landmarks: NDArray[np.floating]) -> Pose:
    """Pose of landmarks (68, 2) in any scale, (x, y), y down."""
    points = np.asarray(landmarks, dtype=np.float64)
    rigid = points[list(_RIGID_POINTS)]
    centre = rigid.mean(axis=0)
    affine = (_RIGID_INVERSE @ (rigid - centre)).T
    left, sizes, right = np.linalg.svd(affine, full_matrices=False)
    scale = float(sizes.mean())
    rotation = left @ right
    depth = MEAN_FACE[:, 2] - _RIGID_MEAN[2]
    flat = (points - centre) / max(scale, 1e-9) - depth[:, None] * rotation[:, 2]
    frontal = flat @ np.linalg.pinv(rotation[:, :2]).T
    yaw = math.degrees(math.asin(float(np.clip(rotation[0, 2], -1, 1))))
    pitch = -math.degrees(math.asin(float(np.clip(rotation[1, 2], -1, 1))))
    return Pose(yaw=yaw, pitch=pitch, scale=scale, frontal=frontal)
