"""Which frames of a person stand for a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from facellava.faces.clips import DroppedFrame, Track
from facellava.faces.face import Face
from facellava.faces.pose import MEAN_FACE
from facellava.faces.shown_frames import looked_at, shown_of

CROP = np.zeros((8, 8, 3), np.uint8)


def face(opening: float = 0.0, yaw: float = 0.0, *, weak: bool = False) -> Face:
    """The mean face with its mouth open by eye distances, turned by degrees."""
    points = MEAN_FACE.copy()
    points[55:60, 1] += opening
    points[65:68, 1] += opening
    turn = math.radians(yaw)
    x = points[:, 0] * math.cos(turn) + points[:, 2] * math.sin(turn)
    landmarks = (np.stack([x, points[:, 1]], axis=1) * 0.2 + 0.4).astype(np.float32)
    score = 0.0 if weak else 2.0
    return Face(CROP, landmarks, (0.0, 0.0, 8.0, 8.0), 0, score, "dlib_hog", np.eye(3)[:2])


def track(faces: Sequence[Face], seconds: Sequence[float] | None = None) -> Track:
    times = range(len(faces)) if seconds is None else seconds
    return Track(tuple(faces), tuple(float(time) for time in times), 0)


def shown(openings: Sequence[float], count: int = 4) -> tuple[float, ...]:
    return shown_of(track([face(opening) for opening in openings]), count).seconds


def test_three_times_as_many_frames_are_looked_at_up_to_a_limit() -> None:
    assert [looked_at(count) for count in (1, 4, 8, 16, 36, 64)] == [3, 12, 24, 36, 36, 64]


def test_a_short_expression_between_evenly_spread_frames_is_shown() -> None:
    # 1, 4, 7 and 10 are the evenly spread ones.
    still = [0.0, 0.01, 0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 0.03, 0.0, 0.05, 0.0]
    for place in (2, 3, 5, 6, 8, 9):
        openings = [*still[:place], 0.5, *still[place + 1 :]]
        seconds = shown(openings)
        assert len(seconds) == 4
        assert place in seconds
        assert list(seconds) == sorted(seconds)
        assert len({1.0, 4.0, 7.0, 10.0} & set(seconds)) == 3


def test_an_expression_that_lasts_keeps_its_strongest_frame() -> None:
    assert 6.0 in shown([0, 0, 0.2, 0.3, 0.3, 0.3, 0.8, 0.3, 0.3, 0.3, 0.2, 0])


def test_what_the_spread_frames_show_already_is_kept() -> None:
    assert shown([0, 0, 0, 0, 0.5, 0, 0, 0.1, 0, 0, 0, 0]) == (1.0, 4.0, 7.0, 10.0)


def test_frames_that_are_few_are_all_shown() -> None:
    few = track([face(0.1), face(0.4), face()])
    assert shown_of(few, 4).seconds == (0.0, 1.0, 2.0)
    assert shown_of(few, 3).frames == few.frames


def test_a_single_frame_is_the_apex() -> None:
    assert shown([0, 0, 0, 0.5, 0.1, 0], count=1) == (3.0,)


def test_time_counts_and_not_the_number_of_frames() -> None:
    seconds = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 2.0, 4.0, 6.0, 8.0]
    faces = [face(0.5 if second == 4.0 else 0.0) for second in seconds]
    assert shown_of(track(faces, seconds), 4).seconds == (0.5, 2.0, 4.0, 6.0)


def test_a_head_that_turns_is_no_expression() -> None:
    faces = [face(0.15 if place == 3 else 0.0, yaw=2.5 * place) for place in range(12)]
    assert 3.0 in shown_of(track(faces), 4).seconds


@pytest.mark.parametrize("all_weak", [False, True])
def test_weak_frames_come_in_only_if_all_are_weak(all_weak: bool) -> None:
    faces = [face(0.5 if place == 5 else 0.0, weak=all_weak or place == 5) for place in range(12)]
    assert (5.0 in shown_of(track(faces), 4).seconds) == all_weak


def test_a_weak_frame_gives_way_first() -> None:
    faces = [face(0.5 if place == 5 else 0.0, weak=place == 10) for place in range(12)]
    assert shown_of(track(faces), 4).seconds == (1.0, 4.0, 5.0, 7.0)


def test_what_was_dropped_stays_told() -> None:
    dropped = (DroppedFrame(3.5, "no face"),)
    long = replace(track([face()] * 12), index=2, dropped=dropped)
    told = shown_of(long, 4)
    assert (told.index, told.dropped, len(told.frames)) == (2, dropped, 4)
