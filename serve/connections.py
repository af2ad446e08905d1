"""HTTP connections of strangers: heads that are small and come in time, errors in our shape."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Generator
from typing import Any, Final

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from facellava.errors import FacellavaError
from serve.api_errors import ApiError

HEAD_SECONDS: Final = 10.0
HEAD_BYTES: Final = 32 * 1024
IDLE_SECONDS: Final = 15
MAX_CONNECTIONS: Final = 4096
NO_HEAD: Final = "This is not HTTP, or its head is too large."
LAST_SECONDS: Final = 1  # for responses to leave, when the server stops


class CarefulProtocol(H11Protocol):
    """A connection that is closed where no whole head of a request arrives in time.

    uvicorn limits the time between requests only: a client that sends its head byte by byte would
    hold its connection for ever.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE and self._waiting is None:
            self._wait_for_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            # The next head has begun already.
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has too large a head."""
        if self.conn.our_state is not h11.IDLE:
            # A response is being written: nothing more can be said.
            self.transport.close()
            return
        error = ApiError("invalid_value", NO_HEAD)
        body = json.dumps(error.body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class SmallHeads:
    """ASGI layer that refuses large heads: h11 counts only those that arrive in pieces."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            size = len(scope["raw_path"]) + len(scope["query_string"])
            size += sum(len(name) + len(value) for name, value in scope["headers"])
            if size > HEAD_BYTES:
                error = ApiError("invalid_value", NO_HEAD, headers={"Connection": "close"})
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


class QuietServer(uvicorn.Server):
    """A server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`.

        Raises:
            FacellavaError: the application does not start.
        """
        asyncio.get_running_loop().set_exception_handler(pass_over_late_bytes)
        try:
            await super().serve(sockets)
        except SystemExit as error:
            raise FacellavaError("The server did not start; the lines above say why.") from error


def pass_over_late_bytes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what failed in a loop, but for a wait that was given up as its bytes came.

    anyio waits for the engine's socket by `Future.set_result` as a callback, and uvloop calls it
    even where the wait was cancelled in the same moment, as when a client hangs up.
    """
    late = isinstance(context.get("exception"), asyncio.InvalidStateError)
    if not (late and "Future.set_result" in repr(context.get("handle"))):
        loop.default_exception_handler(context)


def careful_server(app: FastAPI) -> QuietServer:
    """A server with limits on connections and heads, that says little of itself."""
    return QuietServer(
        uvicorn.Config(
            SmallHeads(app),
            http=CarefulProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEAD_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
    )
