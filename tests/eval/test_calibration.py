"""Confidence against correctness, and the verdict that the probabilities alone would give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.calibration import by_probability, calibration, likeliest
from eval.protocols import PROTOCOLS
from tests.eval.answered import answered, protocol_of

CLASSES = protocol_of("classes", "sadness", "happiness", "fear")
# Sure and right; half sure and wrong; the third face has no table.
TABLES = [
    {"sadness": 0.9, "happiness": 0.1, "fear": 0.0},
    {"sadness": 0.5, "happiness": 0.3, "fear": 0.2},
    {},
]
ITEMS = answered(["sadness", "fear", "fear"], ["sadness", "happiness", None], table=TABLES)


def test_classes() -> None:
    found = calibration(CLASSES, ITEMS)
    assert found is not None
    assert found["calibrated"] is None
    raw = found["raw"]
    assert raw["n"] == 2
    # Gaps of 0.1 and of 0.5, half of the answers each.
    assert raw["ECE"] == pytest.approx(0.3)
    # 0.01 + 0.01 and 0.25 + 0.09 + 0.64.
    assert raw["Brier"] == pytest.approx((0.02 + 0.98) / 2)
    # 0.5 lies in the eighth of fifteen bins, 0.9 in the fourteenth.
    assert raw["bins"] == [
        {"low": 7 / 15, "high": 8 / 15, "confidence": 0.5, "accuracy": 0, "count": 1},
        {"low": 13 / 15, "high": 14 / 15, "confidence": 0.9, "accuracy": 1, "count": 1},
    ]


def test_the_temperature_is_judged_beside_the_raw_table() -> None:
    surer = [replace(item, calibrated={"sadness": 0.6, "happiness": 0.4}) for item in ITEMS[:1]]
    found = calibration(CLASSES, surer)
    assert found is not None
    assert found["raw"]["ECE"] == pytest.approx(0.1)
    assert found["calibrated"]["ECE"] == pytest.approx(0.4)
    assert found["calibrated"]["Brier"] == pytest.approx(0.32)


def test_each_label_is_a_case_of_its_own() -> None:
    protocol = protocol_of("units", "AU1", "AU2")
    truth = [{"AU1": True, "AU2": False}, {"AU2": True}]
    given = [{"AU1": True, "AU2": False}, {"AU1": False, "AU2": False}]
    tables = [{"AU1": 0.8, "AU2": 0.2}, {"AU1": 0.7, "AU2": 0.4}]
    items = answered(truth, given, table=tables)
    found = calibration(protocol, items)
    assert found is not None
    raw = found["raw"]
    # AU1 of the second face was not coded. Confidences 0.8, 0.8 right, 0.6 wrong.
    assert raw["n"] == 2
    assert [(each["count"], each["accuracy"]) for each in raw["bins"]] == [(1, 0), (2, 1)]
    assert raw["ECE"] == pytest.approx((0.6 + 2 * 0.2) / 3)
    assert raw["Brier"] == pytest.approx((0.04 + 0.04 + 0.36) / 3)
    likely = by_probability(protocol, items)
    # The text denies AU1 of the second face, the table says 0.7: three of four alike.
    assert likely == {
        "n": 2, "agreement": 0.75, "figures": {"mean_F1": 0.5, "mean_accuracy": 0.75},
    }  # fmt: skip


def test_deepfakes_are_one_yes_or_no() -> None:
    tables = [{"real": 0.2, "fake": 0.8}, {"real": 0.4, "fake": 0.6}]
    items = answered(["fake", "real"], ["fake", "real"], table=tables)
    found = calibration(protocol_of("deepfake"), items)
    assert found is not None
    assert found["raw"]["Brier"] == pytest.approx((0.04 + 0.36) / 2)
    assert found["raw"]["ECE"] == pytest.approx((0.2 + 0.6) / 2)
    assert by_probability(protocol_of("deepfake"), items) == {
        "n": 2, "agreement": 0.5,
        "figures": {"accuracy": 0.5, "balanced_accuracy": 0.5, "AUC": 1},
    }  # fmt: skip


def test_the_likeliest_label_as_the_verdict() -> None:
    assert by_probability(CLASSES, ITEMS) == {
        "n": 2, "figures": {"WAR": 0.5, "UAR": 0.5}, "agreement": 0.5,
    }  # fmt: skip
    # An unreadable text agrees with nothing.
    unread = [replace(ITEMS[0], given=None)]
    assert by_probability(CLASSES, unread) == {
        "n": 1, "figures": {"WAR": 1, "UAR": 1}, "agreement": 0,
    }  # fmt: skip


def test_years_are_the_expected_value() -> None:
    protocol = protocol_of("years")
    tables = [{"20": 0.5, "30": 0.25, "40": 0.25}, {"60": 0.9, "70": 0.1}]
    assert [likeliest(protocol, table) for table in tables] == [28, 61]
    items = answered([30, 60], [20, 60], table=tables)
    # Errors 2 and 1; 28 is eight from the text's 20, 61 is one from 60.
    assert by_probability(protocol, items) == {
        "n": 2, "figures": {"MAE": 1.5, "CS5": 1}, "agreement": 0.5,
    }  # fmt: skip
    assert calibration(protocol, items) is None


def test_ages_are_summed_where_groups_are_asked_about() -> None:
    protocol = PROTOCOLS["fairface/age-groups"]
    table = {"19": 0.4, "20": 0.3, "29": 0.3}
    assert likeliest(protocol, table) == "20-29"
    found = calibration(protocol, answered(["20-29"], ["10-19"], table=[table]))
    assert found is not None
    assert found["raw"]["ECE"] == pytest.approx(0.4)
    assert found["raw"]["Brier"] == pytest.approx(2 * 0.16)


def test_without_tables_there_is_nothing() -> None:
    bare = answered(["sadness"], ["sadness"])
    assert calibration(CLASSES, bare) is None
    assert by_probability(CLASSES, bare) is None
    # One attribute's probability is not the answer's.
    partly = answered([{"bald": True, "young": True}], [None], table=[{"bald": 0.9}])
    assert by_probability(protocol_of("attributes", "bald", "young"), partly) is None
