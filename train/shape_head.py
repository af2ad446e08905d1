"""Landmarks read back from the visual tokens, so that FRGCA has to put them there.

An encoder that was trained on measured quantities tells much of a face's geometry from its pixels.
FRGCA then gains little by passing landmarks on, and what pixels do not tell well (where the head
turns) is lost to the language model. This loss pays for the rest.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from facellava.config import FaceLlavaConfig
from facellava.region_attention import standardised
from facellava.regions import N_LANDMARKS

# In standard deviations of a landmark: beyond it, a face is one that was badly found.
FARTHEST = 5.0
EPSILON = 1e-6


class ShapeHead(nn.Module):
    """One linear layer on the mean of the tokens, each brought to unit root mean square.

    The language model's first layer sees them at that scale, too.
    """

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        self.mean_shape, self.landmark_std = config.landmark_mean, config.landmark_std
        self.points = nn.Linear(config.hidden_size, 2 * N_LANDMARKS)

    def forward(self, tokens: Tensor, landmarks: Tensor) -> Tensor:
        """How far the read landmarks are from the true ones: a scalar.

        Args:
            tokens: (B, N, D), as FRGCA gives them.
            landmarks: (B, 68, 2), (x, y) in [0, 1] of the crop.
        """
        tokens = tokens.float()
        level = tokens * (tokens.square().mean(dim=-1, keepdim=True) + EPSILON).rsqrt()
        wanted = standardised(landmarks, self.mean_shape, self.landmark_std).flatten(1)
        wanted = wanted.clamp(-FARTHEST, FARTHEST)
        return functional.smooth_l1_loss(self.points(level.mean(dim=1)), wanted)
