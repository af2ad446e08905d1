"""Augmentation moves landmarks with the picture, and spoils no picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from facellava.regions import FLIP_PERMUTATION, flip_landmarks
from train.augment import compressed, erase, mirror, recolour, roughen, shift, to_pictures

SIDE = 96
RIGHT_EYE_CORNER = 36


def spotted(landmarks: torch.Tensor, point: int) -> torch.Tensor:
    """Black pictures with a white spot on this landmark of each."""
    pictures = torch.zeros(len(landmarks), 3, SIDE, SIDE)
    for picture, (x, y) in zip(pictures, (landmarks[:, point] * SIDE).int().tolist(), strict=True):
        picture[:, y - 1 : y + 2, x - 1 : x + 2] = 255
    return pictures


def spots(pictures: torch.Tensor) -> torch.Tensor:
    """Where the spots are, (B, 2) in [0, 1]; padding is grey and darker."""
    found = []
    for picture in pictures:
        rows, columns = torch.nonzero(picture[0] > 150, as_tuple=True)
        found.append(torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5)
    return torch.stack(found) / SIDE


@pytest.fixture
def landmarks() -> torch.Tensor:
    places = np.random.default_rng(9).uniform(0.3, 0.7, (8, 68, 2))
    return torch.from_numpy(places.astype(np.float32))


def test_a_spot_stays_on_its_landmark(landmarks: torch.Tensor) -> None:
    moved, points = shift(spotted(landmarks, RIGHT_EYE_CORNER), landmarks, np.random.default_rng(0))
    assert points[:, RIGHT_EYE_CORNER] == pytest.approx(spots(moved), abs=1.5 / SIDE)
    assert points.dtype == torch.float32
    # Not all are moved alike.
    assert (points - landmarks).std(dim=0).min() > 0


def test_chosen_pictures_are_mirrored(landmarks: torch.Tensor) -> None:
    chosen = np.arange(8) % 2 == 0
    pictures = spotted(landmarks, RIGHT_EYE_CORNER)
    mirrored, points = mirror(pictures, landmarks, chosen)
    wanted = flip_landmarks(landmarks.numpy())
    assert points[chosen].numpy() == pytest.approx(wanted[chosen], abs=1e-6)
    assert torch.equal(points[~chosen], landmarks[~chosen])
    assert torch.equal(mirrored[~chosen], pictures[~chosen])
    partner = int(FLIP_PERMUTATION[RIGHT_EYE_CORNER])
    assert points[chosen][:, partner] == pytest.approx(spots(mirrored[chosen]), abs=1.5 / SIDE)


def test_shift_never_mirrors_and_pads_with_grey() -> None:
    landmarks = torch.full((20, 68, 2), 0.5)
    landmarks[:, 0] = torch.tensor([0.2, 0.5])
    white = torch.full((20, 3, SIDE, SIDE), 255.0)
    moved, points = shift(white, landmarks, np.random.default_rng(1))
    assert (points[:, 0, 0] < points[:, 1, 0]).all()
    assert (moved == 128).all(dim=1).flatten(1).any(dim=1).any()


@pytest.mark.parametrize("change", [recolour, roughen, erase])
def test_changes_are_seeded_and_keep_the_form(change) -> None:
    pictures = to_pictures(np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8))
    before = pictures.clone()
    result = change(pictures, np.random.default_rng(3))
    assert result.shape == pictures.shape
    assert result.min() >= 0
    assert result.max() <= 255
    assert torch.equal(result, change(pictures, np.random.default_rng(3)))
    assert not torch.equal(result, change(pictures, np.random.default_rng(4)))
    assert torch.equal(pictures, before)


def test_half_of_the_pictures_are_roughened() -> None:
    pictures = to_pictures(np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8))
    changed = (roughen(pictures, np.random.default_rng(0)) != pictures).flatten(1).any(dim=1)
    assert 0.4 < changed.float().mean() < 0.6


def test_at_most_a_tenth_is_erased() -> None:
    erased = erase(torch.zeros(400, 3, SIDE, SIDE), np.random.default_rng(0)) == 128
    shares = erased.float().mean(dim=(1, 2, 3))
    assert shares.max() <= 0.11
    assert 0.15 < (shares > 0).float().mean() < 0.35


def test_compressing_does_what_jpeg_does() -> None:
    """Beside Pillow's own encoder at the same quality, on a picture with edges and a gradient."""
    ramp = np.linspace(40, 210, SIDE)
    picture = np.stack([np.add.outer(ramp * 0.5, ramp * 0.4)] * 3, axis=2)
    picture[30:60, 20:50, 0] += 50
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    rng = np.random.default_rng(5)
    quality = int(np.random.default_rng(5).integers(40, 95, 1)[0])
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    wanted = np.asarray(Image.open(buffer), np.float32)
    found = compressed(to_pictures(picture[None]), rng)[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(found - wanted).mean() < 1.0
    # It is no copy: what was lost is more than the difference between the two encoders.
    assert np.abs(wanted - picture).mean() > np.abs(found - wanted).mean() / 2
