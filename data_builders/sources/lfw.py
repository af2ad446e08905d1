"""LFW (Huang et al., 2007): 13,233 pictures of 5,749 people, to tell whether two show the same one.

Layout::

    lfw/Abel_Pacheco/Abel_Pacheco_0001.jpg   250x250; also lfw_funneled/ or lfw-deepfunneled/
    people.txt                               10             (sets)
                                             601            (people of the first set)
                                             Abel_Pacheco<tab>4
    pairs.txt                                10<tab>300     (sets, pairs of each kind in a set)
                                             Abel_Pacheco<tab>1<tab>4
                                             Abdel_Madi_Shabneh<tab>1<tab>Dean_Barker<tab>1

The folds are the ten sets of View 2, in which no person is twice. Without people.txt they are read
from pairs.txt, and who is in no pair is in no fold. View 1 (peopleDevTrain.txt) is for choosing
models on the same people and is not read. No task is asked of these faces: the identity is the
subject, and :func:`pairs` reads the pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.clip_folders import present_folders
from facellava.errors import BadCorpus

NAME: Final = "LFW"
LICENCE: Final = "LFW: press pictures of their owners, research use"
FOLDS: Final = 10
FOLDERS: Final = ("lfw", "lfw_funneled", "lfw-deepfunneled")
LAYOUT: Final = "lfw/Abel_Pacheco/Abel_Pacheco_0001.jpg ..., with people.txt or pairs.txt"


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of LFW, person by person.

    Raises:
        BadCorpus: pictures or sets are missing, or the sets cannot be read.
    """
    folder = present_folders(root, FOLDERS, NAME, LAYOUT)[0]
    folds = _folds(root)
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(person.glob("*.jpg")):
            if re.fullmatch(rf"{re.escape(person.name)}_\d{{4}}", path.stem) is None:
                drops.add("file is not named like its folder", path.name)
                continue
            yield RawFace(
                key=path.stem,
                # The person who is named fills the middle; whoever stands behind is smaller.
                media=Picture(path),
                labels={},
                split="train",
                fold=folds.get(person.name),
                subject=person.name,
                licence=LICENCE,
                origin=path.relative_to(root).as_posix(),
            )


def pairs(root: Path) -> list[tuple[str, str, bool]]:
    """The pairs of View 2: two keys of rows, and whether they show one person.

    In the order of the file: the ten sets one after the other, each first with its same pairs.

    Raises:
        BadCorpus: pairs.txt is missing or damaged.
    """
    return [pair for part in _pair_sets(root) for pair in part]


def _pair_sets(root: Path) -> list[list[tuple[str, str, bool]]]:
    path = require(root / "pairs.txt", NAME, LAYOUT)
    head, *lines = [line.split("\t") for line in _lines(path) or [""]]
    if len(head) != 2 or head[0] != str(FOLDS) or not head[1].isdigit():
        raise BadCorpus(f"{NAME}: '{path}' does not start with '{FOLDS}<tab>300'; get it again.")
    size = 2 * int(head[1])
    if len(lines) != FOLDS * size:
        raise BadCorpus(
            f"{NAME}: '{path}' holds {len(lines)} pairs, and its first line says {FOLDS * size}; "
            "get the file again."
        )
    found = [_pair(line, path) for line in lines]
    return [found[start : start + size] for start in range(0, len(found), size)]


def _pair(cells: list[str], path: Path) -> tuple[str, str, bool]:
    # Name and two numbers, or two names with a number each.
    words = [cells[0], cells[1], cells[0], cells[2]] if len(cells) == 3 else cells
    if len(words) != 4 or not words[1].isdigit() or not words[3].isdigit():
        raise BadCorpus(f"{NAME}: '{path}' holds the line {cells}, which is no pair; get it again.")
    return _key(words[0], words[1]), _key(words[2], words[3]), len(cells) == 3


def _key(person: str, number: str) -> str:
    return f"{person}_{int(number):04d}"


def _folds(root: Path) -> dict[str, int]:
    """Person to set, from 1."""
    path = root / "people.txt"
    sets = _people_sets(path) if path.is_file() else _people_in_pairs(root)
    folds: dict[str, int] = {}
    for number, people in enumerate(sets, start=1):
        for person in people:
            if folds.setdefault(person, number) != number:
                raise BadCorpus(f"{NAME}: {person} is in two sets of '{root}'; get the list again.")
    return folds


def _people_sets(path: Path) -> list[list[str]]:
    lines = _lines(path)
    sets: list[list[str]] = []
    place = 1
    while place < len(lines) and lines[place].isdigit():
        size = int(lines[place])
        people = [line.split("\t")[0] for line in lines[place + 1 : place + 1 + size]]
        if len(people) != size:
            break
        sets.append(people)
        place += 1 + size
    if lines[:1] != [str(FOLDS)] or len(sets) != FOLDS or place != len(lines):
        raise BadCorpus(
            f"{NAME}: '{path}' is not {FOLDS} sets of people, each after its size; get it again."
        )
    return sets


def _people_in_pairs(root: Path) -> list[list[str]]:
    return [[key[:-5] for pair in part for key in pair[:2]] for part in _pair_sets(root)]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
    folds=FOLDS,
)
