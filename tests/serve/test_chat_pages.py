"""The page served: where it listens, what it leaves behind, who may reach it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI

from facellava.errors import FacellavaError
from facellava.tasks import TASKS
from serve.chat import EXAMPLES, build_page
from serve.chat_api import ChatApi
from serve.chat_pages import let_go, mount_chat, open_page
from serve.chat_server import listen, served


def nowhere() -> ChatApi:
    return ChatApi("http://127.0.0.1:9/v1")


@contextmanager
def mounted() -> Iterator[str]:
    """An application with a route of its own and the page at /chat."""
    app = FastAPI()
    app.get("/health")(lambda: "well")
    with listen("127.0.0.1", 0) as listener:
        mount_chat(app, nowhere())
        with served(app, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            let_go(app)


def test_uploads_go_when_the_page_ends() -> None:
    before = os.environ.get("GRADIO_TEMP_DIR")
    with open_page(nowhere()):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    assert os.environ.get("GRADIO_TEMP_DIR") == before


def test_a_taken_port_is_said_in_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(FacellavaError, match=f"Port {port} is taken"),
            open_page(nowhere(), port=port),
        ):
            pass


def test_a_foreign_host_is_refused() -> None:
    with pytest.raises(FacellavaError, match=r"cannot be served at 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_without_a_port_two_pages_get_two() -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_another_site_cannot_reach_the_page_by_a_name_of_its_own() -> None:
    with open_page(nowhere()) as address:
        assert httpx.get(address).status_code == 200
        assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 400


def test_the_page_lives_beside_other_routes() -> None:
    with mounted() as address:
        assert httpx.get(f"{address}/health").json() == "well"
        page = httpx.get(f"{address}/chat/")
        assert page.status_code == 200
        assert "facellava" in page.text
        assert httpx.get(f"{address}/chat/", headers={"Host": "evil.example"}).status_code == 400


def test_it_ends_quickly_while_a_page_is_open() -> None:
    with mounted() as address, httpx.Client() as client:
        beat = client.build_request("GET", f"{address}/chat/gradio_api/heartbeat/abc")
        response = client.send(beat, stream=True)
        assert response.status_code == 200
        begun = time.monotonic()
    assert time.monotonic() - begun < 4


def test_examples_cover_every_task() -> None:
    asked = {task.canonical_question for task in TASKS.values() if task.scored_words}
    assert asked <= set(EXAMPLES)

    async def page() -> gr.Blocks:  # Gradio makes a loop that it never closes where none runs
        return build_page(ChatApi("http://x/v1"))

    names = {block.elem_id for block in asyncio.run(page()).blocks.values()}
    assert {"fl-photo", "fl-clip", "fl-faces", "fl-chat", "fl-findings", "fl-json"} <= names
