"""The weights of frames: low for labels the model surely denies, high for rare classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.clip_weights import RunningMean, class_weights, noise_weights, sharpness


def published(own: float, rival: float, progress: float) -> float:
    """V-NAW's weight as its code writes it: a Gaussian with an inverted covariance."""
    agrees = own >= rival
    mean = np.array([0.5, 0.5] if agrees else [0.3, 0.15])
    side = -0.5 * (1 - np.exp(-15 * progress)) if agrees else 0.8
    main = 0.75 if agrees else 0.85
    off = np.array([own, rival]) - mean
    return float(np.exp(-0.5 * off @ np.linalg.inv([[main, side], [side, main]]) @ off))


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_weights_are_the_published_gaussians(progress: float) -> None:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(5, 0.4), size=200)
    labels = rng.integers(5, size=200)
    found = noise_weights(torch.from_numpy(table), torch.from_numpy(labels), progress)
    rivals = [np.delete(row, label).max() for row, label in zip(table, labels, strict=True)]
    wanted = [
        published(row[label], rival, progress)
        for row, label, rival in zip(table, labels, rivals, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_a_label_that_is_surely_denied_counts_least() -> None:
    table = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.3, 0.4, 0.3], [0.02, 0.97, 0.01]])
    table.requires_grad_()
    unsure, sure, doubtful, denied = noise_weights(table, torch.zeros(4, dtype=torch.long), 1.0)
    assert unsure == 1
    assert denied < 0.01 < 0.5 < doubtful < 1
    assert denied < sure < unsure
    assert not unsure.requires_grad
    assert sharpness(0) == 0
    assert 0.99 < sharpness(1) < 1


def test_rare_classes_count_more_and_the_mean_stays() -> None:
    counts = np.array([4000, 400, 40, 0])
    weights = class_weights(counts)
    assert list(np.argsort(weights)) == [3, 0, 1, 2]
    assert (weights * counts).sum() == pytest.approx(counts.sum())
    assert weights[3] == 0
    np.testing.assert_allclose(class_weights(counts, beta=0.0)[:3], 1)
    nearly = class_weights(counts, beta=1 - 1e-7)[:3] * counts[:3]
    np.testing.assert_allclose(nearly, nearly[0], rtol=1e-3)


def test_the_running_mean_starts_exact_and_is_stored_exactly(tmp_path: Path) -> None:
    mean = RunningMean()
    mean.update(0.0, 0)
    assert mean == RunningMean(1.0, 0)
    mean.update(1.2, 4)
    assert mean.mean == pytest.approx(0.3)
    mean.update(2.0, 4)
    assert mean.mean == pytest.approx(0.4)
    for _ in range(300):
        mean.update(0.7 * 3, 3)
    assert mean.mean == pytest.approx(0.7)
    mean.write(tmp_path / "mean.json")
    assert RunningMean.read(tmp_path / "mean.json") == mean
