import math

import numpy as np
import pytest
from scipy.stats import binom

from eval import intervals
from eval.intervals import mean_interval, share_interval


def test_no_values_have_no_mean():
    assert all(math.isnan(value) for value in mean_interval([]).values())
    assert list(mean_interval([])) == ["value", "low", "high"]


def test_one_value_and_equal_values_have_no_spread():
    assert mean_interval([0.25]) == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert mean_interval([2, 2, 2]) == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_the_interval_of_a_share_is_that_of_the_binomial():
    found = mean_interval([1.0] * 30 + [0.0] * 70, resamples=20_000)
    assert found["value"] == pytest.approx(0.3)
    low, high = binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert found["low"] == pytest.approx(low, abs=0.011)
    assert found["high"] == pytest.approx(high, abs=0.011)


def test_the_seed_decides_and_the_size_of_the_chunks_does_not(monkeypatch):
    values = np.random.default_rng(1).normal(size=50).tolist()
    whole = mean_interval(values, resamples=200, seed=3)
    assert whole == mean_interval(values, resamples=200, seed=3)
    assert whole != mean_interval(values, resamples=200, seed=4)
    monkeypatch.setattr(intervals, "_DRAWN_AT_ONCE", 7 * 50)
    assert mean_interval(values, resamples=200, seed=3) == whole


def test_a_share_has_wilsons_interval_and_is_never_beyond_doubt():
    # 81 of 263: an example of Newcombe, Two-sided confidence intervals (1998), table I.
    assert share_interval(81, 263) == pytest.approx(
        {"value": 81 / 263, "low": 0.2553, "high": 0.3662}, abs=1e-4
    )
    assert share_interval(20, 20) == pytest.approx(
        {"value": 1.0, "low": 20 / (20 + 1.959964**2), "high": 1.0}
    )
    assert all(np.isnan(value) for value in share_interval(0, 0).values())
