"""RAF-DB (Li, Deng & Du, CVPR 2017), basic part: web faces with seven expressions.

Original layout, with or without the folder ``basic`` around it::

    basic/EmoLabel/list_patition_label.txt                   train_00001.jpg 5
    basic/Image/aligned/train_00001_aligned.jpg              100x100
    basic/Annotation/manual/train_00001_manu_attri.txt       optional: five lines of points, then
                                                             gender, race and age group

Labels: 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral. Names start with
their split, train or test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, require
from data_builders.sources.published_lists import read_pairs
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "RAF-DB"
LICENCE: Final = "RAF-DB: non-commercial research only"
SPLITS: Final = ("train", "test")
# Line of a manual annotation to what its numbers 0, 1, ... mean, in the publisher's words; gender
# has a 2 for unsure, which says nothing.
FACTS: Final = {
    5: ("gender", ("male", "female")),
    6: ("race", ("Caucasian", "African-American", "Asian")),
    7: ("age_group", ("0-3", "4-19", "20-39", "40-69", "70+")),
}
LAYOUT: Final = (
    "basic/EmoLabel/list_patition_label.txt and basic/Image/aligned/train_00001_aligned.jpg"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of RAF-DB with a basic expression.

    Raises:
        BadCorpus: another layout.
    """
    basic = root / "basic" if (root / "basic").is_dir() else root
    listed = require(basic / "EmoLabel" / "list_patition_label.txt", NAME, LAYOUT)
    pictures = require(basic / "Image" / "aligned", NAME, LAYOUT)
    for name, class_id in read_pairs(listed, NAME):
        stem = Path(name).stem
        split = stem.split("_")[0]
        picture = pictures / f"{stem}_aligned.jpg"
        if split not in SPLITS:
            drops.add("name starts with neither train nor test", name)
            continue
        if not picture.is_file():
            drops.add("picture is missing", name, split)
            continue
        try:
            label = LABEL_SETS["rafdb"].label_of(int(class_id))
        except ValueError:
            drops.add(f"unknown label {class_id!r}", name, split)
            continue
        yield RawFace(
            key=stem,
            media=Picture(picture),
            labels={"expression": label},
            split=split,
            demographics=_demographics(basic / "Annotation" / "manual" / f"{stem}_manu_attri.txt"),
            licence=LICENCE,
            origin=picture.relative_to(root).as_posix(),
        )


def _demographics(path: Path) -> dict[str, str]:
    """What the manual annotation says; nothing where there is none."""
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    facts = {}
    for place, (name, words) in FACTS.items():
        number = lines[place].strip() if place < len(lines) else ""
        if number.isdigit() and int(number) < len(words):
            facts[name] = words[int(number)]
    return facts


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="web pictures, not asked",
)
