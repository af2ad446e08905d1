"""FERV39k (Wang et al., CVPR 2022): clips of 22 kinds of scenes with seven expressions.

Original layout::

    4_setups/All_scenes/train_All.csv            Action/Happy/0267 Happy
    4_setups/All_scenes/test_All.csv             the same
    2_ClipsforFaceCrop/Action/Happy/0267/*.jpg   the frames of a clip, cut to the face
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import FrameFiles
from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.clip_folders import NO_CLIP, frames_in
from data_builders.sources.published_lists import read_pairs
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "FERV39k"
LICENCE: Final = "FERV39k: non-commercial research only; film clips of their owners"
LABELS: Final = dict(zip(LABEL_SETS["ferv39k"].words, LABEL_SETS["ferv39k"].labels, strict=True))
SPLITS: Final = ("train", "test")
LAYOUT: Final = (
    "4_setups/All_scenes/train_All.csv and test_All.csv with lines such as "
    "'Action/Happy/0267 Happy', and the frames in 2_ClipsforFaceCrop/"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The clips of FERV39k.

    Raises:
        BadCorpus: another layout.
    """
    lists = root / "4_setups" / "All_scenes"
    listed = {
        split: read_pairs(require(lists / f"{split}_All.csv", NAME, LAYOUT), NAME)
        for split in SPLITS
    }
    clips = require(root / "2_ClipsforFaceCrop", NAME, LAYOUT)
    tested = {name for name, _ in listed["test"]}
    words: dict[str, set[str]] = {}
    for name, word in (*listed["train"], *listed["test"]):
        words.setdefault(name, set()).add(word)
    for split in SPLITS:
        for name, word in listed[split]:
            if split == "train" and name in tested:
                drops.add("clip is in the test list too", name)
            elif len(words[name]) > 1:
                drops.add("clip has several labels", name)
            elif word not in LABELS:
                drops.add(f"unknown label {word!r}", name)
            elif not (paths := frames_in(clips / name)):
                drops.add(NO_CLIP, name)
            else:
                yield RawFace(
                    key=name.replace("/", "-"),
                    media=FrameFiles(paths),
                    labels={"expression": LABELS[word]},
                    split=split,
                    licence=LICENCE,
                    origin=f"2_ClipsforFaceCrop/{name}",
                )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
)
