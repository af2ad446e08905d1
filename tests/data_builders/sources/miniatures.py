"""Miniatures of datasets: a few small files in the places where the publisher has them."""

from collections.abc import Mapping
from pathlib import Path

from data_builders.raw_face import Drops, RawFace
from data_builders.sources import SOURCES


def read(source: str, root: Path) -> tuple[list[RawFace], Drops]:
    """All rows of a dataset, and what was left out."""
    drops = Drops()
    return list(SOURCES[source].rows(root, drops)), drops


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    """Files by their paths within the dataset; a reader of rows opens no picture and no clip."""
    for name, contents in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
