"""Claims: the inventory's form, finding them in text, and what the numbers say of them."""

from __future__ import annotations

import json
from itertools import combinations, permutations

import numpy as np
import pytest
from skimage.data import astronaut

from facellava.claims import NEAR, OVER, UNDER
from facellava.evidence import (
    ACTION_UNIT_RULES,
    CLAIMS,
    action_units,
    check,
    find_claims,
    holding_claims,
    verdict,
    verify,
)
from facellava.faces import MEASUREMENTS, Face, Measurement, canonical_face, find_faces, measure
from facellava.faces.pose import MEAN_FACE
from facellava.regions import REGIONS


def _measured(claim: str, value: float | None, *, weak: bool = False) -> Measurement:
    spec = MEASUREMENTS[CLAIMS[claim].measurement]
    note = "" if value is not None else "the photo has no colour"
    return Measurement(spec.id, value, spec.unit, note, weak)


def _face(moves: dict[int, tuple[float, float]] | None = None) -> Face:
    """A plain face with the mean landmarks, points moved by (x, y) eye distances."""
    points = MEAN_FACE[:, :2] * 100 + [250, 200]
    for index, step in (moves or {}).items():
        points[index] += np.array(step) * 100
    grain = np.random.default_rng(1).normal(160, 3, (500, 500, 3))
    return canonical_face(grain.astype(np.uint8), points)


@pytest.fixture(scope="module")
def portrait() -> Face:
    return find_faces(astronaut())[0]


def test_the_inventory_is_well_formed() -> None:
    for name, claim in CLAIMS.items():
        assert name == claim.id
        assert claim.measurement in MEASUREMENTS
        assert claim.direction in (OVER, UNDER, NEAR)
        assert (claim.width > 0) == (claim.direction == NEAR)
        assert 2 <= len(claim.phrases) <= 3
        assert set(claim.regions) <= set(REGIONS)
        for phrase in claim.phrases:
            assert phrase == " ".join(phrase.split())
            assert phrase[0].islower()
            assert not set(phrase) & set(",.;:")
    assert len({claim.id for claim in CLAIMS.values()}) >= 35


def test_no_phrase_stands_inside_another() -> None:
    phrases = [phrase for claim in CLAIMS.values() for phrase in claim.phrases]
    assert len(phrases) == len(set(phrases))
    assert [(one, other) for one, other in permutations(phrases, 2) if one in other] == []


def test_opposite_claims_cannot_hold_together() -> None:
    for one in CLAIMS.values():
        for other in CLAIMS.values():
            if one.measurement != other.measurement or one.direction == other.direction:
                continue
            edges = [
                claim.threshold + step
                for claim in (one, other)
                for step in (-claim.width, 0.0, claim.width)
            ]
            middles = [(low + high) / 2 for low, high in combinations(edges, 2)]
            both = [v for v in edges + middles if one.excess(v) > 0 and other.excess(v) > 0]
            assert both == [], (one.id, other.id)


def test_every_phrase_is_found_as_its_own_claim() -> None:
    for claim in CLAIMS.values():
        for phrase in claim.phrases:
            assert [found.id for found, _ in find_claims(f"So {phrase}, I think.")] == [claim.id]


def test_find_claims_in_prose() -> None:
    text = (
        "Expression: happiness. The lip corners are raised and the\n mouth stands open, because "
        "THE TEETH ARE VISIBLE. The inner brow ends are raised."
    )
    found = find_claims(text)
    assert [claim.id for claim, _ in found] == [
        "lip_corners_raised", "lips_parted", "teeth_visible", "inner_brows_raised",
    ]  # fmt: skip
    assert [text[start:end].lower().split() for _, (start, end) in found] == [
        phrase.split()
        for phrase in (
            "the lip corners are raised", "the mouth stands open", "the teeth are visible",
            "the inner brow ends are raised",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "The face is happy.", "breathe eyes are narrowedly shut",
        "The mouth is closedness itself.", "the lip corners were raised",
    ],
)  # fmt: skip
def test_words_outside_the_inventory_are_no_claims(text: str) -> None:
    assert find_claims(text) == []


@pytest.mark.parametrize(
    ("claim", "past", "expected"),
    [
        ("eyes_wide", 0.0, "supported"),
        ("eyes_wide", 2.0, "supported"),
        ("eyes_wide", -0.9, "unmeasurable"),
        ("eyes_wide", -1.1, "contradicted"),
        ("eyes_narrowed", 0.1, "supported"),
        ("eyes_narrowed", -0.9, "unmeasurable"),
        ("eyes_narrowed", -1.1, "contradicted"),
    ],
)
def test_verdicts_around_a_threshold(claim: str, past: float, expected: str) -> None:
    """`past` is how far the value lies on the claim's side, in dead bands."""
    one = CLAIMS[claim]
    value = one.threshold + one.direction * past * one.dead_band
    # At the very threshold the sum may fall short by one bit; the claim still holds there.
    value = one.threshold if past == 0 else value
    assert verdict(one, _measured(claim, value)) == expected


