"""Celeb-DF v2 (Li et al., CVPR 2020): clips of celebrities from YouTube, and faces swapped in them.

Layout::

    Celeb-real/id0_0000.mp4               590 clips
    YouTube-real/00170.mp4                300
    Celeb-synthesis/id0_id1_0000.mp4      5,639: the clip id0_0000 with the face of id1
    List_of_testing_videos.txt            1 YouTube-real/00170.mp4      (518 lines; 1 is real)

The list is the test, the rest is training; there is no validation. People of the test are in
training too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import ClipFile
from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.published_lists import read_pairs
from facellava.errors import BadCorpus

NAME: Final = "Celeb-DF v2"
LICENCE: Final = "Celeb-DF v2: non-commercial research by the signed agreement, no passing on"
LIST: Final = "List_of_testing_videos.txt"
LABEL_OF: Final = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
LISTED: Final = {"1": "real", "0": "fake"}  # the reverse of most code
PERSON: Final = re.compile(r"(id\d+)_.+")
LAYOUT: Final = f"the folders {', '.join(LABEL_OF)} with .mp4 files, and {LIST}"


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The clips of Celeb-DF v2.

    Raises:
        BadCorpus: a folder or the list is missing, or a label of the list contradicts its folder.
    """
    tested = _tested(require(root / LIST, NAME, LAYOUT))
    clips: dict[str, list[Path]] = {}
    for folder in LABEL_OF:
        clips[folder] = sorted(require(root / folder, NAME, LAYOUT).glob("*.mp4"))
        if not clips[folder]:
            raise BadCorpus(f"{NAME}: '{root / folder}' holds no .mp4 file; expected {LAYOUT}.")
    for name in sorted(tested):
        if not (root / name).is_file():
            drops.add("clip of the test list is missing", name)
    for folder, paths in clips.items():
        for path in paths:
            name = f"{folder}/{path.name}"
            person = PERSON.fullmatch(path.stem)
            yield RawFace(
                key=f"{folder}-{path.stem}",
                media=ClipFile(path),
                labels={"deepfake": LABEL_OF[folder]},
                split="test" if name in tested else "train",
                subject=person[1] if person else None,
                licence=LICENCE,
                origin=name,
            )


def _tested(path: Path) -> set[str]:
    """The clips of the list."""
    names = set()
    for number, name in read_pairs(path, NAME):
        label = LABEL_OF.get(name.split("/")[0])
        if number not in LISTED or label is None:
            raise BadCorpus(
                f"{NAME}: '{path}' holds the line '{number} {name}'; expected lines such as "
                "'1 YouTube-real/00170.mp4'."
            )
        if LISTED[number] != label:
            raise BadCorpus(
                f"{NAME}: '{path}' calls {name} {LISTED[number]}, which its folder contradicts "
                "(1 is real, 0 is fake); get the list again."
            )
        names.add(name)
    return names


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
    people_cross_splits=True,
)
