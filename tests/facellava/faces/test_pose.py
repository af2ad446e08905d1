"""Pose from 68 points: known rotations of the mean face, and points seen from the front."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.faces.pose import MEAN_FACE, estimate_pose


def _project(yaw: float, pitch: float, scale: float = 1.0) -> NDArray[np.float64]:
    """The mean face turned to the person's left and up, seen by an orthographic camera."""
    y, p = math.radians(yaw), -math.radians(pitch)
    turn = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    nod = np.array([[1, 0, 0], [0, math.cos(p), math.sin(p)], [0, -math.sin(p), math.cos(p)]])
    return (MEAN_FACE @ (nod @ turn).T)[:, :2] * scale


@pytest.mark.parametrize("yaw", [-30, 0, 20])
@pytest.mark.parametrize("pitch", [-15, 0, 15])
def test_known_turns_are_read_back(yaw: float, pitch: float) -> None:
    pose = estimate_pose(_project(yaw, pitch, scale=60.0) + [10.0, 20.0])
    assert pose.pitch == pytest.approx(pitch, abs=4)
    assert pose.yaw == pytest.approx(yaw, abs=4)
    assert pose.scale == pytest.approx(60.0, rel=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(25, 0), (-25, 0), (0, 20), (20, -10)])
def test_turned_points_come_back_to_the_front(yaw: float, pitch: float) -> None:
    front = estimate_pose(_project(0, 0)).frontal
    turned = estimate_pose(_project(yaw, pitch)).frontal
    assert np.abs(turned - front).max() < 1e-6


def test_looking_to_the_persons_left_moves_the_nose_to_the_pictures_right() -> None:
    points = _project(20, 0)
    assert points[30, 0] > points[[36, 45], 0].mean()
    assert estimate_pose(points).yaw > 10


def test_looking_up_lifts_the_nose() -> None:
    up, down = _project(0, 15), _project(0, -15)
    assert up[30, 1] < down[30, 1]
    assert estimate_pose(up).pitch > 0 > estimate_pose(down).pitch
