"""MORPH Album 2 (Ricanek & Tesafaye, FG 2006): police photos of the same people over years.

Layout: pictures in the folder or in its subfolder ``Album2``, named
``[person]_[photo][sex][age].JPG``, such as ``009055_1M54.JPG``: person 009055, second photo, male,
54 years.

Two protocols of one dataset, which must be told apart in every result:

- random: 80% of the pictures train and 20% test, so that most people of the test are in training
  too. The published lists ``label/RANDOM_80_20/train.txt`` and ``test.txt`` (lines
  ``009055_1M54.JPG 54``) decide where they are given. Without them the picture's name does, and
  results are near to published ones but not on the same pictures.
- subjects: 80% of the people train, 10% validation, 10% test, by the person's number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require, stable_split
from data_builders.sources.published_lists import read_pairs
from facellava.errors import BadCorpus
from facellava.tasks.age import AGES

NAME: Final = "MORPH II"
LICENCE: Final = "MORPH Album 2: non-commercial research by the signed agreement, no passing on"
FILE_NAME: Final = re.compile(r"(\d+)_(\d+)([MF])(\d{2,3})\.jpe?g", re.IGNORECASE)
GENDERS: Final = {"M": "male", "F": "female"}
LISTS: Final = ("train", "test")
LAYOUT: Final = (
    "pictures named [person]_[photo][sex][age].JPG in the folder or in its subfolder Album2"
)


def random_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces, split by picture.

    Raises:
        BadCorpus: no pictures, or lists that contradict themselves or the file names.
    """
    listed = _listed(root / "label" / "RANDOM_80_20")
    if not listed:
        yield from _rows(root, drops, _hashed)
        return
    for row in _rows(root, drops, lambda name: listed.get(Path(name).stem.lower(), "")):
        if row.split:
            yield row
        else:
            drops.add("picture is in neither list", row.key)


def subject_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces, split by person.

    Raises:
        BadCorpus: no pictures.
    """
    return _rows(root, drops, lambda name: stable_split(name.split("_")[0]))


def _rows(root: Path, drops: Drops, split_of: Callable[[str], str]) -> Iterator[RawFace]:
    folder = root / "Album2" if (root / "Album2").is_dir() else root
    require(folder, NAME, LAYOUT)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise BadCorpus(f"{NAME}: '{folder}' holds no .JPG file; expected {LAYOUT}.")
    for path in paths:
        facts = FILE_NAME.fullmatch(path.name)
        if facts is None:
            drops.add("file name lacks person, photo, sex or age", path.name)
        elif int(facts[4]) not in AGES:
            drops.add(f"age outside {AGES[0]}..{AGES[-1]}", path.name)
        else:
            yield RawFace(
                key=path.stem,
                media=Picture(path, declared_crop=False),
                labels={"age": int(facts[4])},
                split=split_of(path.name),
                subject=facts[1],
                demographics={"gender": GENDERS[facts[3].upper()]},
                licence=LICENCE,
                origin=path.relative_to(root).as_posix(),
            )


def _hashed(name: str) -> str:
    """80% train and the rest test: the protocol has no validation."""
    return "train" if stable_split(Path(name).stem.lower()) == "train" else "test"


def _listed(folder: Path) -> dict[str, str]:
    """Name of a picture, in lower case, to split; empty where no lists are given."""
    splits: dict[str, str] = {}
    if not folder.is_dir():
        return splits
    for split in LISTS:
        path = require(folder / f"{split}.txt", NAME, "the two lists train.txt and test.txt")
        for name, age in read_pairs(path, NAME):
            facts = FILE_NAME.fullmatch(Path(name).name)
            if facts is None or facts[4] != age:
                raise BadCorpus(
                    f"{NAME}: '{path}' gives '{name}' the age {age}; a picture's name and the age "
                    "in it are expected, such as '009055_1M54.JPG 54'."
                )
            if splits.setdefault(Path(name).stem.lower(), split) != split:
                raise BadCorpus(f"{NAME}: '{name}' is in both lists of '{folder}'.")
    return splits


RANDOM: Final = Source(
    title="MORPH II, random 80/20",
    rows=random_rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="unknown",
    people_cross_splits=True,
)
SUBJECTS: Final = Source(
    title="MORPH II, split by person",
    rows=subject_rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="unknown",
)
