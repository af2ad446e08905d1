"""The second stage of a corpus: an endpoint writes the samples of a corpus that holds faces only.

It completes what ``build(..., BuildOptions(measured=False))`` left in a folder. Samples and notes
grow in ``DIR/.annotate`` and move in when all are there, just before the manifest says so: until
then the corpus stays a whole one of faces. Replies are kept in a file beside the folder, not in it:
they cost money, may serve another corpus, and are no part of what is published.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data_builders import rate_endpoint
from data_builders.annotate import endpoint as annotate
from data_builders.annotate.topics import DEFAULT_SHARES, Shares
from data_builders.build import space_is_needed
from data_builders.finished import to_json, write_card_and_manifest
from data_builders.manifests import sound_manifest
from data_builders.rate import DEFAULT_THRESHOLD, Rule, Threshold
from data_builders.report import gathered, report_text
from data_builders.shard import ShardReport, count_sample
from facellava.corpus import (
    FaceRecord,
    Sample,
    read_shard,
    sha256,
    write_shard,
)
from facellava.endpoint import (
    Asker,
    Budget,
    DryRun,
    Endpoint,
    EndpointCache,
    EndpointSettings,
    EndpointStopped,
    Prices,
)
from facellava.errors import BadCorpus, BadSample
from facellava.tasks.annotation import ANNOTATION, RATING, prompt_version
from facellava.whole_files import write_text

WORK: Final = ".annotate"
_WAITING: Final = 2  # faces that are worked on, for each request under way

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotateOptions:
    """How an endpoint writes, and rates, the samples of a corpus.

    Attributes:
        annotator: the model that writes.
        rater: the model that rates; None leaves the samples without ratings, all kept.
        prices: dollars by model.
        max_cost: dollars that all runs on one cache may spend together; None for no limit.
        cache: file of all replies; beside the corpus where None.
        seed: decides the questions.
        frames: pictures of a clip that the models are shown, at most.
        shares: `json` and `unanswerable` are used.
        threshold: ratings below which a sample is not kept.
        rule: whether each rating has to reach its threshold, or their mean.
    """

    annotator: EndpointSettings
    rater: EndpointSettings | None = None
    prices: Prices = field(default_factory=dict)
    max_cost: float | None = None
    cache: Path | None = None
    seed: int = 0
    frames: int = annotate.FRAMES
    shares: Shares = DEFAULT_SHARES
    threshold: Threshold = DEFAULT_THRESHOLD
    rule: Rule = "each"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise BadSample(f"The frames shown are {self.frames}; there must be at least 1.")

    def decides(self) -> dict[str, Any]:
        """What decides the samples, next to the faces and the replies; the manifest holds it."""
        return {
            "annotator": self.annotator.decides(),
            "annotator_version": annotate.ANNOTATOR_VERSION,
            "annotator_prompts": _versions(ANNOTATION),
            "rater": self.rater.decides() if self.rater else None,
            "rater_prompts": _versions(RATING) if self.rater else {},
            "seed": self.seed,
            "frames": self.frames,
            "shares": {"json": self.shares.json, "unanswerable": self.shares.unanswerable},
            "threshold": asdict(self.threshold),
            "rule": self.rule,
        }

    def cache_of(self, folder: Path) -> Path:
        """The file of replies."""
        return self.cache or replies_of(folder)


def replies_of(folder: Path) -> Path:
    """The file beside a corpus that holds the replies for it, where no other one was named."""
    named = Path(os.path.abspath(folder))  # "." has no name
    return named.with_name(f"{named.name}.replies.sqlite")


def _versions(prompts: Mapping[str, str]) -> dict[str, str]:
    return {task: prompt_version(text) for task, text in prompts.items()}


def annotate_corpus(folder: Path, options: AnnotateOptions) -> dict[str, Any]:
    """Write the samples of a finished corpus of faces; goes on where an earlier run ended.

    The manifest keeps the build's settings and gets a key "endpoint": what decided the samples, the
    prices, and for each model its tokens and dollars. Labels without a sample are counted under
    counts, "unwritten", by task and reason. The same call on a finished corpus changes nothing.

    Returns:
        The manifest.

    Raises:
        BadCorpus: no corpus of faces only, one annotated with other options, or one that cannot be
            written.
        EndpointStopped: no money is left, the key is refused, or patience is at its end; run again
            to go on. Or not one label got a sample: the corpus stays as it was.
    """
    manifest = sound_manifest(folder)
    if not _is_open(folder, manifest, options):
        logger.info("The corpus %s is already annotated with these options.", folder)
        return manifest
    with EndpointCache(options.cache_of(folder)) as cache:
        budget = Budget(options.prices, options.max_cost, cache.spent())
        reports = asyncio.run(_annotate(folder, manifest, options, cache, budget))
        usage = {model: asdict(totals) for model, totals in cache.totals().items()}
    _check_any(folder, reports)
    prices = {name: price.model_dump() for name, price in sorted(options.prices.items())}
    manifest["endpoint"] = {**options.decides(), "prices": prices, "usage": usage}
    for report in reports:
        manifest["files"] |= report.files
    manifest["files"] = dict(sorted(manifest["files"].items()))
    manifest["counts"] |= gathered(report.counts for report in reports)
    with space_is_needed(folder):
        _finish(folder, manifest)
    tqdm.write(report_text(manifest), file=sys.stderr)
    return manifest


def estimate_corpus(folder: Path, options: AnnotateOptions) -> str:
    """What :func:`annotate_corpus` would send and cost, a line a model; nothing is sent or written.

    Raises:
        BadCorpus: as there.
    """
    manifest = sound_manifest(folder)
    if not _is_open(folder, manifest, options):
        return "The corpus is already annotated with these options: nothing would be sent."
    path = options.cache_of(folder)
    examples: dict[type[BaseModel], BaseModel] = {
        annotate.Annotation: annotate.EXAMPLE,
        rate_endpoint.Rating: rate_endpoint.EXAMPLE,
    }
    with EndpointCache(path if path.is_file() else None) as cache:
        budget = Budget(options.prices, options.max_cost)
        dry = [
            DryRun(settings, cache, budget, examples)
            for settings in (options.annotator, options.rater)
            if settings is not None
        ]

        async def run() -> None:
            rater, unwritten = dry[1] if dry[1:] else None, Counter[str]()
            with tqdm(total=_faces(manifest), unit="face", desc="estimate") as bar:
                for record in _records(_shards(folder, manifest)):
                    await _samples_of(record, dry[0], rater, options, unwritten)
                    bar.update()

        asyncio.run(run())
    return "\n".join(run.estimate.text() for run in dry)


def _is_open(folder: Path, manifest: Mapping[str, Any], options: AnnotateOptions) -> bool:
    """Whether there is something to write."""
    done = manifest.get("endpoint")
    if done is not None:
        wanted = json.loads(to_json(options.decides()))
        odd = [name for name, value in wanted.items() if done.get(name) != value]
        if odd:
            raise BadCorpus(
                f"'{folder}' was annotated with other options ({', '.join(odd)}); build the faces "
                "into another folder for these, and name its cache of replies."
            )
        return False
    if manifest["settings"].get("annotator") is not None:
        raise BadCorpus(
            f"'{folder}' already holds samples ({manifest['settings']['annotator']}); build a "
            "corpus of faces only for an endpoint."
        )
    return True


def _check_any(folder: Path, reports: Iterable[ShardReport]) -> None:
    """Refuse to finish a corpus whose labels all stayed without a sample."""
    reasons: Counter[str] = Counter()
    for report in reports:
        if report.files:
            return
        for name, number in report.counts.items():
            reasons[name.split(": ", 1)[-1]] += number
    if not reasons:  # no face has a label that a model could explain
        return
    # A run of the same model asks again for what was no reply, and takes replies from the cache.
    shutil.rmtree(folder / WORK)
    [(reason, number)] = reasons.most_common(1)
    raise EndpointStopped(
        f"None of the {reasons.total()} labels in '{folder}' got an answer that can be used, most "
        f"often ({number}) for the reason {reason!r}; the corpus is as before and all replies are "
        "kept, so try another model."
    )


def _shards(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    return [folder / name for name in sorted(manifest["files"]) if name.startswith("faces/")]


def _faces(manifest: Mapping[str, Any]) -> int:
    files: Mapping[str, Any] = manifest["files"]
    return sum(found["rows"] for name, found in files.items() if name.startswith("faces/"))


def _records(paths: Iterable[Path]) -> Iterator[FaceRecord]:
    for path in paths:
        for row in read_shard(path, "faces"):
            yield FaceRecord.from_row(row)


async def _annotate(
    folder: Path,
    manifest: Mapping[str, Any],
    options: AnnotateOptions,
    cache: EndpointCache,
    budget: Budget,
) -> list[ShardReport]:
    """Reports of all shards, those of an earlier run among them."""
    reports = []
    with logging_redirect_tqdm(), tqdm(total=_faces(manifest), unit="face", desc="answers") as bar:
        async with AsyncExitStack() as stack:
            annotator, rater = [
                await stack.enter_async_context(Endpoint(settings, cache, budget))
                if settings
                else None
                for settings in (options.annotator, options.rater)
            ]
            assert annotator is not None
            for path in _shards(folder, manifest):
                job = _Shard(folder, path, manifest, options)
                report = job.finished()
                if report is None:
                    report = await job.annotate(annotator, rater, bar)
                else:
                    bar.update(report.rows)
                reports.append(report)
                bar.set_postfix_str(f"${budget.spent:.2f}")
    return reports


class _Shard:
    """One shard of faces and what becomes of it: its samples, its note."""

    def __init__(
        self, folder: Path, faces: Path, manifest: Mapping[str, Any], options: AnnotateOptions
    ) -> None:
        self.faces, self.options, self.name = faces, options, faces.stem
        self.listed = f"samples/{faces.name}"
        self.final = folder / self.listed
        self.path = folder / WORK / faces.name
        self.note = self.path.with_suffix(".json")
        checksum = manifest["files"][f"faces/{faces.name}"]["sha256"]
        decides = f"{checksum} {to_json(options.decides())}"
        self.fingerprint = hashlib.sha256(decides.encode()).hexdigest()

    def finished(self) -> ShardReport | None:
        """The report of an earlier run, if the faces, the options and the file are the same."""
        if not self.note.is_file():
            return None
        report = ShardReport(**json.loads(self.note.read_text("utf-8")))
        # A run that was killed at its very end has moved the file already.
        path = self.path if self.path.is_file() else self.final
        same = report.fingerprint == self.fingerprint and all(
            path.is_file() and sha256(path) == entry["sha256"] for entry in report.files.values()
        )
        return report if same else None

    async def annotate(self, annotator: Asker, rater: Asker | None, bar: Any) -> ShardReport:
        """Ask for all faces at once, as many as the endpoint takes; write the samples."""
        unwritten: Counter[str] = Counter()
        slots = asyncio.Semaphore(_WAITING * annotator.settings.concurrency)

        async def of_face(record: FaceRecord) -> list[Sample]:
            async with slots:
                found = await _samples_of(record, annotator, rater, self.options, unwritten)
            bar.update()
            return found

        tasks = [asyncio.create_task(of_face(record)) for record in _records([self.faces])]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with space_is_needed(self.path.parent):
            return self._write(
                [sample for samples in found for sample in samples], len(tasks), unwritten
            )

    def _write(self, samples: list[Sample], rows: int, unwritten: Counter[str]) -> ShardReport:
        split = self.name.split("-", 1)[0]
        counts: Counter[str] = Counter()
        for sample in samples:
            if sample.ratings is None and not sample.kept:
                counts[f"unrated/{sample.task}/{split}"] += 1
            else:
                count_sample(sample, split, counts)
        counts.update({f"unwritten/{reason}": number for reason, number in unwritten.items()})
        report = ShardReport(self.name, self.fingerprint, rows, counts=dict(sorted(counts.items())))
        self.path.parent.mkdir(exist_ok=True)
        if samples:  # `datasets` cannot read an empty file
            write_shard(self.path, samples, "samples")
            report.files[self.listed] = {
                "sha256": sha256(self.path),
                "bytes": self.path.stat().st_size,
                "rows": len(samples),
            }
        write_text(self.note, to_json(asdict(report)))
        return report


async def _samples_of(
    record: FaceRecord,
    annotator: Asker,
    rater: Asker | None,
    options: AnnotateOptions,
    unwritten: Counter[str],
) -> list[Sample]:
    samples = await annotate.write_samples(
        record,
        annotator,
        random.Random(f"{options.seed}:{record.face_id}"),
        frames=options.frames,
        shares=options.shares,
        dropped=unwritten,
    )
    if rater is None:
        return samples
    return await rate_endpoint.rate_samples(
        samples,
        record,
        rater,
        threshold=options.threshold,
        rule=options.rule,
        frames=options.frames,
        dropped=unwritten,
    )


def _finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Move the samples in, then write the card and, last, the manifest."""
    (folder / "samples").mkdir(exist_ok=True)
    for path in (folder / WORK).glob("*.parquet"):
        path.replace(folder / "samples" / path.name)
    for path in (folder / "samples").glob("*"):
        if f"samples/{path.name}" not in manifest["files"]:
            path.unlink()
    write_card_and_manifest(folder, manifest)
    shutil.rmtree(folder / WORK)
