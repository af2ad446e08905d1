"""The figures of the field, as plain functions on lists of labels.

A prediction of None is an answer that could not be read: it counts as wrong wherever right and
wrong are counted, and is left out, and said, where an error in years is averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

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


def mean_f1(
    truth: Sequence[Mapping[str, bool]], predicted: Sequence[Mapping[str, bool] | None]
) -> tuple[float, float]:
    """Means over action units of the positive class's F1 and of accuracy.

    A unit counts over the faces whose truth names it, which are those coded for it; units that no
    face names do not count. None, and a unit that an answer leaves out, is "not there". A unit
    that is neither there nor answered anywhere has F1 0: so ME-GraphAU and EmoLA count, and a mean
    over units needs no gaps.
    """
    _same_length(truth, predicted)
    scores, accuracy = [], []
    for unit in dict.fromkeys(name for row in truth for name in row):
        pairs = [
            (row[unit], bool(answer and answer.get(unit, False)))
            for row, answer in zip(truth, predicted, strict=True)
            if unit in row
        ]
        wanted, given = zip(*pairs, strict=True)
        scores.append(float(f1_score(wanted, given, zero_division=0.0)))
        accuracy.append(war(wanted, given))
    return float(np.mean(scores)), float(np.mean(accuracy))


def auc(positive: Sequence[bool], score: Sequence[float]) -> float:
    """Area under the ROC curve.

    Raises:
        BadSample: only one class is there.
    """
    if len(set(positive)) != 2:
        raise BadSample("An AUC needs both classes; take a split that holds real and fake faces.")
    return float(roc_auc_score(list(positive), list(score)))


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        low: lowest confidence of the bin.
        high: highest.
        confidence: mean of the answers in it.
        accuracy: share of them that are right.
        count: how many they are.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> list[Bin]:
    """Confidence beside accuracy in equal-width bins over [0, 1], without the empty bins."""
    _same_length(confidence, right)
    levels, hits = np.asarray(confidence), np.asarray(right, dtype=float)
    places = np.minimum((levels * bins).astype(int), bins - 1)
    return [
        Bin(
            low=int(place) / bins,
            high=(int(place) + 1) / bins,
            confidence=float(levels[places == place].mean()),
            accuracy=float(hits[places == place].mean()),
            count=int(np.sum(places == place)),
        )
        for place in np.unique(places)
    ]


def ece(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of confidence in [0, 1]."""
    filled = reliability(confidence, right, bins)
    gaps = [abs(each.confidence - each.accuracy) * each.count for each in filled]
    return float(np.sum(gaps) / len(confidence))


def brier(truth: Sequence[str], tables: Sequence[Mapping[str, float]]) -> float:
    """Mean squared distance of tables of probabilities to the right label's, in [0, 2].

    Brier, Monthly Weather Review 78 (1950). A right label that the table lacks has probability 0.
    """
    _same_length(truth, tables)
    distances = [
        sum((table.get(label, 0.0) - (label == right)) ** 2 for label in {*table, right})
        for right, table in zip(truth, tables, strict=True)
    ]
    return float(np.mean(distances))


def binary_brier(truth: Sequence[bool], probability: Sequence[float]) -> float:
    """Mean squared error of the probabilities of "yes", in [0, 1]."""
    _same_length(truth, probability)
    return float(np.mean((np.asarray(probability) - np.asarray(truth, dtype=float)) ** 2))


def demographic_parity(answered: Sequence[bool], groups: Sequence[str]) -> float:
    """Largest difference between groups of the share answered "yes"; 0 is parity.

    max over groups a, b of P(answer = 1 | a) - P(answer = 1 | b); the criterion as in Hardt, Price
    and Srebro, Equality of Opportunity in Supervised Learning (NeurIPS 2016), section 1.
    """
    return _rate_gap(answered, groups)


def equal_opportunity(
    truth: Sequence[bool], answered: Sequence[bool], groups: Sequence[str]
) -> float:
    """Largest difference between groups of the true-positive rate; 0 is equal opportunity.

    max over groups a, b of P(answer = 1 | truth = 1, a) - P(answer = 1 | truth = 1, b); Hardt,
    Price and Srebro (2016), definition 2.2. Groups without a positive face do not count; NaN where
    fewer than two groups have one.
    """
    return _gap_where(True, truth, answered, groups)


def equalized_odds(truth: Sequence[bool], answered: Sequence[bool], groups: Sequence[str]) -> float:
    """The larger of the gaps of true-positive and false-positive rate; 0 is equalized odds.

    Hardt, Price and Srebro (2016), definition 2.1. NaN where one of the two gaps is.
    """
    return float(
        np.maximum(
            _gap_where(True, truth, answered, groups), _gap_where(False, truth, answered, groups)
        )
    )


def _gap_where(
    wanted: bool, truth: Sequence[bool], answered: Sequence[bool], groups: Sequence[str]
) -> float:
    _same_length(truth, answered)
    rows = [row for row, label in enumerate(truth) if label == wanted]
    return _rate_gap([answered[row] for row in rows], [groups[row] for row in rows])


def _rate_gap(answered: Sequence[bool], groups: Sequence[str]) -> float:
    counts: dict[str, list[bool]] = {}
    for answer, group in zip(answered, groups, strict=True):
        counts.setdefault(group, []).append(answer)
    rates = [float(np.mean(answers)) for answers in counts.values()]
    return max(rates) - min(rates) if len(rates) > 1 else float("nan")


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
