"""DFEW (Jiang et al., ACM Multimedia 2020): clips of films with seven expressions, five folds.

Original layout; the lists name the clips that have a single label::

    EmoLabel_DataSplit/train(single-labeled)/set_1.csv    video_name,label
                                                          2522,6
    EmoLabel_DataSplit/test(single-labeled)/set_1.csv     the same, for the folds 1 to 5
    Clip/clip_224x224/02522/                              its frames, cut to the face
    Clip/original/2522.mp4                                the clip as it was cut from the film

Labels: 1 happy, 2 sad, 3 neutral, 4 angry, 5 surprise, 6 disgust, 7 fear. ``Clip/jpg_256``, a
copy of the frames under the name that MAE-DFER gave it, and clips as ``02522.mp4`` are read too;
frames cut to the face come before the original clip.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.clip_folders import NO_CLIP, clip_in, present_folders
from data_builders.sources.published_lists import clips_of_folds
from facellava.errors import BadCorpus
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "DFEW"
LICENCE: Final = "DFEW: non-commercial research and education only; film clips of their owners"
FOLDS: Final = 5
COLUMNS: Final = ("video_name", "label")
CLIPS: Final = ("Clip/clip_224x224", "Clip/jpg_256", "Clip/original")
LAYOUT: Final = (
    "EmoLabel_DataSplit/train(single-labeled)/set_1.csv to set_5.csv, the same for "
    f"test(single-labeled), and the clips in one of {', '.join(CLIPS)}"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The single-labelled clips of DFEW.

    Raises:
        BadCorpus: another layout, or lists that contradict each other.
    """
    lists = [
        (_read_list(root, "train", fold), _read_list(root, "test", fold))
        for fold in range(1, FOLDS + 1)
    ]
    folders = present_folders(root, CLIPS, NAME, LAYOUT)
    for tested in clips_of_folds(NAME, lists, drops):
        try:
            label = LABEL_SETS["dfew"].label_of(int(tested.label))
        except ValueError:
            drops.add(f"unknown label {tested.label!r}", tested.name)
            continue
        media = clip_in(folders, (tested.name, tested.name.lstrip("0")))
        if media is None:
            drops.add(NO_CLIP, tested.name)
            continue
        yield RawFace(
            key=tested.name,
            media=media,
            labels={"expression": label},
            split="train",
            fold=tested.fold,
            licence=LICENCE,
            origin=f"test(single-labeled)/set_{tested.fold}.csv:{tested.name}",
        )


def _read_list(root: Path, part: str, fold: int) -> list[tuple[str, str]]:
    folder = root / "EmoLabel_DataSplit" / f"{part}(single-labeled)"
    path = require(folder / f"set_{fold}.csv", NAME, LAYOUT)
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise BadCorpus(
                f"{NAME}: '{path}' has the columns {table.fieldnames}; expected video_name,label."
            )
        return [(row["video_name"].strip().zfill(5), (row["label"] or "").strip()) for row in table]


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
    folds=FOLDS,
)
