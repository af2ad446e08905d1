"""The corpus on disk: a faces table and a samples table in Parquet, and how to read and check them.

::

    DIR/faces/<split>-<source>-00000.parquet     one row a face: canonical crops, landmarks, labels
    DIR/samples/<split>-<source>-00000.parquet   one row a question with its answer
    DIR/manifest.json                            checksums, counts, drops; written last
    DIR/README.md                                dataset card; `datasets` finds both tables by it

A samples shard speaks only about the faces of the faces shard of the same name, so both stream
together and a shard can be made again by itself. Both tables load with
``datasets.load_dataset("parquet", data_files=...)``.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facellava.errors import BadCorpus
from facellava.records import (
    FACES_SCHEMA,
    SAMPLES_SCHEMA,
    SPLITS,
    TABLES,
    FaceRecord,
    Ratings,
    Sample,
    decode_frame,
    encode_frame,
    from_json,
    record_of,
)
from facellava.regions import LARGEST_COORDINATE

__all__ = [
    "CORPUS_VERSION", "FACES_SCHEMA", "SAMPLES_SCHEMA", "SPLITS", "TABLES", "FaceRecord", "Ratings",
    "Sample", "decode_frame", "encode_frame", "read_faces", "read_manifest", "read_samples",
    "read_shard", "record_of", "sha256", "shard_source", "shards", "validate", "write_shard",
]  # fmt: skip

CORPUS_VERSION: Final = 2
BATCH_ROWS: Final = 256
_PARTS: Final = ("settings", "sources", "files", "counts", "dropped")
_OTHER_MANIFEST: Final = "take manifest.json from a copy, or build the corpus again."


def write_shard(path: Path, rows: Iterable[FaceRecord | Sample], table: str) -> int:
    """Write one shard of table "faces" or "samples" so that it appears whole or not at all.

    Returns:
        The number of rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = pa.Table.from_pylist([row.to_row() for row in rows], schema=TABLES[table])
    # Named by process: an orphan of a killed build may still be writing the same shard.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        # Small row groups: a reader of single rows decodes one group, not the shard.
        pq.write_table(
            contents,
            partial,
            compression="zstd",
            row_group_size=BATCH_ROWS,
            write_page_checksum=True,
        )
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return contents.num_rows


