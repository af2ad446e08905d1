"""How alike sets of faces are, from embeddings with expression labels: three measures, one check.

Gaya-Morey, Manresa-Yee, Martinie and Buades-Rubio, "Evaluating Facial Expression Recognition
Datasets for Deep Learning: A Benchmark Study with Novel Similarity Metrics" (arXiv 2503.20428),
compare 24 sets by three measures: Local, Global and Paired Similarity, for a set's difficulty, its
power to generalise, and transfer between two sets. Only the abstract was at hand. It leaves open
the formulas, what is compared (pixels, embeddings or accuracies), the ranges, whether Paired has a
direction, and how sets of different sizes and classes are treated. The formulas here are ours,
made for the three purposes; their numbers cannot be set beside the paper's.

In all of them an expression counts once, however many faces show it, and expressions with fewer
than :data:`FEWEST_FACES` faces are left out. Intervals hold 95% of bootstrap draws of the faces
within each expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestCentroid, NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from facellava.errors import BadSample
from facellava.metrics import uar

NEIGHBOURS: Final = 5
# So that a face of the rarest expression can have neighbours of its own expression only.
FEWEST_FACES: Final = NEIGHBOURS + 1
FOLDS: Final = 5
RESAMPLES: Final = 200
INTERVAL: Final = (0.025, 0.975)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelledFaces:
    """A set of faces as points with an expression each.

    Attributes:
        embeddings: (N, D), each of length 1.
        labels: (N,) words.

    Raises:
        BadSample: not as many labels as embeddings.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or self.labels.shape != self.embeddings.shape[:1]:
            raise BadSample(
                f"Embeddings of shape {self.embeddings.shape} and labels of shape "
                f"{self.labels.shape} do not fit; give (faces, width) and (faces,)."
            )

    def showing(self, expressions: Sequence[str]) -> LabelledFaces:
        """The faces with one of the expressions."""
        kept = np.isin(self.labels, expressions)
        return LabelledFaces(self.embeddings[kept], self.labels[kept])


@dataclass(frozen=True)
class Measure:
    """A number with its 95% interval, and what labels drawn by lot would give where that is set."""

    value: float
    low: float
    high: float
    chance: float | None = None


def shared_expressions(*sets: LabelledFaces) -> list[str]:
    """The expressions that every set shows on at least :data:`FEWEST_FACES` faces, sorted."""
    frequent = []
    for faces in sets:
        words, counts = np.unique(faces.labels, return_counts=True)
        frequent.append({str(word) for word in words[counts >= FEWEST_FACES]})
    return sorted(set.intersection(*frequent))


def local_similarity(faces: LabelledFaces, *, seed: int = 0) -> Measure:
    """Local Similarity: how easy the set is, seen from each face's surroundings.

    Of a face's five nearest neighbours in the set by cosine, the share with the face's own
    expression; the mean over an expression's faces, then over expressions.

    1: every neighbour shows the same expression, an easy set. At `chance` (about 1 / number of
    expressions) neighbours are no guide, the hardest; 0: neighbours always differ. Pictures of one
    person are neighbours too: sets that hold a person often look easier than they are.

    Raises:
        BadSample: fewer than two expressions with enough faces.
    """
    kept = faces.showing(_two_or_more(faces))
    searcher = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(kept.embeddings)
    found = searcher.kneighbors(return_distance=False)
    same = (kept.labels[found] == kept.labels[:, None]).mean(axis=1)
    counts = np.unique(kept.labels, return_counts=True)[1]
    chance = float(np.mean((counts - 1) / (len(kept.labels) - 1)))
    rng = np.random.default_rng(seed)
    return _measure(_class_mean(same, kept.labels), _redrawn(same, kept.labels, rng), chance)


def global_similarity(
    faces: LabelledFaces, others: Sequence[LabelledFaces], *, seed: int = 0
) -> Measure | None:
    """Global Similarity: how well the set as a whole stands for other sets.

    The set is boiled down to one centre an expression. Of another set's faces, the share whose
    nearest centre is that of their own expression; the mean over expressions, then over the other
    sets. Compactness of the set itself would not do: posed sets are compact, and the paper's
    abstract says that they generalise less.

    1: its centres sort every other set's faces rightly. At `chance` (1 / number of shared
    expressions) they say nothing of other sets; 0: they are always wrong.

    Returns:
        None where no other set shares two expressions.
    """
    values, draws, chances = [], [], []
    rng = np.random.default_rng(seed)
    for other in others:
        expressions = shared_expressions(faces, other)
        if len(expressions) > 1:
            known, asked = faces.showing(expressions), other.showing(expressions)
            centres = NearestCentroid().fit(known.embeddings, known.labels)
            right = (centres.predict(asked.embeddings) == asked.labels).astype(float)
            values.append(_class_mean(right, asked.labels))
            draws.append(_redrawn(right, asked.labels, rng))
            chances.append(1 / len(expressions))
    if not values:
        return None
    return _measure(float(np.mean(values)), np.mean(draws, axis=0), float(np.mean(chances)))


