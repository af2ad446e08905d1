"""Probabilities through the engine: it reads given tokens and tells the scores of chosen ones.

Each ending of a plan (`facellava.probabilities`) is one completion that is forced to be those very
tokens (`serve.vllm_reading`); the scores are those from before the forcing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerBase

from facellava.probabilities import ScoredEnding, ScorePlan, plan
from facellava.tasks import Label, Verdict
from serve.api_errors import INTERNAL, ApiError
from serve.upstream import Upstream

TOKEN: Final = "token_id:"
READ_KEY: Final = "facellava_read"  # of serve.vllm_reading, which imports vLLM
Usage = dict[str, int]

logger = logging.getLogger(__name__)


class Scorer:
    """Scores the labels of answers that the engine gave.

    Args:
        upstream: the engine.
        tokenizer: of the checkpoint.
    """

    def __init__(self, upstream: Upstream, tokenizer: PreTrainedTokenizerBase) -> None:
        self._upstream, self._tokenizer = upstream, tokenizer
        # Planning tokenizes every label word, and most answers have one of a few plans.
        self._planned = lru_cache(maxsize=512)(self._plan)

    async def table(
        self, model: str, messages: Sequence[Mapping[str, Any]], verdict: Verdict
    ) -> dict[str, float]:
        """Probability of each label; empty for refusals.

        Args:
            model: the model or adapter that answered.
            messages: what it was sent.
            verdict: what it answered.

        Raises:
            ApiError: the engine fails, or reads other words than it was given.
        """
        planned = self._planned(verdict.task, _hashable(verdict.label))
        scored = await asyncio.gather(
            *(self._read(model, messages, ending, planned) for ending in planned.endings)
        )
        return planned.read(list(scored))

    def _plan(self, task: str, label: object) -> ScorePlan:
        return plan(Verdict(task, _label(label), ""), self._tokenizer)

    async def _read(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        ending: str,
        planned: ScorePlan,
    ) -> ScoredEnding:
        ids = list(self._tokenizer(ending, add_special_tokens=False)["input_ids"])
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": len(ids) + 1,
            "vllm_xargs": {READ_KEY: ids},
            "logprobs": True,
            "return_tokens_as_token_ids": True,
        }
        if planned.token_ids:
            body["logprob_token_ids"] = planned.token_ids
        reply = await self._upstream.complete(body)
        places = reply["choices"][0]["logprobs"]["content"]
        if [_token(place) for place in places[:-1]] != ids:
            logger.error("The engine did not read the tokens that it was given.")
            raise ApiError("internal_error", INTERNAL)
        return _scored(ids, places, planned.token_ids)


def _scored(
    ids: list[int], places: Sequence[Mapping[str, Any]], wanted: Sequence[int]
) -> ScoredEnding:
    columns = {token: number for number, token in enumerate(sorted({*ids, *wanted}))}
    logs = torch.full((len(places), len(columns)), float("-inf"))
    for row, place in zip(logs, places, strict=True):
        for entry in (place, *place["top_logprobs"]):
            if (column := columns.get(_token(entry))) is not None:
                row[column] = entry["logprob"]
    return ScoredEnding(ids, logs, columns)


def _token(entry: Mapping[str, Any]) -> int:
    return int(str(entry["token"]).removeprefix(TOKEN))


def _hashable(label: Label) -> object:
    return tuple(label.items()) if isinstance(label, dict) else label


def _label(key: Any) -> Label:
    pairs = isinstance(key, tuple) and key and isinstance(key[0], tuple)
    return dict(key) if pairs else key
