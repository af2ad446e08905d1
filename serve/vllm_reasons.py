"""Reasons that hold, in vLLM: the gateway says which claims the face supports.

The mask itself is the library's (`facellava.held_reasons`), so that both write the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vllm.tokenizers.registry import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from facellava.claims import CLAIMS
from facellava.errors import BadModelInput
from facellava.held_reasons import HELD_KEY, HeldReasons


class OnlyHeldClaims(AdapterLogitsProcessor):
    """Keeps a request with `{"facellava_held": [claim ids]}` to claims among these."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse anything but a list of claims, before it reaches the engine.

        Raises:
            BadModelInput: it holds something else.
        """
        held = (sampling_params.extra_args or {}).get(HELD_KEY)
        if held is None:
            return
        if not isinstance(held, list) or not all(
            isinstance(claim, str) and claim in CLAIMS for claim in held
        ):
            raise BadModelInput(f"{HELD_KEY} must be a list of ids of the inventory's claims.")

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._reasons = HeldReasons(cached_tokenizer_from_config(vllm_config.model_config))

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        held = (params.extra_args or {}).get(HELD_KEY)
        return None if held is None else partial(self._keep, frozenset(held))

    def _keep(self, held: frozenset[str], written: Sequence[int], logits: Tensor) -> Tensor:
        self._reasons.keep(logits, written, held)
        return logits
