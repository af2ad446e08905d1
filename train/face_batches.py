"""Batches for the encoder's pre-training: who is in one, what is done to the pictures, fresh fakes.

A batch depends on its number and the settings only, so that a resumed run sees what the whole one
would have seen.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Generator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facellava.faces import CROP_SIZE, Face
from facellava.faces.self_blend import self_blend
from facellava.image_processor import FaceLlavaImageProcessor
from train.augment import erase, mirror, recolour, roughen, shift, to_pictures
from train.face_arrays import ABSENT, SELF_BLENDED, FaceArrays, use_one_thread
from train.heads import expression_targets, measured_scale

IMAGE_PROCESSOR = FaceLlavaImageProcessor()
AHEAD = 4  # batches whose fakes are made while others are learned from
LABELS = ("expression", "votes", "age", "attributes", "units", "fake", "measured")


@dataclass(frozen=True)
class BatchSettings:
    """What a batch is made of."""

    batch: int = 96
    shares: tuple[float, float, float, float, float] = (0.46, 0.22, 0.16, 0.16, 0.08)
    """Of a batch, in proportion: faces with an expression, an age, attributes, a real-or-fake
    label, action units. What the corpus lacks is shared out among the rest."""
    fresh_blends: float = 0.5
    """Share of the real-or-fake part that is blended anew, a real face and its fake together."""
    mixup: float = 0.0
    """How many batches mix the pictures and labels of their faces with an expression (Zhang et al.,
    arXiv 1710.09412); the mixing share is drawn from Beta(0.4, 0.4)."""
    seed: int = 0


@dataclass(frozen=True)
class _Plan:
    """The rows of one batch: first those with an expression, last those to be blended."""

    rows: NDArray[np.int64]
    expressive: int
    blended: int


class FaceBatches:
    """Augmented batches of a corpus's faces.

    Args:
        arrays: the faces.
        settings: see BatchSettings.
        device: where pictures are augmented; on a GPU the pixels move there once.
        workers: processes that make fakes.
    """

    def __init__(
        self, arrays: FaceArrays, settings: BatchSettings, device: torch.device, workers: int = 1
    ) -> None:
        self.arrays, self.settings, self.device, self.workers = arrays, settings, device, workers
        self.scale = measured_scale(arrays)
        on_gpu = device.type != "cpu"
        self.pixels = torch.as_tensor(np.array(arrays.pixels), device=device) if on_gpu else None
        self.groups, self.chances = self._groups()
        self.counts = self._counts()
        # Sets with ages hold photos only; what was restyled once is not restyled again.
        real = (arrays.fake == 0) | (arrays.age >= 0)
        self.real = np.flatnonzero(real & ~np.char.endswith(arrays.source, SELF_BLENDED))

    def _groups(self) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64] | None]]:
        arrays = self.arrays
        groups = [
            np.flatnonzero(arrays.expression >= 0),
            np.flatnonzero(arrays.age >= 0),
            np.flatnonzero(arrays.attributes[:, 0] >= 0),
            np.flatnonzero(arrays.fake >= 0),
            np.flatnonzero((arrays.units >= 0).any(axis=1)),
        ]
        chances: list[NDArray[np.float64] | None] = [None] * len(groups)
        if len(groups[3]):
            # Where a small set of generated faces stands beside many blends, it would not be seen.
            _, kinds, sizes = np.unique(
                arrays.source[groups[3]], return_inverse=True, return_counts=True
            )
            weights = 1 / np.sqrt(sizes)[kinds]
            chances[3] = weights / weights.sum()
        return groups, chances

    def _counts(self) -> NDArray[np.int64]:
        shares = np.array(
            [s if len(g) else 0.0 for s, g in zip(self.settings.shares, self.groups, strict=True)]
        )
        counts = np.floor(shares / shares.sum() * self.settings.batch).astype(np.int64)
        counts[int(np.argmax(counts))] += self.settings.batch - counts.sum()
        return counts

    def stream(self, first: int) -> Generator[dict[str, Tensor], None, None]:
        """Endless batches from batch number `first` on."""
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(self.workers, context, use_one_thread) as pool:
            pending = [self._ordered(number, pool) for number in range(first, first + AHEAD)]
            number = first
            while True:
                plan, fakes = pending.pop(0)
                pending.append(self._ordered(number + AHEAD, pool))
                yield self._made(number, plan, fakes)
                number += 1

    def _ordered(
        self, number: int, pool: Executor
    ) -> tuple[_Plan, list[Future[NDArray[np.uint8]]]]:
        """The batch's rows, and its fakes in the making."""
        rng = np.random.default_rng((self.settings.seed, number))
        pairs = int(self.counts[3] * self.settings.fresh_blends / 2) if len(self.real) else 0
        counts = self.counts - np.array([0, 0, 0, 2 * pairs, 0])
        parts = [
            rng.choice(group, count, p=chance)
            for group, count, chance in zip(self.groups, counts, self.chances, strict=True)
            if count
        ]
        sources = rng.choice(self.real, pairs) if pairs else np.zeros(0, np.int64)
        rows = np.concatenate([*parts, sources, sources])
        pieces = np.array_split(sources, max(1, math.ceil(pairs / 8))) if pairs else []
        fakes = [
            pool.submit(
                fresh_blends,
                self.arrays.pixels[piece],
                self.arrays.landmarks[piece],
                self.arrays.native[piece],
                int(rng.integers(2**31)),
            )
            for piece in pieces
        ]
        return _Plan(rows, int(self.counts[0]), len(sources)), fakes

    def _made(
        self, number: int, plan: _Plan, fakes: list[Future[NDArray[np.uint8]]]
    ) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.settings.seed, number, 1))
        labels = self._labels(plan)
        pictures = self._pictures(plan, fakes)
        rows = plan.rows
        mirrored = rng.random(len(rows)) < 0.5
        # What is measured tells left from right.
        labels["measured"][torch.as_tensor(mirrored)] = torch.nan
        landmarks = torch.as_tensor(self.arrays.landmarks[rows], device=self.device)
        pictures, landmarks = mirror(pictures, landmarks, mirrored)
        pictures, _ = shift(pictures, landmarks, rng)
        pictures = recolour(pictures, rng)
        # Blending leaves faint traces; coarse grain would wipe them out of both classes.
        rough = torch.as_tensor(np.flatnonzero(labels["fake"].numpy() < 0), device=self.device)
        pictures[rough] = erase(roughen(pictures[rough], rng), rng)
        labels = {name: value.to(self.device) for name, value in labels.items()}
        if rng.random() < self.settings.mixup:
            pictures = _mixed(pictures, labels, plan.expressive, float(rng.beta(0.4, 0.4)))
        return {"pixel_values": to_pixel_values(pictures), **labels}

    def _labels(self, plan: _Plan) -> dict[str, Tensor]:
        arrays, rows = self.arrays, plan.rows
        measured = (arrays.measured[rows] - self.scale[0]) / self.scale[1]
        labels = {
            name: torch.from_numpy(np.array(getattr(arrays, name)[rows])) for name in LABELS[:-1]
        }
        labels["expression"] = expression_targets(labels["expression"])
        labels["measured"] = torch.from_numpy(measured.clip(-4, 4))
        if plan.blended:
            # Restyled and blended, a face is no longer as it was measured.
            labels["measured"][-2 * plan.blended :] = torch.nan
            labels["fake"][-2 * plan.blended : -plan.blended] = 0
            labels["fake"][-plan.blended :] = 1
        return labels

    def _pictures(self, plan: _Plan, fakes: list[Future[NDArray[np.uint8]]]) -> Tensor:
        kept = plan.rows[: len(plan.rows) - 2 * plan.blended]
        if self.pixels is not None:
            pictures = to_pictures(self.pixels[torch.as_tensor(kept, device=self.device)])
        else:
            pictures = to_pictures(self.arrays.pixels[kept])
        if not fakes:
            return pictures
        made = np.concatenate([future.result() for future in fakes], axis=1)
        both = to_pictures(np.concatenate([made[0], made[1]])).to(self.device)
        return torch.cat([pictures, both])


