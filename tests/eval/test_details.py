"""Rows behind the figures, by hand."""

from __future__ import annotations

import math

import pytest

from eval.details import confusion, details
from tests.eval.answered import answered, protocol_of

NAN = pytest.approx(math.nan, nan_ok=True)
TRUTH = ["sadness", "sadness", "sadness", "happiness"]
GIVEN = ["sadness", "happiness", None, "happiness"]


def test_classes() -> None:
    items = answered(TRUTH, GIVEN)
    assert details(protocol_of("classes", "sadness", "happiness", "fear"), items) == {
        "sadness": {"n": 3, "recall": pytest.approx(1 / 3), "precision": 1, "F1": 0.5},
        "happiness": {"n": 1, "recall": 1, "precision": 0.5, "F1": pytest.approx(2 / 3)},
        "fear": {"n": 0, "recall": NAN, "precision": NAN, "F1": NAN},
    }


def test_units_count_where_they_were_coded() -> None:
    truth = [{"AU1": True}, {"AU1": True}, {"AU1": False, "AU2": False}]
    given = [{"AU1": True, "AU2": True}, None, {"AU1": True, "AU2": False}]
    assert details(protocol_of("units", "AU1", "AU2", "AU4"), answered(truth, given)) == {
        "AU1": {"n": 3, "positives": 2, "recall": 0.5, "precision": 0.5, "F1": 0.5,
                "accuracy": pytest.approx(1 / 3)},
        "AU2": {"n": 1, "positives": 0, "recall": NAN, "precision": NAN, "F1": 0, "accuracy": 1},
        "AU4": {"n": 0, "positives": 0, "recall": NAN, "precision": NAN, "F1": NAN,
                "accuracy": NAN},
    }  # fmt: skip


def test_attributes_beside_the_commoner_answer() -> None:
    truth = [{"bald": True}] + [{"bald": False}] * 3
    given = [{"bald": True}, {"bald": False}, {"bald": True}, None]
    assert details(protocol_of("attributes", "bald"), answered(truth, given)) == {
        "bald": {"n": 4, "positives": 1, "accuracy": 0.5,
                 "balanced_accuracy": pytest.approx((1 + 1 / 3) / 2), "majority": 0.75},
    }  # fmt: skip


def test_ages_by_group() -> None:
    items = answered([1, 25, 29, 80], [4, 20, 39, None])
    found = details(protocol_of("years"), items)
    assert list(found) == ["0-2", "20-29", "70+"]
    assert found["0-2"] == {"n": 1, "MAE": 3, "CS5": 1, "bias": 3}
    assert found["20-29"] == {"n": 2, "MAE": 7.5, "CS5": 0.5, "bias": 2.5}
    assert found["70+"] == {"n": 1, "MAE": NAN, "CS5": 0, "bias": NAN}


def test_what_was_taken_for_what() -> None:
    protocol = protocol_of("classes", "sadness", "happiness")
    items = answered([*TRUTH, "happiness"], [*GIVEN, "contempt"])
    assert confusion(protocol, items) == {
        "labels": ["sadness", "happiness"],
        "columns": ["sadness", "happiness", "contempt", "unreadable"],
        "counts": [[1, 1, 0, 1], [0, 1, 1, 0]],
    }
    assert confusion(protocol_of("years"), answered([1], [1])) is None
