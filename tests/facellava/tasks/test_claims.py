"""The claims that tasks name against the inventory of claims."""

from __future__ import annotations

import pytest

from facellava.claims import CLAIMS
from facellava.tasks import ANSWERABLE, TASKS
from facellava.tasks.action_units import UNION
from facellava.tasks.attribute_table import NAMES


@pytest.mark.parametrize("task", ANSWERABLE)
def test_every_claim_id_exists_and_every_claim_for_a_label_may_be_used(task: str) -> None:
    used = set(TASKS[task].claim_ids)
    assert used
    assert used <= set(CLAIMS)
    for label, ids in TASKS[task].claims_for.items():
        assert ids, label
        assert len(set(ids)) == len(ids)
        assert set(ids) <= used


def test_claims_are_filed_under_words_that_answers_hold() -> None:
    for task in ("expression", "age", "deepfake"):
        assert tuple(sorted(TASKS[task].claims_for)) == tuple(sorted(TASKS[task].labels))
    assert set(TASKS["action_units"].claims_for) == {*UNION, "none"}
    sides = {f"{name} {word}" for name in NAMES for word in ("yes", "no")}
    assert set(TASKS["attributes"].claims_for) <= sides


def test_no_label_is_supported_by_both_sides_of_one_measurement() -> None:
    for task in ANSWERABLE:
        for label, ids in TASKS[task].claims_for.items():
            directions: dict[str, set[int]] = {}
            for claim in map(CLAIMS.__getitem__, ids):
                directions.setdefault(claim.measurement, set()).add(claim.direction)
            # Contempt lifts either lip corner, and a dimple shows on either side.
            if label not in ("contempt", "AU14"):
                assert all({1, -1} - found for found in directions.values()), label
