"""Figures by hand, against the plain functions, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest

from eval.figures import (
    FAILURE_RULE,
    Scorer,
    draws,
    folds,
    interval,
    intervals,
    majority,
    random_figures,
)
from eval.items import Item
from eval.protocols import FIGURES, Kind, Protocol
from facellava.errors import BadSample
from facellava.metrics import auc, cs, mae, mean_accuracy, mean_f1, uar, war
from tests.eval.answered import answered, at_random, protocol_of

KINDS: tuple[Kind, ...] = get_args(Kind)


def plainly(protocol: Protocol, items: Sequence[Item]) -> dict[str, float]:
    """The same figures by the plain functions."""
    truth, given = [item.truth for item in items], [item.given for item in items]
    values: Any
    if protocol.kind == "classes":
        values = war(truth, given), uar(truth, given)
    elif protocol.kind == "years":
        values = mae(truth, given), cs(truth, given)
    elif protocol.kind == "units":
        values = mean_f1(truth, given)
    elif protocol.kind == "attributes":
        values = mean_accuracy(truth, given)
    else:
        scores = [item.table.get("fake", 0.5) for item in items]
        values = war(truth, given), uar(truth, given), auc([t == "fake" for t in truth], scores)
    return dict(zip(FIGURES[protocol.kind], values, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_the_plain_functions(kind: Kind) -> None:
    protocol, items = at_random(kind, 60, seed=3)
    scorer = Scorer(protocol, items)
    assert scorer.figures() == pytest.approx(plainly(protocol, items))
    rng = np.random.default_rng(1)
    for _ in range(20):
        index = rng.integers(60, size=40)
        drawn = [items[row] for row in index]
        assert scorer.figures(index) == pytest.approx(plainly(protocol, drawn))


def test_an_unreadable_answer_in_each_kind() -> None:
    assert set(FAILURE_RULE) == set(KINDS)

    def figures(kind: Kind, labels: Sequence[str], *lists: list[Any]) -> dict[str, float]:
        return Scorer(protocol_of(kind, *labels), answered(*lists)).figures()

    # sadness 1 of 2, happiness 2 of 2; "contempt" is no class of the protocol, so it is wrong.
    faces = ["sadness", "sadness", "happiness", "happiness"]
    assert figures("classes", ("sadness", "happiness"), faces, [None, "sadness", *faces[2:]]) == {
        "WAR": 0.75, "UAR": 0.75,
    }  # fmt: skip
    assert figures("classes", ("sadness", "happiness"), faces, ["contempt"] * 4) == {
        "WAR": 0, "UAR": 0,
    }  # fmt: skip
    # Errors 5 and 6 and none; within five years one of three.
    assert figures("years", (), [30, 40, 50], [35, 46, None]) == {
        "MAE": 5.5, "CS5": pytest.approx(1 / 3),
    }  # fmt: skip
    # AU1: one hit, one missed by the unreadable answer, F1 2/3, 1 of 2 right. AU2: right "not
    # there" where it was coded, F1 0, accuracy 1. AU4 was coded nowhere and does not count.
    truth = [{"AU1": True}, {"AU1": True, "AU2": False}]
    given = [{"AU1": True, "AU2": True, "AU4": True}, None]
    assert figures("units", ("AU1", "AU2", "AU4"), truth, given) == {
        "mean_F1": pytest.approx(1 / 3), "mean_accuracy": 0.75,
    }  # fmt: skip
    # bald: the yes is right, of two noes one is: accuracy 2/3, balanced (1 + 1/2) / 2.
    truth = [{"bald": True}, {"bald": False}, {"bald": False}]
    assert figures("attributes", ("bald",), truth, [{"bald": True}, {"bald": False}, None]) == {
        "mAcc": pytest.approx(2 / 3), "balanced_accuracy": 0.75,
    }  # fmt: skip


def test_the_area_under_the_curve() -> None:
    tables = [{"fake": 0.9}, {"fake": 0.4}, {"fake": 0.4}, {}]
    items = answered(["fake", "real", "fake", "real"], ["fake", "real", "real", None], table=tables)
    # Pairs won: 0.9 over 0.4 and 0.5; 0.4 ties with 0.4 and is under 0.5: 2.5 of 4.
    assert Scorer(protocol_of("deepfake"), items).figures() == {
        "accuracy": 0.5, "balanced_accuracy": 0.5, "AUC": 0.625,
    }  # fmt: skip


def test_what_cannot_be_had_is_nan() -> None:
    one_class = Scorer(protocol_of("deepfake"), answered(["real"] * 3, ["real", "fake", None]))
    assert one_class.figures() == {
        "accuracy": pytest.approx(1 / 3),
        "balanced_accuracy": pytest.approx(1 / 3),
        "AUC": pytest.approx(math.nan, nan_ok=True),
    }
    assert np.isnan(intervals(one_class, resamples=20)["AUC"]["high"])
    silent = Scorer(protocol_of("years"), answered([30, 40], [None, None])).figures()
    assert math.isnan(silent["MAE"])
    assert silent["CS5"] == 0
    with pytest.raises(BadSample, match="nothing to score"):
        Scorer(protocol_of("years"), [])


def test_the_interval_of_a_share_is_as_wide_as_the_binomial_one() -> None:
    items = answered(["fake"] * 400, ["fake", "real"] * 200)
    scorer = Scorer(protocol_of("deepfake"), items)
    found = intervals(scorer, resamples=1000, seed=5)["accuracy"]
    # 1.96 times the root of 0.5 * 0.5 / 400.
    assert found["value"] == 0.5
    assert found["low"] == pytest.approx(0.451, abs=0.008)
    assert found["high"] == pytest.approx(0.549, abs=0.008)
    assert intervals(scorer, resamples=1000, seed=5)["accuracy"] == found
    assert intervals(scorer, resamples=1000, seed=6)["accuracy"] != found


def test_whole_subjects_are_drawn() -> None:
    # One person always right, one always wrong: four faces, but two people.
    items = answered(["fake"] * 4, ["fake", "fake", "real", "real"], subject=["a", "a", "b", "b"])
    weights = np.concatenate(list(draws(items, 120, seed=0)))
    assert weights.shape == (120, 4)
    assert {tuple(row) for row in weights} == {(2, 2, 0, 0), (1, 1, 1, 1), (0, 0, 2, 2)}
    found = intervals(Scorer(protocol_of("deepfake"), items), resamples=120)["accuracy"]
    assert found == {"value": 0.5, "low": 0, "high": 1}
    # Faces without a subject are drawn by themselves.
    mixed = answered(["fake"] * 3, ["fake"] * 3, subject=["a", "a", None])
    drawn = np.concatenate(list(draws(mixed, 60, seed=0)))
    assert {tuple(row) for row in drawn} == {(2, 2, 0), (1, 1, 1), (0, 0, 2)}


def test_the_interval_is_the_middle_of_what_is_known() -> None:
    samples = np.array([math.nan, *range(101)])
    assert interval(samples) == {"low": 2.5, "high": 97.5}


@pytest.mark.parametrize(
    ("kind", "labels", "truth", "answer", "figures"),
    [
        ("classes", ("sadness", "happiness"), ["sadness", "happiness", "happiness"], "happiness",
         {"WAR": 2 / 3, "UAR": 0.5}),
        ("years", (), [20, 21, 90], 21, {"MAE": 70 / 3, "CS5": 2 / 3}),
        ("deepfake", (), ["fake", "fake", "real"], "fake",
         {"accuracy": 2 / 3, "balanced_accuracy": 0.5, "AUC": 0.5}),
        # AU2 is mostly there where it was coded: F1 of 2 of 3 is 0.8. AU1 is rare: F1 0.
        ("units", ("AU1", "AU2"),
         [{"AU1": True}, {"AU1": False}, {"AU1": False, "AU2": True}, {"AU2": True},
          {"AU2": False}],
         {"AU1": False, "AU2": True}, {"mean_F1": 0.4, "mean_accuracy": 2 / 3}),
        ("attributes", ("bald", "young"),
         [{"bald": True, "young": True}, {"bald": False, "young": True}],
         {"bald": False, "young": True}, {"mAcc": 0.75, "balanced_accuracy": 0.75}),
    ],
)  # fmt: skip
def test_the_best_constant_answer(
    kind: Kind, labels: tuple[str, ...], truth: list[Any], answer: Any, figures: dict[str, float]
) -> None:
    items = answered(truth, [None] * len(truth), table=[{"fake": 0.9}] * len(truth))
    found, reached = majority(protocol_of(kind, *labels), items)
    assert found == answer
    assert reached == pytest.approx(figures)


def test_guessing() -> None:
    nobody = [None] * 2000
    classes = answered(["sadness"] * 1500 + ["happiness"] * 500, nobody)
    # 3/4 squared and 1/4 squared; a class's recall is how often it is guessed: 1/2 in the mean.
    found = random_figures(protocol_of("classes", "sadness", "happiness"), classes)
    assert found == pytest.approx({"WAR": 0.625, "UAR": 0.5}, abs=0.01)
    assert random_figures(protocol_of("classes", "sadness", "happiness"), classes) == found
    # Ages 20 and 30: off by ten half of the time.
    years = random_figures(protocol_of("years"), answered([20, 30] * 1000, nobody))
    assert years == pytest.approx({"MAE": 5, "CS5": 0.5}, abs=0.2)
    # Precision and recall are the unit's rate.
    units = answered([{"AU1": True}] * 400 + [{"AU1": False}] * 1600, nobody)
    assert random_figures(protocol_of("units", "AU1"), units) == pytest.approx(
        {"mean_F1": 0.2, "mean_accuracy": 0.68}, abs=0.015
    )
    fakes = answered(["fake"] * 1000 + ["real"] * 1000, nobody, table=[{"fake": 1}] * 2000)
    assert random_figures(protocol_of("deepfake"), fakes)["AUC"] == 0.5


def test_each_fold_and_their_mean() -> None:
    protocol = protocol_of("classes", "sadness", "happiness")
    truth = ["sadness", "sadness", "happiness", "happiness"]
    items = answered(truth, ["sadness", "happiness", "happiness", None], fold=[2, 2, 1, 2])
    by_fold, mean = folds(protocol, items)
    assert by_fold == {"1": {"WAR": 1, "UAR": 1}, "2": {"WAR": pytest.approx(1 / 3), "UAR": 0.25}}
    assert mean == {"WAR": pytest.approx(2 / 3), "UAR": 0.625}
    assert folds(protocol, answered(truth, truth)) == ({}, {})
