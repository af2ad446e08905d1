"""Real and generated pictures of a small dataset: shown more often, and as means of two of them.

Where a few hundred generated faces stand beside many thousand blends, they would not be seen; and
seen often, they are known by heart. A mean of two pictures' features, in shares drawn anew each
time, is a picture that was never seen, and its chance of being generated is the mean of the two
labels (mixup of Zhang et al. 2018, arXiv 1710.09412, of stored features). So what tells them apart
is learned as a direction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from train.face_arrays import ABSENT, SELF_BLENDED, FaceArrays
from train.rows import Row

# Of Beta(a, a), from which the shares of two pictures are drawn: more often uneven than even.
EVENNESS: Final = 0.6


def rare_fakes(rows: Sequence[Row], source: NDArray[np.str_]) -> list[Row]:
    """Rows about real or fake once more, those of a small dataset several times.

    Args:
        source: (N,) dataset of each face.
    """
    asked = [row for row in rows if row.task == "deepfake"]
    times = _times_more(str(source[row.face]) for row in asked)
    return [row for row in asked for _ in range(times[str(source[row.face])])]


def _times_more(sources: Iterable[str]) -> Mapping[str, int]:
    """How often more a dataset is shown: it takes part by the square root of its rows.

    As in the encoder's batches. Blends are alike whatever dataset they are made of, and enough.
    """
    counts = Counter(sources)
    most = max(counts.values(), default=0)
    return {
        name: 0 if name.endswith(SELF_BLENDED) else round(math.sqrt(most / count)) - 1
        for name, count in counts.items()
    }


class MixedFakes:
    """Faces of small datasets that hold both real and generated pictures, blends left out.

    Args:
        arrays: the faces' labels and datasets.

    Attributes:
        rare: (N,) bool, who they are.
    """

    def __init__(self, arrays: FaceArrays) -> None:
        self.source, self.fake = arrays.source, arrays.fake
        labelled = arrays.fake != ABSENT
        self._faces: dict[str, NDArray[np.int64]] = {}
        for name, more in _times_more(map(str, arrays.source[labelled])).items():
            faces = np.flatnonzero(labelled & (arrays.source == name))
            if more and len(np.unique(arrays.fake[faces])) > 1:
                self._faces[name] = faces
        self.rare = np.isin(arrays.source, [*self._faces]) & labelled

    def without(self, arrays: FaceArrays) -> FaceArrays:
        """The labels, without whether these faces are real."""
        return replace(arrays, fake=np.where(self.rare, ABSENT, arrays.fake).astype(np.int8))

    def of_label(self, fake: int) -> list[int]:
        """Those of one label."""
        return np.flatnonzero(self.rare & (self.fake == fake)).tolist()

    def beside(self, face: int) -> tuple[int, float]:
        """A face of its dataset, rarely itself, and the first one's share (torch's generator)."""
        faces = self._faces[str(self.source[face])]
        other = int(faces[int(torch.randint(len(faces), ()))])
        return other, float(torch.distributions.Beta(EVENNESS, EVENNESS).sample())
