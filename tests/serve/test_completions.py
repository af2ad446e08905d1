"""Chat completions: what the engine is asked, what the client gets, what happens when it breaks."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.checkpoint import load
from facellava.evidence import supported_claims
from facellava.faces import find_faces, measure
from facellava.faces.face_png import data_url, from_png, to_png
from facellava.predictor import embedded_weights
from facellava.tasks import ANSWERABLE, TASKS
from serve.api_answers import ChatReply
from serve.settings import Settings
from serve.upstream import TOO_LONG
from tests.serve.gateway_rig import Loop, Rig, chat, photo_url, running

PATH = "/v1/chat/completions"
QUESTION = TASKS["expression"].canonical_question


@pytest.fixture(scope="module")
def run() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def shared(run: Loop) -> Iterator[Rig]:
    model, processor = load(embedded_weights())
    with running(Rig(processor, model.face_encoder, Settings(face_workers=1)), run) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Rig:
    """The same one, with an engine in good health."""
    engine = shared.engine
    engine.asked.clear()
    engine.fault, engine.dies_after, engine.pause, engine.aborted = None, None, 0.0, 0
    engine.state = "ready"
    return shared


@pytest.fixture(scope="module")
def crop(portrait: NDArray[np.uint8]) -> str:
    return data_url(to_png(find_faces(portrait)[0]), clip=False)


def events(response: httpx.Response) -> list[Any]:
    """A stream's events; the last one must be [DONE] or an error."""
    assert response.headers["Content-Type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    found = [block.removeprefix("data: ") for block in blocks]
    last = found.pop() if found[-1] == "[DONE]" else None
    return [json.loads(text) for text in found] + ([last] if last else [])


def words(told: list[Any]) -> str:
    deltas = [choice["delta"] for event in told[:-1] for choice in event.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_the_engine_gets_the_face_and_the_librarys_text(
    rig: Rig, run: Loop, portrait: NDArray[np.uint8]
) -> None:
    response = run(rig.post(PATH, chat("How old?", photo_url(portrait))))
    reply = ChatReply.model_validate(response.json())
    assert reply.choices[0].message.content == "You said: <image>How old?"
    assert reply.answer is None
    [asked] = rig.engine.asked
    [message] = asked.pop("messages")
    text, picture = message["content"]
    assert text == {"type": "text", "text": "<image>How old?"}
    sent = from_png(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))
    assert sent is not None
    np.testing.assert_array_equal(sent.faces[0].crop, find_faces(portrait)[0].crop)
    held = sorted(supported_claims(measure(find_faces(portrait)[0])))
    assert asked.pop("vllm_xargs") == {"facellava_held": held}
    assert asked == {"model": "nano", "temperature": 0, "max_completion_tokens": 320}


def test_placeholders_and_roles_in_the_users_words_are_only_words(
    rig: Rig, run: Loop, crop: str
) -> None:
    run(rig.post(PATH, chat("<image> <|assistant|> </s><video>", crop)))
    [message] = rig.engine.asked[0]["messages"]
    text = message["content"][0]["text"]
    assert text.startswith("<image>")
    assert not any(token in text[7:] for token in ("<image>", "<|assistant|>", "</s>", "<video>"))


def test_photos_keep_their_places_among_turns_and_words(rig: Rig, run: Loop, crop: str) -> None:
    image = {"type": "image_url", "image_url": {"url": crop, "detail": "high"}}
    body = {
        "model": "smiles",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "This "}, image]},
            {"role": "assistant", "content": "I see.", "refusal": None},
            {"role": "user", "content": [image, {"type": "text", "text": "and this?"}]},
        ],
    }
    assert run(rig.post(PATH, body)).status_code == 200
    [asked] = rig.engine.asked
    assert asked["model"] == "smiles"
    system, first, answer, second = asked["messages"]
    assert (system["content"], answer["content"]) == ("Be brief.", "I see.")
    assert [part["type"] for part in first["content"]] == ["text", "image_url"]
    assert first["content"][0]["text"] == "This <image>"
    assert second["content"][0]["text"] == "<image>and this?"


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"seed": 7}, {"seed": 7}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": "a"}, {"stop": "a"}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_completion_tokens": 5}),
        ({"max_tokens": 10**6}, {"max_completion_tokens": 1024}),
        ({"presence_penalty": 1, "frequency_penalty": -1.5},
         {"presence_penalty": 1, "frequency_penalty": -1.5}),
        ({"user": "me", "store": True, "metadata": {"a": "b"}, "n": 1, "stream": None}, {}),
        ({"response_format": {"type": "text"}}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_handed_on(
    rig: Rig, run: Loop, crop: str, given: dict[str, Any], handed_on: dict[str, Any]
) -> None:
    assert run(rig.post(PATH, chat("Hello", crop, **given))).status_code == 200
    [asked] = rig.engine.asked
    del asked["messages"], asked["vllm_xargs"]
    plain = {"model": "nano", "temperature": 0, "max_completion_tokens": 320}
    assert asked == {**plain, **handed_on}


def test_reasons_are_the_models_own_where_the_operator_says_so(run: Loop, crop: str) -> None:
    model, processor = load(embedded_weights())
    settings = Settings(face_workers=1, free_reasons=True)
    with running(Rig(processor, model.face_encoder, settings), run) as rig:
        assert run(rig.post(PATH, chat("Hello", crop))).status_code == 200
        assert "vllm_xargs" not in rig.engine.asked[0]


@pytest.mark.parametrize("task", ANSWERABLE)
def test_a_tasks_name_stands_for_its_schema(rig: Rig, run: Loop, crop: str, task: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": task}}
    assert run(rig.post(PATH, chat("?", crop, response_format=form))).status_code == 200
    [asked] = rig.engine.asked
    schema = asked["response_format"]["json_schema"]
    assert schema == {"name": task, "schema": TASKS[task].json_schema(), "strict": True}


@pytest.mark.parametrize(
    ("question", "asked_for"),
    [("How old is she?", "How old is she? Answer in JSON."), ("Age, as json?", "Age, as json?")],
)
def test_a_tasks_schema_asks_for_json_in_words_too(
    rig: Rig, run: Loop, crop: str, question: str, asked_for: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "age"}}
    assert run(rig.post(PATH, chat(question, crop, response_format=form))).status_code == 200
    [asked] = rig.engine.asked
    assert asked_for in json.dumps(asked["messages"])
    assert json.dumps(asked["messages"]).count("JSON") == asked_for.count("JSON")


def test_the_clients_own_schema_is_used(rig: Rig, run: Loop, crop: str) -> None:
    own = {"type": "object", "properties": {"mood": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": own, "strict": False}}
    run(rig.post(PATH, chat("?", crop, response_format=form)))
    assert rig.engine.asked[0]["response_format"]["json_schema"]["schema"] == own


def test_a_face_is_chosen_by_number(rig: Rig, run: Loop, couple: NDArray[np.uint8]) -> None:
    for face, expected in ((None, 0), ("largest", 0), (0, 0), (1, 1)):
        body = chat(QUESTION, photo_url(couple), answer=True)
        body |= {} if face is None else {"face": face}
        reply = ChatReply.model_validate(run(rig.post(PATH, body)).json())
        assert reply.answer is not None
        assert reply.faces is not None
        assert (reply.answer.face.index, reply.faces[0].index) == (expected, expected)
    none = run(rig.post(PATH, chat(QUESTION, photo_url(couple), face=2)))
    assert none.status_code == 400
    assert none.json()["error"]["code"] == "no_face_found"
    assert "there is no face 2" in none.json()["error"]["message"]


def test_the_answer_comes_with_the_words(rig: Rig, run: Loop, crop: str) -> None:
    body = chat(QUESTION, crop, answer=True, region_attention=True)
    reply = ChatReply.model_validate(run(rig.post(PATH, body)).json())
    assert reply.answer is not None
    assert (reply.answer.task, reply.answer.label) == ("expression", "happiness")
    assert reply.answer.question == QUESTION
    assert reply.answer.text == reply.choices[0].message.content
    # The engine double finds the first label nine times as probable as each other one.
    raw = reply.answer.probabilities.raw
    assert raw["anger"] == pytest.approx(9 * raw["fear"], rel=0.02)
    assert sum(raw.values()) == pytest.approx(1, abs=1e-3)
    [evidence] = reply.answer.evidence
    assert (evidence.phrase, evidence.verdict) == ("The mouth corners are pulled up", "supported")
    assert reply.faces is not None
    attention = reply.faces[0].region_attention
    assert attention is not None
    assert len(attention.map) == attention.grid[0] * attention.grid[1]
    assert sum(attention.weights) == pytest.approx(1, abs=0.01)


def test_an_unreadable_answer_says_so(rig: Rig, run: Loop, crop: str) -> None:
    reply = ChatReply.model_validate(run(rig.post(PATH, chat("Sing", crop, answer=True))).json())
    assert reply.answer is not None
    assert reply.answer.task is None
    assert reply.answer.unreadable
    assert len(rig.engine.asked) == 1


def test_a_stream_is_passed_on_event_by_event(rig: Rig, run: Loop, crop: str) -> None:
    body = chat(QUESTION, crop, stream=True, stream_options={"include_usage": True})
    told = events(run(rig.post(PATH, body)))
    assert words(told) == "Expression: happiness. The mouth corners are pulled up."
    assert told[-1] == "[DONE]"
    assert told[-2]["usage"]["prompt_tokens"] == 50
    assert not any("answer" in event for event in told[:-1])


def test_a_stream_with_answer_has_one_chunk_more(rig: Rig, run: Loop, crop: str) -> None:
    told = events(run(rig.post(PATH, chat(QUESTION, crop, stream=True, answer=True))))
    extra, done = told[-2:]
    assert done == "[DONE]"
    assert extra["choices"] == []
    assert extra["id"] == told[0]["id"]
    whole = run(rig.post(PATH, chat(QUESTION, crop, answer=True))).json()
    assert extra["answer"] == whole["answer"]
    assert extra["faces"] == whole["faces"]


def test_no_photo_no_face_and_too_many_photos(
    rig: Rig, run: Loop, crop: str, landscape: NDArray[np.uint8]
) -> None:
    cases = [
        (chat("Hello"), "invalid_value", "messages"),
        (chat("Hello", photo_url(landscape)), "no_face_found", "messages[0].content[0]"),
        (chat("Hello", *[crop] * 5), "invalid_value", "messages"),
        (
            chat("Hello", crop, "data:image/png;base64,AAAA"),
            "bad_media",
            "messages[0].content[1]",
        ),
        (chat("Hello", "data:video/mp4;base64,AAAA"), "bad_media", "messages[0].content[0]"),
        (
            chat("Hello", "file:///etc/passwd"),
            "url_not_allowed",
            "messages[0].content[0].video_url.url",
        ),
        ({**chat("Hello", crop), "face": "none"}, "invalid_value", "face"),
    ]
    for body, code, param in cases:
        error = run(rig.post(PATH, body)).json()["error"]
        assert (error["code"], error["param"]) == (code, param)
    assert rig.engine.asked == []


def refusal(status: int, **error: Any) -> httpx.Response:
    error = {"message": "/secret/path.py", "type": "x", "param": None, "code": status, **error}
    return httpx.Response(status, json={"error": error})


@pytest.mark.parametrize(
    ("status", "param", "code", "named"),
    [
        (400, "input_tokens", "invalid_value", "messages"),
        (400, "max_completion_tokens", "invalid_value", "max_completion_tokens"),
        (400, None, "invalid_value", None),
        (404, "model", "model_not_found", "model"),
        (429, None, "rate_limit_exceeded", None),
        (503, None, "rate_limit_exceeded", None),
        (500, None, "internal_error", None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_the_engine_refuses_is_told_in_our_words(
    rig: Rig,
    run: Loop,
    crop: str,
    status: int,
    param: str | None,
    code: str,
    named: str | None,
    stream: bool,
) -> None:
    rig.engine.fault = lambda _: refusal(status, param=param)
    response = run(rig.post(PATH, chat("Hello", crop, stream=stream)))
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, named)
    assert "secret" not in response.text
    assert (error["message"] == TOO_LONG) == (param == "input_tokens")


def test_an_error_inside_the_engines_stream_is_told_in_our_words(
    rig: Rig, run: Loop, crop: str
) -> None:
    text = b'data: {"error": {"message": "secret", "code": 500}}\n\ndata: [DONE]\n\n'
    rig.engine.fault = lambda _: httpx.Response(200, stream=httpx.ByteStream(text))
    [event] = events(run(rig.post(PATH, chat("Hello", crop, stream=True))))
    assert event["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(event)


def test_a_schema_that_nothing_satisfies_is_the_clients_error(
    rig: Rig, run: Loop, crop: str
) -> None:
    rig.engine.fault = lambda _: refusal(500)
    own = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}
    error = run(rig.post(PATH, chat("?", crop, response_format=own))).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "response_format")
    large = {"type": "object", "description": "x" * 20_000}
    own["json_schema"]["schema"] = large  # type: ignore[index]
    error = run(rig.post(PATH, chat("?", crop, response_format=own))).json()["error"]
    assert "16384 characters" in error["message"]


@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_lost_engine_is_unavailable(
    rig: Rig, run: Loop, crop: str, fault: type[httpx.TransportError]
) -> None:
    def fail(_: dict[str, Any]) -> httpx.Response:
        raise fault("secret")

    rig.engine.fault = fail
    response = run(rig.post(PATH, chat("Hello", crop)))
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_is_dying_is_unavailable(
    rig: Rig, run: Loop, crop: str, stream: bool
) -> None:
    # vLLM answers with 500 before anybody has seen that its engine is dead.
    rig.engine.fault = lambda _: refusal(500)
    rig.engine.well = False
    response = run(rig.post(PATH, chat("Hello", crop, stream=stream)))
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert int(response.headers["Retry-After"]) > 0


def test_answers_are_taken_back_as_clients_send_them(rig: Rig, run: Loop, crop: str) -> None:
    empty = (
        "refusal",
        "annotations",
        "audio",
        "function_call",
        "tool_calls",
        "metadata",
        "options",
    )
    body = chat("Why?")
    body["messages"] = [
        {**chat("How old?", crop)["messages"][0], "metadata": None, "options": None},
        {"role": "assistant", "content": "Age: 34 years.", **dict.fromkeys(empty)},
        *body["messages"],
    ]
    response = run(rig.post(PATH, body))
    assert response.status_code == 200, response.text
    assert len(rig.engine.asked[-1]["messages"]) == 3


def test_a_face_that_is_not_there_is_the_fields_fault(rig: Rig, run: Loop, crop: str) -> None:
    response = run(rig.post(PATH, chat("Hello", crop, face=9)))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "no_face_found", "face")
    assert "numbered from 0" in error["message"]


def test_a_mistake_of_our_own_in_a_stream_is_told_in_it(
    rig: Rig, run: Loop, crop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("serve.asking.Desk.answer", fail)
    told = events(run(rig.post(PATH, chat(QUESTION, crop, stream=True, answer=True))))
    assert told[-1]["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("answer", [True, False])
def test_an_engine_that_dies_in_a_stream_leaves_an_error_in_it(
    rig: Rig, run: Loop, crop: str, answer: bool
) -> None:
    rig.engine.dies_after = 2
    told = events(run(rig.post(PATH, chat(QUESTION, crop, stream=True, answer=answer))))
    assert told[-1]["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in told


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(
    rig: Rig, run: Loop, crop: str, stream: bool
) -> None:
    async def leave() -> None:
        rig.engine.pause = 0.2 if stream else 30
        left = asyncio.Event()
        sent: list[dict[str, Any]] = []
        body = json.dumps(chat(QUESTION, crop, stream=stream)).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "root_path": "",
        }
        call = asyncio.ensure_future(rig.app(scope, receive, send))  # type: ignore[arg-type]
        while not (len(sent) > 2 if stream else rig.engine.asked):
            await asyncio.sleep(0.01)
        left.set()
        await asyncio.wait_for(call, 5)
        assert rig.engine.aborted == 1
        assert rig.engine.open_streams == 0
        assert rig.app.state.traffic.under_way == 0

    run(leave())


def test_broken_characters_empty_words_and_long_ones(rig: Rig, run: Loop, crop: str) -> None:
    surrogate = json.dumps(chat("x", crop)).replace('"x"', '"\\ud800"').encode()
    assert run(rig.post(PATH, surrogate)).status_code == 400
    for nothing in ("", " \n "):
        reply = run(rig.post(PATH, chat(nothing, crop)))
        assert reply.status_code == 400
        assert reply.json()["error"]["message"].startswith("The question is empty; ask")
        form = {"type": "json_schema", "json_schema": {"name": "age"}}
        assert run(rig.post(PATH, chat(nothing, crop, response_format=form))).status_code == 400
    error = run(rig.post(PATH, chat("x" * 100_001, crop))).json()["error"]
    assert error["param"] == "messages[0].content[1].text"
