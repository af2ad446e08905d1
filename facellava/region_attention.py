"""The paper's two blocks: landmarks become region tokens, and image tokens attend to them.

Shapes: `...` any leading dimensions (photos, or photos and frames), N image tokens, R = 9 regions,
D the language model's width, K = 68 landmarks. Landmarks are (x, y) in [0, 1] of the crop and are
kept in float32 whatever the model's dtype. Source: Face-LLaVA (arXiv 2504.07198) section 4.

Facts of the published code and checkpoint (ihp-lab/Face-LLaVA), which the "released" variant has:
- the chain is tower -> mm_projector -> landmarks_cross_attn, all attention in the LM's width;
- `landmarks_projector.region_layers.<name>` is one linear layer per region, and
  `global_landmarks_projector` one linear layer over all 136 numbers; the two are added;
- `landmarks_cross_attn.cross_attn.attn` is an `nn.MultiheadAttention` of 8 heads without a mask,
  whose output is added to the image tokens and normalised (`cross_attn.ln`); then `linear_proj`,
  scaled, is added to the image tokens; `landmarks_cross_attn.ln` is stored and never used;
- landmarks were divided by 256, the side of the crops it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput
from facellava.regions import LARGEST_COORDINATE, N_LANDMARKS, REGIONS

# The published checkpoint's names of our regions, in the same order.
REGION_LAYER_NAMES: Final[dict[str, str]] = {
    "face": "face",
    "right_brow": "eyebrow1",
    "left_brow": "eyebrow2",
    "nose_bridge": "nose",
    "nostrils": "nostril",
    "right_eye": "eye1",
    "left_eye": "eye2",
    "outer_lips": "lips",
    "inner_lips": "teeth",
}


class Enriched(NamedTuple):
    """Image tokens that know the face's regions, and how much each looked at which region."""

    tokens: Tensor
    """(..., N, D)"""
    attention: Tensor
    """(..., heads, N, R), each row sums to 1"""


def standardised(
    landmarks: Tensor, mean_shape: Sequence[Sequence[float]] | None, landmark_std: float
) -> Tensor:
    """Landmarks (..., 68, 2) as float32, in standard deviations from the training corpus's mean.

    Args:
        landmarks: (x, y) in [0, 1] of the crop.
        mean_shape: the config's `landmark_mean`; None for no mean.
        landmark_std: the config's, of a coordinate.
    """
    points = landmarks.float()
    if mean_shape is not None:
        points = points - points.new_tensor(mean_shape)
    return points / landmark_std


def check_landmarks(landmarks: Tensor | None, n_frames: int) -> Tensor:
    """The landmarks as float32 (n_frames, 68, 2), flattened over leading dimensions.

    Raises:
        BadModelInput: none, another shape or count, not finite, or far outside [0, 1].
    """
    if landmarks is None:
        raise BadModelInput(
            f"Landmarks are missing for {n_frames} frame(s): pass (frames, {N_LANDMARKS}, 2) in "
            "[0, 1] of the crop, as the processor gives them."
        )
    if landmarks.ndim < 2 or tuple(landmarks.shape[-2:]) != (N_LANDMARKS, 2):
        raise BadModelInput(
            f"Landmarks have shape {tuple(landmarks.shape)}; "
            f"allowed is (frames, {N_LANDMARKS}, 2) in [0, 1] of the crop."
        )
    flat = landmarks.reshape(-1, N_LANDMARKS, 2).float()
    if flat.shape[0] != n_frames:
        raise BadModelInput(
            f"Landmarks are given for {flat.shape[0]} frame(s) and pixels for {n_frames}; "
            "give one set of 68 points per frame."
        )
    if n_frames:
        largest = flat.detach().abs().amax().item()
        # A NaN fails this comparison too.
        if not largest <= LARGEST_COORDINATE:
            raise BadModelInput(
                f"Landmarks reach {largest:g}; allowed are finite (x, y) in [0, 1] of the crop, "
                "so divide pixels by the crop's side."
            )
    return flat


def patch_centres(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Centres (H*W, 2) of a grid of (H, W) patches: (x, y) in [0, 1], row-major."""
    height, width = grid
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)


def region_distances(landmarks: Tensor, grid: tuple[int, int], n_prefix: int = 0) -> Tensor:
    """Distance from each image token's patch to each region's centroid, in crop sides.

    Args:
        landmarks: (..., 68, 2), (x, y) in [0, 1] of the crop.
        grid: patches (H, W) of one frame.
        n_prefix: tokens before the patches (CLS, registers); they are at distance 0 from all.

    Returns:
        (..., n_prefix + H*W, 9) float32.
    """
    points = landmarks.float()
    centroids = torch.stack([points[..., part, :].mean(-2) for part in REGIONS.values()], dim=-2)
    centres = patch_centres(grid, landmarks.device)
    distances = (centres[:, None, :] - centroids[..., None, :, :]).norm(dim=-1)
    return nn.functional.pad(distances, (0, 0, n_prefix, 0))


def _landmark_layer(n_points: int, hidden: int, width: int) -> nn.Module:
    if not hidden:
        return nn.Linear(2 * n_points, width)
    return nn.Sequential(nn.Linear(2 * n_points, hidden), nn.GELU(), nn.Linear(hidden, width))


class RegionLandmarkProjector(nn.Module):
    """The local half of FRLP: one projection per region, over that region's flattened points."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.region_layers = nn.ModuleDict(
            {
                REGION_LAYER_NAMES[region]: _landmark_layer(part.stop - part.start, hidden, width)
                for region, part in REGIONS.items()
            }
        )

    def forward(self, landmarks: Tensor) -> Tensor:
        """Landmarks (..., 68, 2) to local region tokens (..., 9, D)."""
        return torch.stack(
            [
                self.region_layers[REGION_LAYER_NAMES[region]](landmarks[..., part, :].flatten(-2))
                for region, part in REGIONS.items()
            ],
            dim=-2,
        )


