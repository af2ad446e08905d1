"""Figures against numbers worked out by hand, on classes of unequal size."""

from __future__ import annotations

import math

import pytest

from facellava.errors import BadSample
from facellava.metrics import (
    Bin,
    auc,
    binary_brier,
    brier,
    cs,
    demographic_parity,
    ece,
    equal_opportunity,
    equalized_odds,
    mae,
    mean_accuracy,
    mean_f1,
    reliability,
    uar,
    war,
)

# Six happy, two sad, one afraid; the model says happy to nearly everything.
TRUTH = ["happy"] * 6 + ["sad"] * 2 + ["afraid"]
GIVEN = ["happy"] * 5 + [None] + ["sad", "happy"] + ["happy"]


def test_weighted_and_unweighted_recall() -> None:
    assert war(TRUTH, GIVEN) == pytest.approx(6 / 9)
    assert uar(TRUTH, GIVEN) == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    # The majority answer: good by accuracy, a third by recall.
    assert war(TRUTH, ["happy"] * 9) == pytest.approx(6 / 9)
    assert uar(TRUTH, ["happy"] * 9) == pytest.approx(1 / 3)


def test_a_class_that_is_only_answered_does_not_count() -> None:
    assert uar(["a", "a"], ["a", "b"]) == pytest.approx(0.5)


def test_years() -> None:
    truth, given = [20, 30, 40, 50], [23, 25, None, 56]
    assert mae(truth, given) == pytest.approx((3 + 5 + 6) / 3)
    # Five years still count; the unreadable answer does not.
    assert cs(truth, given) == pytest.approx(2 / 4)
    assert cs(truth, given, years=2) == 0
    assert math.isnan(mae([20, 30], [None, None]))
    assert cs([20, 30], [None, None]) == 0


def test_attributes_one_by_one() -> None:
    truth = [{"bald": True, "young": False}] + [{"bald": False, "young": True}] * 3
    given = [{"bald": False, "young": False}, {"bald": False, "young": True}, None, {"bald": False}]
    accuracy, balanced = mean_accuracy(truth, given)
    # bald: 2 of 4, recalls 0 and 2/3; young: 2 of 4, recalls 1 and 1/3.
    assert accuracy == pytest.approx(0.5)
    assert balanced == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_area_under_the_curve() -> None:
    # Of the four pairs, the fake stands above the real one in three.
    assert auc([True, False, True, False], [0.9, 0.3, 0.2, 0.1]) == pytest.approx(0.75)
    assert auc([True, False, False], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    with pytest.raises(BadSample, match="needs both classes"):
        auc([True, True], [0.1, 0.9])


def test_calibration_error() -> None:
    # Sure and right, sure and wrong: off by 0.95 - 0.5; half sure and right half of the time: 0.
    assert ece([0.95, 0.95, 0.5, 0.5], [True, False, True, False], bins=10) == pytest.approx(0.225)
    assert ece([1.0, 1.0], [True, True]) == 0


def test_action_units_count_where_they_were_coded() -> None:
    truth = [{"AU1": True}, {"AU1": True, "AU2": False}, {"AU1": False, "AU2": False}]
    given = [{"AU1": True, "AU2": True}, None, {"AU1": True}]
    f1, accuracy = mean_f1(truth, given)
    # AU1: one hit, one miss, one false alarm; AU2: neither there nor answered where it was coded.
    assert f1 == pytest.approx((0.5 + 0) / 2)
    assert accuracy == pytest.approx((1 / 3 + 1) / 2)
    assert mean_f1([{"AU1": True}], [{"AU1": True}]) == (1, 1)


def test_bins_of_confidence() -> None:
    assert reliability([0.1, 0.9, 1.0, 0.8], [False, True, True, False], bins=2) == [
        Bin(low=0, high=0.5, confidence=0.1, accuracy=0, count=1),
        Bin(low=0.5, high=1, confidence=pytest.approx(0.9), accuracy=pytest.approx(2 / 3), count=3),
    ]


def test_squared_error_of_probabilities() -> None:
    tables = [{"a": 0.7, "b": 0.3}, {"a": 0.5, "b": 0.5}]
    # 0.09 + 0.09, and 0.25 + 0.25 + 1 for a label that has no probability.
    assert brier(["a", "c"], tables) == pytest.approx((0.18 + 1.5) / 2)
    assert brier(["a"], [{"a": 1.0, "b": 0.0}]) == 0
    assert binary_brier([True, False], [0.9, 0.4]) == pytest.approx((0.01 + 0.16) / 2)


def test_fairness_gaps() -> None:
    groups = ["x"] * 4 + ["y"] * 4 + ["z"] * 2
    truth = [True, True, False, False] * 2 + [False, False]
    answered = [True, True, True, False] + [True, False, False, False] + [True, True]
    # Answered yes: 3/4, 1/4, 1.
    assert demographic_parity(answered, groups) == pytest.approx(0.75)
    # Of the positive: 1, 1/2; z has none. Of the negative: 1/2, 0, 1.
    assert equal_opportunity(truth, answered, groups) == pytest.approx(0.5)
    assert equalized_odds(truth, answered, groups) == pytest.approx(1)
    assert math.isnan(equal_opportunity(truth[:4], answered[:4], groups[:4]))
    assert math.isnan(equalized_odds([True, True], [True, False], ["x", "y"]))


@pytest.mark.parametrize(
    "measure", [war, uar, mae, cs, mean_accuracy, mean_f1, ece, reliability, brier, binary_brier]
)
def test_lists_of_other_lengths_are_refused(measure) -> None:
    for left, right in (([1, 2], [1]), ([], [])):
        with pytest.raises(BadSample, match="cannot be compared"):
            measure(left, right)
