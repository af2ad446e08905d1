"""Records to arrays: labels where they are, absence where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facellava.corpus import read_faces
from facellava.errors import BadCorpus
from facellava.faces import measure
from facellava.image_processor import FaceLlavaImageProcessor
from train import face_arrays as module
from train.face_arrays import (
    ATTRIBUTES,
    EXPRESSIONS,
    MEASURED,
    UNITS,
    VOTES,
    FaceArrays,
    face_arrays,
)


def test_each_face_holds_its_own_labels(mini_corpus: Path, mini_arrays: FaceArrays) -> None:
    records = list(read_faces(mini_corpus))
    assert len(mini_arrays) == len(records)
    assert mini_arrays.pixels.shape[1:] == (96, 96, 3)
    for row, record in enumerate(records):
        labels = record.labels
        word = labels.get("expression")
        assert mini_arrays.expression[row] == (EXPRESSIONS.index(word) if word else -1)
        assert mini_arrays.age[row] == labels.get("age", -1)
        fake = {"fake": 1, "real": 0}.get(str(labels.get("deepfake")), -1)
        assert mini_arrays.fake[row] == fake
        if "attributes" in labels:
            present = {
                name for name, v in zip(ATTRIBUTES, mini_arrays.attributes[row], strict=True) if v
            }
            assert present == {name for name, there in labels["attributes"].items() if there}
        else:
            assert (mini_arrays.attributes[row] == -1).all()


def test_units_are_known_where_somebody_coded_them(mini_corpus: Path, tmp_path: Path) -> None:
    first, second, third, *_ = read_faces(mini_corpus)
    coded = {"action_units": ["AU6"], "action_units_coded": ["AU4", "AU6"]}
    faces = [replace(first, labels={"action_units": ["AU12"]}), replace(second, labels=coded)]
    found = face_arrays([*faces, third], tmp_path / "a", image_size=96, count=3).units
    assert found.tolist() == [
        [int(unit == "AU12") for unit in UNITS],
        [{"AU4": 0, "AU6": 1}.get(unit, -1) for unit in UNITS],
        [-1] * len(UNITS),
    ]


def test_a_clip_is_seen_at_its_strongest_frame(mini_corpus: Path, tmp_path: Path) -> None:
    first, second, *_ = read_faces(mini_corpus)
    calm, moved = first.landmarks[0], first.landmarks[0] + np.float32(0.05)
    clip = replace(
        first,
        frames=(*first.frames * 2, *second.frames),
        landmarks=np.stack([calm, calm, moved]),
        media="clip",
    )
    found = face_arrays([clip], tmp_path / "a", image_size=96, count=1)
    assert np.array_equal(found.landmarks[0], moved)


def test_votes_are_shares_of_the_words_that_are_kept(mini_arrays: FaceArrays) -> None:
    voted = mini_arrays.votes[:, 0] >= 0
    assert voted.sum() == 9
    assert np.allclose(mini_arrays.votes[voted].sum(axis=1), 1)
    # 7 for the label, 3 for neutral; "unknown" is not counted.
    assert mini_arrays.votes[voted][:, VOTES.index("neutral")] == pytest.approx(0.3)
    assert (mini_arrays.votes[~voted] == -1).all()


def test_pixels_and_measurements_are_the_ones_that_answering_sees(
    mini_corpus: Path, mini_arrays: FaceArrays
) -> None:
    face = next(read_faces(mini_corpus)).faces()[0]
    resizer = FaceLlavaImageProcessor(size=(96, 96))
    assert np.array_equal(mini_arrays.pixels[0], resizer.resize(face.crop))
    assert mini_arrays.landmarks[0] == pytest.approx(face.landmarks)
    values = measure(face)
    for column, name in enumerate(MEASURED):
        value = values[name].value
        found = mini_arrays.measured[0, column]
        assert np.isnan(found) if value is None else found == pytest.approx(value, rel=1e-4)


def test_a_word_of_a_larger_set_is_no_label(mini_corpus: Path, tmp_path: Path) -> None:
    record = replace(next(read_faces(mini_corpus)), labels={"expression": "contempt"})
    arrays = face_arrays([record], tmp_path / "one", image_size=96, count=1)
    assert arrays.expression.tolist() == [-1]


def test_arrays_are_made_once_and_workers_make_the_same(
    mini_corpus: Path,
    mini_arrays: FaceArrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = list(read_faces(mini_corpus))[:3]
    made = face_arrays(records, tmp_path / "few", image_size=96, count=3)
    assert np.array_equal(made.pixels, mini_arrays.pixels[:3])
    # There is nothing to read any more, so these come from the folder.
    again = face_arrays([], tmp_path / "few", image_size=96, count=0)
    assert len(again) == 3
    monkeypatch.setattr(module, "CHUNK", 1)
    pooled = face_arrays(records, tmp_path / "pooled", image_size=96, count=3)
    assert np.array_equal(pooled.pixels, made.pixels)
    assert np.array_equal(pooled.measured, made.measured, equal_nan=True)


def test_no_faces_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="no faces to train on"):
        face_arrays([], tmp_path / "none", image_size=96, count=0)
    assert list(tmp_path.iterdir()) == []
