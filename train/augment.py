"""Picture augmentation that keeps every face readable: framing, light, colour, grain.

All sources get all of it, so that the model sees a grey, blurred or recompressed face from each
and cannot tell the data set by its look. Image and landmarks move together.

Whole batches are changed at once, on the device where they lie. The random draws come from numpy,
so that a batch is the same on every machine but for rounding. Pictures are (B, 3, S, S) float32 RGB
in [0, 255].
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facellava.regions import FLIP_PERMUTATION

PADDING: Final = 128.0
BLOCK: Final = 8  # pixels; JPEG's
# ITU-T T.81, annex K: luminance's and chrominance's usual tables.
LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMINANCE: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)  # fmt: skip


def to_pictures(pixels: NDArray[np.uint8] | Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in [0, 255]."""
    # A copy: arrays mapped from disk are read-only, and torch warns about those.
    values = torch.from_numpy(np.array(pixels)) if isinstance(pixels, np.ndarray) else pixels
    return values.permute(0, 3, 1, 2).float()


def mirror(
    pictures: Tensor, landmarks: Tensor, mirrored: NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """The chosen pictures mirrored left to right, with their landmarks (B, 68, 2)."""
    chosen = _column(mirrored, pictures)
    order = torch.as_tensor(FLIP_PERMUTATION, device=landmarks.device)
    flipped = landmarks[:, order] * landmarks.new_tensor([-1.0, 1.0]) + landmarks.new_tensor(
        [1.0, 0.0]
    )
    return (
        torch.where(chosen[:, None, None, None], pictures.flip(-1), pictures),
        torch.where(chosen[:, None, None], flipped, landmarks),
    )


def shift(
    pictures: Tensor, landmarks: Tensor, rng: np.random.Generator, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A small turn, zoom and shift of each picture; grey where nothing was.

    Args:
        landmarks: (B, 68, 2) in [0, 1] of the picture.
        strength: how much of the usual ranges.
    """
    count = len(pictures)
    angle = np.deg2rad(rng.uniform(-10, 10, count) * strength)
    zoom = np.exp(rng.uniform(-0.1, 0.1, count) * strength)
    # About the centre, in half sides: what torch's grids count in.
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=1)
    forward = (turn * zoom[:, None]).reshape(count, 2, 2)
    way = rng.uniform(-0.08, 0.08, (count, 2, 1)) * strength
    backward = np.linalg.inv(forward)
    theta = _column(np.concatenate([backward, -backward @ way], axis=2), pictures)
    grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
    moved = functional.grid_sample(pictures - PADDING, grid, align_corners=False) + PADDING
    centred = 2 * landmarks - 1
    points = (
        centred @ _column(forward, landmarks).transpose(1, 2)
        + _column(way, landmarks)[:, None, :, 0]
    )
    return moved, (points + 1) / 2


def recolour(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Light, contrast, tint; a grey picture may get a tint, a coloured one may lose its colour."""
    count = len(pictures)
    grey = _column(rng.random(count) < 0.3, pictures)[:, None, None, None]
    tint = np.where(rng.random((count, 1)) < 0.5, rng.uniform(0.8, 1.2, (count, 3)), 1.0)
    gain, bias = rng.uniform(0.7, 1.3, count), rng.uniform(-30, 30, count)
    values = torch.where(grey, pictures.mean(dim=1, keepdim=True), pictures)
    values = values * _column(tint, pictures)[:, :, None, None]
    values = (values - 128) * _column(gain, pictures)[:, None, None, None] + 128
    return (values + _column(bias, pictures)[:, None, None, None]).clamp(0, 255)


def roughen(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Less detail in half of the pictures: shrunk and magnified, blurred, compressed, grainy."""
    choice = rng.random(len(pictures))
    pictures = pictures.clone()
    kinds = (
        (0.0, 0.2, _coarsened),
        (0.2, 0.3, _blurred),
        (0.3, 0.4, compressed),
        (0.4, 0.5, _grainy),
    )
    for low, high, change in kinds:
        # Looked up here and not on the device, which would have to be waited for.
        rows = np.flatnonzero((choice >= low) & (choice < high))
        if len(rows):
            index = torch.as_tensor(rows, device=pictures.device)
            pictures[index] = change(pictures[index], rng).clamp(0, 255)
    return pictures


def erase(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """One grey rectangle over up to a tenth of the picture, in a quarter of the pictures."""
    count, size = len(pictures), pictures.shape[-1]
    sides = rng.uniform(0.1, 0.32, (count, 2)) * size * (rng.random((count, 1)) < 0.25)
    corner = _column(rng.uniform(0, size - sides), pictures)
    places = torch.arange(size, device=pictures.device) + 0.5
    ends = corner + _column(sides, pictures)
    inside = (places >= corner[:, :, None]) & (places < ends[:, :, None])
    return pictures.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], PADDING)


def _column(values: NDArray, like: Tensor) -> Tensor:
    tensor = torch.as_tensor(np.ascontiguousarray(values))
    return tensor.to(like.device, tensor.dtype if tensor.dtype is torch.bool else like.dtype)


def _coarsened(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """To 40-100% of the size and back; a few sizes a batch."""
    size = pictures.shape[-1]
    parts = []
    for part in pictures.split(max(1, math.ceil(len(pictures) / 4))):
        small = int(rng.integers(size * 2 // 5, size))
        shrunk = functional.interpolate(part, size=(small, small), mode="area")
        parts.append(functional.interpolate(shrunk, size=(size, size), mode="bicubic"))
    return torch.cat(parts)


def _blurred(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    reach = 4
    sigma = _column(rng.uniform(0.4, 1.2, len(pictures)), pictures)[:, None]
    steps = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = (-(steps**2) / (2 * sigma**2)).softmax(dim=1).repeat_interleave(3, dim=0)
    channels = functional.pad(pictures, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    groups = channels.shape[1]
    rows = functional.conv2d(channels, kernel[:, None, :, None], groups=groups)
    return functional.conv2d(rows, kernel[:, None, None, :], groups=groups).view_as(pictures)


def compressed(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """What JPEG of quality 40 to 95 leaves, colours at full resolution; sides in whole blocks."""
    quality = rng.integers(40, 95, len(pictures))
    scale = np.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    tables = np.stack([LUMINANCE, CHROMINANCE, CHROMINANCE])
    steps = _column(np.maximum(np.rint(scale[:, None, None, None] * tables), 1), pictures)
    colours = pictures.new_tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    values = torch.einsum("kc,bchw->bkhw", colours, pictures - 128)
    count, side = len(pictures), pictures.shape[-1] // BLOCK
    blocks = values.reshape(count, 3, side, BLOCK, side, BLOCK)
    basis = _cosines(pictures)
    waves = torch.einsum("ui,bkyixj,vj->bkyxuv", basis, blocks, basis)
    steps = steps[:, :, None, None]
    kept = (waves / steps).round() * steps
    blocks = torch.einsum("ui,bkyxuv,vj->bkyixj", basis, kept, basis)
    values = blocks.reshape_as(pictures)
    return torch.einsum("ck,bkhw->bchw", torch.linalg.inv(colours), values) + 128


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal discrete cosine basis of a block, (frequency, place)."""
    place = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    waves = torch.cos(math.pi / BLOCK * (place[None] + 0.5) * place[:, None]) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves


def _grainy(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    generator = torch.Generator(pictures.device).manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    return (
        pictures + noise * _column(rng.uniform(2, 8, len(pictures)), pictures)[:, None, None, None]
    )
