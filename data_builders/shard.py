"""One shard of a corpus, from raw rows to finished files: the unit of work of a build.

A shard depends on its rows and the seed alone, so builds give the same bytes with any number of
workers, and a shard that is missing can be made again by itself.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from data_builders.annotate.measured import write_samples
from data_builders.media import DEFAULT_LOOK, Look, Unusable
from data_builders.rate import DEFAULT_THRESHOLD, Threshold, rate_samples
from data_builders.raw_face import Drops, RawFace
from data_builders.sources.faceinstruct import samples_of
from facellava.corpus import FaceRecord, Sample, record_of, sha256, write_shard
from facellava.faces import Face, measure
from facellava.faces.clips import apex
from facellava.faces.self_blend import self_blend

BLENDED: Final = "self_blended"


@dataclass(frozen=True)
class ShardSettings:
    """How shards of one source are built.

    Attributes:
        self_blends: also make a self-blended fake and its real from each real face of a photo.
        measured: write samples from measurements; without, an endpoint writes them later.
    """

    seed: int = 0
    self_blends: bool = False
    threshold: Threshold = DEFAULT_THRESHOLD
    look: Look = DEFAULT_LOOK
    measured: bool = True


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to build one shard.

    Attributes:
        source: the dataset's name.
        split: the split that all rows belong to.
        number: counts the shards of this source and split.
        rows: the raw faces, in the source's order.
    """

    folder: Path
    source: str
    split: str
    number: int
    rows: Sequence[RawFace]
    settings: ShardSettings

    @property
    def name(self) -> str:
        """The shard's file name without its ending."""
        return shard_name(self.split, self.source, self.number)

    def fingerprint(self) -> str:
        """Changes when any input of the shard changes."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for row in self.rows:
            digest.update(row.media.digest())
            person = (row.subject, row.demographics)
            said = (row.labels, row.reference, row.conversations)
            digest.update(repr((row.key, row.fold, person, said)).encode())
        return digest.hexdigest()


def shard_name(split: str, source: str, number: int) -> str:
    """``<split>-<source>-<number>``, the same for the faces and the samples file."""
    return f"{split}-{source}-{number:05d}"


@dataclass
class ShardReport:
    """What a finished shard holds.

    Attributes:
        files: path within the corpus to its sha256, bytes and rows.
        counts: what was counted, under keys such as "faces/celeba/train".
        drops: raw rows left out, by reason (:meth:`Drops.to_dict`).
    """

    name: str
    fingerprint: str
    rows: int
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    drops: dict[str, dict[str, Any]] = field(default_factory=dict)


def build_shard(job: ShardJob) -> ShardReport:
    """Find the faces, write them, write and rate their samples; a second pair of files for blends.

    Every face is annotated as it was stored, after JPEG: the numbers in the corpus can be measured
    again from the corpus.
    """
    drops, counts = Drops(), Counter[str]()
    plain: list[FaceRecord] = []
    blended: list[FaceRecord] = []
    brought: list[Sample] = []
    settings = job.settings
    for row in job.rows:
        frames = find_face(row, drops, settings.look)
        if not frames:
            continue
        record = record_of_row(job.source, row, frames)
        plain.append(record)
        if row.conversations:
            brought += samples_of(record, row)
        real = row.labels.get("deepfake", "real") == "real"
        if settings.self_blends and real and len(frames) == 1:
            blended += _blends(record, frames[0], settings.seed)
    report = ShardReport(job.name, job.fingerprint(), len(job.rows))
    _write(job, job.source, plain, report, counts, brought)
    if blended:
        _write(job, blended[0].source, blended, report, counts)
    report.counts, report.drops = dict(sorted(counts.items())), drops.to_dict()
    return report


def find_face(row: RawFace, drops: Drops, look: Look = DEFAULT_LOOK) -> tuple[Face, ...]:
    """The row's one face in each frame; empty, and counted, where it has none or several."""
    try:
        return row.media.face(look)
    except Unusable as error:
        drops.add(error.reason, row.key)
    except OSError:
        drops.add("file cannot be read", row.key)
    return ()


def record_of_row(source: str, row: RawFace, frames: Sequence[Face]) -> FaceRecord:
    """The record of a row's face, with what the source says."""
    return record_of(
        frames,
        face_id=face_id_of(source, row),
        source=source,
        split=row.split,
        fold=row.fold,
        subject=row.subject,
        labels=row.labels,
        demographics=row.demographics,
        licence=row.licence,
        origin=row.origin,
        reference=row.reference,
    )


