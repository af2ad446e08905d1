"""What the overlay draws, and that its file is whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava.errors import BadMedia, BadModelInput
from facellava.faces import Face, canonical_face
from facellava.faces.overlay import draw_overlay, save_png
from facellava.regions import REGIONS


def drawn_face(side: int, shade: int, left: float = 0.25) -> tuple[NDArray[np.uint8], Face]:
    """A plain photo, and a face with landmarks on an ellipse and its features."""
    angles = np.linspace(np.pi, 0, 17)
    points = np.zeros((68, 2))
    points[:17] = np.stack([0.5 + 0.4 * np.cos(angles), 0.4 + 0.5 * np.sin(angles)], axis=1)
    for part, centre, size in [
        (slice(17, 22), (0.3, 0.22), (0.1, 0.01)),
        (slice(22, 27), (0.7, 0.22), (0.1, 0.01)),
        (slice(27, 31), (0.5, 0.4), (0.005, 0.1)),
        (slice(31, 36), (0.5, 0.55), (0.08, 0.02)),
        (slice(36, 42), (0.3, 0.35), (0.07, 0.03)),
        (slice(42, 48), (0.7, 0.35), (0.07, 0.03)),
        (slice(48, 60), (0.5, 0.72), (0.15, 0.05)),
        (slice(60, 68), (0.5, 0.72), (0.1, 0.02)),
    ]:
        turn = np.linspace(0, 2 * np.pi, part.stop - part.start, endpoint=False)
        points[part] = np.stack([np.cos(turn), np.sin(turn)], axis=1) * size + centre
    photo = np.full((side, side, 3), shade, np.uint8)
    face = canonical_face(photo, (points * 0.5 + (left, 0.25)) * side, score=2.0, source="dlib_hog")
    return photo, face


@pytest.mark.parametrize("side", [64, 400, 3000])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_marks_show_on_any_size_and_brightness(side: int, shade: int) -> None:
    photo, face = drawn_face(side, shade)
    before = photo.copy()
    drawn = draw_overlay(photo, [face])
    np.testing.assert_array_equal(photo, before)
    assert drawn.shape == photo.shape
    assert drawn.dtype == np.uint8
    x0, y0, _, y1 = (round(value) for value in face.box)
    reach = max(3, side // 100)
    edge = drawn[(y0 + y1) // 2, max(0, x0 - reach) : x0 + reach].astype(int)
    assert np.abs(edge - shade).max() > 80
    changed = (drawn != photo).any(axis=-1).mean()
    assert 0.005 < changed < 0.6


def test_cited_regions_are_coloured_and_named() -> None:
    photo, face = drawn_face(600, 90)
    plain = draw_overlay(photo, [face])
    cited = draw_overlay(photo, [face], cited_regions={0: {"outer_lips"}})
    difference = (plain != cited).any(axis=-1)
    lips = face.photo_landmarks[REGIONS["outer_lips"]].mean(axis=0).astype(int)
    eye = face.photo_landmarks[REGIONS["right_eye"]].mean(axis=0).astype(int)
    assert difference[lips[1] - 10 : lips[1] + 11, lips[0] - 30 : lips[0] + 31].mean() > 0.3
    assert not difference[eye[1] - 3 : eye[1] + 4, eye[0] - 3 : eye[0] + 4].any()
    assert difference[:, round(face.box[2]) + 8 :].any()  # the name, beside the box
    elsewhere = draw_overlay(photo, [face], cited_regions={7: {"outer_lips"}})
    np.testing.assert_array_equal(elsewhere, plain)


def test_weak_faces_have_a_box_of_another_colour() -> None:
    photo, face = drawn_face(400, 60)
    weak = canonical_face(photo, face.photo_landmarks, score=0.3, source="dlib_hog_weak")
    middle = round((face.box[1] + face.box[3]) / 2)
    edge = slice(round(face.box[0]) - 2, round(face.box[0]) + 3)
    sure_edge = draw_overlay(photo, [face])[middle, edge].max(axis=0)
    weak_edge = draw_overlay(photo, [weak])[middle, edge].max(axis=0)
    assert sure_edge[2] > sure_edge[0]  # blue
    assert weak_edge[0] > weak_edge[2]  # orange


def test_attention_is_strongest_where_its_weight_is() -> None:
    photo, face = drawn_face(600, 0)
    weights = np.zeros(9)
    weights[list(REGIONS).index("left_brow")] = 1.0
    difference = np.abs(
        draw_overlay(photo, [face], region_attention=weights).astype(int)
        - draw_overlay(photo, [face]).astype(int)
    ).sum(axis=-1)
    y, x = np.argwhere(difference > 100).mean(axis=0)
    brow = face.photo_landmarks[REGIONS["left_brow"]].mean(axis=0)
    assert np.hypot(x - brow[0], y - brow[1]) < 10


def test_faces_beyond_the_edge_and_a_crowd_can_be_drawn() -> None:
    photo, _ = drawn_face(300, 200)
    faces = [drawn_face(300, 200, left)[1].with_index(i) for i, left in enumerate((-0.3, 0.2, 0.8))]
    everything = {i: list(REGIONS) for i in range(3)}
    drawn = draw_overlay(photo, faces, cited_regions=everything, region_attention=np.ones((3, 9)))
    assert drawn.shape == photo.shape
    np.testing.assert_array_equal(draw_overlay(photo, []), photo)


def test_wrong_regions_and_weights_are_named() -> None:
    photo, face = drawn_face(200, 90)
    with pytest.raises(BadModelInput, match="no region 'chin'"):
        draw_overlay(photo, [face], cited_regions={0: ["chin"]})
    with pytest.raises(BadModelInput, match=r"\(9,\) or \(1, 9\)"):
        draw_overlay(photo, [face], region_attention=np.ones(8))


def test_a_png_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, _ = drawn_face(64, 77)
    target = tmp_path / "out.png"
    save_png(target, photo)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), photo)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(BadMedia, match="cannot be written"):
        save_png(target, photo)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), photo)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    with pytest.raises(BadMedia, match="folder that exists"):
        save_png(tmp_path / "missing" / "out.png", photo)
