"""The client: asks, waits, books, and keeps every reply before it is handed out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

import httpx
import openai
from pydantic import BaseModel
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from facellava.endpoint.cache import EndpointCache
from facellava.endpoint.cost import Budget
from facellava.endpoint.request import (
    EndpointSettings,
    Failure,
    Form,
    Message,
    Reply,
    Request,
    Usage,
    message,
    read_form,
    read_text,
    request_of,
)
from facellava.endpoint.wire import (
    NO_KEY,
    REJECTIONS,
    TROUBLES,
    Completion,
    Pace,
    asked_seconds,
    costs_nothing,
    is_busy,
    passes,
    words_of,
)
from facellava.errors import EndpointStopped

_CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_NOTE_SECONDS: Final = 60.0  # between two notes that the endpoint is waited for
_REJECTED_IN_A_ROW: Final = 20  # requests: then it is the endpoint or the settings, not the request

_PROBE: Final = "Say yes."
_PROBE_TOKENS: Final = 16

logger = logging.getLogger(__name__)


class Asker(Protocol):
    """What answers requests: an :class:`Endpoint`, or a :class:`DryRun` in its place."""

    settings: EndpointSettings

    async def ask(self, messages: Sequence[Message], schema: type[Form]) -> Form | Failure:
        """The reply in the form of the schema, or why there is none."""


class Endpoint:
    """A model behind an address. Use it as an async context, in the cache's thread."""

    def __init__(self, settings: EndpointSettings, cache: EndpointCache, budget: Budget) -> None:
        """
        Raises:
            FacellavaError: the budget has a cap and no price of the model.
        """
        self.settings = settings
        self._cache, self._budget = cache, budget
        self._price = budget.price(settings.model)
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.key or "none",
            timeout=cast(Any, httpx.Timeout(None, connect=_CONNECT_SECONDS)),
            max_retries=0,
            # Newer versions of openai name another client here and take this one too.
            http_client=cast(
                Any,
                httpx.AsyncClient(
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                    # A proxy for the outside does not reach this computer.
                    trust_env=settings.host not in _LOOPBACK,
                ),
            ),
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._pace = Pace(settings.requests_per_minute)
        self._backoff = wait_exponential_jitter(
            initial=settings.first_wait, max=settings.longest_wait, jitter=settings.first_wait
        )
        self._running: dict[str, asyncio.Task[Reply | Failure]] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._probing = asyncio.Lock()
        self._last_reply = -1.0
        self._rejected = 0
        self._input_factor = 1.0  # of our count of a request's tokens, to the endpoint's
        self._noted = float("-inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for replies under way, which are paid for, and send no more."""
        self._closing = True
        tasks = list(self._running.values())
        for task in tasks:
            if task not in self._under_way:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def ask(self, messages: Sequence[Message], schema: type[Form]) -> Form | Failure:
        """The reply in the form of the schema, or why there is none.

        Raises:
            EndpointStopped: no money is left, the key is refused, or patience is at its end.
        """
        reply = await self._shared(request_of(self.settings, messages, schema), schema)
        return reply if isinstance(reply, Failure) else read_form(reply, schema)

    async def ask_text(self, messages: Sequence[Message]) -> str | Failure:
        """The reply as free text, or why there is none.

        Raises:
            EndpointStopped: as for :meth:`ask`.
        """
        reply = await self._shared(request_of(self.settings, messages, None), None)
        return reply if isinstance(reply, Failure) else read_text(reply)

    async def _shared(self, request: Request, schema: type[BaseModel] | None) -> Reply | Failure:
        task = self._running.get(request.key)
        if task is None:
            task = asyncio.create_task(self._answer(request, schema))
            self._running[request.key] = task
            task.add_done_callback(partial(self._done, request.key))
        # A caller that is cancelled does not take the reply from the others, nor from the cache.
        return await asyncio.shield(task)

    def _done(self, key: str, task: asyncio.Task[Reply | Failure]) -> None:
        del self._running[key]
        # Whoever still waits gets the error; where all were cancelled, nobody misses it.
        if not task.cancelled():
            task.exception()

    async def _answer(self, request: Request, schema: type[BaseModel] | None) -> Reply | Failure:
        """The first usable reply, else the last of all attempts, each from the cache or sent."""
        attempt, room = 0, self.settings.max_tokens
        while True:
            reply = self._cache.reply(request.key, attempt)
            if reply is None:
                async with self._slots:
                    sent = await self._send(request, schema, attempt, room)
                if isinstance(sent, Failure):
                    return sent
                reply = sent
            problem = _problem(reply, schema)
            attempt += 1
            if problem is None or attempt == self.settings.attempts:
                return reply
            room *= 2 if problem.reason == "cut off" else 1

    async def _send(
        self, request: Request, schema: type[BaseModel] | None, attempt: int, room: int
    ) -> Reply | Failure:
        """One attempt, tried as often as the endpoint fails and patience lasts."""
        begun, late, suspect = time.monotonic(), False, False

        def give_up(state: RetryCallState) -> bool:
            nonlocal late
            late = time.monotonic() - begun + state.upcoming_sleep >= self.settings.patience
            tried = suspect or state.attempt_number >= self.settings.failed_tries
            return late or (tried and not is_busy(_error_of(state)))

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: not self._closing and passes(error)),
            wait=self._wait,
            stop=give_up,
            before_sleep=self._note,
            reraise=True,
        )
        while True:
            try:
                return await retrying(self._try, request, schema, attempt, room)
            except TROUBLES as error:
                words, failed = self._words(error), time.monotonic()
                if isinstance(error, openai.APIStatusError) and error.status_code in REJECTIONS:
                    return self._reject(words)
                if late or self._closing or not passes(error):
                    # The error itself may quote the key.
                    raise self._stopped(error, words) from None
            if suspect:
                return Failure("endpoint failed", words)
            # It may have come back just now: one try more.
            suspect = await self._is_answering(failed)

    async def _is_answering(self, since: float) -> bool:
        """Whether the endpoint answers others, or, where nobody else asks, a word of its own."""
        async with self._probing:
            if self._last_reply > since:
                return True
            word = request_of(self.settings, [message(_PROBE)], None)
            try:
                await self._try(word, None, time.time_ns(), _PROBE_TOKENS)
            except TROUBLES as error:
                return not passes(error)
            return True

    async def _try(
        self, request: Request, schema: type[BaseModel] | None, attempt: int, room: int
    ) -> Reply:
        """Send once; the reply is booked before it is returned."""
        await self._pace.turn()
        if self._closing:
            raise EndpointStopped("The run is ending; run again to go on.")
        model = self.settings.model
        expected = request.most_input_tokens(self.settings)

        def most() -> Usage:
            return Usage(round(expected * self._input_factor), 0, room)

        reserved = await self._budget.reserve(model, lambda: self._price.dollars(most()))
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        cost, answered = reserved, False  # where no reply comes, it may have been charged
        try:
            mark = self._cache.mark(model, reserved)
            try:
                said = await self._post(request, room)
            except TROUBLES as error:
                if costs_nothing(error):
                    self._cache.unmark(mark)
                    cost = 0.0
                raise
            usage = said.usage.counted() if said.usage else most()
            reply = said.reply(model, usage, self._price.dollars(usage))
            cost, answered = reply.dollars, True
            self._input_factor = max(self._input_factor, usage.input / max(expected, 1))
            self._cache.book(mark, request.key, attempt, reply, _problem(reply, schema))
        finally:
            self._under_way.discard(task)
            self._budget.book(model, reserved, cost, answered=answered)
        self._last_reply, self._rejected = time.monotonic(), 0
        return reply

    async def _post(self, request: Request, room: int) -> Completion:
        async with asyncio.timeout(self.settings.timeout):
            raw = await self._client.chat.completions.with_raw_response.create(
                **cast(Any, request.body),
                max_completion_tokens=room,
                extra_body=dict(self.settings.parameters),
            )
            return Completion.model_validate_json(raw.content)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try; what the endpoint asks for, others wait too."""
        asked = asked_seconds(_error_of(state))
        self._pace.hold(asked)
        return max(self._backoff(state), asked)

    def _note(self, state: RetryCallState) -> None:
        now = time.monotonic()
        if now - self._noted >= _NOTE_SECONDS:
            self._noted = now
            logger.warning(
                "%s: %s; asking again in %.0f s, for %s in all.",
                self.settings.base_url,
                self._words(_error_of(state)),
                state.upcoming_sleep,
                _span(self.settings.patience),
            )

    def _reject(self, words: str) -> Failure:
        self._rejected += 1
        if self._rejected >= _REJECTED_IN_A_ROW:
            raise EndpointStopped(
                f"{self.settings.base_url} takes none of our requests ({words}); see that the "
                "model sees pictures and writes JSON by a schema."
            )
        return Failure("rejected", words)

    def _stopped(self, error: BaseException, words: str) -> EndpointStopped:
        where, name = self.settings.base_url, self.settings.api_key_env
        if isinstance(error, openai.APIStatusError) and error.status_code in NO_KEY:
            return EndpointStopped(f"{where} refuses the key ({words}); give another in {name}.")
        if not passes(error):
            return EndpointStopped(
                f"{where} cannot be asked for '{self.settings.model}' ({words}); look at address, "
                "model and account, and run again: all replies are kept."
            )
        return EndpointStopped(
            f"{where} has given no answer for {_span(self.settings.patience)} ({words}); run again "
            "when it is back: all replies are kept."
        )

    def _words(self, error: BaseException) -> str:
        return words_of(error, self.settings.timeout, self.settings.key)


def _problem(reply: Reply, schema: type[BaseModel] | None) -> Failure | None:
    found = read_text(reply) if schema is None else read_form(reply, schema)
    return found if isinstance(found, Failure) else None


def _error_of(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
