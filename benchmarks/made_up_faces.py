"""Pictures of one face, each changed by its seed: something to build corpora of any size from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as pictures

from data_builders.media import Look
from facellava.faces import Face, find_faces
from facellava.faces.crop import canonical_face

SIDE: Final = 160


@dataclass(frozen=True)
class MadeUp:
    """The portrait, changed by a seed."""

    seed: int
    find: bool

    def digest(self) -> bytes:
        return hashlib.sha256(repr(self).encode()).digest()

    def face(self, look: Look) -> tuple[Face, ...]:
        picture, landmarks = _changed(self.seed)
        if self.find:
            return (find_faces(picture, declared_crop=True)[0],)
        return (canonical_face(picture, landmarks),)


@lru_cache(maxsize=1)
def _portrait() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    photo = np.asarray(pictures.astronaut())
    return photo, find_faces(photo)[0].photo_landmarks


def _changed(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture (160, 160, 3) of the face, and the 68 points in it."""
    photo, points = _portrait()
    draw = np.random.default_rng(seed)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = SIDE / (draw.uniform(1.25, 1.6) * float((high - low).max()))
    matrix = cv2.getRotationMatrix2D(tuple((low + high) / 2), float(draw.normal(0, 4)), scale)
    matrix[:, 2] += SIDE / 2 - (low + high) / 2 + draw.normal(0, 2, 2)
    picture = cv2.warpAffine(photo, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA)
    lit = picture * draw.uniform(0.7, 1.2) + draw.normal(0, draw.uniform(1, 6), picture.shape)
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.clip(lit, 0, 255).astype(np.uint8), moved
