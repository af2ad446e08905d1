"""The study of framing: what each way does to a picture, which face is taken, what is compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from eval import framing
from eval.altered import WAYS, Photo, Shown
from eval.answers import Reply
from eval.engines import ModelEngine
from eval.framing import (
    NOT_FOUND,
    ask_in_other_ways,
    compare_ways,
    nearest_face,
    seen_again,
    shown_id,
)
from eval.protocols import PROTOCOLS
from facellava.corpus import record_of
from facellava.errors import FacellavaError
from facellava.faces import Face, find_faces
from facellava.predictor import embedded_weights
from facellava.records import FaceRecord
from tests.eval.answered import answered, protocol_of

RAFDB = PROTOCOLS["rafdb/test"]
HEAD = {"question": RAFDB.question, "seed": 0}


@pytest.fixture(scope="module")
def portrait() -> Photo:
    return np.ascontiguousarray(data.astronaut()[:220, 120:330])


@pytest.fixture(scope="module")
def face(portrait: Photo) -> Face:
    return find_faces(portrait)[0]


@pytest.fixture(scope="module")
def picture() -> Shown:
    """A picture without meaning, 60 wide and 80 high, whose face is 40 wide."""
    pixels = np.random.default_rng(0).integers(40, 200, (80, 60, 3), dtype=np.uint8)
    return Shown(pixels, (10.0, 20.0, 50.0, 60.0))


def record_named(face: Face, face_id: str, expression: str = "happiness") -> FaceRecord:
    return record_of(
        [face], face_id=face_id, source="x", split="test", licence="x", origin="x",
        labels={"expression": expression},
    )  # fmt: skip


def shown(picture: Shown, way: str, seed: int = 0) -> Shown:
    return WAYS[way](picture, np.random.default_rng(seed))


def test_a_photo_surrounds_the_picture_with_nothing_to_find(picture: Shown) -> None:
    seen = shown(picture, "in_a_photo")
    assert seen.photo.shape == (160, 140, 3)
    np.testing.assert_array_equal(seen.photo[40:120, 40:100], picture.photo)
    assert seen.box == (50, 60, 90, 100)
    assert seen.photo[:30].std() < 0.2 * picture.photo.std()


@pytest.mark.parametrize(
    ("side", "small", "photo"), [(40, 40, 360), (100, 48, 432), (300, 100, 900)]
)
def test_far_away_a_face_keeps_the_pixels_that_the_finder_needs(
    side: int, small: int, photo: int
) -> None:
    plain = Shown(np.full((side + 20, side + 10, 3), 90, np.uint8), (5, 10, side + 5, side + 10))
    seen = shown(plain, "far_away")
    assert seen.photo.shape == (photo, photo, 3)
    assert seen.face == pytest.approx(small)
    assert seen.centre == pytest.approx((photo / 2, photo / 2), abs=1.5)


def test_a_loose_picture_is_not_cut_when_it_is_far_away(picture: Shown) -> None:
    loose = Shown(np.zeros((900, 1200, 3), np.uint8), (100, 100, 148, 148))
    assert shown(loose, "far_away").photo.shape == (900, 1200, 3)


def test_the_face_gets_into_each_corner(picture: Shown) -> None:
    corners = set()
    for seed in range(20):
        seen = shown(picture, "off_centre", seed)
        assert seen.photo.shape == (200, 150, 3)
        left, top = round(seen.box[0]) - 10, round(seen.box[1]) - 20
        np.testing.assert_array_equal(seen.photo[top : top + 80, left : left + 60], picture.photo)
        corners.add((left, top))
    assert corners == {(0, 0), (0, 120), (90, 0), (90, 120)}


def test_it_turns_about_the_face_both_ways(picture: Shown) -> None:
    marked = replace(picture, photo=np.zeros_like(picture.photo))
    marked.photo[39:42, 46:49] = 255  # 17 pixels to the right of the face's middle
    angles = set()
    for seed in range(10):
        seen = shown(marked, "turned", seed)
        assert seen.centre == (70, 80)
        spot = np.argwhere(seen.photo[..., 0] > 128).mean(axis=0)
        down, right = spot - (80, 70)
        angles.add(round(float(np.degrees(np.arctan2(down, right))) / 5) * 5)
    assert angles == {-20, 20}


def test_ways_that_change_levels_alone(picture: Shown) -> None:
    plain = shown(picture, "in_a_photo")
    changed = {way: shown(picture, way) for way in WAYS if way not in ("far_away", "off_centre")}
    assert changed["magnified"].photo.shape == (480, 420, 3)
    assert changed["magnified"].box == (150, 180, 270, 300)
    grey = changed["grey"].photo
    assert (grey == grey[..., :1]).all()
    levels = plain.photo.astype(float)
    for way, gains in {"dark": 0.4, "bright": 1.3, "warm": (1.15, 1.0, 0.7)}.items():
        wanted = np.clip(levels * gains, 0, 255)
        np.testing.assert_allclose(changed[way].photo, wanted, atol=0.51)
    for way in ("grey", "jpeg", "blurred", "dark", "bright", "warm"):
        assert changed[way].photo.shape == plain.photo.shape, way
        assert changed[way].box == plain.box, way
    inner = np.s_[50:110, 50:90]
    assert 5 < np.abs(changed["jpeg"].photo[inner] - levels[inner]).mean() < 60
    assert changed["blurred"].photo[inner].std() < 0.5 * levels[inner].std()


def test_a_seed_decides_and_the_picture_stays(portrait: Photo, face: Face) -> None:
    before = portrait.copy()
    record = record_named(face, "a")
    one, two = (seen_again(record, portrait, "off_centre", 3) for _ in range(2))
    assert one is not None
    assert two is not None
    assert (one.face_id, one.frames, one.labels) == ("off_centre/a", two.frames, record.labels)
    np.testing.assert_array_equal(portrait, before)


def test_a_clear_face_is_found_at_its_place(portrait: Photo, face: Face) -> None:
    for way in ("in_a_photo", "far_away", "off_centre", "turned", "blurred"):
        seen = seen_again(record_named(face, "a"), portrait, way, 0)
        assert seen is not None, way
        # Crops are the same whatever the framing: so are the landmarks in them.
        assert np.abs(seen.landmarks[0] - face.landmarks).mean() < 0.03, way


def test_of_several_faces_the_nearest_is_taken_and_another_is_none(
    portrait: Photo, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nearest_face(Shown(np.full((90, 90, 3), 90, np.uint8), (20, 20, 70, 70))) is None
    left, right = (replace(face, box=(x, 0.0, x + 60.0, 60.0)) for x in (0.0, 50.0))
    monkeypatch.setattr(framing, "find_faces", lambda _: [left, right])
    for x, wanted in ((-20.0, left), (20.0, left), (30.0, right), (75.0, right)):
        assert nearest_face(Shown(portrait, (x, 0.0, x + 60.0, 60.0))) is wanted
    assert nearest_face(Shown(portrait, (85.0, 0.0, 145.0, 60.0))) is None


def test_what_was_answered_is_not_shown_again(
    face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = ModelEngine(embedded_weights(), label_only=True)
    records = {name: record_named(face, name) for name in ("a", "b")}
    given: list[tuple[str, ...]] = []

    def pictures(face_ids: Collection[str]) -> Iterator[tuple[str, Photo]]:
        given.append(tuple(face_ids))
        return ((face_id, np.full((60, 60, 3), 90, np.uint8)) for face_id in face_ids)

    def ask(records: Sequence[FaceRecord], question: str, **more: Any) -> list[Reply]:
        assert (question, more) == (RAFDB.question, {"probabilities": False})
        if any(record.face_id.endswith("b") for record in records):
            raise FacellavaError("The power is gone.")
        return [Reply(record.face_id, "Expression: anger.") for record in records]

    # The finder sees a face wherever it is sought, but none in large photos.
    monkeypatch.setattr(
        framing,
        "nearest_face",
        lambda seen: None if len(seen.photo) > 300 else replace(face, box=seen.box),
    )
    monkeypatch.setattr(nano, "ask", ask)
    monkeypatch.setattr(nano, "batch", len(WAYS))
    path = tmp_path / "answers.jsonl"
    small = {name: replace(each, box=(10, 10, 40, 40)) for name, each in records.items()}
    with pytest.raises(FacellavaError, match="power"):
        ask_in_other_ways(RAFDB, small, pictures, nano, path, HEAD)
    kept = ask_in_other_ways(RAFDB, {"a": small["a"]}, pictures, nano, path, HEAD)
    assert given == [("a", "b"), ()]
    assert {name: reply.problem for name, reply in kept.items()} == {
        shown_id(way, "a"): NOT_FOUND if way == "magnified" else "" for way in WAYS
    }
    assert kept["dark/a"].text == "Expression: anger."
    with pytest.raises(FacellavaError, match=r"another run \(seed differ\)"):
        ask_in_other_ways(RAFDB, small, pictures, nano, path, HEAD | {"seed": 1})


def test_figures_change_over_the_faces_found(face: Face) -> None:
    items = answered(["happiness", "sadness", "anger"], ["happiness", "sadness", "fear"])
    records = {
        item.face_id: record_named(face, item.face_id, expression=item.truth) for item in items
    }
    said = {way: ("happiness", "sadness", "fear") for way in WAYS}
    said |= {"dark": ("happiness", "anger", ""), "far_away": ("", "", "")}
    replies = {}
    for way, words in said.items():
        for item, word in zip(items, words, strict=True):
            name = shown_id(way, item.face_id)
            text = f"Expression: {word}." if word else ""
            replies[name] = Reply(name, text, "" if word else NOT_FOUND)
    replies["dark/face-1"] = Reply("dark/face-1", "Hm.")
    found = compare_ways(RAFDB, items, records, replies)
    assert (found["n"], list(found["ways"])) == (3, list(WAYS))
    assert found["as_it_is"]["figures"]["WAR"]["value"] == pytest.approx(2 / 3)
    grey, dark, far = (found["ways"][way] for way in ("grey", "dark", "far_away"))
    assert (grey["found"]["value"], grey["same"]["value"], grey["unreadable"]) == (1, 1, 0)
    assert grey["figures"]["WAR"]["difference"] == 0
    assert (dark["found"]["value"], dark["same"]["value"]) == (pytest.approx(2 / 3), 0.5)
    assert dark["unreadable"] == 1
    war = dark["figures"]["WAR"]
    assert (war["first"], war["second"], war["difference"]) == (1, 0.5, -0.5)
    assert (far["found"]["value"], far["figures"]) == (0, {})
    assert np.isnan(far["same"]["value"])


@pytest.mark.parametrize(
    ("kind", "labels", "before", "after", "same"),
    [
        ("years", (), [30, 30, 30, 30], [33, 26, 27, None], 0.5),
        ("units", ("AU1", "AU2"), [{"AU1": True, "AU2": False}] * 2,
         [{"AU1": True, "AU2": True}, None], 0.25),
        ("deepfake", ("real", "fake"), ["real", None], ["real", None], 0.5),
    ],
)  # fmt: skip
def test_what_is_the_same_verdict(
    face: Face, kind: Any, labels: tuple[str, ...], before: list[Any], after: list[Any], same: float
) -> None:
    items, others = answered(before, before), answered(before, after)
    both = list(zip(items, others, strict=True))
    assert framing._same(protocol_of(kind, *labels), both)["value"] == pytest.approx(same)
