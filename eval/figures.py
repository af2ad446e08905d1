"""The figures of a protocol's answers, fast enough to be taken a thousand times over.

Every figure is made of counts over the faces, so a resample is a weight a face (how often it was
drawn) and a figure of many resamples is one product of matrices. `facellava.metrics` has the same
figures as plain functions; tests hold the two together.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.items import Item
from eval.protocols import Kind, Protocol
from facellava.errors import BadSample

Array = NDArray[np.float64]

FAILURE_RULE: Final[dict[Kind, str]] = {
    "classes": "An unreadable answer counts as wrong in WAR and UAR.",
    "years": "An unreadable answer is outside the five years of CS5 and is left out of the MAE.",
    "units": "An unreadable answer counts as one that names no unit.",
    "attributes": "An unreadable answer counts as wrong for each attribute.",
    "deepfake": "An unreadable answer counts as wrong, and stands at probability 0.5 in the AUC.",
}
"""What becomes of answers that could not be read, a sentence a kind."""

RESAMPLES: Final = 1000
CS_YEARS: Final = 5
CHANCE_DRAWS: Final = 20
# Resamples worked on at once: 50 times 20,000 faces are 8 MB of weights.
_CHUNK: Final = 50


class Scorer:
    """Truth and answers of one protocol as arrays, made once.

    Attributes:
        protocol: what was asked.
        items: the faces, n of them.
        truth: classes and deepfake: (n,) place in the protocol's labels; years: (n,) years; units
            and attributes: (n, labels) 1 or 0, and -1 where a unit was not coded.
        given: the answers in the same form; -1 (years: NaN) stands for no answer, and for a word
            that the protocol does not have.
        fake: (n,) probability of "fake", 0.5 where an answer has none, NaN where none has any; of
            use for deepfake only.

    Raises:
        BadSample: there are no items.
    """

    def __init__(self, protocol: Protocol, items: Sequence[Item]) -> None:
        if not items:
            raise BadSample(
                f"No face of {protocol.key} was asked about; there is nothing to score."
            )
        self.protocol = protocol
        self.items = items
        self.truth = coded(protocol, [item.truth for item in items])
        self.given = coded(protocol, [item.given for item in items])
        # An engine that gives no probabilities has no AUC, not one of 0.5.
        absent = 0.5 if any(item.table for item in items) else np.nan
        self.fake = np.array([item.table.get("fake", absent) for item in items])
        self._count()

    def answering(self, given: NDArray) -> Scorer:
        """The same faces with other answers, in the form of `given`, and no probabilities."""
        other = copy.copy(self)
        other.given = given
        other.fake = np.full(len(self.items), 0.5)
        other._count()
        return other

    def figures(self, index: NDArray[np.intp] | None = None) -> dict[str, float]:
        """The protocol's figures over all faces or over these rows, which may repeat.

        A figure that cannot be had (AUC of one class, MAE without a readable answer) is NaN.
        """
        n = len(self.items)
        weights = np.ones(n) if index is None else np.bincount(index, minlength=n).astype(float)
        values = self.weighted(weights[None])[0]
        return dict(zip(self.protocol.figures, values.tolist(), strict=True))

    def weighted(self, weights: Array) -> Array:
        """The figures of R resamples: (R, n) times that each face was drawn -> (R, figures)."""
        found = _FIGURES[self.protocol.kind](weights @ self._columns)
        if self.protocol.kind == "deepfake":
            fake = self.truth == self.protocol.labels.index("fake")
            found.append(_auc(weights, fake, self.fake))
        return np.stack(found, axis=1)

    def _count(self) -> None:
        columns = _COLUMNS[self.protocol.kind](self.truth, self.given, len(self.protocol.labels))
        self._columns = np.concatenate(columns, axis=1).astype(float)


def coded(protocol: Protocol, labels: Sequence[Any]) -> NDArray:
    """Labels as numbers, as in :class:`Scorer`; None is no answer."""
    if protocol.kind == "years":
        return np.array([np.nan if label is None else label for label in labels], dtype=float)
    if protocol.kind in ("units", "attributes"):
        none: dict[str, bool] = {}
        rows = [
            [int((label or none).get(name, -1)) for name in protocol.labels] for label in labels
        ]
        return np.array(rows, dtype=np.int8)
    place = {label: number for number, label in enumerate(protocol.labels)}
    return np.array([place.get(label, -1) for label in labels])


def _class_columns(truth: NDArray, given: NDArray, labels: int) -> list[NDArray]:
    seen = truth[:, None] == np.arange(labels)
    return [seen, seen & (truth == given)[:, None]]


def _year_columns(truth: NDArray, given: NDArray, _: int) -> list[NDArray]:
    error = np.abs(given - truth)
    columns = (np.ones_like(error), ~np.isnan(error), np.nan_to_num(error), error <= CS_YEARS)
    return [column[:, None] for column in columns]


def _unit_columns(truth: NDArray, given: NDArray, _: int) -> list[NDArray]:
    named = given == 1
    return [truth >= 0, (truth == 1) & named, (truth == 0) & named, (truth == 1) & ~named]


def _attribute_columns(truth: NDArray, given: NDArray, _: int) -> list[NDArray]:
    yes, no = truth == 1, truth == 0
    return [yes, no, yes & (given == 1), no & (given == 0)]


def _class_figures(sums: Array) -> list[Array]:
    seen, right = np.split(sums, 2, axis=1)
    return [ratio(right.sum(axis=1), seen.sum(axis=1)), known_mean(ratio(right, seen))]


def _year_figures(sums: Array) -> list[Array]:
    every, readable, error, close = sums.T
    return [ratio(error, readable), ratio(close, every)]


def _unit_figures(sums: Array) -> list[Array]:
    seen, hit, false, missed = np.split(sums, 4, axis=1)
    doubled = 2 * hit + false + missed
    # A unit that is neither there nor named has F1 0, as in the published figures.
    f1 = np.where(seen > 0, np.nan_to_num(ratio(2 * hit, doubled)), np.nan)
    return [known_mean(f1), known_mean(1 - ratio(false + missed, seen))]


def _attribute_figures(sums: Array) -> list[Array]:
    yes, no, right_yes, right_no = np.split(sums, 4, axis=1)
    recalls = np.stack([ratio(right_yes, yes), ratio(right_no, no)], axis=2)
    accuracy = ratio(right_yes + right_no, yes + no)
    return [known_mean(accuracy), known_mean(known_mean(recalls))]


_COLUMNS: Final[dict[Kind, Callable[[NDArray, NDArray, int], list[NDArray]]]] = {
    "classes": _class_columns,
    "deepfake": _class_columns,
    "years": _year_columns,
    "units": _unit_columns,
    "attributes": _attribute_columns,
}
_FIGURES: Final[dict[Kind, Callable[[Array], list[Array]]]] = {
    "classes": _class_figures,
    "deepfake": _class_figures,
    "years": _year_figures,
    "units": _unit_figures,
    "attributes": _attribute_figures,
}


def _auc(weights: Array, positive: NDArray[np.bool_], score: Array) -> Array:
    """Share of the pairs in which the positive face stands higher; ties are half. (R, n) -> (R,)"""
    if np.isnan(score).all():
        return np.full(len(weights), np.nan)
    order = np.argsort(score)
    # Where a new score begins: faces of one score are counted together.
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    return ratio(won, above.sum(axis=1) * below.sum(axis=1))


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def known_mean(values: Array) -> Array:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def draws(items: Sequence[Item], resamples: int, seed: int) -> Iterator[Array]:
    """Bootstrap resamples, a few at a time: how often each face is drawn, (up to 50, n).

    Whole subjects are drawn where items carry one, since the faces of one person resemble each
    other; a face without a subject is drawn by itself.
    """
    seen: dict[object, int] = {}
    cluster = [
        seen.setdefault(place if item.subject is None else item.subject, len(seen))
        for place, item in enumerate(items)
    ]
    rng, count = np.random.default_rng(seed), len(seen)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, cluster].astype(float)


def interval(samples: Array) -> dict[str, float]:
    """The middle 95% of a figure's resamples (R,); NaN where none of them could be had."""
    known = samples[~np.isnan(samples)]
    low, high = np.percentile(known, [2.5, 97.5]) if known.size else (np.nan, np.nan)
    return {"low": float(low), "high": float(high)}