def paired_similarity(one: LabelledFaces, other: LabelledFaces, *, seed: int = 0) -> Measure | None:
    """Paired Similarity: do the expressions move faces in the same direction in both sets?

    In each set an expression's direction is its centre less the mean of all expressions' centres.
    The measure is the cosine between all directions of one set and those of the other, laid end
    to end: sum <a_c, b_c> / sqrt(sum |a_c|^2 * sum |b_c|^2). Centres of few faces are longer than
    the truth by chance; what chance adds to the lengths is subtracted, so that the value does not
    depend on the number of faces. It has no direction: both orders give the same.

    1: the same directions, a rule learnt on one set holds on the other as far as that set allows;
    0: unrelated; below 0: labels contradict each other. What all faces of a set have in common,
    such as its light, is subtracted and does not count, nor do labels that are wrong by lot: they
    shorten all directions alike.

    Returns:
        None where fewer than two expressions are shared, or where a set's expressions lie no
        further apart than chance would have them.
    """
    expressions = shared_expressions(one, other)
    if len(expressions) < 2:
        return None
    rng = np.random.default_rng(seed)
    [value] = _direction_cosine(one, other, expressions, None)
    if not np.isfinite(value):
        return None
    draws = _direction_cosine(one, other, expressions, rng)
    # Drawn faces repeat, which shortens the cosine: the draws give the spread, not the place.
    draws += value - np.nanmedian(draws)
    low, high = np.clip(np.nanquantile(draws, INTERVAL), -1.0, 1.0)
    value = float(np.clip(value, -1.0, 1.0))
    return Measure(value, min(float(low), value), max(float(high), value))


def halves(faces: LabelledFaces, *, seed: int = 0) -> tuple[LabelledFaces, LabelledFaces]:
    """The set cut in two by lot, expression by expression."""
    rng = np.random.default_rng(seed)
    first = np.zeros(len(faces.labels), dtype=bool)
    for word in np.unique(faces.labels):
        places = rng.permutation(np.flatnonzero(faces.labels == word))
        first[places[: len(places) // 2]] = True
    return (
        LabelledFaces(faces.embeddings[first], faces.labels[first]),
        LabelledFaces(faces.embeddings[~first], faces.labels[~first]),
    )


def transfer(taught: LabelledFaces, asked: LabelledFaces) -> float | None:
    """Mean recall over shared expressions of a logistic regression taught on one set, on another.

    None where fewer than two expressions are shared.
    """
    expressions = shared_expressions(taught, asked)
    if len(expressions) < 2:
        return None
    known, unknown = taught.showing(expressions), asked.showing(expressions)
    classifier = _classifier().fit(known.embeddings, known.labels)
    return uar(unknown.labels.tolist(), classifier.predict(unknown.embeddings).tolist())


def own_accuracy(faces: LabelledFaces) -> float:
    """The same within one set, by five-fold cross-validation.

    Raises:
        BadSample: fewer than two expressions with enough faces.
    """
    kept = faces.showing(_two_or_more(faces))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    said = cross_val_predict(_classifier(), kept.embeddings, kept.labels, cv=folds)
    return uar(kept.labels.tolist(), said.tolist())


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's; None for fewer than three pairs, or where one side is constant."""
    if len(left) < 3 or len(set(left)) == 1 or len(set(right)) == 1:
        return None
    return float(spearmanr(left, right).statistic)


def _two_or_more(faces: LabelledFaces) -> list[str]:
    expressions = shared_expressions(faces)
    if len(expressions) < 2:
        raise BadSample(
            f"The set has {len(expressions)} expression(s) with at least {FEWEST_FACES} faces; "
            "two are needed, so give more faces."
        )
    return expressions


def _classifier() -> Pipeline:
    # Weak weights: embeddings may be wider than a set has faces.
    regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000)
    return make_pipeline(StandardScaler(), regression)


def _class_mean(scores: Array, labels: NDArray[np.str_]) -> float:
    return float(np.mean([scores[labels == word].mean() for word in np.unique(labels)]))


def _redrawn(scores: Array, labels: NDArray[np.str_], rng: np.random.Generator) -> Array:
    """The class mean of each bootstrap draw: (RESAMPLES,)."""
    by_class = [
        _weights(int((labels == word).sum()), rng) @ scores[labels == word]
        for word in np.unique(labels)
    ]
    return np.asarray(np.mean(by_class, axis=0))


def _weights(faces: int, rng: np.random.Generator) -> Array:
    """How often each face is drawn, as a share: (RESAMPLES, faces), rows sum to 1."""
    return rng.multinomial(faces, np.full(faces, 1 / faces), size=RESAMPLES) / faces


def _measure(value: float, draws: Array, chance: float) -> Measure:
    low, high = np.quantile(draws, INTERVAL)
    return Measure(value, float(low), float(high), chance)


def _direction_cosine(
    one: LabelledFaces,
    other: LabelledFaces,
    expressions: Sequence[str],
    rng: np.random.Generator | None,
) -> Array:
    """The cosine of the faces as they are: (1,); with a generator of draws of them: (RESAMPLES,).

    NaN where chance alone explains the length of a set's directions.
    """
    ours, our_length = _directions(one, expressions, rng)
    theirs, their_length = _directions(other, expressions, rng)
    squared = np.where((our_length > 0) & (their_length > 0), our_length * their_length, np.nan)
    return np.asarray((ours * theirs).sum(axis=(1, 2)) / np.sqrt(squared))


def _directions(
    faces: LabelledFaces, expressions: Sequence[str], rng: np.random.Generator | None
) -> tuple[Array, Array]:
    """Directions (R, expressions, D), and their summed squared length without chance's part (R,).

    A centre of n faces has an expected squared length of the true one's plus the faces' variance
    over n; taking off the mean of C centres leaves 1 - 1/C of that.
    """
    centres, by_chance = [], []
    for word in expressions:
        points = faces.embeddings[faces.labels == word].astype(np.float64)
        n = len(points)
        weights = np.full((1, n), 1 / n) if rng is None else _weights(n, rng)
        centre = weights @ points
        variance = weights @ (points**2).sum(axis=1) - (centre**2).sum(axis=1)
        centres.append(centre)
        by_chance.append(variance / (n - 1))
    directions = np.stack(centres, axis=1)
    directions -= directions.mean(axis=1, keepdims=True)
    length = (directions**2).sum(axis=(1, 2))
    return directions, length - (1 - 1 / len(expressions)) * np.sum(by_chance, axis=0)
