"""Frames of a clip that differ from each other: skipped at random, and covered one by one.

From V-NAW (arXiv 2503.15970): consecutive frames are nearly the same, so that a model learns a
clip's few pictures by heart. Its published code (jungyu0413/V-NAW, data/data_loader.py) stretches
the sampled window by 0.6 to 1.4 and covers half of the frames with a square of up to half the
side, or all with a rectangle of 2 to 30% of the area. Here a frame is drawn from each of as many
stretches as frames are wanted, so that no two neighbours are bound together, and every second one
is covered with a rectangle. Landmarks go with their frames; covering moves none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from train.augment import PADDING

if TYPE_CHECKING:
    from facellava.faces import Face

FrameAugment = Literal["none", "skip", "skip_erase"]
SPAN: Final = 0.6  # of the clip, at least
COVERED: Final = 0.5
AREA: Final = (0.02, 0.3)
ASPECT: Final = (0.3, 3.3)


def draw_places(frames: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Frame numbers in order, one from each of `wanted` like stretches of a random part.

    Args:
        frames: of the clip.
        wanted: how many; all are taken where the clip has no more.
        rng: where to draw from.
    """
    if frames <= wanted:
        return np.arange(frames)
    span = max(wanted, round(frames * rng.uniform(SPAN, 1.0)))
    start = int(rng.integers(frames - span + 1))
    lengths = np.full(wanted, span // wanted)
    lengths[rng.permutation(wanted)[: span % wanted]] += 1
    return start + np.cumsum(lengths) - lengths + rng.integers(lengths)


def draw_patch(height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Rows and columns of a picture to cover; None for half of the pictures."""
    if rng.random() >= COVERED:
        return None
    area = height * width * rng.uniform(*AREA)
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    tall = min(height, max(1, round(math.sqrt(area * aspect))))
    wide = min(width, max(1, round(math.sqrt(area / aspect))))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    return slice(top, top + tall), slice(left, left + wide)


def cover(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (S, S, 3), in half of the cases with a grey rectangle over a part of it."""
    patch = draw_patch(pixels.shape[0], pixels.shape[1], rng)
    if patch is None:
        return pixels
    covered = pixels.copy()
    covered[patch] = PADDING
    return covered


@dataclass(frozen=True)
class FrameDraw:
    """How the frames of each clip are drawn in one epoch: the same ones whenever it is repeated.

    Attributes:
        augment: "skip" draws at random places, "skip_erase" covers half of the frames too.
        seed: of the run.
        epoch: counted from 0; another one draws other frames.
    """

    augment: FrameAugment
    seed: int
    epoch: int

    def of(self, frames: Sequence[Face], wanted: int, row: int) -> list[Face]:
        """At most `wanted` frames of the clip that is sample number `row`, in order."""
        rng = np.random.default_rng((self.seed, self.epoch, row))
        chosen = [frames[place] for place in draw_places(len(frames), wanted, rng)]
        if self.augment == "skip":
            return chosen
        return [replace(frame, crop=cover(frame.crop, rng)) for frame in chosen]
