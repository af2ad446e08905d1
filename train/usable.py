"""Which samples of a corpus training may use, as one file of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.damage import undamaged


@dataclass(frozen=True)
class Usable:
    """The samples that training may use, with what grouping needs, and the others.

    Attributes:
        rows: (N,) numbers of the samples in the tables.
        lengths: (N,) tokens, image tokens included.
        frames: (N,) frames shown.
        learned: (N,) tokens with a loss.
        skipped: sentence of each sample that cannot be used.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int32]
    frames: NDArray[np.int32]
    learned: NDArray[np.int32]
    skipped: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write them as one file, whole or not at all."""
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                rows=self.rows,
                lengths=self.lengths,
                frames=self.frames,
                learned=self.learned,
                skipped=np.array(self.skipped, dtype=np.str_),
            )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Usable:
        """What :meth:`save` wrote.

        Raises:
            BadCheckpoint: the file is damaged.
        """
        again = "remove it, and the same command makes it again."
        with undamaged(path, again), np.load(path) as stored:
            arrays = {name: stored[name] for name in ("rows", "lengths", "frames", "learned")}
            return cls(**arrays, skipped=tuple(stored["skipped"].tolist()))
