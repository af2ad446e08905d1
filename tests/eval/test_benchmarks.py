"""Protocols: which labels, which figures, which simplest answer."""

from __future__ import annotations

from typing import Any

import pytest

from eval.benchmarks import BENCHMARKS, find_benchmark
from facellava.errors import BadSample, FacellavaError
from facellava.tasks import TASKS


def test_each_asks_a_task_that_can_be_asked() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert TASKS[benchmark.task].canonical_question
        assert benchmark.label({"licence": "x"}) is None


def test_an_unknown_one_is_named_with_the_known() -> None:
    with pytest.raises(FacellavaError, match=r"'lfw'.*fer2013, utkface, celeba, deepfake"):
        find_benchmark("lfw")


@pytest.mark.parametrize(
    ("name", "truth", "simplest"),
    [
        ("fer2013", ["sadness", "happiness", "happiness"], "happiness"),
        ("utkface", [20, 21, 90], 21),
        ("utkface", [20, 21, 30, 90], 26),
        ("deepfake", ["real", "fake", "fake"], "fake"),
        ("celeba", [{"bald": True, "young": False}, {"bald": False, "young": False}] * 2
         + [{"bald": True, "young": True}], {"bald": True, "young": False}),
    ],
)  # fmt: skip
def test_the_simplest_answer(name: str, truth: list[Any], simplest: object) -> None:
    assert BENCHMARKS[name].simplest(truth) == simplest


def test_figures_of_each() -> None:
    def measure(name: str, truth: Any, given: Any, tables: Any = None) -> dict[str, float]:
        return BENCHMARKS[name].measure(truth, given, tables or [{}] * len(truth))

    assert measure("fer2013", ["a", "a", "b"], ["a", None, "b"]) == pytest.approx(
        {"WAR": 2 / 3, "UAR": 0.75}
    )
    assert measure("utkface", [30, 40], [33, None]) == pytest.approx({"MAE": 3, "CS5": 0.5})
    assert measure("celeba", [{"bald": True}, {"bald": False}], [{"bald": True}, None]) == {
        "mAcc": 0.5,
        "balanced_accuracy": 0.5,
    }
    tables = [{"fake": 0.9, "real": 0.1}, {}, {"fake": 0.6, "real": 0.4}]
    assert measure("deepfake", ["fake", "real", "real"], ["fake", None, "fake"], tables) == {
        "accuracy": pytest.approx(1 / 3),
        "balanced_accuracy": 0.5,
        "AUC": 1.0,
    }


def test_one_class_has_no_auc() -> None:
    with pytest.raises(BadSample, match="holds real and fake faces"):
        BENCHMARKS["deepfake"].measure(["real"], ["real"], [{"fake": 0.1}])
