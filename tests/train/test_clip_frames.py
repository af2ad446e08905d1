"""Frames of a clip: drawn apart, the same whenever an epoch is repeated, some of them covered."""

from __future__ import annotations

import numpy as np
import pytest

from facellava.faces import Face, canonical_face
from train.augment import PADDING
from train.clip_frames import FrameDraw, cover, draw_places


def test_places_are_in_order_and_each_once() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        places = draw_places(30, 8, rng)
        assert len(places) == 8
        assert (np.diff(places) > 0).all()
        assert 0 <= places[0] <= places[-1] < 30
        # Six stretches of at least two frames lie between the first and the last.
        assert places[-1] - places[0] >= 13
        seen |= set(places.tolist())
    assert seen == set(range(30))
    assert len({tuple(draw_places(9, 8, rng)) for _ in range(100)}) > 5
    for frames in (3, 8):
        assert draw_places(frames, 8, rng).tolist() == list(range(frames))


def test_half_of_the_pictures_are_covered_in_part() -> None:
    rng = np.random.default_rng(1)
    picture = np.zeros((40, 40, 3), np.uint8)
    shares = []
    for _ in range(400):
        covered = cover(picture, rng)
        grey = (covered == PADDING).all(axis=2)
        assert (covered[~grey] == 0).all()
        rows, columns = np.nonzero(grey)
        if len(rows):
            assert grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        shares.append(grey.mean())
    assert not picture.any()
    hit = np.array(shares) > 0
    assert 0.4 < hit.mean() < 0.6
    assert 0.01 < np.array(shares)[hit].min() < 0.05
    assert 0.25 < max(shares) < 0.33


@pytest.fixture
def clip() -> list[Face]:
    """Twelve frames whose grey level and landmarks tell their number."""
    points = np.stack(np.meshgrid(np.arange(17.0), np.arange(4.0)), axis=2).reshape(-1, 2) * 4 + 60
    photo = np.zeros((200, 200, 3), np.uint8)
    return [
        canonical_face(np.full_like(photo, 10 * number), points + number, source="made")
        for number in range(12)
    ]


def test_an_epoch_draws_the_same_frames_each_time(clip: list[Face]) -> None:
    def numbers(draw: FrameDraw, row: int = 5) -> list[int]:
        chosen = draw.of(clip, 4, row)
        found = [next(n for n, f in enumerate(clip) if f.landmarks is c.landmarks) for c in chosen]
        assert found == sorted(found)
        return found

    first = FrameDraw("skip", seed=3, epoch=0)
    assert numbers(first) == numbers(FrameDraw("skip", seed=3, epoch=0))
    others = {tuple(numbers(FrameDraw("skip", seed=3, epoch=epoch))) for epoch in range(10)}
    others |= {tuple(numbers(first, row)) for row in range(10)}
    assert len(others) > 10
    # Covering changes no picture's place, and the pictures of the clip stay as they are.
    before = [face.crop.copy() for face in clip]
    both = FrameDraw("skip_erase", seed=3, epoch=0)
    assert numbers(both) == numbers(first)
    changed = [
        not np.array_equal(new.crop, old.crop)
        for epoch in range(8)
        for new, old in zip(
            FrameDraw("skip_erase", 3, epoch).of(clip, 4, 5),
            FrameDraw("skip", 3, epoch).of(clip, 4, 5),
            strict=True,
        )
    ]
    assert 5 < sum(changed) < 27
    for face, crop in zip(clip, before, strict=True):
        np.testing.assert_array_equal(face.crop, crop)
