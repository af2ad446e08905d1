"""Draw the faces of a study of optimisers and fairness from a corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from facellava.corpus import read_faces, read_manifest
from facellava.errors import BadCorpus, BadSettings
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.records import decode_frame
from train.fairness_split import (
    GROUP_TASKS,
    PARTS,
    SCHEMA,
    GroupTask,
    Split,
    SplitSettings,
    check_study_folder,
    make_study_folder,
    read_split,
)

SPLIT_FILE: Final = "faces.parquet"
JPEG_QUALITY: Final = 92
LEAST: Final = 2
"""Faces of a group and answer below which a part cannot be used."""


def drawn_faces(corpus: Path, out: Path, settings: SplitSettings) -> Split:
    """The study's faces, drawn from a corpus into OUT/faces.parquet unless they are there.

    Raises:
        BadCorpus: they cannot be read.
        BadSettings: `out` is a file, or holds faces that were drawn by other settings.
    """
    check_study_folder(out)
    path = out / SPLIT_FILE
    if not path.is_file():
        write_split(corpus, path, settings)
    split = read_split(path)
    if split.settings != settings:
        raise BadSettings(
            f"'{out}' holds faces that were drawn by other settings; give another --out."
        )
    return split


def write_split(corpus: Path, path: Path, settings: SplitSettings) -> None:
    """Draw the faces of every task from a corpus and write them to one Parquet file, whole.

    The same corpus gives the same file.

    Raises:
        BadCorpus: the corpus cannot be read or lacks faces of a task or group.
    """
    rows: list[dict[str, Any]] = []
    counts = read_manifest(corpus)["counts"]["faces"]
    for name in settings.tasks:
        source = GROUP_TASKS[name].source
        if source not in counts:
            raise BadCorpus(
                f"Task {name} needs faces of {source}, which the corpus '{corpus}' lacks; build a "
                "corpus with them, or leave the task out."
            )
        for part in PARTS:
            found = list(_rows(corpus, name, part, settings.size, counts[source].get(part, 0)))
            groups = {row["group"] for row in found}
            if GROUP_TASKS[name].large not in groups or len(groups) < 2:
                raise BadCorpus(
                    f"Task {name} needs {part} faces of group {GROUP_TASKS[name].large} and of "
                    f"another, and corpus '{corpus}' has no two such groups; build a larger one."
                )
            rows += found if part == "test" else _imbalanced(found, settings, GROUP_TASKS[name])
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    # Only now: a corpus that cannot be used leaves no folder behind.
    make_study_folder(path.parent)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(
        table.replace_schema_metadata({"settings": json.dumps(asdict(settings))}), partial
    )
    partial.replace(path)


def _rows(corpus: Path, name: str, part: str, size: int, count: int) -> Iterator[dict[str, Any]]:
    """Every face of a part that the task can ask about."""
    task, resizer = GROUP_TASKS[name], FaceLlavaImageProcessor(size=(size, size))
    records = read_faces(corpus, part, task.source)
    for record in tqdm(records, total=count, unit="face", desc=f"{name}, {part}"):
        label, group = task.label(record), task.group(record)
        if label is not None and group is not None:
            pixels = resizer.resize(decode_frame(record.frames[0]))
            yield {
                "task": name,
                "part": part,
                "face_id": record.face_id,
                "group": group,
                "label": label,
                "picture": _jpeg(pixels),
            }


def _imbalanced(
    rows: Sequence[dict[str, Any]], settings: SplitSettings, task: GroupTask
) -> list[dict[str, Any]]:
    """So many of each group and answer that the large group has its share; as many as there are.

    Which faces of a group are taken depends on their ids only.
    """
    cells: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: _draw(row["face_id"])):
        cells.setdefault((row["group"], row["label"]), []).append(row)
    groups = sorted({group for group, _ in cells})
    shares = dict.fromkeys(groups, (1 - settings.share) / (len(groups) - 1))
    shares[task.large] = settings.share
    most = min(
        2 * len(cells.get((group, label), ())) / share
        for group, share in shares.items()
        for label in (False, True)
    )
    total = min(most, settings.faces)
    # A hair more, or the share of just as many faces as there are would be rounded down.
    wanted = {group: int(total * share / 2 + 1e-9) for group, share in shares.items()}
    scarce = min(wanted, key=lambda group: wanted[group])
    if wanted[scarce] < LEAST:
        raise BadCorpus(
            f"Of {rows[0]['task']} the {rows[0]['part']} part would hold {2 * wanted[scarce]} "
            f"faces of group {scarce}; take a larger corpus, more faces or a less extreme share."
        )
    return [
        row
        for group in groups
        for label in (False, True)
        for row in cells[group, label][: wanted[group]]
    ]


def _draw(face_id: str) -> str:
    return hashlib.sha256(face_id.encode()).hexdigest()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return bytes(data)
