"""Requests that do work: their bodies, how many there are, when they end.

Pure ASGI, around everything that parses: a body is counted while it arrives, in whichever way it
is sent, and refused at the first byte too many. A client that leaves ends its request, and with
it the engine's work for it. When the server stops, requests under way finish or get an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api_errors import BUSY, INTERNAL, STOPPING, TOO_SLOW, ApiError
from serve.settings import MIB, Settings

WORK: Final = ("/v1/chat/completions", "/v1/faces", "/v1/analyze")
LAST_WORD_SECONDS: Final = 0.5

logger = logging.getLogger(__name__)


class Traffic:
    """What is under way, shared by the layer below and whoever stops the server.

    Attributes:
        settings: the limits.
        draining: no new request is taken.
        held_bytes: of all bodies under way.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.draining, self.held_bytes = settings, False, 0
        self._under_way: set[_Visit] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def under_way(self) -> int:
        """How many requests."""
        return len(self._under_way)

    def enter(self, visit: _Visit) -> None:
        """Take a request.

        Raises:
            ApiError: the server stops, or is full.
        """
        if self.draining:
            raise ApiError("engine_unavailable", STOPPING)
        if len(self._under_way) >= self.settings.max_queue:
            raise ApiError("rate_limit_exceeded", BUSY)
        self._under_way.add(visit)
        self._idle.clear()

    def leave(self, visit: _Visit) -> None:
        """A request has ended."""
        self.held_bytes -= visit.held_bytes
        self._under_way.discard(visit)
        if not self._under_way:
            self._idle.set()

    def hold(self, visit: _Visit, n_bytes: int) -> None:
        """Count bytes that a request holds.

        Raises:
            ApiError: its body is too large, or all bodies together are.
        """
        if visit.held_bytes + n_bytes > self.settings.max_body_bytes:
            raise ApiError(
                "body_too_large",
                f"A body may have up to {self.settings.max_body_bytes / MIB:.0f} MiB.",
            )
        if self.held_bytes + n_bytes > self.settings.max_held_bytes:
            raise ApiError("rate_limit_exceeded", BUSY)
        visit.held_bytes += n_bytes
        self.held_bytes += n_bytes

    async def drain(self) -> None:
        """Take nothing new, and let what is under way finish within `drain_seconds`.

        What has not finished by then gets an error and ends.
        """
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), self.settings.drain_seconds)
        except TimeoutError:
            logger.warning("%d requests under way are ended.", len(self._under_way))
            for visit in tuple(self._under_way):
                visit.give_up(ApiError("engine_unavailable", STOPPING))
            try:
                await asyncio.wait_for(self._idle.wait(), 2 * LAST_WORD_SECONDS)
            except TimeoutError:
                logger.warning("%d requests do not end.", len(self._under_way))


class _Visit:
    """One request that does work, and what of its response has been sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.held_bytes, self.started, self.finished = 0, False, False
        self.streams = False
        self.reason: ApiError | None = None
        self.work: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of the response on."""
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            self.started, self.streams = True, kind.startswith("text/event-stream")
        elif not message.get("more_body", False):
            self.finished = True
        await self._send(message)

    def give_up(self, reason: ApiError) -> None:
        """End the work with an error."""
        if self.work is not None and self.reason is None:
            self.reason = reason
            self.work.cancel()


class Worked:
    """The ASGI layer of :class:`Traffic`, for the routes that do work."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app, self.traffic, self.settings = app, traffic, traffic.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in WORK:
            await self.app(scope, receive, send)
            return
        visit = _Visit(send)
        try:
            self.traffic.enter(visit)
        except ApiError as error:
            await _refuse(error, scope, receive, visit)
            return
        try:
            try:
                body = await self._body(Headers(scope=scope), receive, visit)
            except ApiError as error:
                await _refuse(error, scope, receive, visit)
                return
            if body is not None:
                await self._work(body, scope, receive, visit)
        finally:
            self.traffic.leave(visit)

    async def _body(self, headers: Headers, receive: Receive, visit: _Visit) -> bytes | None:
        """The whole body; None where the client has left.

        Raises:
            ApiError: not JSON, too large or too slow.
        """
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError("unsupported_media", "Send JSON, as Content-Type: application/json.")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError("unsupported_media", "Send the body without Content-Encoding.")
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > self.settings.max_body_bytes:
            self.traffic.hold(visit, self.settings.max_body_bytes + 1)
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    piece = message.get("body", b"")
                    self.traffic.hold(visit, len(piece))
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError as error:
            raise ApiError(
                "request_timeout",
                f"The body did not arrive within {self.settings.body_seconds:g} s.",
            ) from error

    async def _work(self, body: bytes, scope: Scope, receive: Receive, visit: _Visit) -> None:
        """Run the application until it has answered, the client has left, or time is up."""
        left = asyncio.Event()
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def replay() -> Message:
            if waiting:
                return waiting.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        visit.work = asyncio.create_task(self.app(scope, replay, visit.send))  # type: ignore[arg-type]
        watch = asyncio.create_task(_until_left(receive))
        try:
            await asyncio.wait(
                (visit.work, watch),
                timeout=self.settings.request_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not visit.work.done():
                if watch.done():
                    left.set()
                    visit.work.cancel()
                else:
                    visit.give_up(ApiError("request_timeout", TOO_SLOW))
            await asyncio.wait((visit.work,))
        finally:
            watch.cancel()
            visit.work.cancel()
        if not visit.work.cancelled():
            if visit.work.exception() is not None and visit.started:
                await _refuse(ApiError("internal_error", INTERNAL), scope, receive, visit)
            visit.work.result()
        elif visit.reason is not None and not watch.done():
            await _refuse(visit.reason, scope, receive, visit)


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(error: ApiError, scope: Scope, receive: Receive, visit: _Visit) -> None:
    """Send an error: as the response, or inside the stream that has begun."""
    if not visit.started:
        await error.response()(scope, receive, visit.send)
    elif not visit.finished:
        event = f"data: {json.dumps(error.body)}\n\n".encode() if visit.streams else b""
        last: Message = {"type": "http.response.body", "body": event, "more_body": False}
        try:
            await asyncio.wait_for(visit.send(last), LAST_WORD_SECONDS)
        except TimeoutError:
            logger.info("A client that does not read any more is left.")
