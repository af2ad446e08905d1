"""The engine as the gateway calls it: chat completions in vLLM's shape, errors in our words."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import httpx

from serve.api_errors import BUSY, INTERNAL, NO_ENGINE, ApiError

PATH: Final = "/v1/chat/completions"
EVENT_END: Final = b"\n\n"
ERROR_EVENT: Final = b'data: {"error"'
DONE: Final = b"data: [DONE]\n\n"
HEALTH_SECONDS: Final = 2.0
TOO_LONG: Final = "The conversation is longer than the model reads; ask less, or start anew."
# The fields that vLLM names when it refuses a request, to our words.
_REFUSALS: Final = {
    "input_tokens": ("messages", TOO_LONG),
    "input_text": ("messages", TOO_LONG),
    "max_tokens": ("max_tokens", "The model cannot write that many tokens; ask for fewer."),
    "max_completion_tokens": (
        "max_completion_tokens",
        "The model cannot write that many tokens; ask for fewer.",
    ),
}
_REFUSED: Final = (
    "The model cannot take this request: the conversation may be too long or its turns out of "
    "order, or response_format may use what is not supported."
)

logger = logging.getLogger(__name__)


class EngineLike(Protocol):
    """What of `serve.engine.Engine` is used here."""

    state: Any
    client: httpx.AsyncClient
    model_name: str
    adapter_names: tuple[str, ...]


class Upstream:
    """Sends chat completions to the engine.

    Args:
        engine: may restart at any time.
    """

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine

    @property
    def ready(self) -> bool:
        """Whether the engine answers."""
        return bool(self._engine.state == "ready")

    @property
    def model_names(self) -> tuple[str, ...]:
        """The model and its adapters."""
        return self._engine.model_name, *self._engine.adapter_names

    def check(self, model: str) -> None:
        """Refuse what the engine cannot answer, before any work is done.

        Raises:
            ApiError: model_not_found or engine_unavailable.
        """
        self.check_name(model)
        self._check_ready()

    def check_name(self, model: str) -> None:
        """Refuse a model that is not here.

        Raises:
            ApiError: model_not_found.
        """
        if model not in self.model_names:
            raise ApiError(
                "model_not_found",
                f"There is no such model; this server has {', '.join(self.model_names)}.",
                "model",
            )

    def _check_ready(self) -> None:
        if not self.ready:
            raise ApiError("engine_unavailable", NO_ENGINE)

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A whole completion.

        Raises:
            ApiError: the engine refuses it, fails, or is not there.
        """
        self._check_ready()
        try:
            response = await self._engine.client.post(PATH, content=_encode(body), headers=_JSON)
            if response.status_code != 200:
                raise await self._refusal(response.status_code, response.content)
            reply: dict[str, Any] = response.json()
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        return reply

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """A stream's events, each whole, as `data: ...` with its blank line.

        Leaving the block ends the engine's work for it.

        Raises:
            ApiError: as :meth:`complete`, also while the events are read.
        """
        self._check_ready()
        try:
            async with self._engine.client.stream(
                "POST", PATH, content=_encode({**body, "stream": True}), headers=_JSON
            ) as response:
                if response.status_code != 200:
                    raise await self._refusal(response.status_code, await response.aread())
                yield self._events(response)
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    async def _events(self, response: httpx.Response) -> AsyncIterator[bytes]:
        rest, ended = b"", False
        async for piece in response.aiter_raw():
            *events, rest = (rest + piece).split(EVENT_END)
            for event in events:
                if event.startswith(ERROR_EVENT):
                    raise await self._refusal(*_error_event(event))
                ended = event == DONE.strip()
                yield event + EVENT_END
        if not ended:
            raise self._lost(None)

    async def _refusal(self, status: int, body: bytes) -> ApiError:
        """What the engine answered instead of a completion, in our words."""
        if status == 400:
            param, sentence = _REFUSALS.get(_refused_param(body), (None, _REFUSED))
            return ApiError("invalid_value", sentence, param)
        if status == 404:
            return ApiError("model_not_found", "The engine has no such model.", "model")
        if status in (429, 503) and self.ready:
            return ApiError("rate_limit_exceeded", BUSY)
        if not (self.ready and await self._is_well()):
            return ApiError("engine_unavailable", NO_ENGINE)
        logger.error("The engine answered with status %d.", status)
        return ApiError("internal_error", INTERNAL)

    async def _is_well(self) -> bool:
        """Whether the engine lives: one that dies answers with 500 before it is seen to be dead."""
        try:
            answer = await self._engine.client.get("/health", timeout=HEALTH_SECONDS)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    def _lost(self, error: Exception | None) -> ApiError:
        """The connection to the engine broke, as it does when the engine dies."""
        kind = "an unfinished stream" if error is None else type(error).__name__
        logger.warning("The engine was lost during a request (%s).", kind)
        return ApiError("engine_unavailable", NO_ENGINE)


_JSON: Final = {"Content-Type": "application/json"}


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _refused_param(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["param"])
    except (ValueError, KeyError, TypeError):
        return ""


def _error_event(event: bytes) -> tuple[int, bytes]:
    """Status and JSON of an error inside a stream."""
    text = event.removeprefix(b"data: ")
    try:
        code = json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = 500
    return (code if isinstance(code, int) else 500), text
