"""Withdraws a source or single people from a finished corpus, with all that was made of them.

Only the shards concerned are written again. Order, so that a kill at any moment does no harm:

1. New shards are written beside the old ones as ``<shard>.parquet.removal``. Until here the corpus
   is the old one, and a later run throws these files away.
2. ``removal.json`` says what is to be done. From here on the removal is decided; the same call, or
   any other removal, finishes it.
3. The manifest goes, so that nobody reads a half of each; shards are put in place or deleted, the
   page of pictures and the answers of an unfinished `annotate` are deleted, card and new manifest
   are written, ``removal.json`` goes.

The manifest's ``removed`` says what was withdrawn and how many rows. Its counts "unwritten" go, for
they cannot be told apart by person. What lies beside the corpus is not touched: replies of an
endpoint (`data_builders.endpoint_stage.replies_of`), exports, checkpoints.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from data_builders.build import space_is_needed
from data_builders.endpoint_stage import WORK as ANNOTATING
from data_builders.finished import (
    PAGE,
    counted,
    file_entry,
    parent_source,
    to_json,
    write_card_and_manifest,
)
from data_builders.manifests import sound_manifest
from data_builders.report import gathered
from facellava.corpus import (
    TABLES,
    FaceRecord,
    Sample,
    read_shard,
    shard_source,
    shards,
    write_shard,
)
from facellava.errors import BadCorpus
from facellava.whole_files import write_text

JOURNAL: Final = "removal.json"
NEW: Final = ".removal"

Key = tuple[str, str | None]
"""A withdrawn source and None, or a source and one person of it."""


@dataclass
class _Plan:
    """What a removal changes.

    Attributes:
        rewritten: files of the corpus whose new contents lie beside them.
        deleted: files of which nothing is left.
        entries: file to what the new manifest says about it.
        counts: of the rows that go.
        gone: what was withdrawn, to the rows of each table.
    """

    rewritten: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    gone: dict[Key, Counter[str]] = field(default_factory=dict)


def remove(
    folder: Path, *, sources: Sequence[str] = (), subjects: Sequence[str] = ()
) -> dict[str, int]:
    """Withdraw sources, or single people, from a corpus; what is withdrawn already is left alone.

    Args:
        folder: the corpus.
        sources: their names; the self-blends of a source go with it.
        subjects: people as "source:subject"; their self-blends go with them.

    Returns:
        The number of faces and of samples that went.

    Raises:
        BadCorpus: no finished corpus, a source or person that it does not hold, nothing would be
            left, or the disk is full.
    """
    request: dict[str, Any] = {"sources": sorted({*sources}), "subjects": sorted({*subjects})}
    with space_is_needed(folder):
        if (folder / JOURNAL).is_file():
            pending = json.loads((folder / JOURNAL).read_text("utf-8"))
            _finish(folder, pending)
            if pending["request"] == request:
                return dict(pending["removed"])
        _forget_undecided(folder)
        manifest = sound_manifest(folder)
        wanted = _wanted(folder, manifest, **request)
        if not wanted:
            return {"faces": 0, "samples": 0}
        plan = _Plan(gone={key: Counter(faces=0, samples=0) for key in sorted(wanted, key=str)})
        _write_new_shards(folder, wanted, plan)
        _check(folder, manifest, plan)
        removed = sum(plan.gone.values(), Counter())
        pending = {
            "request": request,
            "removed": {table: removed[table] for table in TABLES},
            "rewritten": plan.rewritten,
            "deleted": plan.deleted,
            "manifest": _new_manifest(manifest, plan),
        }
        write_text(folder / JOURNAL, to_json(pending))
        _finish(folder, pending)
    return dict(pending["removed"])


def _finish(folder: Path, pending: Mapping[str, Any]) -> None:
    """Steps of the third stage; each may have been done before."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for name in pending["rewritten"]:
        new = folder / f"{name}{NEW}"
        if new.is_file():
            new.replace(folder / name)
    for name in pending["deleted"]:
        (folder / name).unlink(missing_ok=True)
    (folder / PAGE).unlink(missing_ok=True)
    if (folder / ANNOTATING).is_dir():
        shutil.rmtree(folder / ANNOTATING)
    write_card_and_manifest(folder, pending["manifest"])
    (folder / JOURNAL).unlink()


def _forget_undecided(folder: Path) -> None:
    """Files of a removal that was killed before it was decided."""
    for table in TABLES:
        for path in (folder / table).glob(f"*{NEW}"):
            path.unlink()


