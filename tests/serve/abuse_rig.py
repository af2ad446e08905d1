"""A server to be abused: the gateway on a real port before a fake engine, and what it may say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import httpx

from facellava.config import FaceLlavaConfig
from facellava.face_encoder import FaceEncoder
from facellava.faces import Face
from facellava.faces.face_png import data_url, to_png
from facellava.predictor import embedded_weights
from facellava.processor import FaceLlavaProcessor
from serve.api_errors import STATUS
from serve.connections import careful_server
from serve.gateway import create_app
from serve.settings import Settings
from tests.serve import bad_face_pictures
from tests.serve.worded_engine import WordedEngine

QUESTION: Final = "What is the facial expression?"
# Words of decoders, frameworks and the machine, which no client is to read.
LEAKS: Final = re.compile(
    r"traceback|file \"|site-packages|\.py\b|/usr/|/root|/home|/tmp|/work|errno|exception|"
    r"\bpil\b|pillow|ffmpeg|libav|opencv|cv2|dlib|torch|numpy|vllm|pydantic|starlette|fastapi|"
    r"uvicorn|h11|jinja|xgrammar|httpx|nonetype|<class|object at|0x[0-9a-f]{6}|base_model|"
    r"cannot identify|decoder|libpng|libjpeg",
    re.IGNORECASE,
)


@cache
def crop_url() -> str:
    """The portrait's face as a face picture: nothing is to be found in it."""
    return data_url(to_png(bad_face_pictures.face()), clip=False)


def face() -> Face:
    return bad_face_pictures.face()


def chat(url: str | None = None, text: str = QUESTION, **more: Any) -> dict[str, Any]:
    """A good chat request, with one more thing or another."""
    image = {"type": "image_url", "image_url": {"url": url or crop_url()}}
    content = [image, {"type": "text", "text": text}]
    return {
        "model": "nano",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 12,
        **more,
    }


@dataclass(frozen=True)
class Server:
    """An address, and how it is spoken to.

    Attributes:
        base: such as "http://127.0.0.1:8000".
    """

    base: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.base)
        return url.host, url.port or 80

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return httpx.request(method, f"{self.base}{path}", timeout=60, trust_env=False, **more)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """POST of JSON: bytes as they are, anything else encoded."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"Content-Type": "application/json", **headers}
        return self.request("POST", path, content=content, headers=told)

    def raw(self, *pieces: bytes, seconds: float = 5.0) -> bytes:
        """Bytes as they are, and what came back until the server closed or fell silent."""
        with socket.create_connection(self.address, timeout=seconds) as link:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    link.sendall(piece)
            got = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := link.recv(65536):
                    got += piece
            return got

    def is_well(self) -> bool:
        """Whether a good request is answered."""
        response = self.post("/v1/chat/completions", chat())
        told = response.json() if response.status_code == 200 else {}
        return bool(told) and bool(told["choices"][0]["message"]["content"])


def check_error(response: httpx.Response, *codes: str) -> dict[str, Any]:
    """An error in OpenAI's shape, with its code's status, in words that give nothing away."""
    told = response.json()
    assert set(told) == {"error"}, told
    error: dict[str, Any] = told["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert not codes or error["code"] in codes, error
    assert response.status_code == STATUS[error["code"]], error
    check_words(error["message"])
    assert 10 < len(error["message"]) < 700, error
    if response.status_code in (429, 503):
        assert int(response.headers["Retry-After"]) >= 1
    return error


def check_words(text: str) -> None:
    """No words of decoders, frameworks or the machine."""
    found = LEAKS.search(text)
    assert found is None, f"{found and found[0]!r} in {text[:300]!r}"


@cache
def reading_parts() -> tuple[FaceLlavaProcessor, FaceEncoder]:
    """Processor and face encoder of nano; the encoder untrained, as nobody reads its attention."""
    folder = embedded_weights()
    config = FaceLlavaConfig.from_pretrained(folder, local_files_only=True)
    processor = FaceLlavaProcessor.from_pretrained(folder, local_files_only=True)
    return processor, FaceEncoder(config).eval()


class FakeServer(Server):
    """The gateway in this process, behind a real port, with an engine that has no model."""

    engine: WordedEngine


@contextlib.contextmanager
def fake_server(**settings: Any) -> Iterator[FakeServer]:
    """Serve from a thread until the block ends."""
    processor, encoder = reading_parts()
    engine = WordedEngine(processor)
    app = create_app(engine, processor, encoder, Settings(face_workers=2, **settings))
    server = careful_server(app)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        host, port = listener.getsockname()
        address = FakeServer(f"http://{host}:{port}")
        object.__setattr__(address, "engine", engine)
        while not server.started:
            assert thread.is_alive()
            thread.join(0.02)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive()
