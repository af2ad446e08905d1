"""Slices and gaps by hand, against the plain functions, and who is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from eval.fairness import slices
from facellava.metrics import demographic_parity, equal_opportunity, equalized_odds
from tests.eval.answered import answered, at_random, protocol_of


def by_gender(kind: Any, labels: Sequence[str], **people: tuple[list[Any], list[Any]]) -> Any:
    """The slice by gender of faces given as name=(truth, given)."""
    rows = [(t, g, name) for name, lists in people.items() for t, g in zip(*lists, strict=True)]
    truth, given, names = ([row[place] for row in rows] for place in range(3))
    items = answered(truth, given, groups=[{"gender": name} for name in names])
    return slices(protocol_of(kind, *labels), items, least=2, resamples=60)["gender"]


def value(gap: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(gap[name] for name in ("value", "worst", "label") if name in gap)


@pytest.mark.parametrize(
    "ordered",
    [
        ["mst-1", "mst-2", "mst-10"],
        ["0.25", "0.5", "0.75", "1.0"],
        ["3-9", "70+", "9 to 10", "10 to 20"],
        ["2nd", "Asian", "Black", "asian"],
    ],
)
def test_groups_stand_as_people_count(ordered: list[str]) -> None:
    names = ordered[::-1]
    truth = ["fake"] * len(names)
    items = answered(truth, truth, groups=[{"tone": name} for name in names])
    assert list(slices(protocol_of("deepfake"), items)["tone"]["groups"]) == ordered


def test_deepfakes() -> None:
    # Called fake: 3 of 4 and 1 of 4. Fakes found: 2 of 2 and 1 of 2. Real called fake: 1 of 2, 0.
    found = by_gender(
        "deepfake",
        (),
        female=(["fake", "fake", "real", "real"], ["fake", "fake", "fake", "real"]),
        male=(["fake", "fake", "real", "real"], ["fake", "real", None, "real"]),
    )
    assert found["groups"]["female"]["n"] == found["groups"]["male"]["n"] == 4
    assert found["groups"]["female"]["figures"]["accuracy"]["value"] == 0.75
    gaps = found["gaps"]
    assert value(gaps["accuracy"]) == (0.25, "male")
    assert value(gaps["demographic_parity"]) == (0.5, None, "fake")
    assert value(gaps["equal_opportunity"]) == (0.5, "male", "fake")
    assert value(gaps["equalized_odds"]) == (0.5, "male", "fake")
    # Nobody gave a probability.
    assert np.isnan(gaps.pop("AUC")["value"])
    for gap in gaps.values():
        assert 0 <= gap["low"] <= gap["high"] <= 1


def test_the_worse_of_false_alarms_and_of_what_is_missed_makes_the_odds() -> None:
    gaps = by_gender(
        "deepfake",
        (),
        female=(["fake"] * 2 + ["real"] * 2, ["fake"] * 4),
        male=(["fake"] * 2 + ["real"] * 2, ["fake", "real", "real", "real"]),
    )["gaps"]
    assert value(gaps["equal_opportunity"]) == (0.5, "male", "fake")
    assert value(gaps["equalized_odds"]) == (1, "female", "fake")


def test_classes_take_the_label_that_lies_farthest_apart() -> None:
    # Sadness found: 1 and 1/2; happiness: 1/2 and 1/4 of four.
    gaps = by_gender(
        "classes",
        ("sadness", "happiness"),
        female=(["sadness"] * 2 + ["happiness"] * 4,
                ["sadness"] * 2 + ["happiness"] * 2 + [None] * 2),
        male=(["sadness"] * 2 + ["happiness"] * 4,
              ["sadness", "happiness", "happiness"] + [None] * 3),
    )["gaps"]  # fmt: skip
    assert value(gaps["WAR"]) == (pytest.approx(2 / 6), "male")
    assert value(gaps["UAR"]) == (pytest.approx(0.75 - 0.375), "male")
    assert value(gaps["equal_opportunity"]) == (0.5, "male", "sadness")
    # Answered sadness: 2 of 6 and 1 of 6; happiness 2 of 6 for both.
    assert value(gaps["demographic_parity"]) == (pytest.approx(1 / 6), None, "sadness")


def test_attributes_take_the_mean_over_labels() -> None:
    both = [{"bald": True, "young": True}] * 2 + [{"bald": False, "young": False}] * 2
    half = [{"bald": True, "young": True}, {"bald": False, "young": True}, *both[2:]]
    gaps = by_gender("attributes", ("bald", "young"), female=(both, both), male=(both, half))[
        "gaps"
    ]
    # Bald: 1 and 1/2; young: 1 and 1. So the mean gap of what is found is 1/4.
    assert value(gaps["equal_opportunity"]) == (0.25, "male", None)
    assert value(gaps["equalized_odds"]) == (0.25, "male", None)
    assert value(gaps["demographic_parity"]) == (0.25, None, "bald")
    assert value(gaps["mAcc"]) == (0.125, "male")


def test_years_are_worst_where_the_error_is_largest() -> None:
    found = by_gender("years", (), female=([20, 30], [22, 32]), male=([20, 30], [28, 38]))
    assert value(found["gaps"]["MAE"]) == (6, "male")
    assert value(found["gaps"]["CS5"]) == (1, "male")
    assert set(found["gaps"]) == {"MAE", "CS5"}
    # Every face of a group is off by as much, so no resample moves the figure.
    assert found["gaps"]["MAE"]["low"] == found["gaps"]["MAE"]["high"] == 6


def test_units_and_deepfakes_agree_with_the_plain_functions() -> None:
    names = np.random.default_rng(0).choice(["a", "b", "c"], size=150).tolist()
    for kind in ("deepfake", "units"):
        protocol, items = at_random(kind, 150, seed=8)
        items = answered(
            [item.truth for item in items],
            [item.given for item in items],
            groups=[{"race": name} for name in names],
        )
        gaps = slices(protocol, items, least=1, resamples=50)["race"]["gaps"]
        parity, chance, odds = [], [], []
        for label in ("fake",) if kind == "deepfake" else protocol.labels:
            rows = [
                row for row, item in enumerate(items) if kind == "deepfake" or label in item.truth
            ]
            pairs = [(items[row].truth, items[row].given) for row in rows]
            if kind == "deepfake":
                cases = [(truth == label, given == label) for truth, given in pairs]
            else:
                cases = [(truth[label], bool(given and given[label])) for truth, given in pairs]
            truth, said = [t for t, _ in cases], [g for _, g in cases]
            groups = [names[row] for row in rows]
            parity.append(demographic_parity(said, groups))
            chance.append(equal_opportunity(truth, said, groups))
            odds.append((chance[-1], equal_opportunity([not t for t in truth], said, groups)))
            if kind == "deepfake":
                assert equalized_odds(truth, said, groups) == max(odds[-1])
        assert gaps["demographic_parity"]["value"] == pytest.approx(max(parity))
        assert gaps["equal_opportunity"]["value"] == pytest.approx(np.mean(chance))
        assert gaps["equalized_odds"]["value"] == pytest.approx(max(np.mean(odds, axis=0)))


def test_small_groups_are_listed_without_figures() -> None:
    items = answered(
        ["fake"] * 65, ["fake"] * 65,
        groups=[{"race": "a", "gender": "x"}] * 30 + [{"race": "b", "gender": "x"}] * 29
        + [{"gender": "x"}] * 6,
    )  # fmt: skip
    found = slices(protocol_of("deepfake"), items, resamples=20)
    assert list(found) == ["gender", "race"]
    assert found["race"]["groups"]["b"] == {"n": 29, "figures": {}, "note": "too few"}
    assert found["race"]["groups"]["a"]["figures"]["accuracy"] == {
        "value": 1, "low": 1, "high": 1,
    }  # fmt: skip
    # One group is left to compare with nobody, and the six faces without a race are in none.
    assert found["race"]["gaps"] == {}
    assert found["gender"]["groups"]["x"]["n"] == 65
    assert slices(protocol_of("deepfake"), answered(["fake"], ["fake"])) == {}


def test_a_rate_over_few_faces_does_not_count() -> None:
    # 40 faces a group, but one fake in the second: its share of found fakes says nothing.
    truth = ["fake"] * 40 + ["fake"] + ["real"] * 39
    groups = [{"gender": "female"}] * 40 + [{"gender": "male"}] * 40
    items = answered(truth, ["fake"] * 40 + ["real"] * 40, groups=groups)
    gaps = slices(protocol_of("deepfake"), items, resamples=20)["gender"]["gaps"]
    assert value(gaps["demographic_parity"]) == (1, None, "fake")
    for name in ("equal_opportunity", "equalized_odds"):
        assert np.isnan(gaps[name]["value"])
        assert gaps[name]["worst"] is None


def test_groups_of_ages_stand_from_young_to_old() -> None:
    ages = ["20-29", "3-9", "70+", "unknown", "0-2", "10-19"]
    items = answered([30] * 6, [30] * 6, groups=[{"age": age} for age in ages])
    found = slices(protocol_of("years"), items)["age"]["groups"]
    assert list(found) == ["0-2", "3-9", "10-19", "20-29", "70+", "unknown"]


def test_a_group_is_not_compared_by_the_label_that_makes_it() -> None:
    attributes = protocol_of("attributes", "male", "smiling")
    people = [{"male": male, "smiling": False} for male in (True, False) for _ in range(30)]
    groups = [{"gender": "male" if each["male"] else "female"} for each in people]
    gaps = slices(attributes, answered(people, people, groups=groups))["gender"]["gaps"]
    assert gaps["demographic_parity"]["value"] == 0
    fakes = ["fake"] * 30 + ["real"] * 30
    made = [{"method": "FaceSwap"}] * 30 + [{"method": "none"}] * 30
    gaps = slices(protocol_of("deepfake"), answered(fakes, fakes, groups=made))["method"]["gaps"]
    assert set(gaps) == {"accuracy", "balanced_accuracy", "AUC"}
