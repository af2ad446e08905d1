"""A corpus of coloured squares that stand for faces with a gender, a race and a smile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from facellava.corpus import CORPUS_VERSION, sha256, write_shard
from facellava.faces import CROP_SIZE
from facellava.records import SPLITS, FaceRecord, encode_frame
from facellava.regions import N_LANDMARKS


def made_up_corpus(
    folder: Path,
    *,
    faces: int,
    races: tuple[str, ...] = ("White", "Black"),
    sources: tuple[str, ...] = ("utkface", "celeba"),
) -> Path:
    """So many faces of each group in each split; every second one is a woman's, and smiles."""
    files = {}
    for source in sources:
        for split in SPLITS:
            records = [
                _face(source, split, group, number)
                for group in (races if source == "utkface" else ("female", "male"))
                for number in range(faces)
            ]
            path = folder / "faces" / f"{split}-{source}-00000.parquet"
            rows = write_shard(path, records, "faces")
            files[f"faces/{path.name}"] = {"rows": rows, "sha256": sha256(path)}
    counts = {source: dict.fromkeys(SPLITS, faces * 2) for source in sources}
    manifest = {
        "version": CORPUS_VERSION,
        "settings": {},
        "sources": {source: {"title": source} for source in sources},
        "counts": {"faces": counts},
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _face(source: str, split: str, group: str, number: int) -> FaceRecord:
    yes = number % 2 == 0
    crop = np.full((CROP_SIZE, CROP_SIZE, 3), 100, np.uint8)
    crop[..., 0 if yes else 2] += np.uint8(60 + number)
    of_utkface = source == "utkface"
    labels = {} if of_utkface else {"attributes": {"smiling": yes, "male": group == "male"}}
    people = {"gender": "female" if yes else "male", "race": group} if of_utkface else {}
    return FaceRecord(
        face_id=f"{source}-{split}-{group}-{number}",
        source=source,
        split=split,
        frames=(encode_frame(crop),),
        landmarks=np.full((1, N_LANDMARKS, 2), 0.5, np.float32),
        box=(0.0, 0.0, 1.0, 1.0),
        score=1.0,
        face_source="made up",
        native_size=192.0,
        labels=labels,
        demographics=people,
        licence="public domain",
        origin="made up",
    )
