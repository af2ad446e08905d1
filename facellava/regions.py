"""The iBUG-68 landmarks, the paper's nine face regions, and what a horizontal flip does to them.

Left and right are the person's: in a photo the right eye stands at the left. Points are (x, y).
Regions: Face-LLaVA (arXiv 2504.07198) section 4, "Face-Region Landmark Projector".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

N_LANDMARKS: Final = 68
# Points may leave the crop a little; values beyond this are pixels, not fractions of a crop.
LARGEST_COORDINATE: Final = 4.0

REGIONS: Final[dict[str, slice]] = {
    "face": slice(0, 17),
    "right_brow": slice(17, 22),
    "left_brow": slice(22, 27),
    "nose_bridge": slice(27, 31),
    "nostrils": slice(31, 36),
    "right_eye": slice(36, 42),
    "left_eye": slice(42, 48),
    "outer_lips": slice(48, 60),
    "inner_lips": slice(60, 68),
}
N_REGIONS: Final = len(REGIONS)
REGION_SIZES: Final = tuple(part.stop - part.start for part in REGIONS.values())


def _flip_permutation() -> NDArray[np.int64]:
    """Where each point of a mirrored face comes from: point i of the mirror is point perm[i]."""
    mirrored = list(range(N_LANDMARKS))
    chains = [
        (range(0, 17), range(16, -1, -1)),  # jaw
        (range(17, 27), range(26, 16, -1)),  # both brows, outer end to outer end
        (range(31, 36), range(35, 30, -1)),  # nostrils
        (range(48, 55), range(54, 47, -1)),  # upper edge of the outer lips
        (range(55, 60), range(59, 54, -1)),  # lower edge of the outer lips
        (range(60, 65), range(64, 59, -1)),  # upper edge of the inner lips
        (range(65, 68), range(67, 64, -1)),  # lower edge of the inner lips
        ((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46)),  # right eye from left eye
        ((42, 43, 44, 45, 46, 47), (39, 38, 37, 36, 41, 40)),
    ]
    for targets, origins in chains:
        for target, origin in zip(targets, origins, strict=True):
            mirrored[target] = origin
    return np.asarray(mirrored, dtype=np.int64)


FLIP_PERMUTATION: Final = _flip_permutation()


def flip_landmarks(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Landmarks (..., 68, 2) in [0, 1] of a crop, for the crop mirrored left to right."""
    flipped = landmarks[..., FLIP_PERMUTATION, :].copy()
    flipped[..., 0] = 1.0 - flipped[..., 0]
    return flipped


def region_centroids(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean point of each region: landmarks (..., 68, 2) to centroids (..., 9, 2)."""
    return np.stack([landmarks[..., part, :].mean(axis=-2) for part in REGIONS.values()], axis=-2)
