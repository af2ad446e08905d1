"""FairFace (Karkkainen & Joo, WACV 2021): faces balanced by race, gender and age group.

Layout: the two tables, and the pictures of either zip (0.25 or 1.25 of margin), unzipped in the
folder or in a subfolder that is named like the zip::

    fairface_label_train.csv    file,age,gender,race,service_test
                                train/9.jpg,10-19,Male,White,True
    fairface_label_val.csv
    train/9.jpg, val/1.jpg ...

The labels are age groups, not ages, and people's traits, not tasks: they go to the demographics,
for results by group, and no task is asked of these faces. The publisher gives out no test split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus

NAME: Final = "FairFace"
LICENCE: Final = "FairFace: CC BY 4.0; the pictures come from YFCC-100M"
TABLES: Final = {"train": "fairface_label_train.csv", "validation": "fairface_label_val.csv"}
ZIPS: Final = ("fairface-img-margin025-trainval", "fairface-img-margin125-trainval")
COLUMNS: Final = ("file", "age", "gender", "race")
AGE_GROUPS: Final = {
    **{
        group: group
        for group in ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
    },
    "more than 70": "70+",  # the tables' word for it
}
GENDERS: Final = {"Male": "male", "Female": "female"}
RACES: Final = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip
LAYOUT: Final = (
    "fairface_label_train.csv and fairface_label_val.csv (file,age,gender,race,service_test) with "
    "the unzipped folders train/ and val/"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of FairFace.

    Raises:
        BadCorpus: a table or the folder of pictures is missing, or a table has other columns.
    """
    for table in TABLES.values():
        require(root / table, NAME, LAYOUT)
    unzipped = [root / name for name in ZIPS if (root / name).is_dir()]
    pictures = unzipped[0] if unzipped else root
    for folder in ("train", "val"):
        require(pictures / folder, NAME, LAYOUT)
    for split, table in TABLES.items():
        for row in _table(root / table):
            picture = pictures / row["file"]
            fault = _fault(row, picture)
            if fault:
                drops.add(fault, row["file"])
                continue
            yield RawFace(
                key=Path(row["file"]).with_suffix("").as_posix().replace("/", "-"),
                # The wide margin may show several faces, and the narrow one is found all the same.
                media=Picture(picture, declared_crop=False),
                labels={},
                split=split,
                demographics={
                    "age_group": AGE_GROUPS[row["age"]],
                    "gender": GENDERS[row["gender"]],
                    "race": row["race"],
                },
                licence=LICENCE,
                origin=picture.relative_to(root).as_posix(),
            )


def _table(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, restval="")
        for column in COLUMNS:
            if column not in (table.fieldnames or ()):
                raise BadCorpus(f"{NAME}: '{path}' has no column '{column}'; expected {LAYOUT}.")
        yield from table


def _fault(row: Mapping[str, str], picture: Path) -> str:
    """Why the row is left out; empty where it stays."""
    for column, known in (("age", AGE_GROUPS), ("gender", GENDERS), ("race", RACES)):
        if row[column] not in known:
            return f"unknown {column} {row[column]!r}"
    return "" if picture.is_file() else "picture is missing"


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="web pictures, not asked",
)
