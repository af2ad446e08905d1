"""A build that is under way: ``DIR/.progress`` holds its settings and notes of finished shards.

Each shard leaves its note as soon as its files are written. A build that was killed and is
started again with the same settings keeps what has a note and makes the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from data_builders.finished import to_json
from data_builders.shard import ShardJob, ShardReport, build_shard
from facellava.corpus import TABLES, read_manifest, sha256
from facellava.errors import BadCorpus
from facellava.whole_files import write_text

ShardBuilder = Callable[[Iterable[ShardJob]], Generator[ShardReport]]
"""Builds shards and gives their reports in the order in which they finish."""

PROGRESS: Final = ".progress"
# Settings that corpora of before do not name, with what those were built with.
YOUNGER_SETTINGS: Final[Mapping[str, Any]] = {"splits": None, "drawn": False}


def open_folder(out: Path, settings: Mapping[str, Any]) -> bool:
    """Begin a build, or go on with one; false where its corpus is finished.

    Raises:
        BadCorpus: the folder is not this build's.
    """
    note = out / PROGRESS / "settings.json"
    is_finished = (out / "manifest.json").is_file()
    if is_finished:
        found = read_manifest(out).get("settings")
    elif note.is_file():
        found = json.loads(note.read_text("utf-8"))
    elif out.is_dir() and any((out / table).is_dir() for table in TABLES):
        raise BadCorpus(
            f"'{out}' holds tables without a manifest.json: where another command did not finish, "
            "run it again; where the file was lost, delete the folder and run the build again."
        )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadCorpus(f"'{out}' holds other files; give a new folder for the corpus.")
    else:
        found = settings
    found = {**YOUNGER_SETTINGS, **(found or {})}
    if found != settings:
        odd = [name for name in settings if found.get(name) != settings[name]]
        raise BadCorpus(
            f"'{out}' holds a corpus built with other settings ({', '.join(odd)}); give another "
            "folder, or delete this one."
        )
    if not is_finished:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, to_json(settings))
    return not is_finished


def build_noted(job: ShardJob) -> ShardReport:
    """In a worker: build a shard and note it, so that nothing finished is lost with the build."""
    report = build_shard(job)
    note = _note(job)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, to_json(asdict(report)))
    return report


def finished(job: ShardJob) -> ShardReport | None:
    """The report of an earlier run, if the shard's inputs and files are still the same."""
    note = _note(job)
    if not note.is_file():
        return None
    report = ShardReport(**json.loads(note.read_text("utf-8")))
    same = report.fingerprint == job.fingerprint() and all(
        (job.folder / name).is_file() and sha256(job.folder / name) == entry["sha256"]
        for name, entry in report.files.items()
    )
    return report if same else None


def _note(job: ShardJob) -> Path:
    return job.folder / PROGRESS / f"{job.name}.json"
