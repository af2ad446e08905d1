"""The gateway around a fake engine, spoken to without a network."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image

from facellava.face_encoder import FaceEncoder
from facellava.processor import FaceLlavaProcessor
from serve.gateway import create_app
from serve.settings import Settings
from tests.serve.worded_engine import WordedEngine


class Rig:
    """A gateway, its engine, and a client of it."""

    def __init__(
        self, processor: FaceLlavaProcessor, encoder: FaceEncoder, settings: Settings
    ) -> None:
        self.engine = WordedEngine(processor)
        self.app: FastAPI = create_app(self.engine, processor, encoder, settings)
        transport = httpx.ASGITransport(self.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        """POST of JSON, as it is or still to be encoded."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        return await self.client.post(path, content=content, headers=headers, **more)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """With its face-finding processes."""
        async with self.app.router.lifespan_context(self.app):
            yield self


class Loop:
    """An event loop that lasts for several tests, so that a rig's processes do too."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __call__(self, work: Any, seconds: float = 60) -> Any:
        """Run a coroutine to its end."""
        return self._runner.run(asyncio.wait_for(work, seconds))

    def close(self) -> None:
        """End it."""
        self._runner.close()


@contextmanager
def running(rig: Rig, loop: Loop) -> Iterator[Rig]:
    """The rig between start and stop, for fixtures."""
    lifespan = rig.running()
    loop(lifespan.__aenter__())
    try:
        yield rig
    finally:
        loop(lifespan.__aexit__(None, None, None))


def url(data: bytes, mime: str = "image/png") -> str:
    """Bytes as a data: URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def photo_url(pixels: NDArray[np.uint8]) -> str:
    """A photo as a data: URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return url(buffer.getvalue())


def chat(text: str, *media: str, **more: Any) -> dict[str, Any]:
    """A chat request with photos and one question."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": one}}
        if one.startswith("data:image")
        else {"type": "video_url", "video_url": {"url": one}}
        for one in media
    ]
    content = [*parts, {"type": "text", "text": text}]
    return {"model": "nano", "messages": [{"role": "user", "content": content}], **more}
