"""Brings back what :mod:`data_builders.exports` wrote: the same faces and samples, row by row.

Questions and answers are taken from the form's own file, so that texts which were mended there come
into the corpus. Records that were taken away or added are told and refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from pydantic import BaseModel, NonNegativeInt, ValidationError
from tqdm import tqdm

from data_builders.exports import (
    EXTRA,
    FACES,
    LANDMARK_SIDE,
    NOT_KEPT,
    SUMMARY,
    VERSION,
    Form,
    new_folder,
    split_file,
    unescaped,
)
from data_builders.finished import counted, file_entry, write_card_and_manifest
from data_builders.report import gathered
from facellava.corpus import (
    SPLITS,
    FaceRecord,
    Sample,
    check_manifest,
    decode_frame,
    write_shard,
)
from facellava.errors import BadCorpus
from facellava.records import from_json

Row = dict[str, Any]


class _Summary(BaseModel):
    """export.json: the form, the split where it is one alone, the rows, the corpus's manifest."""

    version: int
    form: Form
    split: Literal["train", "validation", "test"] | None
    faces: NonNegativeInt
    samples: NonNegativeInt
    not_kept: NonNegativeInt
    manifest: Row


def import_corpus(path: Path, out: Path) -> dict[str, Any]:
    """Make a corpus of an export.

    Args:
        path: the export's folder.
        out: a new or empty folder.

    Returns:
        The manifest.

    Raises:
        BadCorpus: no whole export, a record of another kind, a file that is missing or damaged, or
            `out` holds files.
    """
    summary = _read_summary(path)
    with new_folder(out):
        counts, files = _write_shards(path, out, summary)
        manifest = _manifest(summary, counts, files)
        write_card_and_manifest(out, manifest)
    return manifest


def _read_summary(path: Path) -> _Summary:
    if not (path / SUMMARY).is_file():
        raise BadCorpus(f"'{path}' has no {SUMMARY}, so it is no export, or one not finished.")
    try:
        summary = _Summary.model_validate_json((path / SUMMARY).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise BadCorpus(
            f"'{path / SUMMARY}' is none that this facellava wrote ({where}: {first['msg']}); "
            "export again."
        ) from error
    if summary.version != VERSION:
        raise BadCorpus(
            f"'{path}' is an export of version {summary.version}, and this facellava reads "
            f"version {VERSION}; export again."
        )
    check_manifest(summary.manifest, path / SUMMARY)
    return summary


def _write_shards(path: Path, out: Path, summary: _Summary) -> tuple[Counter[str], dict[str, Any]]:
    """Shards in the order of faces.jsonl, which is the order of all files of an export."""
    kept = {
        split: _Waiting(split_file(path, split, summary.form))
        for split in SPLITS
        if split_file(path, split, summary.form).is_file()
    }
    not_kept = _Waiting(path / NOT_KEPT)
    counts, read = Counter[str](), Counter[str]()
    files: dict[str, Any] = {}
    bar = tqdm(_lines(path / FACES), total=summary.faces, unit="face", desc="import")
    for shard, lines in groupby(bar, key=lambda line: str(line.get("shard"))):
        split = _split_of(shard, path)
        faces = [_face(line, path, split) for line in lines]
        rows = {True: kept[split].take(shard) if split in kept else [], False: not_kept.take(shard)}
        numbered = [_sample(record, path) for found in rows.values() for record in found]
        samples = [sample for _, sample in sorted(numbered, key=lambda item: item[0])]
        read += Counter(faces=len(faces), samples=len(rows[True]), not_kept=len(rows[False]))
        counts += counted(faces, samples, split)
        for table, contents in (("faces", faces), ("samples", samples)):
            if contents:
                file = out / table / f"{shard}.parquet"
                files[f"{table}/{file.name}"] = file_entry(file, write_shard(file, contents, table))
    for what, number in (
        ("faces", summary.faces),
        ("samples", summary.samples),
        ("not_kept", summary.not_kept),
    ):
        if read[what] != number:
            raise BadCorpus(
                f"'{path}' holds {read[what]} of the {number} rows of {what}, or not in the "
                "order in which they were exported; export again."
            )
    return counts, files


class _Waiting:
    """The records of a file, handed out shard by shard."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._groups = groupby(_lines(path), key=self._shard)
        self._next = next(self._groups, None)

    def take(self, shard: str) -> list[Row]:
        """The records of a shard, if they are the next ones."""
        if self._next is None or self._next[0] != shard:
            return []
        records = list(self._next[1])
        self._next = next(self._groups, None)
        return records

    def _shard(self, record: Row) -> str:
        facts = from_json(record.get(EXTRA, ""), f"{EXTRA!r} of a record of '{self._path}'", dict)
        return str(facts.get("shard"))


def _lines(path: Path) -> Iterator[Row]:
    """The objects of a file: JSON lines, or a JSON list, as exported or as another tool wrote it.

    Where a list has one object a line, as exported, no more than that is in memory.
    """
    if not path.is_file():
        raise BadCorpus(f"'{path}' is missing; export again.")
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.strip().removesuffix(b",")
            if text in (b"", b"[", b"]", b"[]"):
                continue
            try:
                found = from_json(text, f"Line {number} of '{path}'", dict)
            except BadCorpus:
                if path.suffix != ".json":
                    raise
                yield from islice(_listed(path), count, None)
                return
            yield found
            count += 1


def _listed(path: Path) -> list[Row]:
    """The objects of a JSON list, whatever its lines."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadCorpus(
            f"'{path}' is not JSON in UTF-8 ({error}); mend it, or export again."
        ) from error
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise BadCorpus(f"'{path}' is no JSON list of records; mend it, or export again.")
    return found


