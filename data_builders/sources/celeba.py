"""CelebA (Liu, Luo, Wang & Tang, ICCV 2015): faces of celebrities with 40 yes/no attributes.

Original layout::

    Anno/list_attr_celeba.txt         202599
                                      5_o_Clock_Shadow Arched_Eyebrows Attractive ...
                                      000001.jpg -1  1  1 -1 -1 ...
    Eval/list_eval_partition.txt      000001.jpg 0      (0 train, 1 validation, 2 test)
    Img/img_align_celeba/000001.jpg   178x218, aligned
    Anno/identity_CelebA.txt          000001.jpg 2880   (optional)

Parquet: ``image, image_id, split``, the 40 official columns as 0 or 1, and, where known,
``identity``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data_builders.media import Picture
from data_builders.raw_face import Drops, RawFace, Source, pack_files, read_pack, require
from facellava.corpus import SPLITS
from facellava.errors import BadCorpus
from facellava.tasks.attribute_table import NAMES, OFFICIAL_NAMES

NAME: Final = "CelebA"
LICENCE: Final = "CelebA: non-commercial research only"
OFFICIAL: Final = tuple(OFFICIAL_NAMES)
LAYOUT: Final = (
    "Anno/list_attr_celeba.txt, Eval/list_eval_partition.txt and Img/img_align_celeba/, or Parquet "
    "files with the columns image, image_id, split and the 40 attributes"
)


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of CelebA.

    Raises:
        BadCorpus: neither layout is there, or the attributes are not CelebA's 40 in their order.
    """
    return _pack_rows(root, drops) if pack_files(root) else _original_rows(root, drops)


def _pack_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    columns = ("image", "image_id", "split", *OFFICIAL)
    for row in read_pack(
        root, NAME, columns, ("identity", "source_path"), named_by="image_id", drops=drops
    ):
        labels = _labels([row[name] for name in OFFICIAL], (0, 1))
        fault = _fault(row["split"], labels)
        if fault:
            drops.add(fault, row["image_id"])
            continue
        yield _face(
            row["image_id"],
            row["image"],
            labels,
            row["split"],
            row.get("identity"),
            row.get("source_path") or row["image_id"],
        )


def _original_rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    attributes = require(root / "Anno" / "list_attr_celeba.txt", NAME, LAYOUT)
    partition = require(root / "Eval" / "list_eval_partition.txt", NAME, LAYOUT)
    pictures = require(root / "Img" / "img_align_celeba", NAME, LAYOUT)
    splits = {name: _split(number) for name, number in _pairs(partition).items()}
    identity_file = root / "Anno" / "identity_CelebA.txt"
    identities = _pairs(identity_file) if identity_file.exists() else {}
    with attributes.open(encoding="utf-8") as file:
        file.readline()
        if tuple(file.readline().split()) != OFFICIAL:
            raise BadCorpus(
                f"{NAME}: line 2 of '{attributes}' is not CelebA's {len(OFFICIAL)} attribute "
                "names in their order; get the file again."
            )
        for line in file:
            name, *values = line.split()
            labels = _labels(values, ("-1", "1"))
            fault = _fault(splits.get(name), labels)
            picture = pictures / name
            if not fault and not picture.is_file():
                fault = "picture is missing"
            if fault:
                drops.add(fault, name)
                continue
            yield _face(
                name,
                picture,
                labels,
                splits[name],
                identities.get(name),
                picture.relative_to(root).as_posix(),
            )


def _pairs(path: Path) -> dict[str, str]:
    """Lines of picture name and value."""
    pairs = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        words = line.split()
        if len(words) != 2:
            raise BadCorpus(
                f"{NAME}: line {number} of '{path}' is {line!r}; a picture name and a number are "
                "expected."
            )
        pairs[words[0]] = words[1]
    return pairs


def _split(number: str) -> str:
    return SPLITS[int(number)] if number in ("0", "1", "2") else f"partition {number}"


def _labels(values: Sequence[Any], no_and_yes: tuple[Any, Any]) -> dict[str, bool]:
    """Our attribute names to bool; empty where a value is neither yes nor no, or one lacks."""
    if len(values) != len(OFFICIAL) or any(value not in no_and_yes for value in values):
        return {}
    return {name: value == no_and_yes[1] for name, value in zip(NAMES, values, strict=True)}


def _fault(split: str | None, labels: Mapping[str, bool]) -> str:
    if split not in SPLITS:
        return f"unknown split {split!r}"
    return "" if labels else "attributes are not 40 yes or no values"


def _face(
    name: str,
    picture: bytes | Path,
    labels: Mapping[str, bool],
    split: str,
    identity: object,
    origin: str,
) -> RawFace:
    return RawFace(
        key=Path(name).stem,
        media=Picture(picture),
        labels={"attributes": dict(labels)},
        split=split,
        subject=None if identity is None else str(identity),
        licence=LICENCE,
        origin=origin,
    )


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="public figures, not asked",
)
