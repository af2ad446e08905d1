"""The figures of the field, as plain functions on lists of labels.

A prediction of None is an answer that could not be read: it counts as wrong wherever right and
wrong are counted, and is left out, and said, where an error in years is averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from facellava.errors import BadSample

L = TypeVar("L")


def war(truth: Sequence[L], predicted: Sequence[L | None]) -> float:
    """Weighted average recall: the share of answers that are right (accuracy)."""
    _same_length(truth, predicted)
    return float(np.mean([p == t for t, p in zip(truth, predicted, strict=True)]))


def uar(truth: Sequence[L], predicted: Sequence[L | None]) -> float:
    """Unweighted average recall: mean over the classes that occur of each one's recall.

    For two classes this is balanced accuracy.
    """
    _same_length(truth, predicted)
    seen = Counter(truth)
    right = Counter(t for t, p in zip(truth, predicted, strict=True) if p == t)
    return float(np.mean([right[label] / count for label, count in seen.items()]))


def mae(truth: Sequence[int], predicted: Sequence[int | None]) -> float:
    """Mean absolute error over the answers that could be read; NaN where none could."""
    errors = _errors(truth, predicted)
    return float(np.mean(errors)) if errors.size else float("nan")


def cs(truth: Sequence[int], predicted: Sequence[int | None], years: int = 5) -> float:
    """Cumulative score: share of all answers within so many years; unreadable ones are outside."""
    return float(np.sum(_errors(truth, predicted) <= years) / len(truth))


def mean_accuracy(
    truth: Sequence[Mapping[str, bool]], predicted: Sequence[Mapping[str, bool] | None]
) -> tuple[float, float]:
    """mAcc and its balanced form: means over attributes of accuracy and of balanced accuracy."""
    _same_length(truth, predicted)
    accuracy, balanced = [], []
    for name in truth[0]:
        wanted = [row[name] for row in truth]
        given = [None if row is None else row.get(name) for row in predicted]
        accuracy.append(war(wanted, given))
        balanced.append(uar(wanted, given))
    return float(np.mean(accuracy)), float(np.mean(balanced))


def auc(positive: Sequence[bool], score: Sequence[float]) -> float:
    """Area under the ROC curve.

    Raises:
        BadSample: only one class is there.
    """
    if len(set(positive)) != 2:
        raise BadSample("An AUC needs both classes; take a split that holds real and fake faces.")
    return float(roc_auc_score(list(positive), list(score)))


def ece(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of confidence in [0, 1]."""
    _same_length(confidence, right)
    levels, hits = np.asarray(confidence), np.asarray(right, dtype=float)
    places = np.minimum((levels * bins).astype(int), bins - 1)
    gaps = [
        abs(levels[places == b].mean() - hits[places == b].mean()) * float(np.mean(places == b))
        for b in range(bins)
        if np.any(places == b)
    ]
    return float(np.sum(gaps))


def _errors(truth: Sequence[int], predicted: Sequence[int | None]) -> NDArray[np.float64]:
    _same_length(truth, predicted)
    return np.array(
        [abs(p - t) for t, p in zip(truth, predicted, strict=True) if p is not None], dtype=float
    )


def _same_length(left: Sequence[object], right: Sequence[object]) -> None:
    if len(left) != len(right) or not len(left):
        raise BadSample(
            f"{len(left)} labels and {len(right)} answers cannot be compared; give as many of both."
        )
