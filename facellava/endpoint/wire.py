"""Between us and an endpoint: what a completion holds, what may go wrong, how fast we may ask."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import openai
from pydantic import BaseModel, ValidationError

from facellava.endpoint.request import Reply, Usage

TROUBLES: Final = (openai.APIError, TimeoutError, ValidationError)
"""What a call may raise: a status, no connection or a broken one, no reply in time, no reply of
the API."""
REJECTIONS: Final = (400, 413, 422)
NO_KEY: Final = (401, 403)

_NO_MONEY: Final = "insufficient_quota"  # a 429 that no waiting ends
_UNCONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_LONGEST_WORDS: Final = 200
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d+)?")


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message = _Message()
    finish_reason: str | None = None


class _InputDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _InputDetails | None = None

    def counted(self) -> Usage:
        """As non-negative numbers, the cached tokens among the input."""
        details = self.prompt_tokens_details
        given = max(0, self.prompt_tokens)
        cached = max(0, (details and details.cached_tokens) or 0)
        return Usage(given, min(cached, given), max(0, self.completion_tokens))


class Completion(BaseModel):
    """A chat completion as endpoints send it: little is certain to be there."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None

    def reply(self, model: str, usage: Usage, dollars: float) -> Reply:
        """The first choice as a reply of the model that was asked for."""
        choice = self.choices[0] if self.choices else _Choice()
        said = choice.message
        return Reply(
            model=model,
            text=said.content or "",
            finish=choice.finish_reason or "",
            refusal=said.refusal or "",
            usage=usage,
            dollars=dollars,
        )


def passes(error: BaseException) -> bool:
    """Whether the trouble may be over at the next try."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return status >= 500 or status == 408 or (status == 429 and error.code != _NO_MONEY)
    return isinstance(error, openai.APIConnectionError | TimeoutError | ValidationError)


def costs_nothing(error: BaseException) -> bool:
    """Whether the request was certainly not charged: it was turned away, or never arrived."""
    return isinstance(error, openai.APIStatusError) or is_unconnected(error)


def is_busy(error: BaseException) -> bool:
    """Whether no request could fare better: we are limited, or nobody is there."""
    return isinstance(error, openai.RateLimitError) or is_unconnected(error)


def is_unconnected(error: BaseException) -> bool:
    """Whether no connection came about."""
    return isinstance(error, openai.APIConnectionError) and isinstance(
        error.__cause__, _UNCONNECTED
    )


def asked_seconds(error: BaseException) -> float:
    """How long the endpoint asks us to wait: its Retry-After, in seconds or as a date; else 0."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    given = error.response.headers.get("retry-after", "")
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:  # neither seconds nor a date: as if nothing was asked for
        return 0.0


def words_of(error: BaseException, timeout: float, key: str) -> str:
    """What went wrong, short and without the API key, which servers quote."""
    match error:
        case openai.APIConnectionError() if is_unconnected(error):
            words = f"no connection: {error.__cause__}"
        case TimeoutError():
            words = f"no reply within {timeout:.0f} s"
        case openai.APIStatusError():
            said = error.body.get("message") if isinstance(error.body, dict) else None
            words = f"status {error.status_code}: {said or error.message}"
        case ValidationError():
            words = "a reply that is none of the API"
        case _:
            words = f"the connection broke: {error.__cause__ or error}"
    if key:
        words = words.replace(key, "***")
    return " ".join(words.split())[:_LONGEST_WORDS]


class Pace:
    """Spreads requests evenly over the minute, and holds all of them back when told to."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = time.monotonic()

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long."""
        self._next = max(self._next, time.monotonic() + seconds)

    async def turn(self) -> None:
        """Wait for one's turn."""
        mine = max(self._next, time.monotonic())
        self._next = mine + self._interval
        await asyncio.sleep(mine - time.monotonic())
