"""Faces at rest, which stand in a clip beside a face that shows something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from train.face_arrays import EXPRESSIONS, FaceArrays


class RestingFaces:
    """Of each dataset those that are labelled neutral, or that move no coded unit.

    Args:
        arrays: the faces.
        people: of each face whose it is.

    Attributes:
        expressive: bool (N,), faces that show an expression or a unit, in datasets that hold a face
            at rest too.
    """

    def __init__(self, arrays: FaceArrays, people: Sequence[str]) -> None:
        self.source, self.people = arrays.source, np.asarray(people)
        neutral = arrays.expression == EXPRESSIONS.index("neutral")
        active = (arrays.units == 1).any(axis=1)
        still = (arrays.units == 0).any(axis=1) & ~active
        at_rest = np.flatnonzero((neutral | still) & ~active)
        self.of_source = _groups(self.source[at_rest], at_rest)
        self.of_person = _groups(self.people[at_rest], at_rest)
        shows = ((arrays.expression >= 0) & ~neutral) | active
        self.expressive = shows & np.isin(self.source, [*self.of_source])

    def beside(self, face: int, count: int) -> list[int]:
        """So many faces at rest: the same person's where there are any, else of its dataset.

        Args:
            face: one of `expressive`.
        """
        own = self.of_person.get(str(self.people[face]))
        pool = self.of_source[str(self.source[face])] if own is None else own
        return [int(face) for face in pool[torch.randint(len(pool), (count,)).numpy()]]


def _groups(names: NDArray[np.str_], values: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    order = np.argsort(names, kind="stable")
    kinds, starts = np.unique(names[order], return_index=True)
    parts = np.split(values[order], starts[1:])
    return {str(kind): part for kind, part in zip(kinds, parts, strict=True)} if len(names) else {}
