"""The chat's client: what it sends, what it reads, and one sentence for each way to fail."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.errors import FacellavaError
from facellava.faces import find_faces
from facellava.faces.face_png import data_url, to_png
from facellava.predictor import CLIP_FRAMES
from facellava.tasks import TASKS
from serve.chat_api import SEARCHED_FRAMES, ChatApi, Told
from serve.chat_server import listen
from serve.chat_session import ASKED_FRAMES

AGE = TASKS["age"].canonical_question
EXPRESSION = TASKS["expression"].canonical_question
FakeApi = Callable[..., Any]


def run(address: str, work: Callable[[ChatApi], Coroutine[Any, Any, Any]], **options: str) -> Any:
    async def whole() -> Any:
        api = ChatApi(address, **options)
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(whole())


async def said(api: ChatApi, crop: str, question: str = AGE, history: Any = ()) -> list[str | Told]:
    pieces = []
    async with aclosing(api.ask("nano", "image", crop, question, history)) as asked:
        async for piece in asked:
            pieces.append(piece)
    return pieces


@pytest.fixture(scope="module")
def crop(portrait: NDArray[np.uint8]) -> str:
    return data_url(to_png(find_faces(portrait)[0]), clip=False)


def test_an_answer_comes_in_pieces_and_then_with_what_is_behind_it(
    fake_api: FakeApi, crop: str
) -> None:
    with fake_api() as (fake, address):
        pieces = run(address, lambda api: said(api, crop, history=[("Hello?", "Age: 3.")]))
    *words, told = pieces
    assert len(words) > 5
    assert "".join(words).startswith("Age: 34 years. The cheeks")
    assert told.reply.answer.label == 34
    assert told.reply.attention[1] == pytest.approx(1 / 36)
    assert told.json["answer"]["task"] == "age"
    [body] = fake.asked["chat"]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"][0] == {"type": "image_url", "image_url": {"url": crop}}
    assert body["answer"] is True
    assert fake.heard_out == 1


def test_who_leaves_ends_the_request_at_the_server(fake_api: FakeApi, crop: str) -> None:
    async def leave(api: ChatApi) -> None:
        reading = asyncio.create_task(said(api, crop))
        await asyncio.sleep(0.3)
        reading.cancel()
        await asyncio.wait({reading})
        for _ in range(100):
            if fake.left:
                return
            await asyncio.sleep(0.02)

    with fake_api(pause=0.2) as (fake, address):
        run(address, leave)
        assert (fake.left, fake.heard_out) == (1, 0)


def test_a_server_without_region_attention_is_asked_without_it(
    fake_api: FakeApi, crop: str
) -> None:
    async def twice(api: ChatApi) -> list[str | Told]:
        return [(await said(api, crop))[-1] for _ in range(2)]

    with fake_api() as (fake, address):
        fake.offers_attention = False
        answers = run(address, twice)
    assert [told.reply.attention for told in answers] == [None, None]
    assert [body["region_attention"] for body in fake.asked["chat"]] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (429, {"Retry-After": "7"}, "The server is busy; try again in 7 s."),
        (503, {}, "The server is starting or restarting; try again in a moment."),
        (401, {}, "wants another API key; give it with --api-key."),
        (413, {}, "^A sentence of the server.$"),
    ],
)
def test_a_refusal_is_one_sentence_on_every_route(
    fake_api: FakeApi,
    crop: str,
    caplog: pytest.LogCaptureFixture,
    status: int,
    headers: dict[str, str],
    sentence: str,
) -> None:
    body = {"error": {"message": "A sentence of the server.", "code": "x"}}
    with fake_api() as (fake, address):
        fake.refusals = {route: (status, headers, body) for route in ("models", "faces", "chat")}
        for work in (
            lambda api: api.models(),
            lambda api: api.faces("image", crop),
            lambda api: said(api, crop),
        ):
            with pytest.raises(FacellavaError, match=sentence):
                run(address, work)
        assert len(fake.asked["chat"]) == 1, "no silent second try"


def test_an_error_in_the_middle_of_an_answer_is_told(fake_api: FakeApi, crop: str) -> None:
    with (
        fake_api() as (_, address),
        pytest.raises(FacellavaError, match=r"^The model ended too early\.$"),
    ):
        run(address, lambda api: said(api, crop, "Break off"))


@pytest.mark.parametrize("reply", [{}, {"faces": [{"crop": 3}], "media": {"kind": "image"}}, []])
def test_another_kind_of_server_is_named_as_such(
    fake_api: FakeApi, crop: str, caplog: pytest.LogCaptureFixture, reply: Any
) -> None:
    with fake_api() as (fake, address):
        fake.refusals = {"faces": (200, {}, reply)}
        with pytest.raises(FacellavaError, match="does not speak as facellava's does"):
            run(address, lambda api: api.faces("image", crop))


def test_nobody_at_the_address_is_said_with_what_to_do(crop: str) -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    for work in (lambda api: api.models(), lambda api: api.faces("image", crop)):
        with pytest.raises(FacellavaError, match=f":{port}/v1 does not answer; start it with"):
            run(f"http://127.0.0.1:{port}/v1", work)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host/v1", "http://", "", "file:///a"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(FacellavaError, match="is no address of a server"):
        ChatApi(address)


def test_the_key_is_sent(fake_api: FakeApi) -> None:
    with fake_api() as (fake, address):
        run(address, lambda api: api.models(), key="secret")
    assert fake.keys == ["Bearer secret"]


def test_the_frames_that_are_asked_about_are_among_those_searched(
    fake_api: FakeApi, clip: Path
) -> None:
    assert ASKED_FRAMES == CLIP_FRAMES, "as the library asks"
    assert SEARCHED_FRAMES % ASKED_FRAMES == 0
    assert SEARCHED_FRAMES // ASKED_FRAMES % 2 == 1
    url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"

    async def work(api: ChatApi) -> Any:
        found = await api.faces("video", url)
        return found, await api.timeline("nano", found.faces[0].crop)

    with fake_api() as (fake, address):
        found, timeline = run(address, work)
    assert fake.asked["faces"][0]["frames"] == SEARCHED_FRAMES
    assert len(timeline.seconds) == len(found.faces[0].picture().faces) == SEARCHED_FRAMES
    assert timeline.labels[0] == "neutral"
    assert timeline.labels[-1] == "happiness"


def test_the_page_loads_no_model() -> None:
    code = "import sys, serve.chat_pages; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert {"torch", "vllm", "transformers", "facellava.predictor"}.isdisjoint(
        loaded.stdout.split()
    )