def intervals(
    scorer: Scorer, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Each figure's "value" with the "low" and "high" of its 95% percentile bootstrap interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; whole subjects are
    drawn, see :func:`draws`.
    """
    samples = np.concatenate(
        [scorer.weighted(weights) for weights in draws(scorer.items, resamples, seed)]
    )
    return {
        name: {"value": value, **interval(column)}
        for (name, value), column in zip(scorer.figures().items(), samples.T, strict=True)
    }


def majority(protocol: Protocol, items: Sequence[Item]) -> tuple[Any, dict[str, float]]:
    """The best constant answer and its figures: what a model gets that looks at no face.

    The commonest class, the median age, for each unit or attribute what most faces have. Most
    units are rare, so there the answer is mostly "none", with F1 0.
    """
    truths = [item.truth for item in items]
    scorer = Scorer(protocol, items)
    answer: Any
    if protocol.kind == "years":
        answer = round(median(truths))
    elif protocol.kind in ("units", "attributes"):
        shares = known_shares(scorer.truth)
        answer = {name: bool(s > 0.5) for name, s in zip(protocol.labels, shares, strict=True)}
    else:
        answer = Counter(truths).most_common(1)[0][0]
    given = coded(protocol, [answer] * len(items))
    return answer, scorer.answering(given).figures()


def random_figures(protocol: Protocol, items: Sequence[Item], seed: int = 0) -> dict[str, float]:
    """What guessing gets: answers drawn as often as the truth has them, mean of 20 draws.

    Units and attributes are drawn each by itself.
    """
    rng, scorer = np.random.default_rng(seed), Scorer(protocol, items)
    truth, found = scorer.truth, []
    for _ in range(CHANCE_DRAWS):
        if truth.ndim == 2:
            given = (rng.random(truth.shape) < known_shares(truth)).astype(np.int8)
        else:
            given = rng.choice(truth, size=len(truth))
        found.append(scorer.answering(given).figures())
    return {name: float(np.mean([each[name] for each in found])) for name in protocol.figures}


def known_shares(truth: NDArray) -> Array:
    """Share of faces with each unit or attribute, of those that were coded for it; else 0."""
    return np.nan_to_num(ratio((truth == 1).sum(axis=0), (truth >= 0).sum(axis=0)))


def folds(
    protocol: Protocol, items: Sequence[Item]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The figures of each fold, by its number, and their mean; both empty without folds.

    The mean is NaN where a fold's figure is.
    """
    scorer = Scorer(protocol, items)
    fold = np.array([item.fold or 0 for item in items])
    found = {
        str(number): scorer.figures(np.flatnonzero(fold == number))
        for number in sorted({*fold.tolist()} - {0})
    }
    if not found:
        return {}, {}
    mean = {name: float(np.mean([f[name] for f in found.values()])) for name in protocol.figures}
    return found, mean
