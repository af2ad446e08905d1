"""A benchmark asked through the real server: the same words, verdicts and figures as here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from skimage import data

from eval.engines import ModelEngine, ServedEngine
from eval.parity import parity_of
from eval.protocols import PROTOCOLS
from eval.served import ServedModel
from facellava.corpus import FaceRecord, record_of
from facellava.errors import FacellavaError
from facellava.faces import Face, find_faces
from facellava.predictor import FaceLlava, embedded_weights
from facellava.tasks import ANSWERABLE, TASKS

CLOSE = 1e-3


@pytest.fixture(scope="module")
def library() -> FaceLlava:
    return FaceLlava.load()


@pytest.fixture(scope="module")
def served(api: str) -> ServedModel:
    return ServedModel(f"{api}/v1")


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    """One face at twelve places of its crop, which the model does not take for one."""
    [face] = find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))
    random = np.random.default_rng(3)
    return [
        replace(
            face,
            crop=np.roll(face.crop, random.integers(-12, 13, 2), axis=(0, 1)),
            landmarks=(face.landmarks + random.normal(0, 0.01, (68, 2))).astype(np.float32),
        )
        for _ in range(12)
    ]


def test_answers_are_those_of_the_model_loaded_here(
    library: FaceLlava, served: ServedModel, faces: list[Face]
) -> None:
    questions = [TASKS[name].canonical_question for name in ANSWERABLE]
    asked = [questions[number % len(questions)] for number in range(len(faces))]
    here, there = library.ask_many(faces, asked), served.ask_many(faces, asked)
    assert [answer.text for answer in there] == [answer.text for answer in here]
    assert [answer.evidence for answer in there] == [answer.evidence for answer in here]
    for own, other in zip(here, there, strict=True):
        assert (other.task, other.label, other.face) == (own.task, own.label, own.face)
        assert other.raw == pytest.approx(own.raw, abs=CLOSE)
        assert other.calibrated == pytest.approx(own.calibrated, abs=CLOSE)
    assert any(answer.calibrated != answer.raw for answer in there)


def test_a_clip_goes_as_a_clip(library: FaceLlava, served: ServedModel, faces: list[Face]) -> None:
    question = TASKS["expression"].canonical_question
    [here] = library.ask_many([faces[:3]], [question])
    [there] = served.ask_many([faces[:3]], [question])
    assert (there.text, there.label) == (here.text, here.label)
    assert there.raw == pytest.approx(here.raw, abs=CLOSE)


def test_an_earlier_turn_goes_along(
    library: FaceLlava, served: ServedModel, faces: list[Face]
) -> None:
    question = TASKS["age"].canonical_question
    [first] = library.ask_many(faces[:1], [question])
    history = [(question, first.text)]
    again = "What is the facial expression?"
    [here] = library.ask_many(faces[:1], [again], [history])
    [there] = served.ask_many(faces[:1], [again], [history])
    assert there.text == here.text


def records(faces: Sequence[Face]) -> list[FaceRecord]:
    return [
        record_of(
            [face],
            face_id=f"x-{number}",
            source="x",
            split="test",
            labels={"age": 20 + number},
            licence="x",
            origin="x",
        )
        for number, face in enumerate(faces)
    ]


def test_parity_counts_what_is_the_same(served: ServedModel, faces: list[Face]) -> None:
    here = ModelEngine(embedded_weights())
    found = parity_of(PROTOCOLS["utkface/all-ages"], records(faces), here, ServedEngine(served))
    assert found["n"] == found["same_label"] == found["same_text"] == len(faces)
    assert found["in_process"] == found["served"]
    assert found["largest_probability_gap"] <= CLOSE


def test_parity_sees_a_difference(api: str, faces: list[Face]) -> None:
    # An adapter with random weights stands for a server with other weights.
    other = ServedModel(f"{api}/v1", model="twin")
    here, there = ModelEngine(embedded_weights()), ServedEngine(other)
    found = parity_of(PROTOCOLS["utkface/all-ages"], records(faces), here, there)
    assert found["same_text"] < len(faces)


def test_troubles_are_one_sentence(api: str, faces: list[Face]) -> None:
    with pytest.raises(FacellavaError, match=r"serves no model 'gpt-4o'; it has nano, twin\."):
        ServedModel(f"{api}/v1", model="gpt-4o")
    with pytest.raises(FacellavaError, match=r"No server answers at .*; start one with"):
        ServedModel("http://127.0.0.1:9/v1")
    with pytest.raises(FacellavaError, match="refuses: There is no such route"):
        ServedModel(f"{api}/v2")