class MaskedRegionAttention(nn.Module):
    """FRGCA as the paper draws it: softmax(QK^T / sqrt(d) + m), a linear layer, a residual.

    m, the face-region patch-proximity mask, is minus `mask_scale` times the distance between a
    patch's centre and a region's centroid.
    """

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.region_heads
        self.mask_scale = config.mask_scale
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.linear_proj = nn.Linear(width, width)

    def _split_heads(self, projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:-1], self.heads, -1).transpose(-3, -2)

    def forward(self, tokens: Tensor, region_tokens: Tensor, distances: Tensor) -> Enriched:
        """Image tokens (..., N, D), region tokens (..., 9, D), distances (..., N, 9)."""
        query = self._split_heads(self.q_proj(tokens))
        key = self._split_heads(self.k_proj(region_tokens))
        value = self._split_heads(self.v_proj(region_tokens))
        scores = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.shape[-1])
        attention = (scores - self.mask_scale * distances[..., None, :, :]).softmax(dim=-1)
        mixed = (attention.to(value.dtype) @ value).transpose(-3, -2).flatten(-2)
        return Enriched(tokens + self.linear_proj(mixed), attention)


class _ReleasedCrossAttention(nn.Module):
    """Attention, residual and LayerNorm, under the published names `attn` and `ln`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, region_tokens: Tensor) -> tuple[Tensor, Tensor]:
        mixed, attention = self.attn(
            tokens, region_tokens, region_tokens, need_weights=True, average_attn_weights=False
        )
        return self.ln(tokens + mixed), attention


class ReleasedRegionAttention(nn.Module):
    """FRGCA as the published checkpoint has it: no mask, so that its weights load exactly."""

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.branch_scale = config.branch_scale
        self.cross_attn = _ReleasedCrossAttention(width, config.region_heads)
        self.linear_proj = nn.Linear(width, width)
        # Stored in the published checkpoint, used by nobody: kept so that every name has a home.
        self.ln = nn.LayerNorm(width).requires_grad_(False)

    def forward(self, tokens: Tensor, region_tokens: Tensor, distances: Tensor) -> Enriched:
        """Image tokens (..., N, D), region tokens (..., 9, D); the distances are not used."""
        leading = tokens.shape[:-2]
        attended, attention = self.cross_attn(
            tokens.reshape(-1, *tokens.shape[-2:]),
            region_tokens.reshape(-1, *region_tokens.shape[-2:]),
        )
        branch = self.linear_proj(attended).unflatten(0, leading)
        return Enriched(
            self.branch_scale * branch + tokens, attention.float().unflatten(0, leading)
        )


class RegionAttention(nn.Module):
    """FRLP and FRGCA together: image tokens in, image tokens that know the face's regions out."""

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.grid = (config.image_grid[0], config.image_grid[1])
        self.landmark_std = config.landmark_std
        self.mean_shape = config.landmark_mean
        self.landmarks_projector = RegionLandmarkProjector(config.region_hidden, width)
        self.global_landmarks_projector = _landmark_layer(N_LANDMARKS, config.region_hidden, width)
        self.landmarks_cross_attn = (
            MaskedRegionAttention(config)
            if config.region_variant == "paper"
            else ReleasedRegionAttention(config)
        )

    def region_tokens(self, landmarks: Tensor) -> Tensor:
        """FRLP: landmarks (..., 68, 2) to region tokens (..., 9, D), local plus global."""
        dtype = next(self.parameters()).dtype
        standard = standardised(landmarks, self.mean_shape, self.landmark_std).to(dtype)
        whole = self.global_landmarks_projector(standard.flatten(-2))
        return self.landmarks_projector(standard) + whole.unsqueeze(-2)

    def forward(self, tokens: Tensor, landmarks: Tensor) -> Enriched:
        """FRGCA: enrich image tokens (..., N, D) with landmarks (..., 68, 2).

        N must be the grid's patches plus the prefix tokens that are kept.
        """
        n_prefix = tokens.shape[-2] - self.grid[0] * self.grid[1]
        distances = region_distances(landmarks, self.grid, n_prefix)
        return self.landmarks_cross_attn(tokens, self.region_tokens(landmarks), distances)
