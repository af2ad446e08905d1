"""Soft labels say of a face what its tokens show, and not the label that it happens to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.face_encoder import FaceEncoder
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.face_arrays import EXPRESSIONS, UNITS, FaceArrays
from train.features import FeatureCache
from train.soft_labels import SoftLabels, soft_labels_of

FACES = 640
PEOPLE = [f"person {number // 2}" for number in range(FACES)]


@pytest.fixture
def face_encoder(
    new_parts: Callable[[], tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]],
) -> FaceEncoder:
    return new_parts()[0].face_encoder


def faces_of(mini: FaceArrays, smiling: NDArray[np.bool_]) -> tuple[FeatureCache, FaceArrays]:
    """Faces alike but for their mouths' landmarks, which are wider where they smile."""
    rng = np.random.default_rng(0)
    landmarks = np.repeat(mini.landmarks[:1], FACES, axis=0)
    landmarks[:, 48:] += (smiling[:, None, None] * 0.12).astype(np.float32)
    landmarks += rng.normal(0, 0.01, landmarks.shape).astype(np.float32)
    features = np.repeat(rng.normal(size=(1, 1, 36, 16)), FACES, axis=1)
    features = features + rng.normal(0, 0.1, features.shape)
    places = np.zeros(FACES, int)
    arrays = replace(
        mini,
        landmarks=landmarks,
        expression=np.full(FACES, -1),
        age=np.full(FACES, -1),
        attributes=np.full((FACES, 40), -1, np.int8),
        units=np.full((FACES, len(UNITS)), -1, np.int8),
        fake=np.full(FACES, -1, np.int8),
        source=mini.source[places],
    )
    return FeatureCache(features.astype(np.float16), landmarks[None]), arrays


@pytest.mark.usefixtures("one_thread")
def test_a_face_gets_what_it_shows(face_encoder: FaceEncoder, mini_arrays: FaceArrays) -> None:
    smiling = np.arange(FACES) // 2 % 2 == 1
    cache, arrays = faces_of(mini_arrays, smiling)
    happy, neutral = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")
    arrays.expression[:] = np.where(smiling, happy, neutral)
    arrays.expression[:80] = -1
    arrays.fake[:] = smiling
    soft = soft_labels_of(face_encoder, cache, arrays, PEOPLE)
    right = soft.expression.argmax(axis=1) == np.where(smiling, happy, neutral)
    assert right[80:].mean() > 0.95
    # Nobody labelled the first faces.
    assert right[:80].mean() > 0.95
    assert soft.fake[smiling].min() > soft.fake[~smiling].max() - 0.3
    np.testing.assert_allclose(soft.expression.sum(axis=1), 1, rtol=1e-5)
    # Nobody's age was told.
    assert np.isnan(soft.years).all()


@pytest.mark.usefixtures("one_thread")
def test_no_label_is_learned_by_heart(face_encoder: FaceEncoder, mini_arrays: FaceArrays) -> None:
    """Two faces a person, labelled by chance: what a face shows is no help, its person neither."""
    cache, arrays = faces_of(mini_arrays, np.zeros(FACES, bool))
    smiles = np.random.default_rng(1).permutation(np.arange(FACES) // 2 % 2 == 1)
    arrays.expression[:] = np.where(smiles, 3, 6)
    soft = soft_labels_of(face_encoder, cache, arrays, PEOPLE)
    assert 0.35 < (soft.expression.argmax(axis=1) == arrays.expression).mean() < 0.62


def test_labels_are_mixed_in_where_there_are_some(mini_arrays: FaceArrays) -> None:
    count = len(mini_arrays)
    ages = np.where(np.arange(count) % 2, 40, -1)
    arrays = replace(
        mini_arrays,
        age=ages,
        expression=np.where(ages > 0, 2, -1),
        units=np.where(ages[:, None] > 0, [[1] + [0] * (len(UNITS) - 1)], -1).astype(np.int8),
        fake=np.where(ages > 0, 1, -1).astype(np.int8),
    )
    said = SoftLabels(
        expression=np.full((count, 7), 1 / 7, np.float32),
        years=np.full(count, 30, np.float32),
        attributes=np.full((count, 40), 0.5, np.float32),
        units=np.full((count, len(UNITS)), 0.5, np.float32),
        fake=np.full(count, 0.5, np.float32),
    )
    mixed = said.with_labels(arrays, 0.6)
    assert mixed.years.tolist() == [34.0 if n % 2 else 30.0 for n in range(count)]
    np.testing.assert_allclose(mixed.expression[1, 2], 0.6 / 7 + 0.4, rtol=1e-5)
    np.testing.assert_allclose(mixed.expression[0], 1 / 7, rtol=1e-5)
    np.testing.assert_allclose(mixed.units[1, :2], [0.7, 0.3], rtol=1e-5)
    np.testing.assert_allclose(mixed.fake[:2], [0.5, 0.7], rtol=1e-5)


def test_what_they_say_is_kept_as_it_is(tmp_path: Path) -> None:
    said = SoftLabels(*(np.random.default_rng(0).random((3, 2), np.float32) for _ in range(5)))
    said.save(tmp_path / "soft_labels.safetensors")
    again = SoftLabels.load(tmp_path / "soft_labels.safetensors")
    np.testing.assert_array_equal(again.units, said.units)
    assert [path.name for path in tmp_path.iterdir()] == ["soft_labels.safetensors"]
