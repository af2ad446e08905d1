"""Temperatures: what they undo, and which answers they are fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facellava.probabilities import calibrate
from train.calibrate import fit_temperature


def overconfident(temperature: float, n: int = 600) -> list[tuple[dict[str, float], str]]:
    """Tables of three labels, sharpened by a temperature, with labels drawn from the true odds."""
    rng = np.random.default_rng(0)
    scored = []
    for _ in range(n):
        odds = rng.dirichlet([1, 1, 1])
        truth = str(rng.choice(["a", "b", "c"], p=odds))
        table = dict(zip("abc", odds.tolist(), strict=True))
        scored.append((calibrate(table, 1 / temperature, exclusive=True), truth))
    return scored


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_the_temperature_that_sharpened_is_found(temperature: float) -> None:
    assert fit_temperature(overconfident(temperature)) == pytest.approx(temperature, rel=0.15)


def test_labels_that_go_together_are_fitted_too() -> None:
    rng = np.random.default_rng(0)
    scored = []
    for _ in range(300):
        odds = {name: float(p) for name, p in zip("abcd", rng.uniform(0.05, 0.95, 4), strict=True)}
        truth = {name: bool(rng.random() < p) for name, p in odds.items()}
        scored.append((calibrate(odds, 0.5, exclusive=False), truth))
    assert fit_temperature(scored) == pytest.approx(2.0, rel=0.15)


def test_years_are_looked_up_by_their_word() -> None:
    table = {str(year): math.exp(-abs(year - 34)) for year in range(117)}
    total = sum(table.values())
    sure = {word: value / total for word, value in table.items()}
    # The truth always is the likeliest year: as sharp as the bounds allow.
    assert fit_temperature([(sure, 34)] * 5) == pytest.approx(0.25, abs=0.01)
