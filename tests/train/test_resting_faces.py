"""Who is at rest, and who stands beside whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from train.face_arrays import EXPRESSIONS, UNITS, FaceArrays
from train.resting_faces import RestingFaces

NEUTRAL, HAPPY = EXPRESSIONS.index("neutral"), EXPRESSIONS.index("happiness")


@pytest.fixture
def resting(mini_arrays: FaceArrays) -> RestingFaces:
    """Photos of a set with expressions (0 to 2), of one with units (3 to 7), of one without."""
    units = np.full((10, len(UNITS)), -1, np.int8)
    units[3:8] = 0
    units[[4, 5, 7], 2] = 1
    arrays = replace(
        mini_arrays,
        expression=np.array([NEUTRAL, HAPPY, NEUTRAL, -1, -1, -1, -1, -1, -1, HAPPY]),
        units=units,
        source=np.array(["web"] * 3 + ["drawn"] * 5 + ["other"] * 2),
    )
    people = ["a", "b", "c", "ann", "ann", "ben", "cat", "cat", "x", "y"]
    return RestingFaces(arrays, people)


def test_faces_that_show_something_in_sets_with_faces_at_rest(resting: RestingFaces) -> None:
    # The last one smiles, and nobody of its set is at rest.
    assert np.flatnonzero(resting.expressive).tolist() == [1, 4, 5, 7]


def test_the_same_person_where_there_is_a_face_of_theirs(resting: RestingFaces) -> None:
    torch.manual_seed(0)
    assert resting.beside(4, 3) == [3, 3, 3]
    assert resting.beside(7, 2) == [6, 6]
    assert set(resting.beside(5, 40)) == {3, 6}
    assert set(resting.beside(1, 40)) == {0, 2}


def test_no_face_at_rest_at_all(mini_arrays: FaceArrays) -> None:
    count = len(mini_arrays)
    smiling = replace(
        mini_arrays,
        expression=np.full(count, HAPPY),
        units=np.full((count, len(UNITS)), -1, np.int8),
    )
    assert not RestingFaces(smiling, ["a"] * count).expressive.any()
