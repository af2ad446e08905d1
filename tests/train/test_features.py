"""Cached features are what the model would have computed, of faces that are never mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facellava.face_encoder import FaceEncoder
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.augment import to_pictures
from train.face_arrays import FaceArrays
from train.face_batches import to_pixel_values
from train.features import cache_features

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture
def face_encoder(new_parts: Callable[[], Parts]) -> FaceEncoder:
    """Random, with batch statistics that matter."""
    encoder = new_parts()[0].face_encoder
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    return encoder


def test_the_first_variant_is_the_face_itself(
    face_encoder: FaceEncoder, mini_arrays: FaceArrays, tmp_path: Path
) -> None:
    cache = cache_features(face_encoder, mini_arrays, tmp_path / "cache", variants=3)
    assert len(cache) == len(mini_arrays)
    assert cache.features.shape == (3, len(mini_arrays), 36, 16)
    assert cache.features.dtype == np.float16
    assert np.array_equal(cache.landmarks[0], mini_arrays.landmarks)
    with torch.no_grad():
        wanted = face_encoder.eval().encode_pixels(
            to_pixel_values(to_pictures(mini_arrays.pixels[:4]))
        )
    found = torch.from_numpy(cache.features[0, :4].astype(np.float32))
    # Bfloat16 arithmetic and float16 storage.
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def test_variants_differ_and_are_not_mirrored(
    face_encoder: FaceEncoder, mini_arrays: FaceArrays, tmp_path: Path
) -> None:
    cache = cache_features(face_encoder, mini_arrays, tmp_path / "cache", variants=3)
    moved = cache.landmarks[1:]
    assert not np.allclose(moved[0], moved[1])
    # The person's right eye stays on the left of the picture.
    assert (moved[:, :, 36, 0] < moved[:, :, 45, 0]).all()
    assert not np.allclose(cache.features[1], cache.features[2])


def test_cached_once(face_encoder: FaceEncoder, mini_arrays: FaceArrays, tmp_path: Path) -> None:
    few = replace(mini_arrays, pixels=mini_arrays.pixels[:2], landmarks=mini_arrays.landmarks[:2])
    first = cache_features(face_encoder, few, tmp_path / "cache", variants=1)
    for parameter in face_encoder.parameters():
        torch.nn.init.zeros_(parameter)
    again = cache_features(face_encoder, few, tmp_path / "cache", variants=1)
    assert np.array_equal(first.features, again.features)
    assert again.features.any()
