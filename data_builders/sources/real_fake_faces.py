"""Real faces beside generated or swapped ones, for the deepfake task.

Folder layout: ``real/`` and ``fake/`` with pictures, such as ``fake/00017.jpg``. There is no
official split; the file's path decides.

Parquet: ``image, label (0 real, 1 fake), split, source_path`` and, where known, ``method,
origin`` and ``blend_ratio``. A row: ``label 1, method "stylegan2", origin
"thispersondoesnotexist", split "train", source_path "...:data/fake/fake_0.jpg"``.
The frozen sets of self-blended faces have these columns too, and ``licence``: the terms of the
dataset that a face is made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from data_builders.media import Picture
from data_builders.raw_face import (
    Drops,
    RawFace,
    Source,
    pack_files,
    read_pack,
    require,
    stable_split,
)
from facellava.corpus import SPLITS
from facellava.errors import BadCorpus
from facellava.faces.photo import PHOTO_SUFFIXES
from facellava.tasks.deepfake import LABELS

NAME: Final = "real_fake_faces"
LICENCE: Final = (
    "FFHQ: CC BY-NC-SA 4.0; StyleGAN2 samples: NVIDIA, non-commercial; DFDC: research terms of Meta"
)
COLUMNS: Final = ("image", "label", "split", "source_path")
FACTS: Final = ("method", "origin", "blend_ratio")  # go with the label, where known
TERMS: Final = "licence"  # where a row has its own
LAYOUT: Final = (
    f"the folders real/ and fake/ with pictures, or Parquet files with {', '.join(COLUMNS)}"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """Real and fake faces.

    Raises:
        BadCorpus: neither layout is there, or a folder is empty.
    """
    return _pack_rows(root, drops) if pack_files(root) else _file_rows(root)


def _pack_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    for row in read_pack(root, NAME, COLUMNS, (*FACTS, TERMS), named_by="source_path", drops=drops):
        path = row["source_path"]
        if row["label"] not in range(len(LABELS)):
            drops.add("label is neither 0 (real) nor 1 (fake)", path)
        elif row["split"] not in SPLITS:
            drops.add(f"unknown split {row['split']!r}", path)
        else:
            label = LABELS[row["label"]]
            facts = {name: row[name] for name in FACTS if row.get(name)}
            key = Path(path.split(":")[-1]).with_suffix("").as_posix().replace("/", "-")
            terms = row.get(TERMS) or LICENCE
            yield _face(key, row["image"], label, row["split"], path, facts, terms)


def _file_rows(root: Path) -> Iterator[RawFace]:
    for label in LABELS:
        folder = require(root / label, NAME, LAYOUT)
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        if not paths:
            raise BadCorpus(f"{NAME}: '{folder}' holds no picture; expected {LAYOUT}.")
        for path in paths:
            name = path.relative_to(root)
            key = name.with_suffix("").as_posix().replace("/", "-")
            split = stable_split(name.as_posix())
            yield _face(key, path, label, split, name.as_posix(), {}, LICENCE)


def _face(
    key: str,
    picture: bytes | Path,
    label: str,
    split: str,
    path: str,
    facts: dict[str, Any],
    licence: str,
) -> RawFace:
    return RawFace(
        key=key,
        media=Picture(picture),
        labels={"deepfake": label, **facts},
        split=split,
        licence=licence,
        origin=path,
    )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="web pictures, not asked",
)
