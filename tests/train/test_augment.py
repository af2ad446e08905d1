"""Augmentation moves landmarks with the picture, and spoils no picture."""

from __future__ import annotations

import numpy as np
import pytest

from facellava.regions import FLIP_PERMUTATION
from train.augment import erase, move, recolour, roughen, shift

SIDE = 96


def spotted(landmarks: np.ndarray, points: list[int]) -> np.ndarray:
    """A black picture with a white spot on each of these landmarks."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    for x, y in (landmarks[points] * SIDE).astype(int):
        picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    return picture


@pytest.mark.parametrize("seed", range(6))
def test_a_spot_stays_on_its_landmark(seed: int) -> None:
    """Half of the seeds mirror the picture: there the spot's landmark has its partner's number."""
    landmarks = np.random.default_rng(9).uniform(0.3, 0.7, (68, 2)).astype(np.float32)
    right_eye_corner = 36
    moved, points = move(
        spotted(landmarks, [right_eye_corner]), landmarks, np.random.default_rng(seed)
    )
    # Padding is grey; the spot is brighter.
    rows, columns = np.nonzero(moved[:, :, 0] > 150)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIDE
    mirrored = np.random.default_rng(seed).random() < 0.5
    number = int(FLIP_PERMUTATION[right_eye_corner]) if mirrored else right_eye_corner
    assert points[number] == pytest.approx(centre, abs=1.5 / SIDE)
    assert points.dtype == np.float32


def test_shift_never_mirrors_and_pads_with_grey() -> None:
    landmarks = np.full((68, 2), 0.5, np.float32)
    landmarks[0] = (0.2, 0.5)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    seen_padding = False
    for seed in range(20):
        moved, points = shift(white, landmarks, np.random.default_rng(seed))
        assert points[0, 0] < points[1, 0]
        seen_padding |= bool((moved == 128).all(axis=2).any())
    assert seen_padding


@pytest.mark.parametrize("change", [recolour, roughen, erase])
def test_changes_are_seeded_and_keep_the_form(change) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    before = picture.copy()
    results = [change(picture, np.random.default_rng(seed)) for seed in range(30)]
    for seed, result in enumerate(results):
        assert result.shape == picture.shape
        assert result.dtype == np.uint8
        assert np.array_equal(result, change(picture, np.random.default_rng(seed)))
    assert any(not np.array_equal(result, picture) for result in results)
    assert np.array_equal(picture, before)


def test_at_most_a_tenth_is_erased() -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    shares = [(erase(picture, np.random.default_rng(seed)) == 128).mean() for seed in range(200)]
    assert max(shares) <= 0.11
    assert 0.15 < np.mean(np.array(shares) > 0) < 0.35
