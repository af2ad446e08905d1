"""Regions changed on a real portrait; a scripted reader whose eyes are known, and nano."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from eval.faithfulness import (
    Method,
    Score,
    belief,
    faithfulness,
    model_score,
    moved,
    occluded,
    region_masks,
)
from eval.items import Item
from eval.protocols import PROTOCOLS
from facellava.corpus import record_of
from facellava.faces import Face, find_faces
from facellava.predictor import FaceLlava
from facellava.records import FaceRecord
from facellava.regions import REGIONS
from facellava.tasks import Label, Verdict

MOUTH = "Expression: happiness. The lip corners are raised."
BROWS = "Expression: happiness. The brows are raised."
SKIN = "Expression: happiness. The skin of the cheeks is smooth."


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


@pytest.fixture(scope="module")
def records(face: Face) -> dict[str, FaceRecord]:
    facts = {"source": "x", "split": "test", "labels": {}, "licence": "x", "origin": "x"}
    return {
        "photo": record_of([face], face_id="photo", **facts),
        "clip": record_of([face, face], face_id="clip", **facts),
    }


def said(text: str, face_id: str = "photo") -> Item:
    return Item(face_id, "happiness", "happiness", text=text)


def coverage(before: Face, after: Face) -> np.ndarray:
    """How far each pixel of a picture of noise was replaced by its blur, (192, 192) in [0, 1]."""
    plain = before.crop.astype(np.float32)
    blur = cv2.GaussianBlur(plain, (0, 0), 14.0)
    return ((after.crop - plain) / (blur - plain)).mean(axis=-1)


@pytest.mark.parametrize(
    "cited",
    [
        {"outer_lips"},
        {"inner_lips"},
        {"right_brow", "left_brow"},
        {"nose_bridge", "nostrils"},
        {"right_eye", "left_eye", "outer_lips"},
        {"right_eye", "left_eye", "nose_bridge", "nostrils", "right_brow", "left_brow"},
    ],
)
def test_what_is_cited_is_blurred_away_and_as_much_elsewhere(face: Face, cited: set[str]) -> None:
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), face.crop.shape)
    noisy, masks = replace(face, crop=noise), region_masks(face)
    inside = np.logical_or.reduce([masks[name] for name in cited])
    found = occluded(noisy, frozenset(cited), np.random.default_rng(3))
    assert found is not None
    hidden, control = (coverage(noisy, changed) for changed in found)
    # Soft edges: half of what they reach into is outside.
    assert hidden[inside].mean() > 0.75
    assert control[inside].mean() < 0.1
    assert hidden.sum() == pytest.approx(inside.sum(), rel=0.02)
    assert control.sum() == pytest.approx(inside.sum(), rel=0.02)


def test_blurring_makes_no_new_edges(face: Face) -> None:
    found = occluded(face, frozenset({"right_eye", "left_eye"}), np.random.default_rng(3))
    assert found is not None
    changed = region_masks(face)["right_eye"] | region_masks(face)["left_eye"]
    before, after = (
        np.abs(np.diff(each.crop.astype(int), axis=1)).max(axis=-1)[changed[:, 1:]].max()
        for each in (face, found[0])
    )
    assert after < before / 2


def test_the_skin_is_what_the_other_regions_leave(face: Face) -> None:
    masks = region_masks(face)
    assert set(masks) == set(REGIONS)
    assert not any((masks["face"] & masks[name]).any() for name in REGIONS if name != "face")
    assert masks["face"].sum() > 5 * masks["outer_lips"].sum()
    # Nothing else on the face is as large.
    assert occluded(face, frozenset({"face"}), np.random.default_rng(0)) is None


def test_landmarks_move_down_by_a_twentieth_and_as_many_elsewhere(face: Face) -> None:
    found = moved(face, frozenset({"outer_lips"}), np.random.default_rng(0))
    assert found is not None
    cited, control = (changed.landmarks - face.landmarks for changed in found)
    lips = np.zeros((68, 2), np.float32)
    lips[REGIONS["outer_lips"], 1] = 0.05
    np.testing.assert_allclose(cited, lips, atol=1e-6)
    assert np.isclose(control[:, 1], 0.05, atol=1e-6).sum() == 12
    # The inner lips lie within the outer ones and are no control.
    assert not control[48:68].any()
    np.testing.assert_array_equal(found[0].crop, face.crop)
    assert moved(face, frozenset(REGIONS) - {"nostrils"}, np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("label", "table", "expected"),
    [
        ("fake", {"real": 0.25, "fake": 0.75}, 0.75),
        (30, {"24": 0.5, "25": 0.1, "30": 0.2, "35": 0.1, "36": 0.1}, 0.4),
        (("AU1", "AU4"), {"AU1": 0.9, "AU2": 0.5, "AU4": 0.7}, 0.8),
        ((), {"AU1": 0.1, "AU2": 0.3}, 0.8),
        ({"bald": True, "young": False}, {"bald": 0.6, "young": 0.2}, 0.6),
        ({"bald": False, "young": False}, {"bald": 0.1, "young": 0.3}, 0.8),
    ],
)
def test_the_probability_of_what_was_answered(
    label: Label, table: dict[str, float], expected: float
) -> None:
    assert belief(label, table) == pytest.approx(expected)


def mouth_reader(face: Face, scale: float) -> Score:
    """A reader that looks at the mouth alone: where most of it is changed, `scale` is lost."""
    mouth = region_masks(face)["outer_lips"]

    def score(faces: Sequence[Face], verdicts: Sequence[Verdict]) -> list[Mapping[str, float]]:
        assert [verdict.label for verdict in verdicts] == ["happiness"] * len(faces)
        plain = faces[0].crop
        lost = [np.any(each.crop != plain, axis=-1)[mouth].mean() > 0.5 for each in faces]
        return [{"happiness": 1 - scale * each, "anger": scale * each} for each in lost]

    return score


def test_reasons_that_name_what_is_looked_at_are_faithful(
    face: Face, records: dict[str, FaceRecord]
) -> None:
    read = mouth_reader(face, 0.5)
    assert faithfulness([said(MOUTH)] * 20, records, read) == {
        "method": "occlude",
        "n": 20,
        "clips": 0,
        "unreadable": 0,
        "without_regions": 0,
        "no_control": 0,
        "cited_fall": {"value": 0.5, "low": 0.5, "high": 0.5},
        "control_fall": {"value": 0, "low": 0, "high": 0},
        "difference": {"value": 0.5, "low": 0.5, "high": 0.5},
        "share_larger": 1,
        "by_region": {"outer_lips": {"n": 20, "fall": 0.5}},
    }
    # Who speaks of the brows and looks at the mouth is not.
    found = faithfulness([said(BROWS)] * 20, records, read)
    assert found["cited_fall"]["value"] == found["share_larger"] == 0
    assert found["difference"]["value"] <= 0
    assert list(found["by_region"]) == ["right_brow", "left_brow"]


def test_what_cannot_be_measured_is_counted(face: Face, records: dict[str, FaceRecord]) -> None:
    items = [
        said(MOUTH),
        said(MOUTH, "clip"),
        said("She looks happy. The lip corners are raised."),
        Item("photo", "happiness", None, text="", problem="refused"),
        said("Expression: happiness."),
        said(SKIN),
    ]
    found = faithfulness(items, records, mouth_reader(face, 1.0))
    left_out = ("n", "clips", "unreadable", "without_regions", "no_control")
    assert [found[name] for name in left_out] == [1, 1, 2, 1, 1]
    nothing = faithfulness(items[1:], records, mouth_reader(face, 1.0))
    assert (nothing["n"], nothing["by_region"]) == (0, {})
    assert math.isnan(nothing["share_larger"])
    assert math.isnan(nothing["difference"]["value"])


@pytest.fixture(scope="module")
def nano() -> FaceLlava:
    return FaceLlava.load()


@pytest.mark.parametrize("method", ["occlude", "move"])
def test_nano_reads_the_changed_faces(
    nano: FaceLlava, records: dict[str, FaceRecord], method: Method
) -> None:
    question = PROTOCOLS["rafdb/test"].question
    score = model_score(nano, question)
    [face] = records["photo"].faces()
    answer = nano.ask_many([face], [question])[0]
    [table] = score([face], [Verdict("expression", answer.label, "")])
    assert table == pytest.approx(answer.raw, abs=1e-5)
    found = faithfulness([said(MOUTH)], records, score, method=method)
    assert found["method"] == method
    assert found["n"] == 1
    fall, control = found["cited_fall"]["value"], found["control_fall"]["value"]
    assert -1 <= fall <= 1
    assert fall != 0
    assert found["difference"]["value"] == pytest.approx(fall - control)
