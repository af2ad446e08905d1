"""Raw datasets to a corpus: cut the rows into shards, build them in worker processes, tie them up.

A finished shard leaves a note in ``DIR/.progress``; a build that was killed and is started again
with the same settings keeps those and makes the rest. The manifest is written last, so a folder
with a manifest is a whole corpus.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Final

import cv2
import pyarrow as pa
from tqdm import tqdm

from data_builders.annotate.measured import ANNOTATOR, ANNOTATOR_VERSION
from data_builders.blend_set import write_blend_pack
from data_builders.face_records import face_records
from data_builders.rate import DEFAULT_THRESHOLD, Threshold
from data_builders.raw_face import Drops, RawFace
from data_builders.report import dataset_card, gathered, report_text, summary
from data_builders.shard import ShardJob, ShardReport, build_shard
from data_builders.sources import SOURCES
from facellava import __version__
from facellava.corpus import CORPUS_VERSION, TABLES, read_manifest, sha256
from facellava.errors import BadCorpus, BadSample

__all__ = ["build", "face_records", "summary", "write_blend_pack"]

SHARD_ROWS: Final = 512
SELF_BLENDS: Final = ("celeba", "real_fake_faces")
PROGRESS: Final = ".progress"

logger = logging.getLogger(__name__)


def build(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    limit: int | None = None,
    self_blends: Sequence[str] = SELF_BLENDS,
    threshold: Threshold = DEFAULT_THRESHOLD,
    shard_rows: int = SHARD_ROWS,
) -> dict[str, Any]:
    """Build a corpus; the same settings and data give the same bytes.

    Args:
        sources: name of :data:`data_builders.sources.SOURCES` and folder of each dataset.
        out: folder of the corpus; new, or of the same build that did not finish.
        seed: decides the questions, the words and the blends.
        workers: processes; as many as there are cores where None.
        limit: at most so many faces of each split of each source.
        self_blends: sources whose real faces are also blended into themselves.
        threshold: ratings below which a sample is not kept.
        shard_rows: raw faces in a shard.

    Returns:
        The manifest.

    Raises:
        BadCorpus: a dataset of another layout, or a folder that holds something else.
    """
    settings = {
        "sources": [name for name, _ in sources],
        "seed": seed,
        "limit": limit,
        "self_blends": sorted(self_blends),
        "threshold": asdict(threshold),
        "shard_rows": shard_rows,
        "code_version": __version__,
        "annotator": f"{ANNOTATOR} {ANNOTATOR_VERSION}",
    }
    _check_arguments(settings, workers)
    if not _open_folder(out, settings):
        logger.info("The corpus %s is already built with these settings.", out)
        return read_manifest(out)
    drops = {name: Drops() for name, _ in sources}
    jobs = chain.from_iterable(
        _jobs(name, _limited(SOURCES[name](root, drops[name]), limit), out, settings, drops[name])
        for name, root in sources
    )
    reports = sorted(_build_all(jobs, out, workers or _cores()), key=_by_name)
    for report in reports:
        drops[_source_of(report)].merge(report.drops)
    manifest = _manifest(settings, reports, drops)
    if not manifest["files"]:
        raise BadCorpus("Not one usable face was found; look at the folders given and try again.")
    _finish(out, manifest)
    tqdm.write(report_text(manifest), file=sys.stderr)
    return manifest


def _check_arguments(settings: dict[str, Any], workers: int | None) -> None:
    names = settings["sources"]
    for name in (*names, *settings["self_blends"]):
        if name not in SOURCES:
            raise BadCorpus(f"There is no source {name!r}; known are {', '.join(SOURCES)}.")
    if not names or len(set(names)) != len(names):
        raise BadCorpus(f"The sources are {names}; give each source once, and at least one.")
    for name, value in (("limit", settings["limit"]), ("workers", workers)):
        if value is not None and value < 1:
            raise BadSample(f"The {name} is {value}; it must be at least 1.")
    if settings["shard_rows"] < 1:
        raise BadSample(f"A shard of {settings['shard_rows']} rows cannot be; give at least 1.")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _open_folder(out: Path, settings: dict[str, Any]) -> bool:
    """True where there is work to do; refuses a folder that is not this build's."""
    note = out / PROGRESS / "settings.json"
    if (out / "manifest.json").is_file():
        found = read_manifest(out).get("settings")
    elif note.is_file():
        found = json.loads(note.read_text("utf-8"))
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadCorpus(f"'{out}' holds other files; give a new folder for the corpus.")
    else:
        found = settings
    if found != settings:
        odd = [name for name in settings if (found or {}).get(name) != settings[name]]
        raise BadCorpus(
            f"'{out}' holds a corpus built with other settings ({', '.join(odd)}); give another "
            "folder, or delete this one."
        )
    if (out / "manifest.json").is_file():
        return False
    note.parent.mkdir(parents=True, exist_ok=True)
    _write_text(note, _json(settings))
    return True


