"""Picture augmentation that keeps every face readable: framing, light, colour, grain.

All sources get all of it, so that the model sees a grey, blurred or recompressed face from each
and cannot tell the data set by its look. Image and landmarks move together.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.regions import flip_landmarks

PADDING = (128, 128, 128)


def move(
    pixels: NDArray[np.uint8], landmarks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """:func:`shift`, and half of the time a mirror first."""
    if rng.random() < 0.5:
        pixels, landmarks = pixels[:, ::-1], flip_landmarks(landmarks)
    return shift(pixels, landmarks, rng)


def shift(
    pixels: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    rng: np.random.Generator,
    strength: float = 1.0,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A small turn, zoom and shift.

    Args:
        pixels: (S, S, 3) uint8 RGB.
        landmarks: (68, 2) in [0, 1] of the picture.
        rng: where to draw from.
        strength: how much of the usual ranges.
    """
    size = pixels.shape[0]
    turn = cv2.getRotationMatrix2D(
        (size / 2, size / 2),
        rng.uniform(-10, 10) * strength,
        float(np.exp(rng.uniform(-0.1, 0.1) * strength)),
    )
    turn[:, 2] += rng.uniform(-0.04, 0.04, size=2) * size * strength
    moved = cv2.warpAffine(np.ascontiguousarray(pixels), turn, (size, size), borderValue=PADDING)
    points = landmarks @ turn[:, :2].T + turn[:, 2] / size
    return np.asarray(moved, np.uint8), points.astype(np.float32)


def recolour(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, contrast, tint; a grey picture may get a tint, a coloured one may lose its colour."""
    values = pixels.astype(np.float32)
    if rng.random() < 0.3:
        values = values.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if rng.random() < 0.5:
        values *= rng.uniform(0.8, 1.2, size=3).astype(np.float32)
    gain, bias = rng.uniform(0.7, 1.3), rng.uniform(-30, 30)
    values = (values - 128) * gain + 128 + bias
    return np.clip(values, 0, 255).astype(np.uint8)


def roughen(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Loss of detail: shrunk and magnified again, blurred, compressed or grainy."""
    choice = rng.random()
    size = pixels.shape[0]
    if choice < 0.2:
        small = int(rng.integers(size * 2 // 5, size))
        shrunk = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_CUBIC))
    elif choice < 0.3:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.2)))
    elif choice < 0.4:
        quality = int(rng.integers(40, 95))
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    elif choice < 0.5:
        grain = rng.normal(0, rng.uniform(2, 8), size=pixels.shape)
        pixels = np.clip(pixels + grain, 0, 255)
    return pixels.astype(np.uint8)


def erase(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One grey rectangle over up to a tenth of the picture, in a quarter of the pictures."""
    if rng.random() < 0.75:
        return pixels
    size = pixels.shape[0]
    height, width = (int(rng.uniform(0.1, 0.32) * size) for _ in range(2))
    top, left = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    pixels = pixels.copy()
    pixels[top : top + height, left : left + width] = PADDING
    return pixels
