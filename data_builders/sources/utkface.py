"""UTKFace (Zhang, Song & Qi, CVPR 2017): face crops with age, gender and race in the file name.

Original layout: a folder of files (also inside a subfolder ``UTKFace``) named
``[age]_[gender]_[race]_[date].jpg``, such as ``26_1_2_20170116001536188.jpg.chip.jpg``: 26 years,
female, Asian. There is no official split; equal pictures stay together.

Parquet: ``image, age, gender, race, split, source_path``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import (
    Drops,
    RawFace,
    Source,
    pack_files,
    read_pack,
    require,
    stable_split,
)
from facellava.corpus import SPLITS
from facellava.errors import BadCorpus, BadMedia
from facellava.faces import read_photo
from facellava.tasks.age import AGES

NAME: Final = "UTKFace"
LICENCE: Final = "UTKFace: non-commercial research only"
GENDERS: Final = ("male", "female")
RACES: Final = ("White", "Black", "Asian", "Indian", "Others")  # the publisher's words
FILE_NAME: Final = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d+)\.jpg(\.chip\.jpg)?", re.IGNORECASE)
COLUMNS: Final = ("image", "age", "gender", "race", "split", "source_path")
LAYOUT: Final = (
    "files named [age]_[gender]_[race]_[date].jpg in the folder or in its subfolder UTKFace, or "
    f"Parquet files with the columns {', '.join(COLUMNS)}"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of UTKFace.

    Raises:
        BadCorpus: neither layout is there.
    """
    return _pack_rows(root, drops) if pack_files(root) else _file_rows(root, drops)


def _pack_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    for row in read_pack(root, NAME, COLUMNS, named_by="source_path", drops=drops):
        name = Path(row["source_path"]).name
        if row["split"] not in SPLITS:
            drops.add(f"unknown split {row['split']!r}", name)
            continue
        face = _face(name, row["age"], row["gender"], row["race"], drops)
        if face is not None:
            key, labels, demographics = face
            yield RawFace(
                key=key,
                media=Picture(row["image"]),
                labels=labels,
                split=row["split"],
                demographics=demographics,
                licence=LICENCE,
                origin=row["source_path"],
            )


def _file_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    folder = root / "UTKFace" if (root / "UTKFace").is_dir() else root
    require(folder, NAME, LAYOUT)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".jpg")
    if not paths:
        raise BadCorpus(f"{NAME}: '{folder}' holds no .jpg file; expected {LAYOUT}.")
    for path in paths:
        name = FILE_NAME.fullmatch(path.name)
        if name is None:
            drops.add("file name lacks age, gender, race or date", path.name)
            continue
        face = _face(path.name, int(name[1]), int(name[2]), int(name[3]), drops)
        if face is None:
            continue
        picture = path.read_bytes()
        try:
            pixels = read_photo(picture)
        except BadMedia:
            drops.add("picture cannot be read", path.name)
            continue
        key, labels, demographics = face
        yield RawFace(
            key=key,
            media=Picture(picture),
            labels=labels,
            split=stable_split(hashlib.sha256(pixels.tobytes()).hexdigest()),
            demographics=demographics,
            licence=LICENCE,
            origin=path.relative_to(root).as_posix(),
        )


def _face(
    name: str, age: int, gender: int, race: int, drops: Drops
) -> tuple[str, dict[str, int], dict[str, str]] | None:
    """Key, labels and demographics; None, and counted, where a value is out of range."""
    if age not in AGES:
        drops.add(f"age outside {AGES[0]}..{AGES[-1]}", name)
        return None
    if gender not in range(len(GENDERS)) or race not in range(len(RACES)):
        drops.add("unknown gender or race", name)
        return None
    key = name.lower().removesuffix(".jpg").removesuffix(".chip").removesuffix(".jpg")
    return key, {"age": age}, {"gender": GENDERS[gender], "race": RACES[race]}


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="web pictures, not asked",
)
