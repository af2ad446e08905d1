"""Attention of a packed row sample by sample, instead of over the whole row under a mask of blocks.

A row of L tokens in samples of n costs L n instead of L L, and SDPA may use its flash kernels,
which take no such mask.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_SDPA: Final = "packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA of transformers, once a sample where the row is packed; only training packs.

    Args:
        module: the attention layer.
        query: (B, heads, L, head width); key and value likewise.
        key: see query.
        value: see query.
        attention_mask: as SDPA takes it.
        position_ids: (1, L), 0 where a sample starts.
        **kwargs: as SDPA takes them.

    Returns:
        (B, L, heads, head width), and no weights.
    """
    if not module.training or position_ids is None or len(query) != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, position_ids=position_ids, **kwargs
        )
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], query.shape[2]]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    parts = [
        sdpa_attention_forward(module, *part, None, **kwargs)[0]
        for part in zip(*(whole.split(lengths, 2) for whole in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)


def attend_by_sample(language_model: PreTrainedModel) -> None:
    """Let a model that uses SDPA use it sample by sample, where all its layers see all before."""
    config = language_model.config
    windowed = getattr(config, "sliding_window", None) is not None
    layers = set(getattr(config, "layer_types", None) or ("full_attention",))
    if config._attn_implementation == "sdpa" and not windowed and layers == {"full_attention"}:
        language_model.set_attn_implementation(PACKED_SDPA)
