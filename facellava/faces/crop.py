"""The canonical crop: the same framing for every dataset and every live photo.

A similarity transform, computed from the landmarks alone, takes the roll out, scales by the
distance between the eyes and centres between eyes and mouth. Without it the model would learn
each dataset's framing and fail on real photos.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.errors import BadModelInput
from facellava.faces.face import Face
from facellava.regions import N_LANDMARKS

CROP_SIZE: Final = 192
PADDING_GREY: Final = 128
# The crop's side in inter-ocular distances, and how far below the eyes its centre lies.
SIDE_IN_EYE_DISTANCES: Final = 3.0
CENTRE_BELOW_EYES: Final = 0.36
# Eyes come closer in the picture when a head turns; the eye-mouth distance does not.
EYE_MOUTH_TO_EYE_DISTANCE: Final = 0.92


def crop_matrix(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Affine (2, 3) from crop pixels to photo pixels, for landmarks (68, 2) in photo pixels.

    Raises:
        BadModelInput: landmarks of another shape, not finite, or all on one spot.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (N_LANDMARKS, 2) or not np.isfinite(points).all():
        raise BadModelInput(
            f"Landmarks must be {N_LANDMARKS} finite (x, y) points, not an array of shape "
            f"{points.shape}; give the iBUG-68 points in photo pixels."
        )
    right_eye, left_eye = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    across = left_eye - right_eye
    eyes, mouth = (right_eye + left_eye) / 2, points[48:60].mean(axis=0)
    down = mouth - eyes
    unit = max(float(np.hypot(*across)), EYE_MOUTH_TO_EYE_DISTANCE * float(np.hypot(*down)))
    if unit < 1e-6:
        raise BadModelInput("All landmarks lie on one spot; give the points of a real face.")
    # Where the head is turned far, the line between the eyes is short and its angle noisy; the
    # line down to the mouth then says more about the roll.
    axis = across / unit + np.array([down[1], -down[0]]) / unit
    axis = axis / max(float(np.hypot(*axis)), 1e-9)
    normal = np.array([-axis[1], axis[0]])
    side = SIDE_IN_EYE_DISTANCES * unit
    centre = eyes + normal * CENTRE_BELOW_EYES * unit
    linear = np.stack([axis, normal], axis=1) * (side / CROP_SIZE)
    origin = centre - linear @ np.array([CROP_SIZE / 2, CROP_SIZE / 2])
    return np.concatenate([linear, origin[:, None]], axis=1)


def cut(photo: NDArray[np.uint8], crop_to_photo: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The (192, 192, 3) crop of an RGB photo (H, W, 3); what lies outside is grey.

    Large faces are averaged down before they are turned, so that fine structure does not alias.
    """
    matrix = crop_to_photo.copy()
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    shrink = int(scale)
    if shrink >= 2:
        corners = np.array([[0, 0, 1], [CROP_SIZE, 0, 1], [0, CROP_SIZE, 1], [CROP_SIZE] * 2 + [1]])
        reached = corners @ matrix.T
        height, width = photo.shape[:2]
        x0, y0 = np.clip(np.floor(reached.min(axis=0)) - shrink, 0, [width - 1, height - 1])
        x1, y1 = np.clip(np.ceil(reached.max(axis=0)) + shrink, 1, [width, height])
        part = photo[int(y0) : int(y1), int(x0) : int(x1)]
        size = (max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink))
        factors = np.array([size[0] / part.shape[1], size[1] / part.shape[0]])
        photo = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        matrix[:, 2] = (matrix[:, 2] - [x0, y0]) * factors
        matrix[:, :2] *= factors[:, None]
    # cv2 counts pixel centres from 0, our frame counts edges from 0: shift by half a pixel.
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    interpolation = cv2.INTER_CUBIC if scale < 1 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(
        np.ascontiguousarray(photo),
        centred,
        (CROP_SIZE, CROP_SIZE),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PADDING_GREY,) * 3,
    )
    return np.asarray(crop, dtype=np.uint8)


def photo_to_crop(
    points: NDArray[np.floating], crop_to_photo: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Points (N, 2) in photo pixels to [0, 1] of the crop."""
    inverse = np.linalg.inv(crop_to_photo[:, :2])
    pixels = (np.asarray(points, dtype=np.float64) - crop_to_photo[:, 2]) @ inverse.T
    return (pixels / CROP_SIZE).astype(np.float32)


def canonical_face(
    photo: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    *,
    box: tuple[float, float, float, float] | None = None,
    score: float = 0.0,
    source: str = "supplied",
    index: int = 0,
) -> Face:
    """The face that lies at known landmarks.

    Args:
        photo: (H, W, 3) uint8 RGB.
        landmarks: (68, 2) in photo pixels.
        box: detector's box in photo pixels; the landmarks' extent where None.

    Raises:
        BadModelInput: landmarks that are not 68 finite points.
    """
    matrix = crop_matrix(landmarks)
    if box is None:
        low, high = np.min(landmarks, axis=0), np.max(landmarks, axis=0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Face(
        crop=cut(photo, matrix),
        landmarks=photo_to_crop(landmarks, matrix),
        box=box,
        index=index,
        score=score,
        source=source,
        crop_to_photo=matrix,
    )
