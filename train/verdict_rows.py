"""Rows that teach verdicts alone, by soft labels: many faces, both forms, few words.

An answer with its reasons is long, and its list of units is always the true one: what to say next
behind a wrong one is never seen. These rows end with the verdict, and their lists are drawn from
the soft labels.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facellava.processor import FaceLlavaProcessor
from facellava.tasks import Label
from train.face_arrays import ABSENT, ATTRIBUTES, EXPRESSIONS, UNITS, FaceArrays
from train.heads import AGES
from train.rare_fakes import MixedFakes
from train.resting_faces import RestingFaces
from train.rows import Row
from train.soft_labels import SoftLabels
from train.twin_rows import FRAMES, SHOWN, as_clip, naming_row

# Of all rows: lists are hardest, JSON years and lists go astray most easily.
SHARES: Final[dict[tuple[str, str], float]] = {
    ("action_units", "prose"): 0.20,
    ("action_units", "json"): 0.10,
    ("expression", "prose"): 0.21,
    ("expression", "json"): 0.13,
    ("age", "prose"): 0.09,
    ("age", "json"): 0.11,
    ("attributes", "prose"): 0.04,
    ("attributes", "json"): 0.05,
    ("deepfake", "prose"): 0.04,
    ("deepfake", "json"): 0.03,
}
# Of these soft labels mean something for any face, also without a label.
OF_EVERY_FACE: Final = ("expression", "age")
ANY_FACE: Final = 0.3
CLIPS: Final = 0.3  # of prose rows about what moves
MIXED_IN_JSON: Final = 0.3


def verdict_rows(
    soft: SoftLabels,
    arrays: FaceArrays,
    resting: RestingFaces | None,
    processor: FaceLlavaProcessor,
    count: int,
    seed: int = 0,
) -> list[Row]:
    """As many rows, fewer where a task has no labelled face.

    Args:
        soft: of the faces, mixed with their labels.
        arrays: their labels.
        resting: who stands beside a face in clips; None makes none.
        processor: of the model.
        count: of rows.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    labelled = _labelled(arrays)
    rows = []
    for (task, form), share in SHARES.items():
        faces = labelled[task].tolist()
        known = np.flatnonzero(np.isfinite(soft.years + soft.expression[:, 0])).tolist() or faces
        for _ in range(round(share * count) if faces else 0):
            any_face = task in OF_EVERY_FACE and draw.random() < ANY_FACE
            face = draw.choice(known if any_face else faces)
            label = drawn_label(task, soft, face, draw)
            row = naming_row(face, task, label, form, processor, draw)
            shown = resting is not None and task in SHOWN and bool(resting.expressive[face])
            if shown and form == "prose" and draw.random() < CLIPS:
                row = as_clip(row, processor.clip_length(draw.choice(FRAMES)), processor)
            rows.append(row)
    return rows


def mixed_rows(
    mixes: MixedFakes, processor: FaceLlavaProcessor, count: int, seed: int = 0
) -> list[Row]:
    """As many rows to be shown mixed, half of them about generated faces; none where none is rare.

    Args:
        mixes: whose faces they are about.
        processor: of the model.
        count: of rows.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    faces = {"real": mixes.of_label(0), "fake": mixes.of_label(1)}
    rows = []
    for number in range(count if all(faces.values()) else 0):
        label = ("real", "fake")[number % 2]
        form = "json" if draw.random() < MIXED_IN_JSON else "prose"
        face = draw.choice(faces[label])
        rows.append(replace(naming_row(face, "deepfake", label, form, processor, draw), mixed=True))
    return rows


def drawn_label(task: str, soft: SoftLabels, face: int, draw: random.Random) -> Label:
    """The likeliest word or year; of lists, each entry by its probability."""
    if task == "expression":
        return EXPRESSIONS[int(soft.expression[face].argmax())]
    if task == "age":
        return int(np.clip(np.rint(soft.years[face]), 0, AGES - 1))
    if task == "deepfake":
        return "fake" if soft.fake[face] > 0.5 else "real"
    if task == "attributes":
        said = zip(ATTRIBUTES, soft.attributes[face].tolist(), strict=True)
        return {name: draw.random() < share for name, share in said}
    active = zip(UNITS, soft.units[face].tolist(), strict=True)
    return tuple(unit for unit, share in active if draw.random() < share)


def _labelled(arrays: FaceArrays) -> dict[str, NDArray[np.int64]]:
    known = {
        "action_units": (arrays.units != ABSENT).any(axis=1),
        "expression": arrays.expression != ABSENT,
        "age": arrays.age != ABSENT,
        "attributes": (arrays.attributes != ABSENT).any(axis=1),
        "deepfake": arrays.fake != ABSENT,
    }
    return {task: np.flatnonzero(faces) for task, faces in known.items()}
