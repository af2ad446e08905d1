"""Faces rendered from ICT-FaceKit: action units, landmarks and skin tone are true by construction.

ICT-FaceKit (USC Institute for Creative Technologies; Li et al., CVPR 2020, "Learning Formation of
Physically-Based Face Attributes") is a morphable face with FACS-like expression shapes. Each row is
a number from which the person, the expression and the shot are drawn; the picture is rendered where
its shard is built. :mod:`data_builders.rendered.units` says which shape stands for which unit.

Layout: the pack ``ict_facekit.npz`` with ``vertex_indices.json``, or the published folder::

    FaceXModel/generic_neutral_mesh.obj    v, vt, usemtl, f; 26,719 vertices
    FaceXModel/identity000.obj ...         the same vertices, moved
    FaceXModel/browDown_L.obj ...          one a shape
    FaceXModel/vertex_indices.json         idx_to_landmark_verts: 68 vertices
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from data_builders.media import Look
from data_builders.raw_face import Drops, RawFace, Source, stable_split
from data_builders.rendered.looks import Person, Shot, draw_person, draw_shot
from data_builders.rendered.morphable import LAYOUT, NAME, lip_gap, load_model, model_digest
from data_builders.rendered.units import Expression, draw_expression, shape_names, unit_labels
from facellava.errors import BadCorpus, MissingBackend
from facellava.faces import Face, canonical_face

if TYPE_CHECKING:
    from data_builders.rendered.studio import Studio

LICENCE: Final = "ICT-FaceKit: MIT licence"
FACES: Final = 20_000
FACES_A_PERSON: Final = 16
VERSION: Final = 1
"""Counts changes of how faces are drawn and rendered."""
PEOPLE, SHOTS = 1, 2  # keep the random numbers of people and of their pictures apart


@dataclass(frozen=True)
class Rendering:
    """One picture of the model in a folder: the number `seed` says all about it."""

    root: Path
    seed: int

    def digest(self) -> bytes:
        return hashlib.sha256(model_digest(self.root) + b"%d:%d" % (VERSION, self.seed)).digest()

    def face(self, look: Look) -> tuple[Face, ...]:
        """The face at its true landmarks; no finder looks for it.

        Raises:
            BadCorpus: the model cannot be read.
            MissingBackend: VTK is not installed, or cannot render here.
        """
        picture, landmarks = self._shot()
        return (canonical_face(picture, landmarks, source="rendered"),)

    def photo(self) -> NDArray[np.uint8]:
        """See :class:`data_builders.media.Still`; raises as :meth:`face`."""
        return self._shot()[0]

    def _shot(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        require_renderer()
        person, expression, shot = draw_scene(self.seed, shapes=identity_shapes(self.root))
        return _studio(self.root).shoot(person, expression.weights, shot)


def require_renderer() -> None:
    """Refuse to begin without the renderer.

    Raises:
        MissingBackend: VTK is not installed.
    """
    if find_spec("vtkmodules") is None:
        raise MissingBackend("Rendering faces needs VTK: pip install 'facellava[render]'.")


@lru_cache(maxsize=1)
def _studio(root: Path) -> Studio:
    # VTK takes a second to load, and those who render nothing do without.
    from data_builders.rendered.studio import Studio

    return Studio(load_model(root))


def identity_shapes(root: Path) -> int:
    """How many identity shapes the model in a folder has."""
    return len(load_model(root).identity_offsets)


def draw_scene(seed: int, shapes: int) -> tuple[Person, Expression, Shot]:
    """Who is shown, what the face does, and how it is taken."""
    rng = np.random.default_rng((SHOTS, seed))
    return _person(seed // FACES_A_PERSON, shapes), draw_expression(rng), draw_shot(rng)


@lru_cache(maxsize=8)
def _person(number: int, shapes: int) -> Person:
    return draw_person(np.random.default_rng((PEOPLE, number)), shapes)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces that will be rendered.

    Raises:
        BadCorpus: neither layout is there, or a shape that is needed is not.
        MissingBackend: VTK is not installed.
    """
    require_renderer()
    model = load_model(root)
    missing = sorted(shape_names() - set(model.expressions))
    if missing:
        raise BadCorpus(f"{NAME}: '{root}' has no shape '{missing[0]}'; expected {LAYOUT}.")
    for seed in range(FACES):
        person, expression, _ = draw_scene(seed, len(model.identity_offsets))
        gap = lip_gap(model.shaped_landmarks(person.weights, expression.weights))
        subject = f"person-{seed // FACES_A_PERSON:05d}"
        yield RawFace(
            key=f"{seed:06d}",
            media=Rendering(root, seed),
            labels=unit_labels(expression, gap),
            split=stable_split(f"{NAME}/{subject}"),
            subject=subject,
            demographics={"skin_tone": f"mst-{person.tone}"},
            licence=LICENCE,
            origin=f"seed {seed}, version {VERSION}",
        )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="no real person",
)
