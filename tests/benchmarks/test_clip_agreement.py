"""Clips that rise to an apex and fall again, and what is read along them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import clip_agreement
from benchmarks.clip_agreement import correlation, course
from benchmarks.expression_ramps import LEVELS, Ramps
from facellava.conversation import FaceItem
from facellava.predictor import FaceLlava


def test_a_course_goes_up_to_the_apex_and_back() -> None:
    assert course(7).tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert course(8).tolist() == [0, 1, 2, 3, 3, 2, 1, 0]


def test_correlation_of_what_follows_what_does_not_and_what_stays() -> None:
    levels = np.array([0, 1, 2, 1, 0])
    rising = [{"happiness": float(level) / 4, "neutral": 0.2} for level in levels]
    assert correlation(rising, "happiness", levels) == pytest.approx(1)
    falling = [{"happiness": 1 - float(level) / 4} for level in levels]
    assert correlation(falling, "happiness", levels) == pytest.approx(-1)
    assert correlation(rising, "neutral", levels) == 0


def test_the_command_asks_about_the_clip_and_its_apex(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 0.8, size=(68, 2)).astype(np.float32)
    crops = np.empty((3, len(LEVELS), 2, 96, 96, 3), np.uint8)
    crops[:] = np.linspace(40, 220, len(LEVELS))[:, None, None, None, None]
    ramps = Ramps(
        crops=crops,
        landmarks=np.broadcast_to(points, (3, len(LEVELS), 2, 68, 2)).copy(),
        labels=np.array([3, 3, 0]),
        person=np.array([0, 1, 2]),
        test=np.array([True, False, True]),
    )
    file = tmp_path / "ramps.npz"
    ramps.save(file)
    shown: list[FaceItem] = []
    real = FaceLlava.ask_many

    def watched(self: FaceLlava, faces: list[FaceItem], *args: object, **more: object) -> object:
        shown.extend(faces)
        return real(self, faces, *args, **more)

    monkeypatch.setattr(FaceLlava, "ask_many", watched)
    app = clip_agreement.typer.Typer()
    app.command()(clip_agreement.main)
    done = CliRunner().invoke(app, [str(file)])
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["clips"], line["people"], line["moments"]) == (2, 2, clip_agreement.MOMENTS)
    assert 0 <= line["same_as_apex"] <= line["answered"] <= 100
    assert 0 <= line["same_as_apex_evenly"] <= 100
    clips, apexes = [*shown[::3], *shown[1::3]], shown[2::3]
    assert [len(clip) for clip in clips] == [line["frames"]] * 4
    # Each level has its own brightness.
    assert [int(apex.crop[96, 96, 0]) for apex in apexes] == pytest.approx([220, 220], abs=3)
    for clip in clips:
        assert clip[0].crop[96, 96, 0] < clip[1].crop[96, 96, 0]