def _split_of(shard: str, path: Path) -> str:
    split = shard.split("-", 1)[0]
    # It becomes a file's name.
    if split not in SPLITS or shard.count("-") < 2 or Path(shard).name != shard:
        raise BadCorpus(f"'{path / FACES}' names a shard {shard!r}, which no corpus has.")
    return split


def _face(line: Row, path: Path, split: str) -> FaceRecord:
    """The face of a line of faces.jsonl, in a shard of that split."""
    values = dict(line)
    try:
        del values["shard"]
        media = [values.pop(kind) for kind in ("image", "video") if kind in values]
        frames = _frames(path, *media)
        points = np.load(_inside(path, values.pop("landmarks_2d"))) / np.float32(LANDMARK_SIDE)
        face = FaceRecord.from_row({**values, "frames": frames, "landmarks": points.reshape(-1)})
    except (KeyError, TypeError, ValueError, EOFError, OSError, av.FFmpegError) as error:
        raise BadCorpus(
            f"Face {line.get('face_id')} of '{path}' cannot be read, or its media or landmarks "
            f"cannot ({error}); export again."
        ) from error
    if face.split != split:
        raise BadCorpus(
            f"Face {face.face_id} of '{path}' is of the split {face.split!r} and stands in a shard "
            f"of {split!r}; export again."
        )
    for frame in frames:
        decode_frame(frame)
    return face


def _frames(path: Path, name: str) -> list[bytes]:
    file = _inside(path, name)
    if file.suffix == ".jpg":
        return [file.read_bytes()]
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def _inside(path: Path, name: str) -> Path:
    file = (path / name).resolve()
    if not file.is_relative_to(path.resolve()):
        raise ValueError(f"{name} is outside of the folder")
    return file


def _sample(record: Row, path: Path) -> tuple[int, Sample]:
    """A record's sample, and its number in the shard."""
    facts: Row = json.loads(record[EXTRA])
    try:
        del facts["shard"]
        number: int = facts.pop("row")
        texts = [unescaped(text) for text in _texts(record)]
        history = json.dumps(list(zip(texts[:-2:2], texts[1:-2:2], strict=True)))
        question, answer = texts[-2:]
        row = {**facts, "history": history, "question": question, "answer": answer}
        return number, Sample.from_row(row)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCorpus(
            f"The record of sample {facts.get('sample_id')} in '{path}' is not as it was exported "
            f"({error}); export again."
        ) from error


def _texts(record: Row) -> Sequence[str]:
    """Questions and answers in turn, without the mark of the medium."""
    turns = record.get("conversations") or record["messages"]
    texts = [turn["value"] if "value" in turn else turn["content"] for turn in turns]
    for mark in ("<image>\n", "<video>\n"):
        if texts[0].startswith(mark):
            return [texts[0].removeprefix(mark), *texts[1:]]
    raise ValueError("no mark of a medium at the head of the first question")


def _manifest(
    summary: _Summary, counts: Mapping[str, int], files: Mapping[str, Any]
) -> dict[str, Any]:
    manifest = summary.manifest
    tree = gathered([dict(sorted(counts.items()))])
    if "unwritten" in manifest["counts"]:
        tree["unwritten"] = manifest["counts"]["unwritten"]
    if summary.split is not None:
        # A build with the old settings must not take a part for the whole.
        manifest["settings"] = {**manifest["settings"], "split": summary.split}
    return {**manifest, "counts": tree, "files": dict(sorted(files.items()))}
