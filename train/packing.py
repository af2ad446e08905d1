"""Several samples in one row, none of which sees another.

Position ids start again at each sample. From that, and from the absence of an attention mask, the
language models of transformers know where samples end: eager, SDPA and flex attention get a mask of
blocks, flash attention the samples' boundaries (transformers.masking_utils, "packed sequences").
"""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from facellava.processor import IGNORED_LABEL, EncodedText

logger = logging.getLogger(__name__)

Places = tuple[int, ...]
"""Which samples a row holds: their numbers."""


class PackingPlan(Sampler[Places]):
    """Which samples share a row, and the order of the rows; by seed and epoch only.

    The rows' make-up in lengths is the same in every epoch, so that an epoch always has as many
    steps and a resumed run skips exactly what was seen. Which of the samples of one length goes
    where is drawn anew each epoch, and so is the order of the rows.

    Args:
        lengths: (N,) tokens of each sample.
        capacity: most tokens of a row.
        processes: that share the rows; each gets as many.
        seed: of the run.
        on_epoch: told of each epoch before it starts, in every process.
    """

    def __init__(
        self,
        lengths: NDArray[np.int32],
        capacity: int,
        processes: int,
        seed: int,
        on_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        self.lengths, self.seed, self.epoch, self.on_epoch = lengths, seed, 0, on_epoch
        rows = best_fit(lengths, capacity, seed)
        while len(rows) % processes and len(rows) < len(lengths):
            rows.append([max(rows, key=len).pop()])
        self.places = np.concatenate([np.array(row, np.int64) for row in rows])
        self.ends = np.cumsum([0, *(len(row) for row in rows)])
        logger.info(
            "%d samples in %d packed rows, which are %.1f%% full",
            len(lengths),
            len(rows),
            100 * lengths.sum(dtype=np.int64) / (len(rows) * capacity),
        )

    def __len__(self) -> int:
        return len(self.ends) - 1

    def set_epoch(self, epoch: int) -> None:
        """The trainer calls this at the start of each epoch."""
        self.epoch = epoch
        self.on_epoch(epoch)

    def __iter__(self) -> Iterator[Places]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = rng.permutation(len(self.lengths))
        stand_in = np.empty_like(drawn)
        stand_in[np.argsort(self.lengths, kind="stable")] = drawn[
            np.argsort(self.lengths[drawn], kind="stable")
        ]
        filled = stand_in[self.places]
        for row in rng.permutation(len(self)):
            yield tuple(filled[self.ends[row] : self.ends[row + 1]].tolist())


def best_fit(lengths: NDArray[np.int32], capacity: int, seed: int) -> list[list[int]]:
    """Fill rows: each sample goes where the least room is left behind it.

    Samples of more than half a row come first, since no two of them share one; the others in random
    order, so that a row's answers are of all kinds.

    Returns:
        The samples' places, row by row.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    order = order[np.argsort(lengths[order] <= capacity // 2, kind="stable")]
    rows: list[list[int]] = []
    shortest = int(lengths.min())
    # Rows that have room, by how much: (tokens, row), the least first.
    room: list[tuple[int, int]] = []
    for place in order.tolist():
        length = int(lengths[place])
        found = bisect_left(room, (length, 0))
        if found < len(room):
            left, row = room.pop(found)
            rows[row].append(place)
        else:
            left, row = capacity, len(rows)
            rows.append([place])
        if left - length >= shortest:
            insort(room, (left - length, row))
    return rows


def packed_text(texts: Sequence[EncodedText]) -> dict[str, Tensor]:
    """Samples behind each other: input_ids, position_ids and labels, (1, L) each."""
    starts = np.cumsum([0, *(len(text.input_ids) for text in texts[:-1])])
    labels = torch.tensor([label for text in texts for label in text.labels or ()])
    # What is before a sample's first token is another sample.
    labels[torch.from_numpy(starts)] = IGNORED_LABEL
    return {
        "input_ids": torch.tensor([[token for text in texts for token in text.input_ids]]),
        "position_ids": torch.cat([torch.arange(len(text.input_ids)) for text in texts])[None],
        "labels": labels[None],
    }
