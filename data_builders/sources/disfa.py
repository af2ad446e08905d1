"""DISFA (Mavadati et al., IEEE TAC 2013): 27 people watching clips, action units coded 0 to 5.

Layout::

    ActionUnit_Labels/SN001/SN001_au1.txt       1,0
                                                2,0     (frame from 1, intensity)
    Videos_LeftCamera/LeftVideoSN001_comp.avi   4845 frames, 20 a second

Every frame of the left camera is a row, in the clip's order; the right camera shows the same faces
again and is not read. Of the coded units the eight of the benchmark are taken, and a unit counts as
active from intensity 2. A unit without a file is taken as not active in that clip, as the benchmark
does, and is counted. The three folds are those of ME-GraphAU (Luo et al., IJCAI 2022).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import ClipFrame
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus
from facellava.tasks.action_units import DISFA

NAME: Final = "DISFA"
LICENCE: Final = "DISFA: research use by the signed agreement, no passing on"
ACTIVE: Final = 2  # intensity from which a unit counts as active
LINE: Final = re.compile(r"\s*([1-9]\d*)\s*,\s*([0-5])\s*")
PARTS: Final = (
    ("SN002", "SN010", "SN001", "SN026", "SN027", "SN032", "SN030", "SN009", "SN016"),
    ("SN013", "SN018", "SN011", "SN028", "SN012", "SN006", "SN031", "SN021", "SN024"),
    ("SN003", "SN029", "SN023", "SN025", "SN008", "SN005", "SN007", "SN017", "SN004"),
)
# Fold 1 tests the third part, fold 3 the first.
FOLD_OF: Final = {person: 3 - place for place, part in enumerate(PARTS) for person in part}
LAYOUT: Final = (
    "ActionUnit_Labels/SN001/SN001_au1.txt ... and Videos_LeftCamera/LeftVideoSN001_comp.avi ... "
    f"of all {len(FOLD_OF)} people"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The frames of DISFA.

    Raises:
        BadCorpus: a person or a clip is missing, or a label file has other lines.
    """
    labels = require(root / "ActionUnit_Labels", NAME, LAYOUT)
    videos = require(root / "Videos_LeftCamera", NAME, LAYOUT)
    # The publisher's spelling varies: LeftVideoSN001_comp.avi, leftVideoSN002_Comp.avi.
    found = {path.name.lower(): path for path in videos.iterdir()}
    clips = {}
    for person in sorted(FOLD_OF):
        require(labels / person, NAME, LAYOUT)
        name = f"LeftVideo{person}_comp.avi"
        clips[person] = found.get(name.lower()) or require(videos / name, NAME, LAYOUT)
    for folder in sorted(labels.glob("SN*")):
        if folder.name not in FOLD_OF:
            drops.add("the person is in no fold", folder.name)
    for person, clip in clips.items():
        yield from _frames(person, labels / person, clip, root, drops)


def _frames(person: str, folder: Path, clip: Path, root: Path, drops: Drops) -> Iterator[RawFace]:
    coded: dict[str, dict[int, int]] = {}
    for unit in DISFA:
        path = folder / f"{person}_{unit.lower()}.txt"
        if path.is_file():
            coded[unit] = _intensities(path)
        else:
            drops.add(f"no file of {unit}, no row lost: taken as not active in the clip", person)
    if not coded:
        raise BadCorpus(f"{NAME}: '{folder}' holds no label file; expected {LAYOUT}.")
    for frame in sorted(set().union(*coded.values())):
        key = f"{person}-{frame:04d}"
        if any(frame not in intensities for intensities in coded.values()):
            drops.add("frame is not in the file of every action unit", key)
            continue
        intensity = {unit: coded[unit][frame] if unit in coded else 0 for unit in DISFA}
        yield RawFace(
            key=key,
            media=ClipFrame(clip, frame - 1),
            labels={
                "action_units": [unit for unit in DISFA if intensity[unit] >= ACTIVE],
                "action_units_coded": list(DISFA),
                "action_unit_intensity": intensity,
            },
            split="train",
            fold=FOLD_OF[person],
            subject=person,
            licence=LICENCE,
            origin=f"{clip.relative_to(root).as_posix()}:{frame}",
        )


def _intensities(path: Path) -> dict[int, int]:
    """Frame to intensity."""
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        values = LINE.fullmatch(line)
        if values is None:
            raise BadCorpus(
                f"{NAME}: line {number} of '{path}' is {line!r}; a frame from 1 and an intensity "
                "from 0 to 5 are expected, such as '1,0'."
            )
        found[int(values[1])] = int(values[2])
    return found


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="participants agreed",
    folds=len(PARTS),
)
