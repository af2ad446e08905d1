"""BP4D-Spontaneous (Zhang et al., IVC 2014): 41 people in eight tasks, action units coded by frame.

Layout::

    AUCoding/AU_OCC/F001_T1.csv    0,1,2,3,4,5,6,7,...          (first column frame, then by unit)
                                   2440,0,0,9,0,9,1,1,...       (0 absent, 1 present, 9 unknown)
    F001/T1/2440.jpg               also below the folder Sequences(2D+3D); zeros may stand
                                   before the number, as in 0001.jpg

The twelve units of the benchmark are taken. What is coded as unknown is left out of
"action_units_coded", and a frame of which nothing is known is dropped. The three folds are those of
ME-GraphAU (Luo et al., IJCAI 2022).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus
from facellava.tasks.action_units import ACTION_UNITS, BP4D

NAME: Final = "BP4D"
LICENCE: Final = "BP4D-Spontaneous: non-commercial research by the signed agreement, no passing on"
TASKS: Final = tuple(f"T{number}" for number in range(1, 9))
GENDERS: Final = {"F": "female", "M": "male"}
KNOWN: Final = {"0": False, "1": True}
UNKNOWN: Final = "9"
PARTS: Final = (
    (
        "F001", "M007", "F018", "F008", "F002", "M004", "F010", "F009", "M012", "M001", "F016",
        "M014", "F023", "M008",
    ),
    (
        "M011", "F003", "M010", "M002", "F005", "F022", "M018", "M017", "F013", "M016", "F020",
        "F011", "M013", "M005",
    ),
    (
        "F007", "F015", "F006", "F019", "M006", "M009", "F012", "M003", "F004", "F021", "F017",
        "M015", "F014",
    ),
)  # fmt: skip
# Fold 1 tests the third part, fold 3 the first.
FOLD_OF: Final = {person: 3 - place for place, part in enumerate(PARTS) for person in part}
LAYOUT: Final = (
    "AUCoding/AU_OCC/F001_T1.csv ... and F001/T1/2440.jpg ... of all "
    f"{len(FOLD_OF)} people and {len(TASKS)} tasks"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The coded frames of BP4D.

    Raises:
        BadCorpus: a person or a task is missing, or a table lacks an action unit.
    """
    codes = require(root / "AUCoding" / "AU_OCC", NAME, LAYOUT)
    pictures = root / "Sequences(2D+3D)"
    if not pictures.is_dir():
        pictures = root
    takes = [(person, task) for person in sorted(FOLD_OF) for task in TASKS]
    for person, task in takes:
        require(codes / f"{person}_{task}.csv", NAME, LAYOUT)
        require(pictures / person / task, NAME, LAYOUT)
    for path in sorted(codes.glob("*.csv")):
        if path.stem not in {f"{person}_{task}" for person, task in takes}:
            drops.add("the person or task is in no fold", path.stem)
    for person, task in takes:
        found = _numbered(pictures / person / task)
        for frame, coded in _coded(codes / f"{person}_{task}.csv"):
            face = _face(f"{person}-{task}-{frame:04d}", found.get(frame), coded, root, drops)
            if face is not None:
                yield face


def _numbered(folder: Path) -> dict[int, Path]:
    """Frame number to picture, however the number is padded."""
    return {
        int(path.stem): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".jpg" and path.stem.isdigit()
    }


def _coded(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Frame number, and unit to its code."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.reader(file)
        header = [cell.strip() for cell in next(table, [])]
        places = {}
        for unit in BP4D:
            number = str(ACTION_UNITS[unit].number)
            # The first cell heads the frames.
            if number not in header[1:]:
                raise BadCorpus(
                    f"{NAME}: '{path}' has no column '{number}' for {unit}; expected the frame "
                    "number, then one column for each action unit."
                )
            places[unit] = header.index(number, 1)
        for line, row in enumerate(table, start=2):
            if len(row) != len(header) or not row[0].strip().isdigit():
                raise BadCorpus(
                    f"{NAME}: line {line} of '{path}' does not fit its header; get the file again."
                )
            yield int(row[0]), {unit: row[place].strip() for unit, place in places.items()}


def _face(
    key: str, picture: Path | None, codes: Mapping[str, str], root: Path, drops: Drops
) -> RawFace | None:
    """None, and counted, where there is no picture or nothing is known."""
    person = key.split("-")[0]
    if picture is None:
        drops.add("picture is missing", key)
        return None
    if any(code not in KNOWN and code != UNKNOWN for code in codes.values()):
        drops.add("a code other than 0, 1 and 9, no row lost: taken as unknown", key)
    coded = [unit for unit in BP4D if codes[unit] in KNOWN]
    if not coded:
        drops.add("no action unit is coded", key)
        return None
    return RawFace(
        key=key,
        media=Picture(picture, declared_crop=False),
        labels={
            "action_units": [unit for unit in coded if KNOWN[codes[unit]]],
            "action_units_coded": coded,
        },
        split="train",
        fold=FOLD_OF[person],
        subject=person,
        demographics={"gender": GENDERS[person[0]]},
        licence=LICENCE,
        origin=picture.relative_to(root).as_posix(),
    )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="participants agreed",
    folds=len(PARTS),
)
