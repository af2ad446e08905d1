"""Faces that travel as pictures come back bit by bit; hostile pictures come back as sentences."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage import data

from facellava.errors import BadMedia, BadModelInput
from facellava.faces import Face, find_faces
from facellava.faces.face_png import CHUNK, MAX_FRAMES, data_url, from_png, to_png


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


def assert_same(one: Face, other: Face) -> None:
    assert np.array_equal(one.crop, other.crop)
    assert one.landmarks.dtype == other.landmarks.dtype == np.float32
    assert np.array_equal(one.landmarks, other.landmarks)
    assert np.array_equal(one.crop_to_photo, other.crop_to_photo)
    assert (one.box, one.index, one.score, one.source) == (
        other.box,
        other.index,
        other.score,
        other.source,
    )


def written(face: Face, change: dict[str, Any] | None = None, **chunk: Any) -> bytes:
    """A face picture whose text was changed by somebody."""
    picture = Image.open(io.BytesIO(to_png(face)))
    content = json.loads(picture.info[CHUNK])
    content["faces"][0].update(change or {})
    content.update(chunk)
    notes = PngImagePlugin.PngInfo()
    notes.add_text(CHUNK, json.dumps(content))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=notes)
    return buffer.getvalue()


def test_a_face_comes_back_bit_by_bit(face: Face) -> None:
    found = from_png(to_png(face))
    assert found is not None
    assert isinstance(found.item, Face)
    assert_same(found.item, face)


def test_a_clip_comes_back_with_its_times(face: Face) -> None:
    moved = replace(face, crop=face.crop[:, ::-1].copy(), landmarks=face.landmarks + 0.01)
    found = from_png(to_png([face, moved], [0.0, 1.25]))
    assert found is not None
    assert found.seconds == (0.0, 1.25)
    assert isinstance(found.item, tuple)
    for one, other in zip(found.item, (face, moved), strict=True):
        assert_same(one, other)


def test_other_pictures_are_no_face_pictures(face: Face) -> None:
    plain = io.BytesIO()
    Image.fromarray(face.crop).save(plain, "PNG")
    assert from_png(plain.getvalue()) is None
    assert from_png(b"") is None


@pytest.mark.parametrize(
    "change",
    [
        {"landmarks": [[0.5, 0.5]] * 67},
        {"landmarks": [[0.5, 0.5]] * 69},
        {"landmarks": [[0.5]] * 68},
        {"landmarks": [[float("nan"), 0.5]] + [[0.5, 0.5]] * 67},
        {"landmarks": [[400.0, 0.5]] + [[0.5, 0.5]] * 67},
        {"box": [0, 0, 1]},
        {"index": -1},
        {"source": "<script>"},
        {"crop_to_photo": [[0, 0, 0], [0, 0, 0]]},
        {"more": 1},
    ],
)
def test_wrong_facts_are_refused(face: Face, change: dict[str, Any]) -> None:
    with pytest.raises(BadModelInput):
        from_png(written(face, change))


def test_wrong_counts_are_refused(face: Face) -> None:
    with pytest.raises(BadModelInput, match="differ in number"):
        from_png(written(face, seconds=[0.0, 1.0]))
    facts = json.loads(Image.open(io.BytesIO(to_png(face))).info[CHUNK])["faces"]
    with pytest.raises(BadMedia, match="describes 2"):
        from_png(written(face, faces=facts * 2, seconds=[0.0, 1.0]))
    with pytest.raises(BadModelInput):
        from_png(written(face, faces=[]))
    with pytest.raises(BadModelInput):
        to_png([], [])
    with pytest.raises(BadModelInput):
        to_png([face] * (MAX_FRAMES + 1), [0.0] * (MAX_FRAMES + 1))
    with pytest.raises(BadModelInput):
        to_png(face, [0.0])
    with pytest.raises(BadModelInput):
        to_png(replace(face, crop=face.crop[:100]))


def test_cut_off_pictures_are_refused(face: Face) -> None:
    whole = to_png(face)
    with pytest.raises(BadMedia, match="damaged"):
        from_png(b"\x89PNG\r\n\x1a\nfacellava")
    with pytest.raises(BadMedia, match="damaged"):
        from_png(whole[: len(whole) // 2])


def test_data_urls_say_what_they_hold(face: Face) -> None:
    assert data_url(to_png(face), clip=False).startswith("data:image/png;base64,iVBOR")
    assert data_url(to_png([face], [0.0]), clip=True).startswith("data:video/png;base64,iVBOR")
