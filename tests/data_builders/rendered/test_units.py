"""Units that are drawn, and the labels that follow from them."""

import numpy as np
import pytest

from data_builders.rendered.units import (
    APART,
    CODED,
    PARTED_AT_REST,
    UNIT_SHAPES,
    Expression,
    draw_expression,
    shape_names,
    unit_labels,
    unit_weights,
)
from facellava.tasks import TASKS
from facellava.tasks.action_units import UNION

DRAWN = [draw_expression(np.random.default_rng(seed)) for seed in range(400)]


def test_every_unit_but_the_lip_tightener_has_a_shape():
    assert set(UNION) - set(CODED) == {"AU23"}
    assert all(made.reason for made in UNIT_SHAPES.values())


def test_sides_keep_their_own_strength():
    assert unit_weights("AU12", right=5, left=2.5) == {"mouthSmile_R": 1.0, "mouthSmile_L": 0.5}
    assert unit_weights("AU26", right=5, left=2.5) == {"jawOpen": 0.5}


def test_drawn_weights_are_within_the_shapes_range():
    names = shape_names()
    for expression in DRAWN:
        assert set(expression.weights) <= names
        assert all(0 <= weight <= 1 for weight in expression.weights.values())
        assert all(0 < level <= 5 for level in expression.intensities.values())


def test_units_that_undo_each_other_are_never_drawn_together():
    assert not [pair for drawn in DRAWN for pair in APART if pair <= set(drawn.intensities)]


def test_each_unit_and_no_unit_are_drawn_often_enough():
    counts = {
        unit: sum(unit in drawn.intensities for drawn in DRAWN) for unit in CODED if unit != "AU25"
    }
    assert min(counts.values()) > 0.05 * len(DRAWN)
    assert sum(not drawn.intensities for drawn in DRAWN) > 0.08 * len(DRAWN)


def test_labels_are_what_the_task_takes():
    for gap, drawn in enumerate(DRAWN):
        labels = unit_labels(drawn, gap / len(DRAWN))
        assert set(labels["action_units"]) <= set(labels["action_units_coded"])
        assert set(labels["action_unit_intensity"]) <= set(labels["action_units_coded"])
        assert TASKS["action_units"].check(labels["action_units"]) is not None


def test_two_of_five_is_active_and_less_is_a_trace():
    labels = unit_labels(Expression(intensities={"AU4": 1.99, "AU12": 2.0}), PARTED_AT_REST)
    assert labels == {
        "action_units": ["AU12"],
        "action_units_coded": list(CODED),
        "action_unit_intensity": {"AU4": 1.99, "AU12": 2.0},
    }


@pytest.mark.parametrize(
    ("gap", "intensity"), [(-0.5, None), (PARTED_AT_REST + 0.4, 2.0), (9.0, 5.0)]
)
def test_parted_lips_are_measured(gap, intensity):
    labels = unit_labels(Expression(), gap)
    assert labels["action_unit_intensity"].get("AU25") == intensity
    assert labels["action_units"] == (["AU25"] if intensity else [])


def test_what_a_face_hides_is_not_coded():
    pressed = unit_labels(Expression(intensities={"AU24": 4.0}), 0.0)
    assert set(CODED) - set(pressed["action_units_coded"]) == {"AU17"}
    both = unit_labels(Expression(intensities={"AU17": 3.0, "AU24": 4.0}), 0.0)
    assert both["action_units"] == ["AU17", "AU24"]
    asleep = unit_labels(Expression(intensities={"AU7": 4.0}, lids=1.0), 0.0)
    assert asleep["action_units"] == []
    assert set(CODED) - set(asleep["action_units_coded"]) == {"AU6", "AU7"}
