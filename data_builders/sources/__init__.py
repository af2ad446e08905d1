"""The datasets that can be built from, by the name used on the command line."""

from typing import Final

from data_builders.raw_face import Source
from data_builders.sources import celeba, fer2013, real_fake_faces, utkface
from facellava.errors import BadCorpus

SOURCES: Final[dict[str, Source]] = {
    "fer2013": fer2013.SOURCE,
    "utkface": utkface.SOURCE,
    "celeba": celeba.SOURCE,
    "real_fake_faces": real_fake_faces.SOURCE,
}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        BadCorpus: there is none.
    """
    if name not in SOURCES:
        raise BadCorpus(f"There is no source {name!r}; known are {', '.join(SOURCES)}.")
    return SOURCES[name]
