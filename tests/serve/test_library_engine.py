"""The gateway on the library's own model: the answers of `FaceLlava`, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.faces import Face, find_faces
from facellava.faces.face_png import data_url, to_png
from facellava.predictor import FaceLlava, canonical_question
from serve.gateway import create_app
from serve.library_engine import LibraryEngine
from serve.settings import Settings
from tests.serve.gateway_rig import Loop, chat


@pytest.fixture(scope="module")
def model() -> FaceLlava:
    return FaceLlava.load()


@pytest.fixture(scope="module")
def face(portrait: NDArray[np.uint8]) -> Face:
    return find_faces(portrait)[0]


@pytest.fixture(scope="module")
def engine(model: FaceLlava) -> LibraryEngine:
    return LibraryEngine(model, "nano")


@pytest.fixture(scope="module")
def loop(engine: LibraryEngine) -> Iterator[Loop]:
    loop = Loop()
    loop(engine.start())
    yield loop
    loop(engine.stop())
    loop.close()


@pytest.fixture(scope="module")
def client(engine: LibraryEngine, model: FaceLlava, loop: Loop) -> Iterator[httpx.AsyncClient]:
    app = create_app(engine, model.processor, model.model.face_encoder, Settings(face_workers=1))
    lifespan = app.router.lifespan_context(app)
    loop(lifespan.__aenter__())
    yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    loop(lifespan.__aexit__(None, None, None))


@pytest.mark.parametrize("task", ["expression", "age", "attributes", "action_units", "deepfake"])
def test_answers_are_the_librarys(
    client: httpx.AsyncClient, loop: Loop, model: FaceLlava, face: Face, task: str
) -> None:
    question = canonical_question(None, task)
    body = chat(question, data_url(to_png(face), clip=False), answer=True)
    reply = loop(client.post("/v1/chat/completions", json=body)).json()
    [answer] = model.ask_many([face], [question])
    assert reply["choices"][0]["message"]["content"] == answer.text
    assert reply["choices"][0]["finish_reason"] == "stop"
    given: dict[str, Any] = reply["answer"]
    expected = json.loads(json.dumps(answer.to_dict()))
    assert given["label"] == expected["label"]
    assert given["evidence"] == expected["evidence"]
    for kind in ("raw", "calibrated"):
        table = expected["probabilities"][kind]
        assert given["probabilities"][kind] == pytest.approx(table, abs=2e-4)


def test_streams_hold_the_same_words(
    client: httpx.AsyncClient, loop: Loop, model: FaceLlava, face: Face
) -> None:
    question = canonical_question(None, "expression")
    body = chat(question, data_url(to_png(face), clip=False), stream=True)
    lines = loop(client.post("/v1/chat/completions", json=body)).text.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    words = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert words == model.ask_many([face], [question])[0].text
    assert len(chunks) > 5


def test_what_needs_vllm_is_refused(client: httpx.AsyncClient, loop: Loop, face: Face) -> None:
    body = chat(
        "Is she happy?",
        data_url(to_png(face), clip=False),
        response_format={"type": "json_schema", "json_schema": {"name": "expression"}},
    )
    refused = loop(client.post("/v1/chat/completions", json=body))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_value"


def test_answers_end_where_asked(client: httpx.AsyncClient, loop: Loop, face: Face) -> None:
    body = chat("Is she happy?", data_url(to_png(face), clip=False), max_completion_tokens=3)
    reply = loop(client.post("/v1/chat/completions", json=body)).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 3