def face_id_of(source: str, row: RawFace) -> str:
    """What names the row's face in a corpus."""
    return f"{source}-{row.key}"


def _blends(record: FaceRecord, face: Face, seed: int) -> Iterator[FaceRecord]:
    """The self-blended fake of a real face, and the real that it was made from."""
    blend = self_blend(face, generator(seed, record.face_id))
    facts = {
        "method": BLENDED,
        "ratio": blend.ratio,
        "shape": blend.shape,
        "inside": list(blend.inside),
        "crossed": list(blend.crossed),
    }
    for label, made in (("real", blend.real), ("fake", blend.fake)):
        labels: dict[str, Any] = {"deepfake": label}
        if label == "fake":
            labels["blend"] = facts
        yield record_of(
            [made],
            face_id=f"{record.face_id}-blend-{label}",
            source=f"{record.source}_{BLENDED}",
            split=record.split,
            fold=record.fold,
            subject=record.subject,
            labels=labels,
            demographics=record.demographics,
            licence=record.licence,
            origin=record.face_id,
        )


def generator(seed: int, face_id: str) -> np.random.Generator:
    """Random numbers of one face, whatever came before it."""
    digest = hashlib.sha256(f"{seed}:{face_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _write(
    job: ShardJob,
    source: str,
    records: Sequence[FaceRecord],
    report: ShardReport,
    counts: Counter[str],
    brought: Sequence[Sample] = (),
) -> None:
    """Write the records and their samples; those that the source brought are kept as they are."""
    unwritten: Counter[str] = Counter()
    samples = list(brought)
    answered = {sample.face_id for sample in brought}
    for record in records:
        counts[f"faces/{source}/{record.split}"] += 1
        counts[f"found/{source}/{record.face_source}"] += 1
        if job.settings.measured and record.face_id not in answered:
            samples += _measured_samples(record, job.settings, unwritten)
    for sample in samples:
        count_sample(sample, job.split, counts)
    counts.update({f"unwritten/{reason}": number for reason, number in unwritten.items()})
    name = shard_name(job.split, source, job.number)
    rows: dict[str, Sequence[FaceRecord | Sample]] = {"faces": records, "samples": samples}
    for table, contents in rows.items():
        if not contents:
            continue  # `datasets` cannot read an empty file
        path = job.folder / table / f"{name}.parquet"
        number = write_shard(path, contents, table)
        report.files[f"{table}/{path.name}"] = {
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
            "rows": number,
        }


def _measured_samples(
    record: FaceRecord, settings: ShardSettings, unwritten: Counter[str]
) -> list[Sample]:
    """The samples of a face as it was stored, rated; of a clip the strongest frame is measured.

    A face of which its source says nothing is asked nothing: it is there for its person's sake.
    """
    if not record.labels:
        return []
    faces = record.faces()
    face = faces[apex(faces)]
    rng = random.Random(f"{settings.seed}:{record.face_id}")
    measured = measure(face)
    written = write_samples(record, face, rng, measurements=measured, dropped=unwritten)
    return rate_samples(written, face, record.labels, settings.threshold, measured)


def count_sample(sample: Sample, split: str, counts: Counter[str]) -> None:
    ratings = sample.ratings
    if ratings is not None:
        for name in ("label", "face", "text", "overall"):
            counts[f"ratings/{name}/{getattr(ratings, name)}"] += 1
    if not sample.kept:
        counts[f"low_rated/{sample.task}/{split}"] += 1
        return
    counts[f"samples/{sample.task}/{split}"] += 1
    counts[f"form/{sample.form}"] += 1
    counts["turns/later" if sample.history else "turns/first"] += 1
    if sample.weak:
        counts[f"weak/{sample.task}/{split}"] += 1
    for word in _label_words(sample.label):
        counts[f"labels/{sample.task}/{word}"] += 1


def _label_words(label: Any) -> list[str]:
    """What a label counts as: ages by decade, of attributes those that are there."""
    if isinstance(label, bool) or label is None:
        return []
    if isinstance(label, int):
        return [f"{label // 10 * 10}-{label // 10 * 10 + 9}"]
    if isinstance(label, dict):
        return [name for name, there in label.items() if there]
    return [label] if isinstance(label, str) else list(label) or ["none"]
