"""LanguageBind's video tower on transformers' CLIP modules: a CLIP whose frames see each other.

Each layer first attends over time, patch by patch, and is a plain CLIP layer after that. Names of
parameters are the published ones (PKU-YuanGroup/LanguageBind, languagebind/video/modeling_video.py;
the tower of the checkpoints LanguageBind_Video_merge, Video-LLaVA and Face-LLaVA). The image tower
of LanguageBind is a plain CLIP and needs no code.

Shapes: C clips of T frames each, N tokens per frame, D the tower's width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, initialization
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import (
    CLIPAttention,
    CLIPEncoderLayer,
    CLIPVisionModel,
)

from facellava.errors import BadModelInput


class LanguageBindVideoConfig(CLIPVisionConfig):
    """Configuration of the video tower: CLIP's, and how many frames a clip has.

    Args:
        num_frames: T, which the learnt places in time fix.
    """

    model_type: ClassVar[str] = "languagebind_video"

    num_frames: int = 8


class SpaceTimeLayer(CLIPEncoderLayer):
    """Attention over the frames of a clip, and then CLIP's own layer within each frame."""

    def __init__(self, config: LanguageBindVideoConfig) -> None:
        super().__init__(config)
        self.temporal_embedding = nn.Parameter(torch.zeros(1, config.num_frames, self.embed_dim))
        self.temporal_attn = CLIPAttention(config)
        self.temporal_layer_norm1 = nn.LayerNorm(self.embed_dim, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Frames of clips (C * T, N, D), clip after clip, to the same shape."""
        n_frames, n_tokens = self.temporal_embedding.shape[1], hidden_states.shape[1]
        # (C * N, T, D): what one patch shows from frame to frame.
        over_time = hidden_states.unflatten(0, (-1, n_frames)).transpose(1, 2).flatten(0, 1)
        over_time = over_time + self.temporal_embedding
        mixed, _ = self.temporal_attn(self.temporal_layer_norm1(over_time))
        over_time = over_time + mixed
        frames = over_time.unflatten(0, (-1, n_tokens)).transpose(1, 2).flatten(0, 1)
        layered: Tensor = super().forward(frames, attention_mask, **kwargs)
        return layered


class LanguageBindVideoModel(CLIPVisionModel):
    """The video tower; `pooler_output` is each frame's CLS token."""

    config: LanguageBindVideoConfig
    config_class = LanguageBindVideoConfig
    _no_split_modules: ClassVar[list[str]] = ["CLIPVisionEmbeddings", "SpaceTimeLayer"]

    def __init__(self, config: LanguageBindVideoConfig) -> None:
        super().__init__(config)
        self.encoder.layers = nn.ModuleList(
            SpaceTimeLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SpaceTimeLayer):
            initialization.normal_(module.temporal_embedding, std=module.embed_dim**-0.5)

    def forward(
        self, pixel_values: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Frames of clips (C * T, 3, H, W), clip after clip, to hidden states (C * T, N, D).

        Raises:
            BadModelInput: the frames do not make whole clips.
        """
        n_frames = self.config.num_frames
        if pixel_values is None or len(pixel_values) % n_frames:
            given = 0 if pixel_values is None else len(pixel_values)
            raise BadModelInput(
                f"{given} frames are no whole clips: this video encoder reads clips of "
                f"{n_frames} frames, as the processor gives them."
            )
        return super().forward(pixel_values, **kwargs)


AutoConfig.register(LanguageBindVideoConfig.model_type, LanguageBindVideoConfig, exist_ok=True)
AutoModel.register(LanguageBindVideoConfig, LanguageBindVideoModel, exist_ok=True)
