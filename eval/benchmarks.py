"""The protocol of each benchmark: which task it asks, what is counted, what chance would get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from facellava.errors import FacellavaError
from facellava.metrics import auc, cs, mae, mean_accuracy, uar, war

Metrics = dict[str, float]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: what the command line calls it.
        source: the dataset whose reader makes its faces table.
        task: whose canonical question is asked.
        label: truth out of a face's labels; None where the face lacks it.
        measure: truth, predictions (None where unreadable) and probability tables to figures.
        simplest: the best constant answer to these labels.
    """

    name: str
    source: str
    task: str
    label: Callable[[Mapping[str, Any]], Any]
    measure: Callable[[Sequence[Any], Sequence[Any], Sequence[Mapping[str, float]]], Metrics]
    simplest: Callable[[Sequence[Any]], Any]


def _expression(truth: Sequence[Any], given: Sequence[Any], _: object) -> Metrics:
    return {"WAR": war(truth, given), "UAR": uar(truth, given)}


def _age(truth: Sequence[Any], given: Sequence[Any], _: object) -> Metrics:
    return {"MAE": mae(truth, given), "CS5": cs(truth, given)}


def _attributes(truth: Sequence[Any], given: Sequence[Any], _: object) -> Metrics:
    accuracy, balanced = mean_accuracy(truth, given)
    return {"mAcc": accuracy, "balanced_accuracy": balanced}


def _deepfake(
    truth: Sequence[Any], given: Sequence[Any], tables: Sequence[Mapping[str, float]]
) -> Metrics:
    # An unreadable answer has no probability of its own: it stands at chance.
    scores = [table.get("fake", 0.5) for table in tables]
    return {
        "accuracy": war(truth, given),
        "balanced_accuracy": uar(truth, given),
        "AUC": auc([label == "fake" for label in truth], scores),
    }


def _majority(truth: Sequence[Any]) -> Any:
    return Counter(truth).most_common(1)[0][0]


def _majority_of_each(truth: Sequence[Any]) -> dict[str, bool]:
    return {name: sum(row[name] for row in truth) * 2 > len(truth) for name in truth[0]}


BENCHMARKS: Final[dict[str, Benchmark]] = {
    "fer2013": Benchmark(
        "fer2013", "fer2013", "expression", lambda x: x.get("expression"), _expression, _majority
    ),
    "utkface": Benchmark(
        "utkface", "utkface", "age", lambda x: x.get("age"), _age, lambda t: round(median(t))
    ),
    "celeba": Benchmark(
        "celeba",
        "celeba",
        "attributes",
        lambda x: x.get("attributes"),
        _attributes,
        _majority_of_each,
    ),
    "deepfake": Benchmark(
        "deepfake",
        "real_fake_faces",
        "deepfake",
        lambda x: x.get("deepfake"),
        _deepfake,
        _majority,
    ),
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        FacellavaError: there is none.
    """
    if name not in BENCHMARKS:
        raise FacellavaError(
            f"There is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[name]
