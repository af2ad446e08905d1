"""CK+ (Lucey et al., CVPR workshops 2010): people make an expression, from neutral to its peak.

Original layout::

    cohn-kanade-images/S005/001/S005_001_00000001.png            the first picture, neutral
    cohn-kanade-images/S005/001/S005_001_00000011.png            the last, the peak
    Emotion/S005/001/S005_001_00000011_emotion.txt               3.0000000e+00
    FACS/S005/001/S005_001_00000011_facs.txt                     9.0000000e+00   4.0000000e+00
                                                                 1.7000000e+01   2.0000000e+00

Emotions: 0 neutral, 1 anger, 2 contempt, 3 disgust, 4 fear, 5 happy, 6 sadness, 7 surprise; only
327 of the 593 sequences have one, and the others are passed over. Of each sequence the peak and the
first picture are taken. The FACS files are optional: each line is an action unit and its intensity,
0 where it was not given; those of the peak that our answers can name are kept.

There is no official split. The ten folds are by subject, every tenth of the sorted names, as
Emotion-FAN lists them (github.com/Open-Debin/Emotion-FAN,
data/txt/CK+_10-fold_sample_IDascendorder_step10.txt; it uses the peaks alone).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus
from facellava.tasks.action_units import ACTION_UNITS
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "CK+"
LICENCE: Final = "CK+: non-commercial research only, by agreement"
SUBJECTS: Final = (  # that are tested in the folds 1 to 10, without the S
    "005 035 054 064 074 084 094 106 116 130 147 501",
    "010 037 055 065 075 085 095 107 117 131 148 502",
    "011 042 056 066 076 086 096 108 119 132 149 503",
    "014 044 057 067 077 087 097 109 122 133 151 504",
    "022 045 058 068 078 088 098 110 124 134 154 505",
    "026 046 059 069 079 089 099 111 125 135 155 506",
    "028 050 060 070 080 090 100 112 126 136 156 895",
    "029 051 061 071 081 091 101 113 127 137 157 999",
    "032 052 062 072 082 092 102 114 128 138 158",
    "034 053 063 073 083 093 105 115 129 139 160",
)
FOLDS: Final = {
    f"S{number}": fold for fold, numbers in enumerate(SUBJECTS, 1) for number in numbers.split()
}
FILE_NAME: Final = re.compile(r"(S\d{3})_(\d{3})_\d{8}_emotion\.txt")
ENDING: Final = "_emotion.txt"
LAYOUT: Final = (
    "Emotion/S005/001/S005_001_00000011_emotion.txt and "
    "cohn-kanade-images/S005/001/S005_001_00000011.png"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The peaks of CK+'s sequences with an emotion, each after the sequence's neutral start.

    Raises:
        BadCorpus: another layout.
    """
    emotions = require(root / "Emotion", NAME, LAYOUT)
    pictures = require(root / "cohn-kanade-images", NAME, LAYOUT)
    paths = sorted(emotions.glob(f"*/*/*{ENDING}"))
    if not paths:
        raise BadCorpus(f"{NAME}: '{emotions}' holds no *{ENDING} file; expected {LAYOUT}.")
    for path in paths:
        stem = path.name.removesuffix(ENDING)
        name = FILE_NAME.fullmatch(path.name)
        sequence = pictures / path.parent.relative_to(emotions)
        peak = sequence / f"{stem}.png"
        if name is None:
            drops.add("file name lacks subject, sequence or frame", path.name)
        elif name[1] not in FOLDS:
            drops.add("subject is in no fold", stem)
        elif not peak.is_file():
            drops.add("picture is missing", stem)
        elif (label := _label(path)) is None:
            drops.add("emotion is not a number from 0 to 7", stem)
        elif (units := _action_units(root, path)) is None:
            drops.add("action units cannot be read", stem)
        else:
            first = min(sequence.glob("*.png"))
            if first != peak:
                yield _face(root, first, name[1], {"expression": "neutral"})
            yield _face(root, peak, name[1], {"expression": label} | units)


def _label(path: Path) -> str | None:
    try:
        number = float(path.read_text("utf-8"))
        return LABEL_SETS["ck_plus"].label_of(int(number)) if number.is_integer() else None
    except ValueError:
        return None


def _action_units(root: Path, emotion: Path) -> dict[str, Any] | None:
    """The peak's action units as a label; empty without a FACS file, None if it is damaged."""
    name = emotion.name.replace(ENDING, "_facs.txt")
    path = root / "FACS" / emotion.parent.relative_to(root / "Emotion") / name
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8", "replace").splitlines()
    try:
        numbers = [float(line.split()[0]) for line in lines if line.strip()]
    except ValueError:
        return None
    if not all(number.is_integer() for number in numbers):
        return None
    return {"action_units": [u.code for u in ACTION_UNITS.values() if u.number in numbers]}


def _face(root: Path, picture: Path, subject: str, labels: dict[str, Any]) -> RawFace:
    return RawFace(
        key=picture.stem,
        media=Picture(picture, declared_crop=False),
        labels=labels,
        split="train",
        fold=FOLDS[subject],
        subject=subject,
        licence=LICENCE,
        origin=picture.relative_to(root).as_posix(),
    )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="participants agreed",
    folds=len(SUBJECTS),
)
