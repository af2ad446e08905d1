"""Engines: the same question about the same faces, whoever answers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from eval.answers import Reply
from eval.engines import (
    EndpointEngine,
    ModelEngine,
    PaidEndpoint,
    messages_about,
    weights_sha256,
)
from eval.protocols import PROTOCOLS
from facellava.corpus import record_of
from facellava.endpoint import EndpointSettings, Price
from facellava.errors import BadCheckpoint, OutOfBudget
from facellava.faces import Face, find_faces
from facellava.predictor import embedded_weights
from facellava.records import FaceRecord
from tests.facellava.endpoint_rig import fake_endpoint, reply, trouble

QUESTION = PROTOCOLS["rafdb/test"].question


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


def record(face: Face, name: str = "x", frames: int = 1) -> FaceRecord:
    return record_of(
        [face] * frames, face_id=name, source="x", split="test",
        labels={"expression": "happiness"}, licence="x", origin="x",
    )  # fmt: skip


def test_an_endpoint_sees_the_crop_and_the_question(face: Face) -> None:
    [message] = messages_about(record(face), QUESTION)
    picture, text = message["content"]
    assert text["text"] == QUESTION
    kind, _, coded = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(coded) == record(face).frames[0]


@pytest.mark.parametrize(("frames", "shown"), [(1, 1), (5, 5), (8, 8), (30, 8)])
def test_of_a_clip_it_sees_frames_spread_over_it(face: Face, frames: int, shown: int) -> None:
    [message] = messages_about(record(face, frames=frames), QUESTION)
    assert [part["type"] for part in message["content"]] == ["image_url"] * shown + ["text"]


Paid = Callable[..., PaidEndpoint]


@pytest.fixture
def paid(tmp_path: Path) -> Paid:
    def make(url: str, max_cost: float | None = None, **more: Any) -> PaidEndpoint:
        settings = EndpointSettings(url, "m", api_key="k", first_wait=0.01, **more)
        return PaidEndpoint(
            settings, tmp_path / "replies.sqlite", {"m": Price(input=1, output=1)}, max_cost
        )

    return make


def test_replies_keep_the_order_of_the_faces_and_failures_are_named(face: Face, paid: Paid) -> None:
    def script(prompt: str, before: int, body: dict[str, Any]) -> Any:
        frames = len(body["messages"][0]["content"]) - 1
        if frames == 2:
            return reply("", refusal="I cannot help with faces.")
        return trouble(400, "too many pictures") if frames == 4 else reply(f" It has {frames}. ")

    with fake_endpoint(script) as server, EndpointEngine(paid(server.url)) as engine:
        records = [record(face, f"f{count}", frames=count) for count in (3, 1, 2, 4)]
        found = engine.ask(records, QUESTION)
        assert engine.describe()["name"] == "m"
        assert engine.facts()["spent"]["m"] > 0
    assert found == [
        Reply("f3", "It has 3."),
        Reply("f1", "It has 1."),
        Reply("f2", "", problem="refused"),
        Reply("f4", "", problem="rejected"),
    ]


def test_nothing_is_paid_for_twice_and_the_cap_holds(face: Face, paid: Paid) -> None:
    with fake_endpoint(lambda *_: reply("Fear.")) as server:
        for _ in range(2):
            with EndpointEngine(paid(server.url)) as engine:
                assert engine.ask([record(face)], QUESTION) == [Reply("x", "Fear.")]
        assert len(server.prompts) == 1
        with EndpointEngine(paid(server.url, max_cost=1e-9)) as engine:
            # What is answered already costs nothing.
            assert engine.ask([record(face)], QUESTION) == [Reply("x", "Fear.")]
            with pytest.raises(OutOfBudget):
                engine.ask([record(face, frames=2)], QUESTION)
        assert len(server.prompts) == 1


def test_the_model_answers_photos_and_clips_with_all_that_scoring_needs(face: Face) -> None:
    engine = ModelEngine(embedded_weights())
    photo, clip = engine.ask([record(face), record(face, "clip", frames=3)], QUESTION)
    assert (photo.face_id, clip.face_id) == ("x", "clip")
    for found in (photo, clip):
        assert found.text.startswith("Expression: ")
        assert sum(found.table.values()) == pytest.approx(1, abs=1e-4)
        assert found.calibrated.keys() == found.table.keys()
        assert found.claims
        assert {claim["verdict"] for claim in found.claims} <= {
            "supported", "contradicted", "unmeasurable",
        }  # fmt: skip
    assert engine.describe() == {
        "kind": "model",
        "name": "nano",
        "weights_sha256": weights_sha256(embedded_weights()),
        "label_only": False,
        "free_reasons": False,
    }


def test_label_only_says_the_same_verdict_and_stops(face: Face) -> None:
    whole, short = (
        ModelEngine(embedded_weights(), label_only=only).ask([record(face)] * 2, QUESTION)
        for only in (False, True)
    )
    for long, brief in zip(whole, short, strict=True):
        assert long.text.startswith(brief.text)
        assert brief.text.endswith(".")
        assert len(brief.text) < len(long.text)
        assert brief.table == pytest.approx(long.table, abs=1e-4)


def test_a_folder_without_weights_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="holds no safetensors"):
        weights_sha256(tmp_path)
