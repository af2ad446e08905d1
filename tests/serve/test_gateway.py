"""What the gateway refuses and how it says so; its routes against their own document."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr

from facellava.checkpoint import load
from facellava.face_encoder import FaceEncoder
from facellava.faces import MEASUREMENTS
from facellava.predictor import embedded_weights
from facellava.processor import FaceLlavaProcessor
from serve.api_answers import ErrorReply, FacesReply, Health, ModelCard, ModelList
from serve.api_errors import STATUS
from serve.settings import Settings
from tests.serve.gateway_rig import Loop, Rig, chat, photo_url, running

Parts = tuple[FaceLlavaProcessor, FaceEncoder]
LAME = {"image": "data:image/png;base64,AAAA"}


@pytest.fixture(scope="module")
def parts() -> Parts:
    model, processor = load(embedded_weights())
    return processor, model.face_encoder


@pytest.fixture(scope="module")
def run() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def rig(parts: Parts, run: Loop) -> Iterator[Rig]:
    with running(Rig(*parts, Settings(face_workers=1)), run) as rig:
        yield rig


def refused(response: httpx.Response, code: str, param: str | None = None) -> str:
    """The sentence of an error that must have this code."""
    told = ErrorReply.model_validate(response.json()).error
    assert (told.code, response.status_code) == (code, STATUS[code]), told.message
    assert told.param == param
    return told.message


def test_routes_are_those_that_are_offered_and_no_others(rig: Rig, run: Loop) -> None:
    document = run(rig.client.get("/openapi.json")).json()
    assert {(path, *methods) for path, methods in document["paths"].items()} == {
        ("/health", "get"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1/chat/completions", "post"),
        ("/v1/faces", "post"),
        ("/v1/analyze", "post"),
    }
    for path in ("/", "/docs", "/redoc", "/metrics", "/invocations", "/v1/completions", "/v1/"):
        refused(run(rig.client.get(path)), "not_found")
        refused(run(rig.post(path, {})), "not_found")
    for method, path in (("GET", "/v1/faces"), ("PUT", "/health"), ("OPTIONS", "/v1/analyze")):
        response = run(rig.client.request(method, path))
        refused(response, "method_not_allowed")
        assert response.headers["Allow"] in ("POST", "GET")
        assert "access-control-allow-origin" not in response.headers


def test_document_tells_each_error_and_no_other(rig: Rig, run: Loop) -> None:
    document = run(rig.client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path
            for status, told in operation["responses"].items():
                if status != "200":
                    schema = told["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorReply")
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["ChatRequest"]["additionalProperties"] is False


def test_health_and_models(rig: Rig, run: Loop) -> None:
    Health.model_validate(run(rig.client.get("/health")).json())
    cards = ModelList.model_validate(run(rig.client.get("/v1/models")).json()).data
    assert [card.id for card in cards] == ["nano", "smiles"]
    one = run(rig.client.get("/v1/models/smiles"))
    assert ModelCard.model_validate(one.json()) == cards[1]
    sentence = refused(run(rig.client.get("/v1/models/gpt-4o")), "model_not_found", "model")
    assert sentence == "There is no such model; this server has nano, smiles."
    rig.engine.state = "restarting"
    try:
        for response in (
            run(rig.client.get("/health")),
            run(rig.post("/v1/chat/completions", chat("Hello"))),
        ):
            refused(response, "engine_unavailable")
            assert int(response.headers["Retry-After"]) > 0
        # Faces are found without the engine.
        refused(run(rig.post("/v1/faces", LAME)), "bad_media", "image")
    finally:
        rig.engine.state = "ready"


def test_engine_that_is_unknown_to_a_request_is_not_asked(rig: Rig, run: Loop) -> None:
    asked = len(rig.engine.asked)
    body = {**chat("Hello", "data:image/png;base64,AAAA"), "model": "gpt-4o"}
    message = refused(run(rig.post("/v1/chat/completions", body)), "model_not_found", "model")
    assert "nano, smiles" in message
    assert len(rig.engine.asked) == asked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"image": NaN}',
        b'{"image": "x", "image": "y"}',
        b'{"frames": 1e999, "image": "data:,"}',
        b'{"frames": ' + b"9" * 5000 + b', "image": "data:,"}',
        b'{"image": "\xff"}',
        b'{"image": "\\ud800 data:"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 50 + b"1" + b"}" * 50,
        b"[" + b"[]," * 300_000 + b"[]]",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", ["/v1/faces", "/v1/chat/completions", "/v1/analyze"])
def test_what_is_not_plain_json_is_refused(rig: Rig, run: Loop, path: str, body: bytes) -> None:
    response = run(rig.post(path, body))
    assert response.status_code == 400
    assert ErrorReply.model_validate(response.json()).error.code in (
        "invalid_value",
        "unknown_field",
    )


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"mm_processor_kwargs": {}}, "unknown_field", "mm_processor_kwargs"),
        ({"tools": []}, "unknown_field", "tools"),
        ({"n": 2}, "invalid_value", "n"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": "1"}, "invalid_value", "temperature"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": True}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_value", "max_tokens"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"stop": [""]}, "invalid_value", "stop[0]"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"top_logprobs": 21, "logprobs": True}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", None),
        ({"stream_options": {"include_usage": True}}, "invalid_value", None),
        ({"face": "all"}, "invalid_value", "face"),
        ({"face": -1}, "invalid_value", "face"),
        ({"face": 1.0}, "invalid_value", "face"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata.a"),
        ({"response_format": {"type": "json_object"}}, "invalid_value", "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "mood"}}},
            "invalid_value",
            "response_format.json_schema",
        ),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "Hello"}, "invalid_value", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_value", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "invalid_value",
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}],
                    }
                ]
            },
            "invalid_value",
            "messages[0]",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_chat_names_the_field_that_is_wrong(
    rig: Rig, run: Loop, change: dict[str, Any], code: str, param: str | None
) -> None:
    body = {**chat("Hello", "data:image/png;base64,AAAA"), **change}
    refused(run(rig.post("/v1/chat/completions", body)), code, param)


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/v1/faces", {}, "invalid_value", None),
        ("/v1/faces", {"image": "data:,x", "video": "data:,x"}, "invalid_value", None),
        ("/v1/faces", {**LAME, "frames": 4}, "invalid_value", None),
        ("/v1/faces", {"video": "data:,x", "frames": 33}, "invalid_value", "frames"),
        ("/v1/faces", {**LAME, "model": "nano"}, "unknown_field", "model"),
        ("/v1/analyze", {"model": "nano", **LAME}, "invalid_value", None),
        ("/v1/analyze", {"model": "nano", **LAME, "tasks": ["mood"]}, "invalid_value", "tasks[0]"),
        ("/v1/analyze", {"model": "nano", **LAME, "tasks": ["age", "age"]}, "invalid_value", None),
        ("/v1/analyze", {"model": "nano", **LAME, "timeline": True}, "invalid_value", None),
        ("/v1/analyze", {"model": "x", **LAME, "tasks": ["age"]}, "model_not_found", "model"),
        (
            "/v1/analyze",
            {"model": "nano", **LAME, "tasks": ["age"], "face": "smallest"},
            "invalid_value",
            "face",
        ),
    ],
)
def test_own_routes_name_the_field_that_is_wrong(
    rig: Rig, run: Loop, path: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    refused(run(rig.post(path, body)), code, param)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(rig: Rig, run: Loop, kind: str) -> None:
    response = run(rig.post("/v1/faces", LAME, headers={"Content-Type": kind}))
    refused(response, "unsupported_media")
    encoded = run(rig.post("/v1/faces", LAME, headers={"Content-Encoding": "gzip"}))
    refused(encoded, "unsupported_media")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("faces.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("localhost:8000@evil.example", False),
        ("", False),
    ],
)
def test_a_server_on_loopback_answers_to_local_names_only(
    parts: Parts, run: Loop, host: str, known: bool
) -> None:
    rig = Rig(*parts, Settings(public_host="faces.example"))
    response = run(rig.client.get("/health", headers={"Host": host}))
    if known:
        assert response.status_code == 200
    else:
        refused(response, "invalid_value", "Host")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("faces.example", False),
    ],
)
def test_which_addresses_are_this_computers_own(host: str, loopback: bool) -> None:
    assert Settings(host=host).loopback == loopback
    assert host in Settings(host=host).local_names


def test_a_public_server_answers_to_any_name(parts: Parts, run: Loop) -> None:
    rig = Rig(*parts, Settings(host="0.0.0.0"))
    assert run(rig.client.get("/health", headers={"Host": "any.example"})).status_code == 200


def test_the_key_is_asked_everywhere_but_for_health(parts: Parts, run: Loop) -> None:
    rig = Rig(*parts, Settings(api_key=SecretStr("sesame-ä")))
    key = "sesame-ä".encode()
    assert run(rig.client.get("/health")).status_code == 200
    for path in ("/v1/models", "/openapi.json", "/v1/nowhere", "/chat", "/chat/config"):
        response = run(rig.client.get(path))
        refused(response, "invalid_api_key")
        page = path.startswith("/chat")
        assert response.headers["WWW-Authenticate"].startswith("Basic" if page else "Bearer")
    for wrong in (b"", b"Bearer", b"Bearer sesame", b"Basic " + key, b"Bearer " + key + b"x"):
        refused(
            run(rig.client.get("/v1/models", headers={b"Authorization": wrong})), "invalid_api_key"
        )
    good = run(rig.client.get("/v1/models", headers={b"Authorization": b"Bearer " + key}))
    assert good.status_code == 200
    document = run(rig.client.get("/openapi.json", headers={b"Authorization": b"Bearer " + key}))
    assert document.json()["paths"]["/v1/faces"]["post"]["security"] == [{"key": []}]
    assert "sesame" not in repr(rig.app.state.traffic.settings)
    assert run(rig.client.get("/chat", auth=("anyone", "sesame-ä"))).status_code == 404
    refused(run(rig.client.get("/chat", auth=("anyone", "wrong"))), "invalid_api_key")


def test_requests_have_names_and_logs_hold_no_contents(
    rig: Rig, run: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    given = run(rig.client.get("/health", headers={"X-Request-Id": "mine-1"}))
    assert given.headers["X-Request-Id"] == "mine-1"
    odd = run(rig.client.get("/health", headers={"X-Request-Id": "x" * 65}))
    assert len(odd.headers["X-Request-Id"]) == 32

    body = chat("secret", photo_url(np.full((64, 64, 3), 9, np.uint8)))
    run(rig.post("/v1/chat/completions?key=secret", body))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("serve.")]
    assert any("POST /v1/chat/completions 400" in line for line in ours)
    assert not any("secret" in line for line in ours)


def test_mistakes_of_our_own_are_told_in_one_fixed_sentence(
    rig: Rig, run: Loop, portrait: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(body: dict[str, Any]) -> httpx.Response:
        raise RuntimeError(body["messages"][0]["content"][0]["text"])

    rig.engine.fault = fail
    try:
        response = run(rig.post("/v1/chat/completions", chat("secret", photo_url(portrait))))
    finally:
        rig.engine.fault = None
    assert "secret" not in refused(response, "internal_error")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_faces_of_a_photo(rig: Rig, run: Loop, couple: NDArray[np.uint8]) -> None:
    body = {"image": photo_url(couple)}
    first, second = FacesReply.model_validate(run(rig.post("/v1/faces", body)).json()).faces
    assert (first.index, second.index) == (0, 1)
    assert first.box[2] - first.box[0] >= second.box[2] - second.box[0]
    assert first.measurements is not None
    assert set(first.measurements) == set(MEASUREMENTS)
    plain = run(rig.post("/v1/faces", {**body, "crops": False, "measurements": False})).json()
    assert "crop" not in plain["faces"][0]
    assert "measurements" not in plain["faces"][0]


def test_no_face_is_an_empty_list_here(rig: Rig, run: Loop, landscape: NDArray[np.uint8]) -> None:
    response = run(rig.post("/v1/faces", {"image": photo_url(landscape)}))
    assert response.status_code == 200
    assert response.json()["faces"] == []
    assert response.json()["media"] == {"kind": "image", "width": 400, "height": 300}


def test_a_crop_comes_back_as_the_same_face(
    rig: Rig, run: Loop, portrait: NDArray[np.uint8]
) -> None:
    [face] = run(rig.post("/v1/faces", {"image": photo_url(portrait)})).json()["faces"]
    [again] = run(rig.post("/v1/faces", {"image": face["crop"]})).json()["faces"]
    assert again == face


def test_many_requests_at_once_are_each_answered(
    rig: Rig, run: Loop, portrait: NDArray[np.uint8]
) -> None:
    async def all_at_once() -> list[httpx.Response]:
        bodies = [chat(f"Question {number}", photo_url(portrait)) for number in range(20)]
        return await asyncio.gather(*(rig.post("/v1/chat/completions", body) for body in bodies))

    texts = [json.loads(r.text)["choices"][0]["message"]["content"] for r in run(all_at_once())]
    assert texts == [f"You said: <image>Question {number}" for number in range(20)]