def _limited(rows: Iterable[RawFace], limit: int | None) -> Iterator[RawFace]:
    """At most `limit` rows of each split."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.split] = seen.get(row.split, 0) + 1
        if limit is None or seen[row.split] <= limit:
            yield row


def _jobs(
    source: str, rows: Iterable[RawFace], out: Path, settings: dict[str, Any], drops: Drops
) -> Iterator[ShardJob]:
    """The rows of one source as shards of one split each."""
    waiting: dict[str, list[RawFace]] = {}
    numbers: dict[str, int] = {}

    def job(split: str) -> ShardJob:
        number = numbers.get(split, 0)
        numbers[split] = number + 1
        return ShardJob(
            folder=out,
            source=source,
            split=split,
            number=number,
            rows=tuple(waiting.pop(split)),
            seed=settings["seed"],
            self_blends=source in settings["self_blends"],
            threshold=Threshold(**settings["threshold"]),
        )

    for row in _without_repeats(source, rows, drops):
        waiting.setdefault(row.split, []).append(row)
        if len(waiting[row.split]) == settings["shard_rows"]:
            yield job(row.split)
    for split in list(waiting):
        yield job(split)


def _without_repeats(source: str, rows: Iterable[RawFace], drops: Drops) -> Iterator[RawFace]:
    """Drop repeated keys and pictures seen in another split; a person in two splits is refused."""
    keys: set[str] = set()
    pictures: dict[bytes, str] = {}
    subjects: dict[str, str] = {}
    for row in rows:
        if row.subject is not None and subjects.setdefault(row.subject, row.split) != row.split:
            raise BadCorpus(
                f"Person {row.subject} of {source} is in the splits {subjects[row.subject]!r} and "
                f"{row.split!r}; mend the split lists, because such splits leak."
            )
        if row.key in keys:
            drops.add("the row's name is used twice", row.key)
        elif pictures.setdefault(hashlib.sha256(row.picture).digest(), row.split) != row.split:
            drops.add("the same picture is in another split", row.key)
        else:
            keys.add(row.key)
            yield row


def _build_all(jobs: Iterable[ShardJob], out: Path, workers: int) -> Iterator[ShardReport]:
    """Reports of all shards in the order in which they finish, those of an earlier run first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_builders.shard"])
    running: set[Future[ShardReport]] = set()
    with (
        tqdm(unit="face", desc="corpus") as bar,
        ProcessPoolExecutor(workers, context, initializer=_use_one_core) as pool,
    ):
        try:
            for job in jobs:
                report = _finished(job, out)
                if report is not None:
                    bar.update(report.rows)
                    yield report
                    continue
                running.add(pool.submit(build_shard, job))
                # A queue of two a worker: rows are read no faster than they are used up.
                while len(running) >= 2 * workers:
                    yield from _collect(running, out, bar)
            while running:
                yield from _collect(running, out, bar)
        except BrokenProcessPool as error:
            raise BadCorpus(
                "A worker process was killed, perhaps for lack of memory; run the build again with "
                "fewer --workers: finished shards are kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _collect(running: set[Future[ShardReport]], out: Path, bar: tqdm[Any]) -> Iterator[ShardReport]:
    done, still = wait(running, return_when=FIRST_COMPLETED)
    running.clear()
    running.update(still)
    for future in done:
        report = future.result()
        _write_text(_note(out, report.name), _json(asdict(report)))
        bar.update(report.rows)
        yield report


def _use_one_core() -> None:
    """In a worker: the libraries' own threads would fight the other workers for the cores."""
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)


def _note(out: Path, name: str) -> Path:
    return out / PROGRESS / f"{name}.json"


def _finished(job: ShardJob, out: Path) -> ShardReport | None:
    """The report of an earlier run, if the shard's inputs and files are still the same."""
    note = _note(out, job.name)
    if not note.is_file():
        return None
    report = ShardReport(**json.loads(note.read_text("utf-8")))
    same = report.fingerprint == job.fingerprint() and all(
        (out / name).is_file() and sha256(out / name) == entry["sha256"]
        for name, entry in report.files.items()
    )
    return report if same else None


def _by_name(report: ShardReport) -> str:
    return report.name


def _source_of(report: ShardReport) -> str:
    return report.name.split("-", 1)[1].rsplit("-", 1)[0]


def _manifest(
    settings: dict[str, Any], reports: Sequence[ShardReport], drops: dict[str, Drops]
) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for report in reports:
        files |= report.files
    return {
        "version": CORPUS_VERSION,
        "settings": settings,
        "files": dict(sorted(files.items())),
        "counts": gathered(report.counts for report in reports),
        "dropped": {name: found.to_dict() for name, found in drops.items()},
    }


def _finish(out: Path, manifest: dict[str, Any]) -> None:
    """Remove what is no part of the corpus, then write the card and, last, the manifest."""
    for table in TABLES:
        for path in (out / table).glob("*"):
            if f"{table}/{path.name}" not in manifest["files"]:
                path.unlink()
    _write_text(out / "README.md", dataset_card(manifest))
    _write_text(out / "manifest.json", _json(manifest))
    shutil.rmtree(out / PROGRESS)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
