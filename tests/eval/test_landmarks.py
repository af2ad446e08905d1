"""The study of landmarks: who gets whose, what FRGCA's absence leaves, and figures known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from eval.answers import Reply
from eval.engines import ModelEngine
from eval.landmarks import landmarks_worth, with_landmarks_of, without_region_attention
from eval.protocols import PROTOCOLS
from facellava.corpus import record_of
from facellava.errors import BadSample
from facellava.faces import Face, find_faces
from facellava.predictor import embedded_weights
from facellava.records import FaceRecord

RAFDB, DEEPFAKES = PROTOCOLS["rafdb/test"], PROTOCOLS["real_fake_faces/test"]
WORDS = ("happiness", "sadness", "anger", "fear", "surprise")


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


@pytest.fixture(scope="module")
def nano() -> ModelEngine:
    return ModelEngine(embedded_weights(), label_only=True)


def records_of(face: Face, count: int, *, frames: int = 1) -> list[FaceRecord]:
    """As many faces, each a little brighter than the last and with its own landmarks."""
    records = []
    for place in range(count):
        clip = [
            replace(
                face,
                crop=np.clip(face.crop.astype(int) + 8 * place, 0, 255).astype(np.uint8),
                landmarks=face.landmarks + np.float32(0.01 * place + 0.001 * frame),
            )
            for frame in range(frames)
        ]
        facts = {"source": "x", "split": "test", "licence": "x", "origin": "x"}
        labels = {"expression": WORDS[place], "deepfake": ("real", "fake")[place % 2]}
        records.append(record_of(clip, face_id=f"face-{place}", labels=labels, **facts))
    return records


def test_the_pictures_stay_and_each_face_gets_the_landmarks_of_another(
    face: Face, nano: ModelEngine
) -> None:
    records = records_of(face, 5)
    own = torch.from_numpy(np.concatenate([record.landmarks for record in records]))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    watched = nano.model.model.face_encoder.region_attention
    with watched.register_forward_pre_hook(lambda _, inputs: seen.append(inputs)):
        found = landmarks_worth(RAFDB, records, nano, RAFDB.question)
        again = landmarks_worth(RAFDB, records, nano, RAFDB.question)
        other = landmarks_worth(RAFDB, records, nano, RAFDB.question, seed=1)
    assert found == again
    assert found["n"] == other["n"] == 5
    assert len(seen) == 9
    assert all(torch.equal(tokens, seen[0][0]) for tokens, _ in seen)
    for start, seed in ((0, 0), (3, 0), (6, 1)):
        as_they_are, shuffled, removed = (landmarks for _, landmarks in seen[start : start + 3])
        assert torch.equal(as_they_are, own)
        assert torch.equal(removed, own)
        whose = [int((own - points).abs().amax(dim=(1, 2)).argmin()) for points in shuffled]
        assert torch.equal(shuffled, own[whose])
        assert sorted(whose) == list(range(5))
        assert all(place != donor for place, donor in enumerate(whose)), seed
    assert not torch.equal(seen[1][1], seen[7][1])


def test_without_frgca_the_tokens_are_the_projectors(face: Face, nano: ModelEngine) -> None:
    model, [record] = nano.model.model, records_of(face, 1)
    encoded = nano.model.processor.encode_faces(record.faces())
    with torch.inference_mode():
        before = model.get_image_features(**encoded)
        projected = model.face_encoder.mm_projector(
            model.face_encoder.encode_pixels(encoded["pixel_values"])
        )
        with without_region_attention(model):
            assert torch.equal(model.get_image_features(**encoded), projected)
        assert torch.equal(model.get_image_features(**encoded), before)
    assert not torch.allclose(before, projected, atol=1e-3)


def test_answers_are_the_same_after_the_study(face: Face, nano: ModelEngine) -> None:
    records = records_of(face, 2)
    before = nano.ask(records, DEEPFAKES.question)
    found = landmarks_worth(DEEPFAKES, records, nano, DEEPFAKES.question)
    assert nano.ask(records, DEEPFAKES.question) == before
    # An AUC rests on probabilities, which are asked for here.
    assert found["as_they_are"]["figures"]["AUC"]["value"] in (0, 1)


def test_clips_take_part(face: Face, nano: ModelEngine) -> None:
    found = landmarks_worth(RAFDB, records_of(face, 2, frames=2), nano, RAFDB.question)
    assert (found["n"], found["as_they_are"]["unreadable"]) == (2, 0)


def test_a_clip_gets_the_other_clips_landmarks_spread_over_it(face: Face) -> None:
    [photo, _] = records_of(face, 2)
    short, long = records_of(face, 2, frames=2)[1], records_of(face, 1, frames=5)[0]
    for record, other, frames in (
        (short, long, [0, 4]),
        (long, short, [0, 0, 0, 1, 1]),
        (photo, long, [0]),
        (long, photo, [0] * 5),
    ):
        given = with_landmarks_of(record, other)
        np.testing.assert_array_equal(given.landmarks, other.landmarks[frames])
        assert (given.face_id, given.frames) == (record.face_id, record.frames)
        assert given.labels is record.labels


def test_figures_of_a_model_that_reads_the_landmarks_alone(
    face: Face, nano: ModelEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    happy, sad = records_of(face, 2)

    def ask(records: Sequence[FaceRecord], question: str, **_: Any) -> list[Reply]:
        assert question == RAFDB.question
        blind = bool(nano.model.model.face_encoder.region_attention._forward_hooks)
        said = ["I see nothing." if blind else read(record) for record in records]
        return [Reply(record.face_id, text) for record, text in zip(records, said, strict=True)]

    def read(record: FaceRecord) -> str:
        word = "happiness" if np.array_equal(record.landmarks, happy.landmarks) else "sadness"
        return f"Expression: {word}."

    monkeypatch.setattr(nano, "ask", ask)
    # Of two faces there is one way to shuffle.
    right, wrong = ({"value": share, "low": share, "high": share} for share in (1.0, 0.0))
    lost = {"difference": -1.0, "low": -1.0, "high": -1.0, "p": 2 / 1001}
    assert landmarks_worth(RAFDB, [happy, sad], nano, RAFDB.question) == {
        "n": 2,
        "as_they_are": {"figures": {"WAR": right, "UAR": right}, "unreadable": 0},
        "shuffled": {
            "figures": {"WAR": wrong, "UAR": wrong},
            "unreadable": 0,
            "change": {"WAR": lost, "UAR": lost},
        },
        "removed": {
            "figures": {"WAR": wrong, "UAR": wrong},
            "unreadable": 2,
            "change": {"WAR": lost, "UAR": lost},
        },
    }


def test_one_face_has_nobody_to_shuffle_with(face: Face, nano: ModelEngine) -> None:
    with pytest.raises(BadSample, match="rafdb/test has 1 face"):
        landmarks_worth(RAFDB, records_of(face, 1), nano, RAFDB.question)
