"""Connections that send their heads slowly, hugely or as rubbish."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from serve import connections
from serve.chat_server import listen
from serve.connections import careful_server

HEAD = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a small application behind a server that waits for heads half a second."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    app = FastAPI()

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    with listen("127.0.0.1", 0) as listener:
        server = careful_server(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def talk(port: int, *pieces: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """What comes back until the other side closes, and after how many seconds."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        heard = b""
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break  # closed meanwhile
            time.sleep(pause)
        try:
            while got := connection.recv(65536):
                heard += got
        except ConnectionResetError:
            pass
    return heard, time.monotonic() - began


def test_a_head_in_time_is_answered(port: int) -> None:
    heard, _ = talk(port, HEAD + b"Connection: close\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 200")
    assert b"server:" not in heard.lower()
    # In pieces too, and one after the other on the same connection.
    pieces = [HEAD, b"\r\n", HEAD, b"Connection: close\r\n\r\n"]
    heard, _ = talk(port, *pieces, pause=0.2)
    assert heard.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("start", [b"", b"GET /he", HEAD])
def test_a_slow_head_is_not_waited_for(port: int, start: bytes) -> None:
    slowly = [bytes([byte]) for byte in b"X-A: bcdefghijklmnopq"] if start else []
    heard, seconds = talk(port, start, *slowly, pause=0.1)
    assert heard == b""
    assert seconds < 3.5


def test_a_slow_second_head_is_not_waited_for(port: int) -> None:
    heard, seconds = talk(port, HEAD + b"\r\n", HEAD)
    assert heard.count(b"HTTP/1.1 200") == 1
    assert 0.4 < seconds < 3


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Large: " + b"x" * 70_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: many\r\n" % n for n in range(6000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
    ],
    ids=["large", "many", "not HTTP", "two lengths"],
)
def test_what_is_no_head_is_refused_in_our_shape(port: int, head: bytes) -> None:
    heard, _ = talk(port, head)
    assert heard.startswith(b"HTTP/1.1 400")
    body = json.loads(heard.partition(b"\r\n\r\n")[2])
    assert body["error"]["code"] == "invalid_value"
    assert httpx.get(f"http://127.0.0.1:{port}/hello").json() == "hello"


def test_a_wait_that_is_given_up_as_its_bytes_come_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hang_up() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(connections.pass_over_late_bytes)
        given_up: asyncio.Future[None] = loop.create_future()
        given_up.cancel()
        loop.call_soon(given_up.set_result, None)
        loop.call_soon(int, "no number")
        await asyncio.sleep(0.01)

    asyncio.run(hang_up())
    [record] = caplog.records
    assert "ValueError" in str(record.exc_info)