def _wanted(
    folder: Path, manifest: Mapping[str, Any], sources: Sequence[str], subjects: Sequence[str]
) -> set[Key]:
    """What is to be withdrawn and was not before."""
    before = {(entry["source"], entry.get("subject")) for entry in manifest.get("removed", [])}
    held = {shard_source(path) for path in shards(folder, "faces")}
    known = held | {parent_source(name) for name in held}
    wanted: set[Key] = set()
    for text in subjects:
        source, colon, subject = text.partition(":")
        if not colon or not subject:
            raise BadCorpus(
                f"{text!r} names no person; write the source and the person as 'source:subject'."
            )
        wanted.add((source, subject))
    wanted |= {(source, None) for source in sources}
    wanted -= before | {(source, who) for source, who in wanted if (source, None) in before}
    for source, _ in wanted:
        if source not in known:
            raise BadCorpus(
                f"'{folder}' holds no source {source!r}; it holds {', '.join(sorted(held))}."
            )
    return wanted


def _write_new_shards(folder: Path, wanted: set[Key], plan: _Plan) -> None:
    concerned = {source for source, _ in wanted}
    paths = [
        path
        for path in shards(folder, "faces")
        if {shard_source(path), parent_source(shard_source(path))} & concerned
    ]
    for path in tqdm(paths, unit="shard", desc="withdraw"):
        _write_new_shard(folder, path, wanted, plan)


def _write_new_shard(folder: Path, path: Path, wanted: set[Key], plan: _Plan) -> None:
    """The two files of a shard without the rows that go, beside the old ones."""
    going = dict(_going(path, wanted))
    if not going:
        return
    faces = [FaceRecord.from_row(row) for row in read_shard(path, "faces")]
    sample_path = folder / "samples" / path.name
    rows = read_shard(sample_path, "samples") if sample_path.is_file() else ()
    samples = [Sample.from_row(row) for row in rows]
    gone_faces = [face for face in faces if face.face_id in going]
    gone_samples = [sample for sample in samples if sample.face_id in going]
    plan.counts += counted(gone_faces, gone_samples, faces[0].split)
    for table, gone in (("faces", gone_faces), ("samples", gone_samples)):
        for row in gone:
            plan.gone[going[row.face_id]][table] += 1
    _write_rest("faces", path, [face for face in faces if face.face_id not in going], plan)
    if gone_samples:
        rest = [sample for sample in samples if sample.face_id not in going]
        _write_rest("samples", sample_path, rest, plan)


def _going(path: Path, wanted: set[Key]) -> Iterator[tuple[str, Key]]:
    """Ids of the faces that go, and why."""
    source = shard_source(path)
    for row in read_shard(path, "faces", ["face_id", "subject"]):
        for name in (source, parent_source(source)):
            for who in (None, row["subject"]):
                if (name, who) in wanted:
                    yield row["face_id"], (name, who)


def _write_rest(
    table: str, path: Path, rest: Sequence[FaceRecord] | Sequence[Sample], plan: _Plan
) -> None:
    name = f"{table}/{path.name}"
    if not rest:
        plan.deleted.append(name)  # `datasets` cannot read an empty file
        return
    new = path.with_name(f"{path.name}{NEW}")
    plan.entries[name] = file_entry(new, write_shard(new, rest, table))
    plan.rewritten.append(name)


def _check(folder: Path, manifest: Mapping[str, Any], plan: _Plan) -> None:
    """Refuse, and undo what was written, where a person is unknown or nothing would be left."""
    unknown = [f"{source}:{who}" for (source, who), rows in plan.gone.items() if not rows["faces"]]
    emptied = set(manifest["files"]) <= set(plan.deleted)
    if unknown or emptied:
        _forget_undecided(folder)
    if unknown:
        raise BadCorpus(f"'{folder}' holds no face of {', '.join(unknown)}; nothing was withdrawn.")
    if emptied:
        raise BadCorpus(f"Nothing would be left of '{folder}'; delete the folder instead.")


def _new_manifest(manifest: Mapping[str, Any], plan: _Plan) -> dict[str, Any]:
    files = {**manifest["files"], **plan.entries}
    total = Counter(dict(_flat(manifest["counts"])))
    total.subtract(plan.counts)
    left = {
        key: number for key, number in total.items() if number and not key.startswith("unwritten/")
    }
    entries = [
        {"source": source, **({} if who is None else {"subject": who}), **rows}
        for (source, who), rows in plan.gone.items()
    ]
    gone = {source for source, who in plan.gone if who is None}
    return {
        **manifest,
        "files": {name: entry for name, entry in files.items() if name not in plan.deleted},
        "counts": gathered([left]),
        "removed": [*manifest.get("removed", []), *entries],
        **{
            part: {name: facts for name, facts in manifest[part].items() if name not in gone}
            for part in ("sources", "dropped")
        },
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, int]]:
    """Counts as :func:`data_builders.report.gathered` takes them."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", value
