"""Raw datasets to a corpus: cut the rows into shards, have them built, tie them up.

The manifest is written last, so a folder with a manifest is a whole corpus. What a build that was
killed has done is kept (`data_builders.progress`), and a shard that a finished corpus has lost is
built again (`data_builders.repair`).
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from data_builders.annotate.measured import ANNOTATOR, ANNOTATOR_VERSION
from data_builders.blend_set import write_blend_pack
from data_builders.executors import EXECUTORS, Executor
from data_builders.face_records import face_records
from data_builders.finished import to_json
from data_builders.media import DEFAULT_LOOK, Look
from data_builders.mixture import MixtureEntry
from data_builders.plan import jobs, planned_rows
from data_builders.progress import PROGRESS, ShardBuilder, finished, open_folder
from data_builders.rate import DEFAULT_THRESHOLD, Threshold
from data_builders.raw_face import Drops, Source
from data_builders.repair import lost_files, rebuild, rewrite_card
from data_builders.report import dataset_card, gathered, report_text, summary
from data_builders.shard import ShardJob, ShardReport, ShardSettings
from data_builders.sources import SOURCES, find_source
from facellava import __version__
from facellava.corpus import CORPUS_VERSION, SPLITS, TABLES, read_manifest
from facellava.errors import BadCorpus, BadSample, FacellavaError
from facellava.whole_files import write_text

__all__ = ["build", "face_records", "summary", "write_blend_pack"]

SHARD_ROWS: Final = 512
SELF_BLENDS: Final = ("celeba", "real_fake_faces")


@dataclass(frozen=True)
class BuildOptions:
    """What decides the bytes of a corpus, next to the datasets themselves.

    Attributes:
        seed: decides the questions, the words and the blends.
        limit: at most so many rows of each split of each source.
        self_blends: sources whose real faces are also blended into themselves.
        threshold: ratings below which a sample is not kept.
        look: how clips are looked at.
        fold: of sources with folds: the one that becomes the split "test"; none where None.
        shard_rows: raw faces in a shard.
        measured: write the samples from measurements; without, an endpoint writes them afterwards.
        splits: only rows of these are built from; all where None.
        drawn: the limit's rows are drawn evenly by the seed, as many of each fold where there are
            folds; without, they are the first.
    """

    seed: int = 0
    limit: int | None = None
    self_blends: Sequence[str] = SELF_BLENDS
    threshold: Threshold = DEFAULT_THRESHOLD
    look: Look = DEFAULT_LOOK
    fold: int | None = 1
    shard_rows: int = SHARD_ROWS
    measured: bool = True
    splits: tuple[str, ...] | None = None
    drawn: bool = False

    def __post_init__(self) -> None:
        for name in self.self_blends:
            find_source(name)
        if self.limit is not None and self.limit < 1:
            raise BadSample(f"The limit is {self.limit}; it must be at least 1.")
        if self.shard_rows < 1:
            raise BadSample(f"A shard of {self.shard_rows} rows cannot be; give at least 1.")
        if self.splits is not None and not set() < {*self.splits} <= {*SPLITS}:
            raise BadSample(
                f"The splits are {list(self.splits)}; give one or more of {', '.join(SPLITS)}."
            )

    def of_source(self, name: str) -> ShardSettings:
        """What the shards of one source are built with."""
        return ShardSettings(
            self.seed, name in self.self_blends, self.threshold, self.look, self.measured
        )


def build(
    sources: Sequence[MixtureEntry],
    out: Path,
    options: BuildOptions = BuildOptions(),
    *,
    workers: int | None = None,
    executor: Executor = "local",
) -> dict[str, Any]:
    """Build a corpus; the same options and data give the same bytes, whoever builds it.

    A finished corpus of the same options is left alone, but for files that it has lost: those are
    built again.

    Args:
        sources: the datasets, where they lie, and how much of each is taken.
        out: folder of the corpus; new, or of the same build that did not finish.
        options: what decides the bytes.
        workers: processes; as many as there are cores where None.
        executor: "local" or "ray".

    Returns:
        The manifest.

    Raises:
        BadCorpus: a dataset that is missing or of another layout, a folder that holds something
            else or cannot be written, or a lost file that comes out another one.
        BadSample: fewer than one worker, or a fold that a source does not have.
        MissingBackend: the executor is not installed.
    """
    names = [entry.name for entry in sources]
    for name in names:
        find_source(name)
    if not names or len(set(names)) != len(names):
        raise BadCorpus(f"The sources are {names}; give each source once, and at least one.")
    if workers is not None and workers < 1:
        raise BadSample(f"The workers are {workers}; there must be at least 1.")
    settings = {
        "sources": names,
        "weights": {entry.name: entry.weight for entry in sources},
        "limits": {entry.name: entry.limit for entry in sources if entry.limit is not None},
        **asdict(options),
        "self_blends": sorted(options.self_blends),
        "splits": None if options.splits is None else sorted({*options.splits}),
        "code_version": __version__,
        "annotator": f"{ANNOTATOR} {ANNOTATOR_VERSION}" if options.measured else None,
    }
    drops = {name: Drops(options.splits) for name in names}
    work = chain.from_iterable(_work(sources, out, options, drops))

    def builder(some: Iterable[ShardJob]) -> Generator[ShardReport]:
        return EXECUTORS[executor](some, workers or _cores())

    with space_is_needed(out):
        if not open_folder(out, settings):
            return _kept_whole(out, work, builder)
        with _nothing_left_of_no_beginning(out):
            reports = sorted(_build_all(work, builder), key=_by_name)
            for report in reports:
                drops[_source_of(report)].merge(report.drops)
            manifest = _manifest(settings, reports, drops)
            if not manifest["files"]:
                of = f" of the split {' or '.join(options.splits)}" if options.splits else ""
                raise BadCorpus(
                    f"Not one usable face{of} was found; look at the folders given and try again."
                )
            _finish(out, manifest)
    tqdm.write(report_text(manifest), file=sys.stderr)
    return manifest


def _work(
    sources: Sequence[MixtureEntry], out: Path, options: BuildOptions, drops: Mapping[str, Drops]
) -> list[Iterator[ShardJob]]:
    """The shards of each source; no row is read yet, but all folders are known to be there."""
    return [
        jobs(
            entry.name,
            planned_rows(
                SOURCES[entry.name],
                entry.root,
                drops[entry.name],
                fold=options.fold,
                weight=entry.weight,
                splits=options.splits,
                limit=min(filter(None, (entry.limit, options.limit)), default=None),
                seed=options.seed if options.drawn else None,
            ),
            out,
            options.of_source(entry.name),
            options.shard_rows,
        )
        for entry in sources
    ]


def _kept_whole(
    out: Path,
    work: Iterable[ShardJob],
    builder: ShardBuilder,
) -> dict[str, Any]:
    """The manifest of a finished corpus; what it has lost is built again."""
    manifest = read_manifest(out)
    lost = lost_files(out, manifest)
    if lost:
        tqdm.write(f"{len(lost)} files of '{out}' are built again.", file=sys.stderr)
        rebuild(out, manifest, lost, work, builder)
    else:
        tqdm.write(
            f"The corpus '{out}' is already built with these settings; no dataset was read.",
            file=sys.stderr,
        )
    rewrite_card(out, manifest)
    return manifest


@contextmanager
def _nothing_left_of_no_beginning(out: Path) -> Iterator[None]:
    """Remove the folder of a build that fails before its first shard, as of a wrong --root."""
    try:
        yield
    except FacellavaError:
        notes = [path.name for path in (out / PROGRESS).iterdir()]
        if list(out.iterdir()) == [out / PROGRESS] and notes == ["settings.json"]:
            shutil.rmtree(out)
        raise


@contextmanager
def space_is_needed(folder: Path) -> Iterator[None]:
    """Tell in one sentence that a folder cannot be written; what is finished stays.

    Raises:
        BadCorpus: there is no room left where the folder lies, or it may not be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BadCorpus(
                f"The disk of '{folder}' is full: free some space and run the same command again, "
                "it goes on from there."
            ) from error
        raise BadCorpus(
            f"'{folder}' cannot be written ({error.strerror or error}); give a folder that can be."
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _build_all(work: Iterable[ShardJob], builder: ShardBuilder) -> list[ShardReport]:
    """Reports of all shards, those of an earlier run among them."""
    reports: list[ShardReport] = []
    with tqdm(unit="face", desc="corpus") as bar:

        def unfinished() -> Iterator[ShardJob]:
            for job in work:
                report = finished(job)
                if report is None:
                    yield job
                else:
                    bar.update(report.rows)
                    reports.append(report)

        with closing(builder(unfinished())) as built:
            for report in built:
                bar.update(report.rows)
                reports.append(report)
    return reports


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
        "sources": {name: terms(SOURCES[name]) for name in settings["sources"]},
        "files": dict(sorted(files.items())),
        "counts": gathered(report.counts for report in reports),
        "dropped": {name: found.to_dict() for name, found in drops.items()},
    }


def terms(source: Source) -> dict[str, Any]:
    """What must be said wherever the data or a model of it goes."""
    return {
        "title": source.title,
        "licence": source.licence,
        "consent": source.consent,
        "people_cross_splits": source.people_cross_splits,
    }


def _finish(out: Path, manifest: dict[str, Any]) -> None:
    """Remove what is no part of the corpus, then write the card and, last, the manifest."""
    for table in TABLES:
        for path in (out / table).glob("*"):
            if f"{table}/{path.name}" not in manifest["files"]:
                path.unlink()
    write_text(out / "README.md", dataset_card(manifest))
    write_text(out / "manifest.json", to_json(manifest))
    shutil.rmtree(out / PROGRESS)
