"""A mean with its bootstrap interval, and a share with its score interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.stats import binomtest

# Values drawn at once: two million are 16 MB.
_DRAWN_AT_ONCE: Final = 2_000_000


def mean_interval(
    values: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """The mean as "value", with "low" and "high" of its 95% percentile bootstrap interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Of pairs give the
    differences: a resample then draws whole pairs. All three are NaN where there are no values.
    """
    known = np.asarray(values, dtype=float)
    if not known.size:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    rng, rows = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // known.size)
    means = np.concatenate(
        [
            known[rng.integers(known.size, size=(min(rows, resamples - start), known.size))].mean(1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(known.mean()), "low": float(low), "high": float(high)}


def share_interval(count: int, n: int) -> dict[str, float]:
    """The share as "value", with "low" and "high" of its 95% score interval.

    Wilson, Probable inference (JASA, 1927). A bootstrap of few faces that all agree would say that
    nothing can differ; this does not. All three are NaN where `n` is 0.
    """
    if not n:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    found = binomtest(count, n).proportion_ci(method="wilson")
    return {"value": count / n, "low": float(found.low), "high": float(found.high)}
