"""The study of wrong labels of clips, on clips too small to show anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.clip_noise import (
    METHODS,
    Unit,
    batches,
    markdown,
    summary,
    train_unit,
    wrong_labels,
)
from facellava.tasks.expression import BASIC


def test_wrong_labels_have_the_share_that_is_asked_for_and_come_in_runs() -> None:
    classes = list(BASIC)
    labels = np.random.default_rng(0).integers(len(classes), size=(500, 12))
    for kind in ("symmetric", "neighbours"):
        found = wrong_labels(labels, kind, 0.4, classes, seed=1)
        assert (found != labels).mean() == pytest.approx(0.4, abs=0.03)
        assert set(found.reshape(-1)) <= set(range(len(classes)))
        np.testing.assert_array_equal(found, wrong_labels(labels, kind, 0.4, classes, seed=1))
        np.testing.assert_array_equal(labels, wrong_labels(labels, kind, 0.0, classes, seed=1))
    wrong = (found != labels).reshape(500, 4, 3)
    assert (wrong.all(axis=2) | ~wrong.any(axis=2)).all()


def test_every_method_sees_as_many_frames() -> None:
    for augment in ("none", "skip", "skip_erase"):
        rng = np.random.default_rng(0)
        found = list(batches(70, 12, augment, rng))
        assert [len(clips) for clips, _, _ in found] == [32 * 6] * 2
        places = np.concatenate([places for _, places, _ in found]).reshape(-1, 6)
        assert ((np.diff(places) == 1).all()) == (augment == "none")
        assert places.min() >= 0
        assert places.max() < 12


def test_units_add_up_to_a_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(len(BASIC), size=(50, 4))
    path = tmp_path / "tiny.npz"
    np.savez(
        path,
        frames=(labels[..., None, None] * 30 + rng.integers(9, size=(50, 4, 48, 48))).astype("u1"),
        landmarks=rng.random((50, 4, 68, 2), np.float32),
        labels=labels,
        test=np.arange(50) >= 40,
        classes=np.array(BASIC),
    )
    rows = [
        train_unit(Unit(str(path), "symmetric", rate, method, seed, epochs=3))
        for rate in (0.0, 0.3)
        for method in METHODS
        for seed in range(2)
    ]
    again = train_unit(Unit(str(path), "symmetric", 0.3, "all", 1, epochs=3))
    assert again == rows[-1]
    found = summary(rows)
    assert len(found) == 2 * len(METHODS)
    assert all(0 <= row["uar"][0] <= 1 for row in found)
    assert [row["auc"] is None for row in found] == [True] * len(METHODS) + [False] * len(METHODS)
    plain = next(row for row in found if row["method"] == "plain")
    assert plain["uar_gain"] == (0.0, 0.0)
    text = markdown(found, {"seeds": 2, "epochs": 3, "device": "CPU"})
    assert "**tiny, 30% symmetric**" in text
    assert text.count("| cross-entropy |") == 2
