"""MAFW (Liu et al., ACM Multimedia 2022): clips with eleven expressions, five folds, descriptions.

Original layout; the lists name the clips that have a single label::

    Train & Test Set/single/no_caption/set_1/train.txt      00025.mp4 happiness
    Train & Test Set/single/no_caption/set_1/test.txt       the same, for the folds 1 to 5
    clips/00025.mp4                                         or data/clips/, or frames in
                                                            data/frames/00025/
    Train & Test Set/single/with_caption/set_1/train.txt    optional, also test.txt: name, label,
                                                            Chinese and English text between tabs

The folder of the lists may also be named ``split``. Descriptions are also read from
``caption-label/single_label.txt``: ``03747.mp4 anger <br>... <br> A man speaks excitedly to the man
in front of him. The deep frown and the slightly wrinkled nose.`` Neutral clips have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.clip_folders import NO_CLIP, clip_in, present_folders
from data_builders.sources.published_lists import clips_of_folds, read_pairs
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "MAFW"
LICENCE: Final = "MAFW: non-commercial research only; film clips of their owners"
FOLDS: Final = 5
LABELS: Final = dict(zip(LABEL_SETS["mafw11"].words, LABEL_SETS["mafw11"].labels, strict=True))
LISTS: Final = ("Train & Test Set", "split")
CLIPS: Final = ("clips", "data/clips", "data/frames")
SINGLE_LABEL: Final = "caption-label/single_label.txt"
LAYOUT: Final = (
    "'Train & Test Set/single/no_caption/' or 'split/single/no_caption/' with the folders set_1 to "
    f"set_5 of train.txt and test.txt, and the clips in one of {', '.join(CLIPS)}"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The clips of MAFW with a single label.

    Raises:
        BadCorpus: another layout, or lists that contradict each other.
    """
    single = present_folders(root, LISTS, NAME, LAYOUT)[0] / "single"
    lists = []
    for fold in range(1, FOLDS + 1):
        folder = single / "no_caption" / f"set_{fold}"
        train, test = (
            read_pairs(require(folder / f"{part}.txt", NAME, LAYOUT), NAME)
            for part in ("train", "test")
        )
        lists.append((train, test))
    folders = present_folders(root, CLIPS, NAME, LAYOUT)
    captions = _captions(root, single / "with_caption" / "set_1")
    for tested in clips_of_folds(NAME, lists, drops):
        if tested.label not in LABELS:
            drops.add(f"unknown label {tested.label!r}", tested.name)
            continue
        stem = Path(tested.name).stem
        media = clip_in(folders, (stem,))
        if media is None:
            drops.add(NO_CLIP, tested.name)
            continue
        yield RawFace(
            key=stem,
            media=media,
            labels={"expression": LABELS[tested.label]},
            split="train",
            fold=tested.fold,
            licence=LICENCE,
            origin=f"single/no_caption/set_{tested.fold}/test.txt:{tested.name}",
            reference=captions.get(tested.name),
        )


def _captions(root: Path, folder: Path) -> dict[str, str]:
    """Clip name to its English description, of the files that are there."""
    captions = {}
    for path in (folder / "train.txt", folder / "test.txt", root / SINGLE_LABEL):
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            name, ending, columns = line.partition(b".mp4")
            english = _english(columns)
            if english:
                captions[(name + ending).decode("utf-8-sig", "replace")] = english
    return captions


def _english(columns: bytes) -> str:
    """The last of label, Chinese and English text; empty where one lacks or cannot be read.

    The files mix encodings, so the column is cut out before it is decoded.
    """
    filled = [column for column in re.split(rb"\t|<br>", columns) if column.strip()]
    if len(filled) < 3:
        return ""
    try:
        words = filled[-1].decode("utf-8")
    except UnicodeDecodeError:
        words = filled[-1].decode("gb18030", "replace")
    foreign = any("\u4e00" <= letter <= "\u9fff" or letter == "\ufffd" for letter in words)
    return "" if foreign else words.strip()


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
    folds=FOLDS,
)