def fresh_blends(
    pixels: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    native: NDArray[np.float32],
    seed: int,
) -> NDArray[np.uint8]:
    """Self-blended fakes of real faces, beside the real faces that differ by the blend alone.

    Args:
        pixels: (N, S, S, 3) uint8 RGB, crops.
        landmarks: (N, 68, 2) in [0, 1] of the crop.
        native: (N,) photo pixels along the crop's side.
        seed: decides every draw.

    Returns:
        (2, N, S, S, 3) uint8: real faces, fakes.
    """
    size = pixels.shape[1]
    resizer = FaceLlavaImageProcessor(size=(size, size))
    made = np.empty((2, *pixels.shape), np.uint8)
    for index, (picture, points, side) in enumerate(zip(pixels, landmarks, native, strict=True)):
        rng = np.random.default_rng((seed, index))
        blend = self_blend(_face(picture, points, min(float(side), float(size))), rng)
        made[0, index], made[1, index] = (resizer.resize(f.crop) for f in (blend.real, blend.fake))
    return made


def _face(picture: NDArray[np.uint8], points: NDArray[np.float32], native: float) -> Face:
    """A cached crop as a face whose crop has `native` photo pixels along its side."""
    crop = cv2.resize(picture, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC)
    scale = native / CROP_SIZE
    return Face(
        crop=np.asarray(crop, np.uint8),
        landmarks=points,
        box=(0.0, 0.0, native, native),
        index=0,
        score=0.0,
        source="supplied",
        crop_to_photo=np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]),
    )


def to_pixel_values(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 255] to the scale in which answers see them, channels last."""
    mean = pictures.new_tensor(IMAGE_PROCESSOR.image_mean)[:, None, None]
    std = pictures.new_tensor(IMAGE_PROCESSOR.image_std)[:, None, None]
    values = (pictures / 255.0 - mean) / std
    return values.contiguous(memory_format=torch.channels_last)


def _mixed(pictures: Tensor, labels: dict[str, Tensor], count: int, share: float) -> Tensor:
    """The first `count` faces mixed with their neighbours; what cannot be mixed is unknown then."""
    mixed = pictures.clone()
    mixed[:count] = share * pictures[:count] + (1 - share) * pictures[:count].roll(1, dims=0)
    for name in ("expression", "votes"):
        values = labels[name][:count]
        both = share * values + (1 - share) * values.roll(1, dims=0)
        lost = (values[:, :1] < 0) | (values.roll(1, dims=0)[:, :1] < 0)
        labels[name][:count] = both.masked_fill(lost, ABSENT)
    labels["measured"][:count] = torch.nan
    for name in ("age", "attributes", "units", "fake"):
        labels[name][:count] = ABSENT
    return mixed
