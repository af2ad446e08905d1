"""Encoder features of every face, computed once: stages 1 and 2 never run the frozen encoder.

Each face is stored in a few variants (as it is, then in other light and slightly moved), so that
the language model does not learn one picture by heart. Faces are not mirrored: their answers name
left and right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from facellava.face_encoder import FaceEncoder
from train.augment import recolour, shift
from train.encoder import to_pixel_values
from train.face_arrays import FaceArrays

BATCH = 128


@dataclass
class FeatureCache:
    """V variants of N faces.

    Attributes:
        features: (V, N, tokens, width) float16, what `FaceEncoder.encode_pixels` gives.
        landmarks: (V, N, 68, 2) float32 in [0, 1] of the crop, moved with the picture.
    """

    features: NDArray[np.float16]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return self.features.shape[1]

    @property
    def variants(self) -> int:
        """How often each face is stored."""
        return self.features.shape[0]


@torch.inference_mode()
def cache_features(
    face_encoder: FaceEncoder, arrays: FaceArrays, folder: Path, *, variants: int, seed: int = 0
) -> FeatureCache:
    """Features of the faces, read from `folder` where they were made before."""
    if not folder.exists():
        face_encoder.eval()
        config = face_encoder.config
        width = face_encoder.encode_pixels(torch.zeros(1, 3, *config.image_size)).shape[-1]
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        shape = (variants, len(arrays), config.tokens_per_frame, width)
        features = np.lib.format.open_memmap(
            partial / "features.npy", mode="w+", dtype=np.float16, shape=shape
        )
        landmarks = np.zeros((variants, len(arrays), 68, 2), np.float32)
        bar = tqdm(total=variants * len(arrays), unit="face", desc="features")
        for variant in range(variants):
            for start in range(0, len(arrays), BATCH):
                rows = range(start, min(start + BATCH, len(arrays)))
                pictures, points = _variant(arrays, rows, variant, seed)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    encoded = face_encoder.encode_pixels(to_pixel_values(pictures))
                features[variant, rows.start : rows.stop] = encoded.float().numpy()
                landmarks[variant, rows.start : rows.stop] = points
                bar.update(len(rows))
        bar.close()
        features.flush()
        np.save(partial / "landmarks.npy", landmarks)
        partial.rename(folder)
    return FeatureCache(
        features=np.load(folder / "features.npy", mmap_mode="r"),
        landmarks=np.load(folder / "landmarks.npy"),
    )


def _variant(
    arrays: FaceArrays, rows: range, variant: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    pixels, landmarks = (
        arrays.pixels[rows.start : rows.stop],
        arrays.landmarks[rows.start : rows.stop],
    )
    if variant == 0:
        return np.asarray(pixels), np.asarray(landmarks)
    pictures, points = [], []
    for row, picture, marks in zip(rows, pixels, landmarks, strict=True):
        rng = np.random.default_rng((seed, variant, row))
        moved, moved_marks = shift(np.asarray(picture), np.asarray(marks), rng)
        pictures.append(recolour(moved, rng))
        points.append(moved_marks)
    return np.stack(pictures), np.stack(points)
