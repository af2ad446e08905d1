"""AffectNet (Mollahosseini, Hasani & Mahoor, IEEE TAC 2017): web faces, eight or seven expressions.

Original layout of the part that people labelled::

    train_set/images/0.jpg               a face, 224x224
    train_set/annotations/0_exp.npy      its class as one number or text, such as '1'
    val_set/images/, val_set/annotations/    the same; the usual test set

Classes: 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt; the protocol
with seven leaves contempt out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "AffectNet"
LICENCE: Final = "AffectNet: non-commercial research only, by agreement"
FOLDERS: Final = {"train_set": "train", "val_set": "test"}
ENDING: Final = "_exp.npy"
LAYOUT: Final = (
    "train_set/images/<id>.jpg, train_set/annotations/<id>_exp.npy, and the same in val_set/"
)


def rows(root: Path, drops: Drops, *, label_set: str) -> Iterator[RawFace]:
    """The faces of AffectNet whose class the label set has.

    Raises:
        BadCorpus: another layout.
    """
    for name, split in FOLDERS.items():
        pictures = require(root / name / "images", NAME, LAYOUT)
        folder = require(root / name / "annotations", NAME, LAYOUT)
        annotations = sorted(folder.glob(f"*{ENDING}"), key=_order)
        if not annotations:
            raise BadCorpus(f"{NAME}: '{folder}' holds no *{ENDING} file; expected {LAYOUT}.")
        for annotation in annotations:
            picture = pictures / f"{annotation.name.removesuffix(ENDING)}.jpg"
            origin = picture.relative_to(root).as_posix()
            if not picture.is_file():
                drops.add("picture is missing", origin)
                continue
            class_id = _class_id(annotation)
            if class_id is None:
                drops.add("annotation cannot be read", origin)
                continue
            try:
                label = LABEL_SETS[label_set].label_of(class_id)
            except ValueError:
                drops.add(f"class {class_id} is not in the protocol", origin)
                continue
            yield RawFace(
                key=f"{name}-{picture.stem}",
                media=Picture(picture),
                labels={"expression": label},
                split=split,
                licence=LICENCE,
                origin=origin,
            )


def _order(path: Path) -> tuple[int, str]:
    """By number: 9 before 10."""
    return len(path.name), path.name


def _class_id(path: Path) -> int | None:
    """The whole number that an annotation holds, as a number or as text; None where it has none."""
    try:
        # Mapped, a file that announces more than it holds is refused without memory for it.
        value = float(np.load(path, mmap_mode="r", allow_pickle=False).item())
    except (OSError, EOFError, TypeError, ValueError):
        return None
    return int(value) if value.is_integer() else None


def _source(label_set: str) -> Source:
    return Source(
        title=f"{NAME}, {len(LABEL_SETS[label_set].labels)} classes",
        rows=partial(rows, label_set=label_set),
        layout=LAYOUT,
        licence=LICENCE,
        consent="web pictures, not asked",
    )


SOURCE_7: Final = _source("affectnet7")
SOURCE_8: Final = _source("affectnet8")
