"""A web application on a socket of this computer, served while a block runs."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from facellava.errors import FacellavaError

FIRST_PORT: Final = 7860
PORTS_TRIED: Final = 100
START_SECONDS: Final = 60.0


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket, so that nobody takes the port between looking and serving.

    Args:
        host: an address of this computer.
        port: None takes the first free one from 7860.

    Raises:
        FacellavaError: the port is taken, or the host is not one of this computer's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else (port,)
    for candidate in ports:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise FacellavaError(
                f"The page cannot be served at {host}, port {candidate} ({error.strerror}); "
                "use 127.0.0.1 and a port from 1024 to 65535."
            ) from error
        listener.listen()
        return listener
    which = f"Port {port} is" if port is not None else f"The ports {ports[0]} to {ports[-1]} are"
    raise FacellavaError(f"{which} taken by another program; name a free one.")


@contextmanager
def served(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """Serve an application on the socket, in a thread, until the block ends.

    Raises:
        FacellavaError: it does not start.
    """
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        _wait_until_up(server, thread)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """An environment variable with this value inside the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _wait_until_up(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise FacellavaError("The page did not start; the lines above say why.")
        time.sleep(0.02)
