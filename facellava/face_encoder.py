"""FaceEncoder: frames of faces and their landmarks to the tokens that a language model reads.

    pixels -> vision tower -> projector -> image tokens -> FRGCA (landmarks) -> fewer, for clips

The library's model and the vLLM model share it. Shapes: F frames, N image tokens per frame, D the
language model's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel

from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput
from facellava.region_attention import Enriched, RegionAttention, check_landmarks


class FaceEncoder(nn.Module):
    """Frames of faces and their landmarks to the tokens that the language model reads."""

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = AutoModel.from_config(config.vision_config)
        # Named only where it is: a checkpoint without one has no such weights.
        if config.video_config is not None:
            self.video_tower = AutoModel.from_config(config.video_config)
        self.mm_projector = _projector(config, _feature_width(self.vision_tower, config))
        self.region_attention = RegionAttention(config)

    def encode_pixels(self, pixel_values: Tensor) -> Tensor:
        """The vision tower alone: pixels (F, 3, H, W) to features (F, N, tower width).

        These are what training caches: they do not depend on the landmarks.

        Raises:
            BadModelInput: the pixels are not (F, 3, H, W) of the config's image_size.
        """
        return self._look(self.vision_tower, pixel_values, self.config.vision_feature_select)

    def encode_frames(self, pixel_values: Tensor, in_clip: Tensor) -> Tensor:
        """Pixels of photos and clips (F, 3, H, W), each through its own tower, to features.

        Args:
            pixel_values: clips as whole clips, one after the other.
            in_clip: bool (F), which frames are of clips.

        Returns:
            (F, N, tower width). Where photos and clips keep different prefix tokens, N is the
            larger number, and the rows that the others lack are zeros before their tokens.

        Raises:
            BadModelInput: other shapes, or frames that are no whole clips.
        """
        if self.config.video_config is None or not in_clip.any():
            return self.encode_pixels(pixel_values)
        selection = self.config.video_feature_select
        seen = {True: self._look(self.video_tower, pixel_values[in_clip], selection)}
        if not in_clip.all():
            seen[False] = self.encode_pixels(pixel_values[~in_clip])
        n_tokens = max(features.shape[1] for features in seen.values())
        together = seen[True].new_zeros(len(pixel_values), n_tokens, seen[True].shape[2])
        for kind, features in seen.items():
            together[in_clip == kind, n_tokens - features.shape[1] :] = features
        return together

    def _look(self, tower: nn.Module, pixel_values: Tensor, selection: str) -> Tensor:
        height, width = self.config.image_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, height, width):
            raise BadModelInput(
                f"pixel_values have shape {tuple(pixel_values.shape)}; "
                f"allowed is (frames, 3, {height}, {width}), as the image processor gives them."
            )
        if not self.config.mirror_average:
            return self._tokens(tower, pixel_values, selection)
        both = self._tokens(tower, torch.cat([pixel_values, pixel_values.flip(-1)]), selection)
        seen, mirrored = both.chunk(2)
        return (seen + self._mirrored_back(mirrored)) / 2

    def _tokens(self, tower: nn.Module, pixel_values: Tensor, selection: str) -> Tensor:
        dtype = next(tower.parameters()).dtype
        hidden_states = tower(
            pixel_values.to(dtype), output_hidden_states=True, return_dict=True
        ).hidden_states
        features: Tensor = hidden_states[self.config.vision_feature_layer]
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2)
        if selection == "default":
            return features[:, self.config.n_prefix_tokens :]
        return features

    def _mirrored_back(self, features: Tensor) -> Tensor:
        """Features (F, N, W) of mirrored frames, each row of patches in the order of the frame."""
        n_prefix = features.shape[1] - self.config.n_patches
        grid = features[:, n_prefix:].unflatten(1, tuple(self.config.image_grid))
        return torch.cat([features[:, :n_prefix], grid.flip(2).flatten(1, 2)], dim=1)

    def forward(self, image_features: Tensor, landmarks: Tensor | None) -> Enriched:
        """Tower features (F, N, tower width) and landmarks (F, 68, 2) to tokens (F, N, D).

        Raises:
            BadModelInput: no usable landmarks, or features of another shape.
        """
        landmarks = check_landmarks(landmarks, image_features.shape[0])
        allowed = {self.config.tokens_per_frame, self.config.features_per_clip_frame}
        if image_features.ndim != 3 or image_features.shape[1] not in allowed:
            raise BadModelInput(
                f"image_features have shape {tuple(image_features.shape)}; allowed is (frames, "
                f"{self.config.tokens_per_frame}, width), as encode_pixels gives them."
            )
        dtype = next(self.mm_projector.parameters()).dtype
        return self.region_attention(self.mm_projector(image_features.to(dtype)), landmarks)

    def shorten(self, tokens: Tensor) -> Tensor:
        """Fewer tokens for clips, as the config's `clip_pool` and `clip_merge` say.

        The mean is taken after FRGCA, so that each token has already seen the face's regions.

        Args:
            tokens: (F, N, D), enriched tokens of whole clips, one after the other; F is a multiple
                of `clip_merge`.

        Returns:
            (F / clip_merge, tokens_per_clip_frame, D).
        """
        side, merged = self.config.clip_pool, self.config.clip_merge
        if side > 1:
            height, width = self.config.image_grid
            n_prefix = tokens.shape[1] - height * width
            grid = tokens[:, n_prefix:].transpose(1, 2).unflatten(2, (height, width))
            patches = functional.avg_pool2d(grid, side).flatten(2).transpose(1, 2)
            tokens = torch.cat([tokens[:, :n_prefix], patches], dim=1)
        return tokens.unflatten(0, (-1, merged)).mean(dim=1) if merged > 1 else tokens


def _projector(config: FaceLlavaConfig, feature_width: int) -> nn.Module:
    if config.projector_type == "linear":
        return nn.Linear(feature_width, config.hidden_size)
    return nn.Sequential(
        nn.Linear(feature_width, config.hidden_size),
        nn.GELU(),
        nn.Linear(config.hidden_size, config.hidden_size),
    )


def _feature_width(vision_tower: nn.Module, config: FaceLlavaConfig) -> int:
    """Channels of the chosen hidden state: convolutional encoders list one width per stage."""
    stage_widths = getattr(config.vision_config, "hidden_sizes", None)
    if not stage_widths:
        return int(config.vision_config.hidden_size)
    embedding_width = getattr(config.vision_config, "embedding_size", stage_widths[0])
    return int([embedding_width, *stage_widths][config.vision_feature_layer])