def read_shard(
    path: Path, table: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of one shard of table "faces" or "samples", streamed.

    Raises:
        BadCorpus: the file is damaged or cut off, or has other columns than the table.
    """
    schema = TABLES[table]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            odd = sorted(set(found.names) ^ set(schema.names))
            if odd:
                raise BadCorpus(
                    f"Corpus shard '{path}' has unknown or missing columns ({', '.join(odd)}); "
                    f"the {table} table has {', '.join(schema.names)}."
                )
            wanted = pa.schema([schema.field(name) for name in columns or schema.names])
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted.names):
                yield from (
                    pa.Table.from_batches([batch]).select(wanted.names).cast(wanted).to_pylist()
                )
    except (pa.ArrowException, OSError) as error:
        raise BadCorpus(
            f"Corpus shard '{path}' is damaged or cut off; delete it and run the build again."
        ) from error


def shards(folder: Path, table: str, split: str | None = None) -> list[Path]:
    """The shard files of a table in reading order, of one split or of all.

    Raises:
        BadCorpus: no such folder, or its build did not finish.
    """
    _check_finished(folder)
    return sorted((folder / table).glob(f"{split or '*'}-*.parquet"))


def read_faces(
    folder: Path, split: str | None = None, source: str | None = None
) -> Iterator[FaceRecord]:
    """Stream the faces of a corpus, of one split and one source or of all."""
    for path in shards(folder, "faces", split):
        if source is None or shard_source(path) == source:
            for row in read_shard(path, "faces"):
                yield FaceRecord.from_row(row)


def read_samples(
    folder: Path, split: str | None = None, source: str | None = None, *, dropped: bool = False
) -> Iterator[Sample]:
    """Stream the samples of a corpus; those that the ratings dropped only where `dropped`."""
    for path in shards(folder, "samples", split):
        if source is None or shard_source(path) == source:
            for row in read_shard(path, "samples"):
                if row["kept"] or dropped:
                    yield Sample.from_row(row)


def shard_source(path: Path) -> str:
    """The source in a shard's name ``<split>-<source>-<number>.parquet``."""
    return path.stem.split("-", 1)[1].rsplit("-", 1)[0]


def _check_finished(folder: Path) -> None:
    if not folder.is_dir():
        raise BadCorpus(f"There is no corpus folder '{folder}'; make one with: facellava build run")
    if not (folder / "manifest.json").is_file():
        raise BadCorpus(
            f"Corpus '{folder}' has no manifest.json, so what wrote it did not finish: run the "
            "same command again; where the file was lost, take it from a copy."
        )


def sha256(path: Path) -> str:
    """Checksum of a file as the manifest holds it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus.

    Raises:
        BadCorpus: it is missing or not JSON.
    """
    _check_finished(folder)
    path = folder / "manifest.json"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCorpus(
            f"Manifest '{path}' cannot be read ({error}); take the file from a copy, or build the "
            "corpus again into a new folder."
        ) from error
    manifest: dict[str, Any] = from_json(text, f"Manifest '{path}'", dict)
    return manifest


def validate(folder: Path) -> dict[str, int]:
    """Check a corpus as a whole: files, columns, ids, links, landmarks, splits, counts.

    Returns:
        The number of faces and of samples.

    Raises:
        BadCorpus: the first thing that is wrong, with the file.
    """
    manifest = read_manifest(folder)
    check_manifest(manifest, folder / "manifest.json")
    listed: Mapping[str, Mapping[str, Any]] = manifest["files"]
    crossing = {
        source
        for name, terms in manifest["sources"].items()
        if terms.get("people_cross_splits")
        for source in (name, f"{name}_self_blended")
    }
    present = [path for table in TABLES for path in shards(folder, table)]
    _check_names(folder, listed, {path.relative_to(folder).as_posix() for path in present})
    counts: dict[str, Counter[tuple[str, str]]] = {table: Counter() for table in TABLES}
    ids: set[str] = set()
    seen_in: dict[tuple[str, str], str] = {}
    rows: dict[str, int] = {}
    for name in sorted({path.name for path in present}):
        path, shard_ids = folder / "faces" / name, set()
        # A table without rows has no file: `datasets` cannot read an empty one.
        for row in read_shard(path, "faces") if path.is_file() else ():
            record = FaceRecord.from_row(row)
            _check_landmarks(record, path)
            _check_split(record, path, seen_in, people=record.source not in crossing)
            _add(record.face_id, ids, path)
            shard_ids.add(record.face_id)
            counts["faces"][record.source, record.split] += 1
        rows[f"faces/{name}"] = len(shard_ids)
        path = folder / "samples" / name
        if path.is_file():
            rows[f"samples/{name}"] = _validate_samples(path, shard_ids, ids, counts["samples"])
    for path in present:
        name = path.relative_to(folder).as_posix()
        if sha256(path) != listed[name]["sha256"]:
            raise BadCorpus(
                f"Corpus shard '{path}' is not the file of the manifest (checksum); "
                "delete it and run the build again."
            )
        if rows[name] != listed[name]["rows"]:
            raise BadCorpus(
                f"Corpus shard '{path}' has {rows[name]} rows and the manifest says "
                f"{listed[name]['rows']}; {_OTHER_MANIFEST}"
            )
    for table in TABLES:
        _check_counts(folder, table, counts[table], manifest["counts"].get(table, {}))
    return {
        table: sum(number for name, number in rows.items() if name.startswith(f"{table}/"))
        for table in TABLES
    }


def check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest of another version, or one that lacks a part that a build writes.

    Args:
        manifest: as it was read.
        path: of the file that holds it.

    Raises:
        BadCorpus: it is refused.
    """
    if manifest.get("version") != CORPUS_VERSION:
        raise BadCorpus(
            f"The manifest in '{path}' has the form {manifest.get('version')}, and this facellava "
            f"reads form {CORPUS_VERSION}; build the corpus again."
        )
    odd = [part for part in _PARTS if not isinstance(manifest.get(part), dict)]
    odd += [
        name
        for name, entry in ({} if odd else manifest["files"]).items()
        if not (isinstance(entry, dict) and {"sha256", "rows"} <= set(entry))
    ]
    if odd:
        raise BadCorpus(
            f"The manifest in '{path}' lacks what it says about {odd[0]}; {_OTHER_MANIFEST}"
        )


def _check_names(folder: Path, listed: Iterable[str], present: set[str]) -> None:
    """The files are those of the manifest, and the card is there."""
    for name in sorted(set(listed) ^ present):
        if name in present:
            raise BadCorpus(f"Corpus file '{folder / name}' is not in the manifest; delete it.")
        raise BadCorpus(
            f"Corpus file '{folder / name}' is in the manifest and missing; run the build again."
        )
    if not (folder / "README.md").is_file():
        raise BadCorpus(
            f"Corpus '{folder}' has lost its dataset card README.md, with the terms of its "
            "sources; run the build again."
        )


def _check_counts(
    folder: Path, table: str, found: Mapping[tuple[str, str], int], said: Any
) -> None:
    """The manifest counts the faces by source and split, the kept samples by task and split."""
    tree: dict[str, dict[str, int]] = {}
    for (name, split), number in sorted(found.items()):
        if number:
            tree.setdefault(name, {})[split] = number
    if tree != said:
        raise BadCorpus(
            f"Corpus '{folder}' holds the {table} {tree} and its manifest counts {said}; "
            f"{_OTHER_MANIFEST}"
        )


def _validate_samples(
    path: Path, face_ids: set[str], ids: set[str], kept: Counter[tuple[str, str]]
) -> int:
    """The number of rows; those that are kept are counted by task and split."""
    count, split = 0, path.name.split("-", 1)[0]
    for row in read_shard(path, "samples"):
        sample = Sample.from_row(row)
        if sample.face_id not in face_ids:
            raise BadCorpus(
                f"Sample {sample.sample_id} of '{path}' speaks of face {sample.face_id}, "
                "which its faces shard does not hold."
            )
        _add(sample.sample_id, ids, path)
        kept[sample.task, split] += sample.kept
        count += 1
    return count


def _add(new: str, ids: set[str], path: Path) -> None:
    if new in ids:
        raise BadCorpus(f"The id {new} of '{path}' is used twice; ids are unique in a corpus.")
    ids.add(new)


def _check_landmarks(record: FaceRecord, path: Path) -> None:
    largest = float(np.abs(record.landmarks).max())
    # A NaN fails this comparison too.
    if not largest <= LARGEST_COORDINATE:
        raise BadCorpus(
            f"The landmarks of face {record.face_id} in '{path}' reach {largest:g}; allowed are "
            "finite (x, y) in [0, 1] of the crop: delete the shard and run the build again."
        )


def _check_split(
    record: FaceRecord, path: Path, seen_in: dict[tuple[str, str], str], *, people: bool
) -> None:
    """A shard holds one split; no picture and, where asked, no person of a source is in two."""
    if not path.name.startswith(f"{record.split}-"):
        raise BadCorpus(f"Face {record.face_id} of '{path}' belongs to split {record.split!r}.")
    picture = hashlib.sha256(b"".join(record.frames)).hexdigest()
    for what, value in (("subject", record.subject if people else None), ("picture", picture)):
        if value is None:
            continue
        other = seen_in.setdefault((record.source, f"{what} {value}"), record.split)
        if other != record.split:
            raise BadCorpus(
                f"The {what} of face {record.face_id} in '{path}' is also in split {other!r}: "
                "the splits leak."
            )
