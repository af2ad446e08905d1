"""A corpus's samples as packed rows: what is read for one, and the model's tensors of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from train.dataset import Collator, Encoded, TrainingRows
from train.packing import Places, packed_text


@dataclass(frozen=True)
class PackedRows(Dataset[list[Encoded]]):
    """The usable samples, several at once.

    Attributes:
        rows: the samples.
        length: most tokens of a packed row, no fewer than the longest sample has.
    """

    rows: TrainingRows
    length: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Places) -> list[Encoded]:
        return [self.rows[place] for place in places]


class PackingCollator(Collator):
    """A packed row to the model's tensors: no padding, no attention mask, (1, L) each.

    Frames and landmarks are in order of their samples, and so are their placeholders. `uncoded` is
    (1, L, U), each token's sample's. Samples that come unpacked, as held-out ones do, are padded.
    """

    def __call__(self, samples: Sequence[Encoded] | Sequence[list[Encoded]]) -> dict[str, Tensor]:
        row = samples[0]
        if isinstance(row, Encoded):
            return super().__call__(samples)  # type: ignore[arg-type]
        lengths = [len(sample.text.input_ids) for sample in row]
        uncoded = np.stack([sample.uncoded for sample in row]).repeat(lengths, axis=0)
        return {
            **packed_text([sample.text for sample in row]),
            **self.processor.encode_faces([sample.item for sample in row]),
            "uncoded": torch.from_numpy(uncoded)[None],
        }
