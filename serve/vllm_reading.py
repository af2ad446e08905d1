"""Making the engine read given tokens, so that it says how probable labels are at their places.

A grammar cannot do it: vLLM masks the logits with it before it takes the log-probabilities, and a
text may be spelled by other tokens. This mask comes after them, and is of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from facellava.errors import BadModelInput

READ_KEY: Final = "facellava_read"
"""The key in a request's `vllm_xargs` (in process: `extra_args`)."""
MOST_TOKENS: Final = 4096


class ForcedReading(AdapterLogitsProcessor):
    """Lets a request with `{"facellava_read": [token ids]}` answer these tokens and no others.

    With `logprobs` and `logprob_token_ids`, temperature 0 and as many `max_tokens` as ids plus one,
    the scores come back from before the first token to behind the last. Ids outside the vocabulary
    are not forced: compare the ids that come back.
    """

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse anything but a list of token ids, before it reaches the engine.

        Raises:
            BadModelInput: the ids are not integers from 0, or too many.
        """
        ids = (sampling_params.extra_args or {}).get(READ_KEY)
        if ids is None:
            return
        whole = isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)
        if not whole or len(ids) > MOST_TOKENS:
            raise BadModelInput(
                f"{READ_KEY} must be a list of at most {MOST_TOKENS} token ids, integers from 0."
            )

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> _Reader | None:
        ids = (params.extra_args or {}).get(READ_KEY)
        return _Reader(ids) if ids else None


class _Reader:
    """The tokens that one request has to read."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def __call__(self, written: Sequence[int], logits: Tensor) -> Tensor:
        place = len(written)
        if place >= len(self.ids) or self.ids[place] >= logits.shape[-1]:
            return logits
        forced = torch.full_like(logits, float("-inf"))
        forced[self.ids[place]] = 0.0
        return forced
