"""Weights that let a clip's wrongly labelled and common frames count less in the loss.

From V-NAW (Lee et al., CVPR workshop 2025, arXiv 2503.15970), whose published code gives the shape
of the weight (repository jungyu0413/V-NAW, src/utils.py, `Integrated_Co_GA_Loss`): two Gaussians
over the pair (probability of the label, probability of its nearest rival), one where the label is
the likeliest class and one where it is not. The first lets unsure frames count most, and more so as
training goes on; the second falls off steeply where the model surely says something else, which is
what a wrong label looks like. A frame is anything with a label: of a clip with one label, the clip.

Ours are three things. The published loss is half plain cross-entropy, so that a wrong label never
counts less than half; here the weight stands alone. The weight carries no gradient. And it is
divided by the mean weight so far, so that the loss keeps its size and the learning rate its
meaning. The class weight (effective number of samples, Cui et al., CVPR 2019) is ours too: the
published code has fixed class weights, commented out.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facellava.whole_files import write_text

# Mean, variance and covariance of (p_label, p_rival).
SURE_MEAN: Final = (0.5, 0.5)
SURE_VARIANCE: Final = 0.75
SURE_COVARIANCE: Final = -0.5  # reached late; see `sharpness`
OTHER_MEAN: Final = (0.3, 0.15)
OTHER_VARIANCE: Final = 0.85
OTHER_COVARIANCE: Final = 0.8
SLOPE: Final = 15.0

# Of all frames of a class the share that the next one adds; see `class_weights`.
BETA: Final = 0.999
# How far the running mean moves towards the mean of a batch.
RATE: Final = 0.05


def sharpness(progress: float) -> float:
    """How much of SURE_COVARIANCE counts, when `progress` in [0, 1] of the training is done."""
    return 1 - math.exp(-SLOPE * progress)


def noise_weights(probabilities: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Weight in (0, 1] of each frame: low where the model surely disagrees with its label.

    Args:
        probabilities: (N, C), rows summing to 1.
        labels: (N,) class numbers.
        progress: share of the training that is done.
    """
    probabilities = probabilities.detach().float()
    own = probabilities.gather(1, labels[:, None])[:, 0]
    rival = probabilities.scatter(1, labels[:, None], -1.0).amax(dim=1)
    sure = _gaussian(own, rival, SURE_MEAN, SURE_VARIANCE, SURE_COVARIANCE * sharpness(progress))
    other = _gaussian(own, rival, OTHER_MEAN, OTHER_VARIANCE, OTHER_COVARIANCE)
    return torch.where(own >= rival, sure, other)


def _gaussian(
    own: Tensor, rival: Tensor, mean: tuple[float, float], variance: float, covariance: float
) -> Tensor:
    """exp(-d' S^-1 d / 2), 1 at the mean: along and across the diagonal, S is itself diagonal."""
    along = (own - mean[0] + rival - mean[1]) ** 2 / (2 * (variance + covariance))
    across = (own - mean[0] - rival + mean[1]) ** 2 / (2 * (variance - covariance))
    return torch.exp(-(along + across) / 2)


def class_weights(counts: NDArray[np.int64], beta: float = BETA) -> NDArray[np.float32]:
    """Weight of each class, so that rare ones count more and the mean over all frames is 1.

    Args:
        counts: (C,) frames of each class.
        beta: 0 weighs all alike; towards 1 the weight goes towards one over the count.

    Returns:
        (C,); 0 for a class without frames.
    """
    numbers = np.asarray(counts, np.float64)
    effective = (1 - beta ** np.maximum(numbers, 1)) / (1 - beta)
    weights = np.where(numbers > 0, 1 / effective, 0)
    return np.asarray(weights * numbers.sum() / (weights * numbers).sum(), np.float32)


@dataclass
class RunningMean:
    """The mean weight of the frames so far, the last hundred batches or so counting most.

    Attributes:
        mean: 1 before the first batch.
        batches: how many were seen.
    """

    mean: float = 1.0
    batches: int = 0

    def update(self, total: float, count: float) -> None:
        """Take in a batch whose `count` weights sum to `total`; nothing where there are none."""
        if count:
            self.batches += 1
            rate = max(RATE, 1 / self.batches)
            self.mean += rate * (total / count - self.mean)

    def write(self, path: Path) -> None:
        """To a file, exactly."""
        write_text(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> RunningMean:
        """What :meth:`write` wrote."""
        return cls(**json.loads(path.read_text("utf-8")))
