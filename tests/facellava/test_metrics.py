"""Figures against numbers worked out by hand, on classes of unequal size."""

from __future__ import annotations

import math

import pytest

from facellava.errors import BadSample
from facellava.metrics import auc, cs, ece, mae, mean_accuracy, uar, war

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


@pytest.mark.parametrize("measure", [war, uar, mae, cs, mean_accuracy, ece])
def test_lists_of_other_lengths_are_refused(measure) -> None:
    for left, right in (([1, 2], [1]), ([], [])):
        with pytest.raises(BadSample, match="cannot be compared"):
            measure(left, right)
