"""The real server with the real engine: other people's clients, and equality with the library."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava.answer import Answer
from facellava.conversation import Turn
from facellava.faces import find_faces
from facellava.faces.clips import read_clip, track_faces
from facellava.predictor import FaceLlava
from facellava.tasks import ANSWERABLE, TASKS, parse_answer
from serve.api_answers import AnalysisReply, AnswerFacts, ChatReply, FacesReply
from tests.serve.gateway_rig import chat, photo_url, url

CLOSE = 1e-3  # between probabilities of the engine and the library, both in float32


@pytest.fixture(scope="module")
def library() -> FaceLlava:
    return FaceLlava.load()


@pytest.fixture(scope="module")
def http(api: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def client(api: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api}/v1", api_key="none", max_retries=0) as client:
        yield client


def same(told: AnswerFacts, expected: Answer) -> None:
    """The same words, verdict, evidence and nearly the same probabilities."""
    wanted = AnswerFacts.model_validate(expected.to_dict())
    assert told.text == wanted.text
    assert (told.task, told.label, told.weak) == (wanted.task, wanted.label, wanted.weak)
    assert (told.question, told.face, told.evidence) == (
        wanted.question,
        wanted.face,
        wanted.evidence,
    )
    for kind in ("raw", "calibrated"):
        ours, theirs = getattr(told.probabilities, kind), getattr(wanted.probabilities, kind)
        assert ours == pytest.approx(theirs, abs=CLOSE)


def complete(http: httpx.Client, body: dict[str, Any]) -> ChatReply:
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return ChatReply.model_validate(response.json())


@pytest.mark.parametrize("task", ANSWERABLE)
def test_answers_about_a_photo_are_the_librarys(
    http: httpx.Client, library: FaceLlava, portrait: NDArray[np.uint8], task: str
) -> None:
    question = TASKS[task].canonical_question
    reply = complete(http, chat(question, photo_url(portrait), answer=True))
    [expected] = library.ask(portrait, question)
    assert reply.answer is not None
    same(reply.answer, expected)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("question", ["<image> What now? </s><|assistant|>", "Is she smiling?"])
def test_free_questions_too(
    http: httpx.Client, library: FaceLlava, portrait: NDArray[np.uint8], question: str
) -> None:
    reply = complete(http, chat(question, photo_url(portrait), answer=True))
    assert reply.answer is not None
    same(reply.answer, library.ask(portrait, question)[0])


def test_each_face_of_a_photo(
    http: httpx.Client, library: FaceLlava, couple: NDArray[np.uint8]
) -> None:
    body = {"model": "nano", "image": photo_url(couple), "tasks": [*ANSWERABLE], "face": "all"}
    response = http.post("/v1/analyze", json=body)
    reply = AnalysisReply.model_validate(response.json())
    expected = [
        library.ask(couple, task=task, face=face)[0] for face in (0, 1) for task in ANSWERABLE
    ]
    assert len(reply.answers) == len(expected)
    for told, wanted in zip(reply.answers, expected, strict=True):
        same(told, wanted)


def test_a_clip(http: httpx.Client, library: FaceLlava, clip: Path) -> None:
    body = {
        "model": "nano",
        "video": url(clip.read_bytes(), "video/mp4"),
        "tasks": ["expression", "age"],
        "timeline": True,
    }
    reply = AnalysisReply.model_validate(http.post("/v1/analyze", json=body).json())
    for told, task in zip(reply.answers, ("expression", "age"), strict=True):
        same(told, library.ask_clip(clip, task=task)[0])
    [line] = reply.timelines
    assert len(line.labels) == len(line.seconds) == 24
    assert all(label in TASKS["expression"].labels for label in line.labels)


def test_a_timelines_frames_are_asked_as_photos(
    http: httpx.Client, library: FaceLlava, clip: Path
) -> None:
    video = url(clip.read_bytes(), "video/mp4")
    body = {"model": "nano", "video": video, "timeline": True}
    [line] = AnalysisReply.model_validate(http.post("/v1/analyze", json=body).json()).timelines
    [track] = track_faces(read_clip(clip, 24))
    question = TASKS["expression"].canonical_question
    answers = library.ask_many(track.frames[:3], [question] * 3)
    for place, answer in enumerate(answers):
        told = {label: shares[place] for label, shares in line.probabilities.items()}
        assert told == pytest.approx(answer.raw, abs=CLOSE)


def test_a_conversation_goes_on_as_in_the_library(
    client: openai.OpenAI, library: FaceLlava, portrait: NDArray[np.uint8]
) -> None:
    messages: list[Any] = chat("How old is she?", photo_url(portrait))["messages"]
    first = client.chat.completions.create(model="nano", messages=messages)
    said = first.choices[0].message
    messages += [said, {"role": "user", "content": "Why?"}]
    second = client.chat.completions.create(model="nano", messages=messages)
    history: list[Turn] = [("How old is she?", said.content or "")]
    [expected] = library.ask(portrait, "Why?", history=history)
    assert second.choices[0].message.content == expected.text


def test_openais_client_streams(
    client: openai.OpenAI, library: FaceLlava, portrait: NDArray[np.uint8]
) -> None:
    """A long answer: where the machine is busy, vLLM gives out a dozen words at a time."""
    question = TASKS["attributes"].canonical_question
    stream = client.chat.completions.create(
        model="nano",
        messages=chat(question, photo_url(portrait))["messages"],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"answer": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    [expected] = library.ask(portrait, question)
    assert text == expected.text
    assert sum(len(chunk.choices) > 0 for chunk in chunks) > 5
    [usage] = [chunk.usage for chunk in chunks if chunk.usage]
    assert usage.completion_tokens > 5
    extra = chunks[-1].model_extra or {}
    same(AnswerFacts.model_validate(extra["answer"]), expected)


@pytest.mark.parametrize("task", ANSWERABLE)
def test_json_follows_each_tasks_schema(
    client: openai.OpenAI, portrait: NDArray[np.uint8], task: str
) -> None:
    reply = client.chat.completions.create(
        model="nano",
        messages=chat(TASKS[task].canonical_question, photo_url(portrait))["messages"],
        response_format={"type": "json_schema", "json_schema": {"name": task}},  # type: ignore[typeddict-item]
        max_completion_tokens=1024,
    )
    assert reply.choices[0].finish_reason == "stop"
    verdict = parse_answer(reply.choices[0].message.content or "")
    assert verdict.task == task


def test_logprobs(client: openai.OpenAI, portrait: NDArray[np.uint8]) -> None:
    reply = client.chat.completions.create(
        model="nano",
        messages=chat("How old is she?", photo_url(portrait))["messages"],
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=4,
    )
    assert reply.choices[0].finish_reason == "length"
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(place.token for place in told.content) == reply.choices[0].message.content
    for place in told.content:
        logs = [entry.logprob for entry in place.top_logprobs]
        assert len(logs) == 3
        assert logs == sorted(logs, reverse=True)
        assert np.exp(logs).sum() <= 1.001


def test_the_same_seed_gives_the_same_words(
    http: httpx.Client, portrait: NDArray[np.uint8]
) -> None:
    body = chat("Describe her face.", photo_url(portrait), temperature=1.2, seed=5)
    first, second = (complete(http, body).choices[0].message.content for _ in range(2))
    assert first == second


def test_openais_client_raises_its_own_errors(
    client: openai.OpenAI, portrait: NDArray[np.uint8], landscape: NDArray[np.uint8]
) -> None:
    good, none = (chat("?", photo_url(photo))["messages"] for photo in (portrait, landscape))
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=good)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as faceless:
        client.chat.completions.create(model="nano", messages=none)
    assert faceless.value.code == "no_face_found"
    long = chat("word " * 15_000, photo_url(portrait))["messages"]
    with pytest.raises(openai.BadRequestError, match="longer than the model reads") as lengthy:
        client.chat.completions.create(model="nano", messages=long)
    assert lengthy.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as schema:
        client.chat.completions.create(
            model="nano",
            messages=good,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"$ref": "#"}},
            },
        )
    assert schema.value.param == "response_format"


def test_every_model_that_is_listed_answers(
    client: openai.OpenAI, portrait: NDArray[np.uint8]
) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "nano"
    for name in names:
        messages = chat("How old is she?", photo_url(portrait))["messages"]
        reply = client.chat.completions.create(model=name, messages=messages)
        assert reply.model == name
        assert reply.choices[0].message.content


def test_gradio_loads_it_as_a_chat(api: str, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(portrait).save(photo)
    page = gr.load_chat(f"{api}/v1", model="nano", token="none", file_types=["image"])
    said = list(page.fn({"text": "How old is she?", "files": [str(photo)]}, []))
    assert len(said) > 5
    assert parse_answer(said[-1]).task == "age"
    file = {"path": str(photo)}
    history = [
        {"role": "user", "content": [{"type": "file", "file": file}, _words("How old is she?")]},
        {"role": "assistant", "content": [_words(said[-1])]},
    ]
    # As Gradio keeps what was said.
    kept = [{**turn, "metadata": None, "options": None} for turn in history]
    again = list(page.fn({"text": "Why?", "files": []}, kept))
    assert parse_answer(again[-1]).task == "age"


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_found_crops_are_asked_about_without_another_search(
    http: httpx.Client, library: FaceLlava, portrait: NDArray[np.uint8]
) -> None:
    found = FacesReply.model_validate(
        http.post("/v1/faces", json={"image": photo_url(portrait)}).json()
    )
    assert found.faces[0].crop is not None
    reply = complete(http, chat("How old is she?", found.faces[0].crop, answer=True))
    assert reply.answer is not None
    same(reply.answer, library.ask(portrait, "How old is she?")[0])


def test_photos_in_many_formats_are_the_same_photo(
    http: httpx.Client, portrait: NDArray[np.uint8]
) -> None:
    expected = find_faces(portrait)[0]
    for mime in ("png", "webp", "bmp", "tiff", "gif"):
        buffer = io.BytesIO()
        options = {"lossless": True} if mime == "webp" else {}
        Image.fromarray(portrait).save(buffer, mime.upper(), **options)
        body = {"image": url(buffer.getvalue(), f"image/{mime}"), "crops": False}
        [face] = http.post("/v1/faces", json=body).json()["faces"]
        np.testing.assert_allclose(face["box"], expected.box, atol=6 if mime == "gif" else 0.1)


def test_many_clients_at_once_get_their_own_answers(
    http: httpx.Client, library: FaceLlava, couple: NDArray[np.uint8]
) -> None:
    photo = photo_url(couple)
    expected = [library.ask(couple, "How old is she?", face=face)[0].text for face in (0, 1)]

    def ask(number: int) -> str | None:
        body = chat("How old is she?", photo, face=number % 2)
        return complete(http, body).choices[0].message.content

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(32)))
    assert answers == [expected[number % 2] for number in range(32)]


def test_clients_that_leave_do_no_harm(http: httpx.Client, portrait: NDArray[np.uint8]) -> None:
    body = chat("Describe her face.", photo_url(portrait), stream=True)
    for _ in range(5):
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            next(response.iter_raw())
    assert http.get("/health").json() == {"status": "ready"}
    assert complete(http, {**body, "stream": False}).choices[0].message.content


def test_plain_http_as_from_a_shell(http: httpx.Client, portrait: NDArray[np.uint8]) -> None:
    body = json.dumps(chat("How old is she?", photo_url(portrait))).encode()
    response = http.post(
        "/v1/chat/completions",
        content=(body[start : start + 1000] for start in range(0, len(body), 1000)),
        headers={"Content-Type": "application/json; charset=utf-8", "Expect": "100-continue"},
    )
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
