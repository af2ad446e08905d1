"""AgeDB (Moschoglou et al., CVPR Workshops 2017): well-known people at many ages.

Layout: pictures in the folder or in its subfolder ``AgeDB``, named
``[number]_[name]_[age]_[sex].jpg``, such as ``0_MariaCallas_35_f.jpg``. There is no official split
for age; the person's name decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require, stable_split
from facellava.errors import BadCorpus
from facellava.tasks.age import AGES

NAME: Final = "AgeDB"
LICENCE: Final = "AgeDB: non-commercial research only, no passing on"
FILE_NAME: Final = re.compile(r"(\d+)_(.+)_(\d{1,3})_([mf])\.jpg", re.IGNORECASE)
GENDERS: Final = {"m": "male", "f": "female"}
LAYOUT: Final = (
    "files named [number]_[name]_[age]_[sex].jpg in the folder or in its subfolder AgeDB"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of AgeDB.

    Raises:
        BadCorpus: no pictures.
    """
    folder = root / "AgeDB" if (root / "AgeDB").is_dir() else root
    require(folder, NAME, LAYOUT)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".jpg")
    if not paths:
        raise BadCorpus(f"{NAME}: '{folder}' holds no .jpg file; expected {LAYOUT}.")
    for path in paths:
        facts = FILE_NAME.fullmatch(path.name)
        if facts is None:
            drops.add("file name lacks number, name, age or sex", path.name)
        elif int(facts[3]) not in AGES:
            drops.add(f"age outside {AGES[0]}..{AGES[-1]}", path.name)
        else:
            yield RawFace(
                key=path.stem,
                media=Picture(path, declared_crop=False),
                labels={"age": int(facts[3])},
                split=stable_split(facts[2]),
                subject=facts[2],
                demographics={"gender": GENDERS[facts[4].lower()]},
                licence=LICENCE,
                origin=path.relative_to(root).as_posix(),
            )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
)