@pytest.mark.parametrize("side", [-1, 1])
def test_verdicts_around_a_band(side: int) -> None:
    level = CLAIMS["lip_corners_level"]

    def at(distance: float) -> str:
        return verdict(level, _measured(level.id, level.threshold + side * distance))

    assert at(0) == at(0.9 * level.width) == "supported"
    assert at(level.width + 0.5 * level.dead_band) == "unmeasurable"
    assert at(level.width + 1.5 * level.dead_band) == "contradicted"


def test_what_has_no_value_is_unmeasurable_and_says_why() -> None:
    measurements = measure(_face()) | {"lip_redness": _measured("lips_red", None)}
    (evidence,) = check("The lips are much redder than the skin.", measurements)
    assert evidence.verdict == "unmeasurable"
    assert evidence.value is None
    assert evidence.note == "the photo has no colour"


def test_weak_landmarks_keep_the_verdict_and_are_noted() -> None:
    measurements = measure(_face()) | {"yaw": _measured("facing_camera", 1.0, weak=True)}
    (evidence,) = check("The head faces the camera.", measurements)
    assert (evidence.verdict, evidence.note) == ("supported", "weak landmarks")


BROWS = range(17, 27)


@pytest.mark.parametrize(
    ("moves", "supported", "contradicted"),
    [
        ({i: (0.0, -0.12) for i in BROWS}, "the brows are raised", "the brows are lowered"),
        ({i: (0.0, 0.10) for i in BROWS}, "the brows are lowered", "the brows are raised"),
        (
            {i: (0.0, 0.3) for i in (6, 7, 8, 9, 10, 55, 56, 57, 58, 59, 65, 66, 67)},
            "the mouth is wide open", "the mouth is closed",
        ),
        (
            {48: (-0.12, -0.12), 60: (-0.12, -0.12), 54: (0.12, -0.12), 64: (0.12, -0.12)},
            "the lip corners are raised", "the lip corners are lowered",
        ),
        (
            {48: (0.0, 0.12), 60: (0.0, 0.12), 54: (0.0, 0.12), 64: (0.0, 0.12)},
            "the mouth corners are pulled down", "the lip corners are level",
        ),
        (
            {i: (0.0, 0.07) for i in (37, 38, 43, 44)},
            "the eyes are narrowed", "the eyes are wide open",
        ),
    ],
)  # fmt: skip
def test_claims_follow_the_landmarks(
    moves: dict[int, tuple[float, float]], supported: str, contradicted: str
) -> None:
    face = _face(moves)
    text = f"Expression: surprise. Seen here: {supported}, not so {contradicted}."
    assert [evidence.verdict for evidence in verify(text, face)] == ["supported", "contradicted"]


def test_a_face_at_rest_has_neutral_claims() -> None:
    held = {claim.id for claim, _ in holding_claims(measure(_face()), margin=0.0)}
    assert {"brows_at_rest", "eyes_usual", "facing_camera", "mouth_even", "brows_even"} <= held


def test_holding_claims_hold_by_the_margin_strongest_first(portrait: Face) -> None:
    measurements = measure(portrait)
    for margin in (0.0, 1.0, 2.5):
        held = holding_claims(measurements, margin)
        strengths = [strength for _, strength in held]
        assert strengths == sorted(strengths, reverse=True)
        assert min(strengths) >= margin
        assert all(verdict(c, measurements[c.measurement]) == "supported" for c, _ in held)


def test_action_units_of_a_smile_and_of_raised_brows() -> None:
    smile = {48: (-0.12, -0.15), 60: (-0.12, -0.15), 54: (0.12, -0.15), 64: (0.12, -0.15)}
    raised = {index: (0.0, -0.12) for index in BROWS}
    assert "AU12" in action_units(measure(_face(smile)))
    assert "AU15" not in action_units(measure(_face(smile)))
    assert {"AU1", "AU2"} <= set(action_units(measure(_face(raised))))
    assert "AU4" not in action_units(measure(_face(raised)))


def test_action_units_need_measured_values() -> None:
    empty = {spec.id: Measurement(spec.id, None, spec.unit, "-") for spec in MEASUREMENTS.values()}
    assert action_units(empty) == {}
    assert holding_claims(empty, 0.0) == []
    assert not {"AU14", "AU17"} & set(ACTION_UNIT_RULES)


def test_astronaut_end_to_end(portrait: Face) -> None:
    text = (
        "Expression: happiness. The lip corners are raised and the teeth are visible, and "
        "the head faces the camera. The mouth is closed."
    )
    evidence = verify(text, portrait)
    assert [one.verdict for one in evidence] == [
        "supported", "supported", "supported", "contradicted",
    ]  # fmt: skip
    plain = json.loads(json.dumps([one.to_dict() for one in evidence]))
    assert plain[0]["regions"] == ["outer_lips"]
    assert text[slice(*plain[1]["span"])] == plain[1]["phrase"] == "the teeth are visible"
