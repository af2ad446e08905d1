"""The datasets that can be built from, by the name used on the command line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from data_builders.raw_face import Drops, RawFace
from data_builders.sources import celeba, fer2013, real_fake_faces, utkface

SOURCES: Final[dict[str, Callable[[Path, Drops], Iterator[RawFace]]]] = {
    "fer2013": fer2013.rows,
    "utkface": utkface.rows,
    "celeba": celeba.rows,
    "real_fake_faces": real_fake_faces.rows,
}
