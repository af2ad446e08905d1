"""Finished runs whose answers were written, on faces of a real portrait."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.answers import AnswerFile, Reply
from eval.faces_table import FacesTable
from eval.protocols import PROTOCOLS
from eval.run_folder import RunFolder
from facellava.corpus import record_of, sha256, write_shard
from facellava.faces import Face
from facellava.records import FaceRecord

ENGINE: Mapping[str, Any] = {
    "kind": "model", "name": "nano", "weights_sha256": "ab" * 32, "label_only": False,
    "prompt": "question",
}  # fmt: skip


def face_record(face: Face, face_id: str, labels: dict[str, Any], frames: int = 1) -> FaceRecord:
    """The portrait, or a clip in which it holds still, as a face of the test part."""
    source = face_id.rpartition("-")[0]
    return record_of(
        [face] * frames, face_id=face_id, source=source, split="test", labels=labels,
        licence=f"terms of {source}", origin="x",
    )  # fmt: skip


def write_run(
    path: Path,
    answered: Mapping[str, Sequence[tuple[FaceRecord, Reply]]],
    engine: Mapping[str, Any] = ENGINE,
) -> RunFolder:
    """A run with these answers by protocol; protocols of one table and task have the same ones."""
    run = RunFolder(path)
    run.begin(engine, {"limit": None, "seed": 0, "fold": None})
    for key, pairs in answered.items():
        protocol = PROTOCOLS[key]
        table = _table(path / "faces" / protocol.table, [record for record, _ in pairs])
        head = {"faces": protocol.table, "data_sha256": table.data_sha256}
        with AnswerFile(run.answers(protocol), head) as file:
            file.append(reply for _, reply in pairs)
        run.add(protocol, table)
    return run


def _table(folder: Path, records: Sequence[FaceRecord]) -> FacesTable:
    name = "faces/test-x-00000.parquet"
    write_shard(folder / name, records, "faces")
    files = {name: {"sha256": sha256(folder / name), "rows": len(records)}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return FacesTable(folder)
