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
from torch import Tensor
from tqdm import tqdm

from facellava.face_encoder import FaceEncoder
from train.augment import recolour, shift, to_pictures
from train.damage import undamaged
from train.device import training_device
from train.face_arrays import FaceArrays
from train.face_batches import to_pixel_values

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
    """Features of the faces, read from `folder` where they were made before.

    Raises:
        BadCheckpoint: what was made before is damaged.
    """
    if not folder.exists():
        device = training_device()
        face_encoder.eval().to(device)
        config = face_encoder.config
        blank = torch.zeros(1, 3, *config.image_size, device=device)
        width = face_encoder.encode_pixels(blank).shape[-1]
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
                rows = slice(start, min(start + BATCH, len(arrays)))
                pictures, points = _variant(arrays, rows, variant, seed, device)
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    encoded = face_encoder.encode_pixels(to_pixel_values(pictures))
                features[variant, rows] = encoded.float().cpu().numpy()
                landmarks[variant, rows] = points.cpu().numpy()
                bar.update(len(points))
        bar.close()
        face_encoder.to("cpu")
        features.flush()
        np.save(partial / "landmarks.npy", landmarks)
        partial.rename(folder)
    with undamaged(folder, "remove that folder, and the same command makes it again."):
        return FeatureCache(
            features=np.load(folder / "features.npy", mmap_mode="r"),
            landmarks=np.load(folder / "landmarks.npy"),
        )


def _variant(
    arrays: FaceArrays, rows: slice, variant: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    pictures = to_pictures(arrays.pixels[rows]).to(device)
    points = torch.as_tensor(np.array(arrays.landmarks[rows]), device=device)
    if variant == 0:
        return pictures, points
    rng = np.random.default_rng((seed, variant, rows.start))
    pictures, points = shift(pictures, points, rng)
    return recolour(pictures, rng), points
