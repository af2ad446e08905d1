"""Bodies that are large, slow or never end; clients that leave; a server that stops or is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve.settings import MIB, Settings
from serve.traffic import Traffic, Worked

App = Callable[[Scope, Receive, Send], Awaitable[None]]
JSON = [(b"content-type", b"application/json")]


class Call:
    """One request to the layer, sent and read message by message."""

    def __init__(self, layer: Worked, headers: list[tuple[bytes, bytes]] = JSON) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.read = 0
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/faces",
            "headers": headers,
            "asgi": {"version": "3.0"},
        }
        self.task = asyncio.ensure_future(layer(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        message = await self.incoming.get()
        self.read += 1
        return message

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def body(self, piece: bytes, more: bool = False) -> Call:
        self.incoming.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        return self

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def code(self) -> str:
        return str(json.loads(self.text.removeprefix("data: "))["error"]["code"])


class Echo:
    """An application that answers with the body's length, when it may."""

    def __init__(self, *, stream: bool = False) -> None:
        self.may, self.cancelled, self.lengths = asyncio.Event(), 0, list[int]()
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            message = await receive()
            self.lengths.append(len(message["body"]))
            kind = b"text/event-stream" if self.stream else b"text/plain"
            start = {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", kind)],
            }
            if self.stream:
                await send(start)
                await send(
                    {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
                )
            await self.may.wait()
            if not self.stream:
                await send(start)
            await send({"type": "http.response.body", "body": b"done"})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def try_it(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(limited())


def layer(app: App, **settings: Any) -> Worked:
    return Worked(app, Traffic(Settings(**settings)))


def test_body_arrives_whole_and_is_counted_while_it_is_held() -> None:
    async def work() -> None:
        echo = Echo()
        worked = layer(echo)
        call = Call(worked).body(b"x" * 10, more=True).body(b"y" * 5)
        await asyncio.sleep(0.05)
        assert worked.traffic.held_bytes == 15
        echo.may.set()
        await call.task
        assert (call.status, echo.lengths) == (200, [15])
        assert (worked.traffic.held_bytes, worked.traffic.under_way) == (0, 0)

    try_it(work)


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_a_body_is_not_read_on(announced: bool) -> None:
    async def work() -> None:
        worked = layer(Echo(), max_body_bytes=MIB)
        length = [(b"content-length", str(100 * MIB).encode())] if announced else []
        call = Call(worked, JSON + length)
        for _ in range(100):
            call.body(b"x" * (MIB // 4), more=True)
        await call.task
        assert (call.status, call.code) == (413, "body_too_large")
        assert call.read == (0 if announced else 5)
        assert worked.traffic.held_bytes == 0

    try_it(work)


def test_a_content_length_that_lies_does_not_help() -> None:
    async def work() -> None:
        call = Call(layer(Echo(), max_body_bytes=1024), [*JSON, (b"content-length", b"3")])
        await call.body(b"x" * 2000, more=True).task
        assert call.code == "body_too_large"

    try_it(work)


def test_a_slow_body_is_given_up() -> None:
    async def work() -> None:
        worked = layer(Echo(), body_seconds=0.1)
        call = Call(worked).body(b"x", more=True)
        await call.task
        assert (call.status, call.code) == (408, "request_timeout")
        assert worked.traffic.under_way == 0

    try_it(work)


def test_a_full_server_says_so_and_when_to_come_back() -> None:
    async def work() -> None:
        echo = Echo()
        worked = layer(echo, max_queue=2)
        taken = [Call(worked).body(b"{}") for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = Call(worked).body(b"{}")
        await refused.task
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert (b"retry-after", b"1") in refused.sent[0]["headers"]
        assert refused.read == 0
        echo.may.set()
        await asyncio.gather(*(call.task for call in taken))
        assert [call.status for call in taken] == [200, 200]
        again = Call(worked).body(b"{}")
        await again.task
        assert again.status == 200

    try_it(work)


def test_bodies_together_are_limited_too() -> None:
    async def work() -> None:
        echo = Echo()
        worked = layer(echo, max_body_bytes=2048, max_held_bytes=3000)
        first = Call(worked).body(b"x" * 2000)
        await asyncio.sleep(0.05)
        second = Call(worked).body(b"x" * 2000)
        await second.task
        assert second.code == "rate_limit_exceeded"
        echo.may.set()
        await first.task
        assert first.status == 200

    try_it(work)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_work_at_once(stream: bool) -> None:
    async def work() -> None:
        echo = Echo(stream=stream)
        worked = layer(echo)
        call = Call(worked).body(b"{}")
        await asyncio.sleep(0.05)
        call.leave()
        await call.task
        assert echo.cancelled == 1
        assert worked.traffic.under_way == 0

    try_it(work)


def test_a_client_that_leaves_before_its_body_is_whole_is_forgotten() -> None:
    async def work() -> None:
        worked = layer(Echo())
        call = Call(worked).body(b"{", more=True)
        call.leave()
        await call.task
        assert call.sent == []
        assert worked.traffic.under_way == 0

    try_it(work)


def test_a_request_that_takes_too_long_is_given_up() -> None:
    async def work() -> None:
        echo = Echo()
        call = Call(layer(echo, request_seconds=0.1)).body(b"{}")
        await call.task
        assert (call.status, call.code, echo.cancelled) == (408, "request_timeout", 1)

    try_it(work)


def test_stopping_lets_requests_finish() -> None:
    async def work() -> None:
        echo = Echo()
        worked = layer(echo, drain_seconds=5)
        call = Call(worked).body(b"{}")
        await asyncio.sleep(0.05)
        drained = asyncio.ensure_future(worked.traffic.drain())
        await asyncio.sleep(0.05)
        late = Call(worked).body(b"{}")
        await late.task
        assert (late.status, late.code) == (503, "engine_unavailable")
        assert not drained.done()
        echo.may.set()
        await drained
        assert call.status == 200

    try_it(work)


@pytest.mark.parametrize("stream", [True, False])
def test_stopping_tells_those_that_do_not_finish(stream: bool) -> None:
    async def work() -> None:
        echo = Echo(stream=stream)
        worked = layer(echo, drain_seconds=0.1)
        call = Call(worked).body(b"{}")
        await asyncio.sleep(0.05)
        await worked.traffic.drain()
        await call.task
        if stream:
            first, last = call.text.split("\n\n", 1)
            assert (call.status, first) == (200, "data: 1")
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
            assert not call.sent[-1].get("more_body", False)
        else:
            assert (call.status, call.code) == (503, "engine_unavailable")

    try_it(work)


def test_a_stopping_server_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def work() -> None:
        worked = layer(Echo(stream=True), drain_seconds=0.1)
        call = Call(worked).body(b"{}")
        await asyncio.sleep(0.05)
        never = asyncio.Event()

        async def stuck(_: Message) -> None:
            await never.wait()

        [visit] = worked.traffic._under_way
        visit._send = stuck
        await worked.traffic.drain()
        await call.task

    try_it(work)
