"""A small corpus that several tests look at; none may change it."""

from pathlib import Path

import pytest

from data_builders.build import build
from data_builders.mixture import MixtureEntry
from tests.data_builders.small_corpus import FACES, OPTIONS, write_pictures


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> list[MixtureEntry]:
    """A UTKFace and a real_fake_faces folder."""
    root = tmp_path_factory.mktemp("raw")
    write_pictures(root / "utk", [f"{20 + n}_1_0_2017{n:04d}.jpg" for n in range(FACES)])
    (root / "utk" / "39_1_20170116174525125.jpg").write_bytes(b"bad name")
    write_pictures(root / "rff" / "real", [f"{n}.jpg" for n in range(3)])
    write_pictures(root / "rff" / "fake", [f"{n}.jpg" for n in range(3, 6)], first=3)
    return [
        MixtureEntry(name="utkface", root=root / "utk"),
        MixtureEntry(name="real_fake_faces", root=root / "rff"),
    ]


@pytest.fixture(scope="session")
def corpus(raw, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    build(raw, out, OPTIONS, workers=2)
    return out
