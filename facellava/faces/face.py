"""One found face: its canonical crop, its landmarks, and how sure the finder was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

# Fits of the 68-point model whose HOG score was at least 1.0 looked right by eye; the bad ones
# (near profile, covered, cut by the frame) all scored below 0.82.
GOOD_SCORE = 1.0


@dataclass(frozen=True, eq=False)
class Face:
    """A face of a photo, or of one frame of a clip.

    Attributes:
        crop: canonical crop, (192, 192, 3) uint8 RGB; grey 128 where it leaves the photo.
        landmarks: the 68 points, (68, 2) float32, (x, y) in [0, 1] of the crop.
        box: (x0, y0, x1, y1) in photo pixels.
        index: 0 for the largest face of the photo.
        score: the detector's score; 0.0 where no detector spoke.
        source: what found it: "dlib_hog", "dlib_hog_weak", "assumed_box", "supplied",
            "rendered", ...
        crop_to_photo: (2, 3) affine matrix, crop pixels to photo pixels.
    """

    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    box: tuple[float, float, float, float]
    index: int
    score: float
    source: str
    crop_to_photo: NDArray[np.float64]

    @property
    def native_size(self) -> float:
        """Photo pixels along the crop's side: below the crop's size, the crop is magnified."""
        scale = float(np.hypot(self.crop_to_photo[0, 0], self.crop_to_photo[1, 0]))
        return scale * self.crop.shape[0]

    @property
    def weak(self) -> bool:
        """True where the landmarks may be wrong: low score, or no plain detection behind them."""
        if self.source in ("supplied", "rendered"):
            return False
        return self.score < GOOD_SCORE or self.source in ("dlib_hog_weak", "assumed_box")

    @property
    def photo_landmarks(self) -> NDArray[np.float64]:
        """The 68 points in photo pixels, (68, 2)."""
        pixels = self.landmarks.astype(np.float64) * self.crop.shape[0]
        return pixels @ self.crop_to_photo[:, :2].T + self.crop_to_photo[:, 2]

    def with_index(self, index: int) -> Face:
        """The same face under another number."""
        return replace(self, index=index)
