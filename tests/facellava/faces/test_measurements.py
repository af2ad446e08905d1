"""Measurements on drawn faces: each answers to what it names and to nothing else."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from facellava.faces import MEASUREMENTS, Face, canonical_face, find_faces, measure
from facellava.faces.pose import MEAN_FACE
from facellava.regions import FLIP_PERMUTATION, REGIONS

SKIN = (205, 160, 140)
LIP = (170, 95, 95)
BROWS = list(range(17, 27))


def _points(scale: float = 100.0, centre: tuple[float, float] = (250, 200)) -> NDArray[np.float64]:
    return MEAN_FACE[:, :2] * scale + centre


def _photo(points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A plain skin-coloured picture with lips, eyes and brows painted in, and a little grain."""
    photo = np.full((500, 500, 3), SKIN, np.uint8)
    cv2.fillPoly(photo, [np.round(points[48:60]).astype(np.int32)], LIP)
    for part in ("right_eye", "left_eye"):
        cv2.fillPoly(photo, [np.round(points[REGIONS[part]]).astype(np.int32)], (250, 250, 250))
    for part in ("right_brow", "left_brow"):
        line = np.round(points[REGIONS[part]]).astype(np.int32)
        cv2.polylines(photo, [line], False, (70, 50, 40), 8)
    grain = np.random.default_rng(3).normal(0, 2, photo.shape)
    return np.clip(photo + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def face() -> Face:
    points = _points()
    return canonical_face(_photo(points), points)


def _values(face: Face) -> dict[str, float]:
    return {name: one.value for name, one in measure(face).items() if one.value is not None}


def _deformed(moves: dict[int, tuple[float, float]]) -> dict[str, float]:
    """Values after points move by (x, y), in eye distances."""
    points = _points()
    for index, step in moves.items():
        points[index] += np.array(step) * 100
    return _values(canonical_face(_photo(points), points))


def test_definitions_are_complete() -> None:
    for name, spec in MEASUREMENTS.items():
        assert name == spec.id
        assert spec.dead_band > 0
        assert set(spec.regions) <= set(REGIONS)
        assert spec.unit in {"eye distances", "degrees", "ratio", "percent", "levels"}
        assert len(spec.formula) > 15
        assert set(spec.action_units) <= {
            1,
            2,
            4,
            5,
            6,
            7,
            9,
            10,
            12,
            14,
            15,
            17,
            20,
            23,
            24,
            25,
            26,
        }


def test_a_plain_frontal_face_is_measured_whole(face: Face) -> None:
    measured = measure(face)
    assert list(measured) == list(MEASUREMENTS)
    unseen = {name for name, one in measured.items() if one.value is None}
    assert unseen == set()
    assert all(np.isfinite(one.value) for one in measured.values() if one.value is not None)


def test_raised_brows(face: Face) -> None:
    before, after = _values(face), _deformed({index: (0, -0.1) for index in BROWS})
    assert after["brow_height_mean"] - before["brow_height_mean"] == pytest.approx(0.1, abs=0.005)
    assert after["inner_brow_height"] > before["inner_brow_height"] + 0.09
    assert after["brow_slant"] == pytest.approx(before["brow_slant"], abs=0.005)
    assert after["mouth_opening"] == pytest.approx(before["mouth_opening"], abs=0.005)


def test_one_raised_brow_is_the_persons_right_one() -> None:
    after = _deformed({index: (0, -0.1) for index in range(17, 22)})
    assert after["brow_height_right"] > after["brow_height_left"] + 0.09
    assert after["brow_height_asymmetry"] > 0.09


def test_brows_drawn_together(face: Face) -> None:
    after = _deformed({21: (0.05, 0), 22: (-0.05, 0)})
    assert after["brow_gap"] == pytest.approx(_values(face)["brow_gap"] - 0.1, abs=0.005)


def test_open_mouth(face: Face) -> None:
    moves = {index: (0.0, 0.2) for index in (55, 56, 57, 58, 59, 65, 66, 67, 6, 7, 8, 9, 10)}
    before, after = _values(face), _deformed(moves)
    assert after["mouth_opening"] - before["mouth_opening"] == pytest.approx(0.2, abs=0.01)
    assert after["jaw_drop"] - before["jaw_drop"] == pytest.approx(0.2, abs=0.01)
    assert after["eye_opening_mean"] == pytest.approx(before["eye_opening_mean"], abs=0.01)


def test_smile(face: Face) -> None:
    before = _values(face)
    after = _deformed({48: (-0.1, -0.1), 60: (-0.1, -0.1), 54: (0.1, -0.1), 64: (0.1, -0.1)})
    assert after["lip_corner_height"] > before["lip_corner_height"] + 0.07
    assert after["mouth_width"] - before["mouth_width"] == pytest.approx(0.2, abs=0.01)
    assert after["lip_corner_asymmetry"] == pytest.approx(0.0, abs=0.01)


def test_narrowed_eyes(face: Face) -> None:
    upper = (37, 38, 43, 44)
    assert _deformed({index: (0, 0.06) for index in upper})["eye_opening_mean"] < (
        _values(face)["eye_opening_mean"] - 0.1
    )


def test_where_the_face_stands_in_the_photo_does_not_matter(face: Face) -> None:
    reference = _values(face)
    points = _points()
    turn = cv2.getRotationMatrix2D((250, 220), 20, 1.3)
    turn[:, 2] += (9, -4)
    photo = cv2.warpAffine(_photo(points), turn, (500, 500), borderValue=SKIN)
    moved = points @ turn[:, :2].T + turn[:, 2]
    values = _values(canonical_face(np.asarray(photo, np.uint8), moved))
    assert values["roll"] == pytest.approx(-20, abs=0.5)
    for name, spec in MEASUREMENTS.items():
        if spec.unit == "eye distances":
            assert values[name] == pytest.approx(reference[name], abs=1e-4), name
        elif spec.unit == "levels":
            assert values[name] == pytest.approx(reference[name], abs=2 * spec.dead_band), name


def test_a_mirrored_face_swaps_right_and_left() -> None:
    points = _points()
    points[17:22, 1] -= 9
    points[[48, 60], 1] -= 6
    points[[37, 38], 1] -= 3
    photo = _photo(points)
    straight = _values(canonical_face(photo, points))
    mirrored_points = points[FLIP_PERMUTATION] * [-1, 1] + [500, 0]
    mirrored = _values(canonical_face(np.ascontiguousarray(photo[:, ::-1]), mirrored_points))
    for name, value in straight.items():
        spec = MEASUREMENTS[name]
        other = name.replace("_right", "_LEFT").replace("_left", "_right").replace("_LEFT", "_left")
        sign = -1 if name.endswith("asymmetry") or name in ("yaw", "roll") else 1
        assert mirrored[other] == pytest.approx(sign * value, abs=0.6 * spec.dead_band), name


def _painted(face: Face, change: NDArray[np.uint8]) -> Face:
    return replace(face, crop=change)


def test_lines_on_the_forehead_show_there_only(face: Face) -> None:
    crop = face.crop.copy()
    brow_top = int(face.landmarks[17:27, 1].min() * 192)
    for row in range(brow_top - 30, brow_top - 2, 4):
        crop[row] = (crop[row] * 0.8).astype(np.uint8)
    before, after = _values(face), _values(_painted(face, crop))
    assert after["forehead_lines"] > before["forehead_lines"] + 5 * 1.5
    assert after["cheek_lines"] < before["cheek_lines"] + 1.5


def test_recoloured_patches(face: Face) -> None:
    crop = face.crop.copy()
    x, y = (face.landmarks[57] * 192).astype(int)
    crop[y - 34 : y + 40, x - 32 : x + 32] = (90, 70, 60)  # a beard's colour around the mouth
    before, after = _values(face), _values(_painted(face, crop))
    assert after["mouth_cheek_step"] > before["mouth_cheek_step"] + 30
    assert after["beard_darkness"] > before["beard_darkness"] + 20
    assert after["skin_brightness"] == pytest.approx(before["skin_brightness"], abs=1)


def test_dark_and_bright_mouth_interior() -> None:
    points = _points()
    points[[55, 56, 57, 58, 59, 65, 66, 67], 1] += 25
    photo = _photo(points)
    inside = [np.round(points[60:68]).astype(np.int32)]
    dark, teeth = photo.copy(), photo.copy()
    cv2.fillPoly(dark, inside, (25, 10, 10))
    cv2.fillPoly(teeth, inside, (240, 235, 225))
    dark_values = _values(canonical_face(dark, points))
    teeth_values = _values(canonical_face(teeth, points))
    assert dark_values["mouth_darkness"] > 40 > teeth_values["mouth_darkness"]
    assert teeth_values["teeth_brightness"] > 40 > dark_values["teeth_brightness"]


def test_a_closed_mouth_shows_no_teeth(face: Face) -> None:
    points = _points()
    points[65:68, 1] = points[[63, 62, 61], 1]
    teeth = measure(canonical_face(_photo(points), points))["teeth_brightness"]
    assert teeth.value is None
    assert "not open" in teeth.note


def test_small_faces_have_no_wrinkles(face: Face) -> None:
    small = replace(face, crop_to_photo=np.array([[60 / 192, 0, 0], [0, 60 / 192, 0]]))
    measured = measure(small)
    assert measured["forehead_lines"].value is None
    assert "60 photo pixels" in measured["forehead_lines"].note
    assert measured["mouth_opening"].value is not None


def test_padding_is_not_measured(face: Face) -> None:
    crop = face.crop.copy()
    crop[:60] = 128  # the photo ends above the eyes
    measured = measure(_painted(face, crop))
    for name in ("forehead_darkness", "forehead_lines", "hair_lightness"):
        assert measured[name].value is None, name
        assert "outside the photo" in measured[name].note
    assert measured["beard_darkness"].value is not None
    assert measured["brow_height_mean"].value is None
    assert measured["mouth_width"].value is not None


def test_single_pixels_of_the_padding_colour_are_picture(face: Face) -> None:
    crop = face.crop.copy()
    crop[::4, ::4] = 128
    assert measure(_painted(face, crop))["skin_brightness"].value is not None


def test_a_grey_photo_has_no_redness(face: Face) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(face.crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    measured = measure(_painted(face, np.asarray(grey, np.uint8)))
    assert measured["lip_redness"].value is None
    assert "no colour" in measured["lip_redness"].note
    assert measured["lip_contrast"].value is not None


def test_a_head_turned_far_keeps_only_its_pose() -> None:
    turned = MEAN_FACE @ np.array([[np.cos(1.0), 0], [0, 1], [np.sin(1.0), 0]]) * 100 + [250, 200]
    measured = measure(canonical_face(_photo(turned), turned))
    assert measured["yaw"].value == pytest.approx(57.3, abs=2)
    assert measured["mouth_width"].value is None
    assert "turned by about 5" in measured["mouth_width"].note


def test_weak_landmarks_are_measured_and_marked(face: Face) -> None:
    weak = measure(replace(face, source="dlib_hog_weak", score=0.2))
    assert weak["mouth_width"].value is not None
    assert all(one.weak for one in weak.values())
    assert not any(one.weak for one in measure(face).values())


def test_astronaut() -> None:
    values = _values(find_faces(astronaut())[0])
    assert abs(values["yaw"]) < 10
    assert values["mouth_opening"] > 0.1
    assert values["lip_corner_height"] > 0.12
    assert values["teeth_brightness"] > 30
