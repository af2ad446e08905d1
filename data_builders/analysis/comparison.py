"""Sets of faces compared: each by itself, each pair, and whether likeness foretells transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from data_builders.analysis.apparent import Apparent
from data_builders.analysis.similarity import (
    FEWEST_FACES,
    LabelledFaces,
    Measure,
    global_similarity,
    halves,
    local_similarity,
    own_accuracy,
    paired_similarity,
    rank_correlation,
    shared_expressions,
    transfer,
)

FEWEST_IN_SET: Final = 30


@dataclass(frozen=True)
class SetAnalysis:
    """One set.

    Attributes:
        name: of the set.
        faces: in the corpora.
        labelled: of them with an expression.
        compared: expression to faces that the measures saw; empty where not measured.
        unmeasured: why there are no measures; None where there are.
        local_similarity: :func:`data_builders.analysis.similarity.local_similarity`.
        global_similarity: of the set to all other measured sets; None without any.
        halves: Paired Similarity of the set's two halves: how far chance alone moves that number.
        own_accuracy: of a classifier taught on the set and asked about the set, cross-validated.
        apparent: age and gender as the model guesses; None where not asked for.
    """

    name: str
    faces: int
    labelled: int
    compared: dict[str, int]
    unmeasured: str | None
    local_similarity: Measure | None
    global_similarity: Measure | None
    halves: Measure | None
    own_accuracy: float | None
    apparent: Apparent | None


@dataclass(frozen=True)
class PairAnalysis:
    """Two sets: Paired Similarity, and accuracies of a classifier from one to the other.

    `expressions` are those that both have; what needs two of them is None where there are fewer.
    """

    one: str
    other: str
    expressions: list[str]
    similarity: Measure | None
    one_to_other: float | None
    other_to_one: float | None


@dataclass(frozen=True)
class Analysis:
    """All sets.

    Attributes:
        model: whose encoder made the embeddings and who guessed age and gender.
        by: "source", or "split" where each split of a source is a set.
        seed: of the draws.
        faces_a_set: as many of each set were compared; 0 where none was.
        sets: by name.
        pairs: of the measured sets.
        transfer_rank: Spearman's correlation, over the pairs, of Paired Similarity and the mean
            accuracy of the two directions; None for fewer than three pairs.
    """

    model: str
    by: str
    seed: int
    faces_a_set: int
    sets: list[SetAnalysis]
    pairs: list[PairAnalysis]
    transfer_rank: float | None

    @property
    def measured(self) -> list[SetAnalysis]:
        """The sets with measures."""
        return [each for each in self.sets if each.unmeasured is None]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class DrawnSet:
    """A set before it is compared.

    Attributes:
        faces: in the corpora.
        labelled: of them with an expression.
        drawn: those that were drawn and have an expression, in an order by lot.
        apparent: of some that were drawn.
    """

    faces: int
    labelled: int
    drawn: LabelledFaces
    apparent: Apparent | None


def compare(sets: Mapping[str, DrawnSet], *, model: str, by: str, seed: int) -> Analysis:
    """Compare sets on as many faces of each as the smallest one that can be measured has."""
    odd = {name: _unmeasured(each.drawn, each.labelled) for name, each in sets.items()}
    sizes = [len(sets[name].drawn.labels) for name, reason in odd.items() if reason is None]
    size = min(sizes, default=0)
    cut = {name: _first(each.drawn, size) for name, each in sets.items()}
    reasons = {
        name: odd[name] or _unmeasured(cut[name], each.labelled) for name, each in sets.items()
    }
    known = {name: faces for name, faces in cut.items() if reasons[name] is None}
    pairs = [_pair(one, other, known, seed) for one, other in combinations(sorted(known), 2)]
    return Analysis(
        model=model,
        by=by,
        seed=seed,
        faces_a_set=size,
        sets=[
            _set(name, sets[name], reasons[name], known.get(name), known, seed)
            for name in sorted(sets)
        ],
        pairs=pairs,
        transfer_rank=_transfer_rank(pairs),
    )


def _first(faces: LabelledFaces, size: int) -> LabelledFaces:
    return LabelledFaces(faces.embeddings[:size], faces.labels[:size])


def _unmeasured(faces: LabelledFaces, labelled: int) -> str | None:
    """Why drawn faces cannot be measured, of so many with an expression in their set."""
    drawn = len(faces.labels)
    if not drawn:
        return "no expression labels"
    if drawn < FEWEST_IN_SET:
        what = "faces with an expression"
        found = f"{drawn} {what}" if drawn == labelled else f"{drawn} of {labelled} {what} drawn"
        return f"only {found}, {FEWEST_IN_SET} are needed"
    if len(shared_expressions(faces)) < 2:
        return f"fewer than two expressions with at least {FEWEST_FACES} faces"
    return None


def _set(
    name: str,
    whole: DrawnSet,
    reason: str | None,
    faces: LabelledFaces | None,
    known: Mapping[str, LabelledFaces],
    seed: int,
) -> SetAnalysis:
    facts: dict[str, Any] = {
        "name": name,
        "faces": whole.faces,
        "labelled": whole.labelled,
        "unmeasured": reason,
        "apparent": whole.apparent,
    }
    if faces is None:
        return SetAnalysis(
            **facts,
            compared={},
            local_similarity=None,
            global_similarity=None,
            halves=None,
            own_accuracy=None,
        )
    kept = faces.showing(shared_expressions(faces))
    words, counts = np.unique(kept.labels, return_counts=True)
    others = [other for key, other in known.items() if key != name]
    return SetAnalysis(
        **facts,
        compared=dict(zip(words.tolist(), counts.tolist(), strict=True)),
        local_similarity=local_similarity(faces, seed=seed),
        global_similarity=global_similarity(faces, others, seed=seed),
        halves=paired_similarity(*halves(faces, seed=seed), seed=seed),
        own_accuracy=own_accuracy(faces),
    )


def _pair(one: str, other: str, known: Mapping[str, LabelledFaces], seed: int) -> PairAnalysis:
    ours, theirs = known[one], known[other]
    return PairAnalysis(
        one,
        other,
        shared_expressions(ours, theirs),
        paired_similarity(ours, theirs, seed=seed),
        transfer(ours, theirs),
        transfer(theirs, ours),
    )


def _transfer_rank(pairs: list[PairAnalysis]) -> float | None:
    found = [
        (pair.similarity.value, (pair.one_to_other + pair.other_to_one) / 2)
        for pair in pairs
        if pair.similarity and pair.one_to_other is not None and pair.other_to_one is not None
    ]
    return rank_correlation([value for value, _ in found], [right for _, right in found])
