"""An OpenAI-compatible endpoint on a loopback port that behaves, or misbehaves, as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-very-secret-0123456789"


@dataclass(frozen=True)
class Say:
    """What the endpoint does with one request.

    Attributes:
        body: bytes as they are, or what becomes JSON.
        delay: seconds before the reply.
        cut: bytes after which the connection is closed.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None


def reply(
    content: str | None,
    *,
    finish: str = "stop",
    refusal: str | None = None,
    usage: tuple[int, int, int] | None = (100, 40, 20),
    **more: Any,
) -> Say:
    """A completion; usage is input, cached input, output tokens."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    body: dict[str, Any] = {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "prompt_tokens_details": {"cached_tokens": usage[1]},
            "completion_tokens": usage[2],
        }
    return Say(body, **more)


def trouble(status: int, words: str = "busy", code: str | None = None, **more: Any) -> Say:
    return Say({"error": {"message": words, "code": code}}, status, **more)


Script = Callable[[str, int, dict[str, Any]], Say]
"""Prompt (the text of the last turn), how often it was asked before, and the body, to the reply."""


class FakeEndpoint(ThreadingHTTPServer):
    """Remembers what it was asked: `prompts` in order of arrival, `bodies` and `times` beside."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.script = script
        self.prompts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or ran out of patience is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        with self.server.lock:
            before = self.server.prompts.count(prompt)
            self.server.prompts.append(prompt)
            self.server.bodies.append(body)
            self.server.times.append(time.monotonic())
            self.server.keys.add(self.headers["Authorization"])
        say = self.server.script(prompt, before, body)
        time.sleep(say.delay)
        data = say.body if isinstance(say.body, bytes) else json.dumps(say.body).encode()
        self.send_response(say.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in say.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data if say.cut is None else data[: say.cut])
        if say.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at what was asked."""


@contextmanager
def fake_endpoint(script: Script, port: int = 0) -> Iterator[FakeEndpoint]:
    server = FakeEndpoint(script, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
