"""What a finished corpus says about itself: written again when rows are taken out or brought in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from data_builders.report import dataset_card
from data_builders.shard import BLENDED, count_sample
from facellava.corpus import sha256
from facellava.records import FaceRecord, Sample
from facellava.whole_files import write_text

PAGE: Final = "report.html"
"""The page of :mod:`data_builders.report_page`; it shows faces, so a removal deletes it."""


def parent_source(name: str) -> str:
    """The dataset that a source's faces come from: self-blends belong to the reals they show."""
    return name.removesuffix(f"_{BLENDED}")


def counted(faces: Iterable[FaceRecord], samples: Iterable[Sample], split: str) -> Counter[str]:
    """Counts of rows of one split, under the keys of :attr:`ShardReport.counts`."""
    counts = Counter[str]()
    for face in faces:
        counts[f"faces/{face.source}/{face.split}"] += 1
        counts[f"found/{face.source}/{face.face_source}"] += 1
    for sample in samples:
        if sample.ratings is None and not sample.kept:
            counts[f"unrated/{sample.task}/{split}"] += 1  # its rater failed
        else:
            count_sample(sample, split, counts)
    return counts


def file_entry(path: Path, rows: int) -> dict[str, Any]:
    """What the manifest says about a shard file."""
    return {"sha256": sha256(path), "bytes": path.stat().st_size, "rows": rows}


def card(manifest: Mapping[str, Any]) -> str:
    """The dataset card, with what was withdrawn from the corpus."""
    removed = manifest.get("removed", [])
    gone = {entry["source"] for entry in removed if "subject" not in entry}
    settings = manifest["settings"]
    sources = [name for name in settings["sources"] if name not in gone]
    blended = [name for name in settings["self_blends"] if not gone & {name, f"{name}_{BLENDED}"}]
    left = {**settings, "sources": sources, "self_blends": blended}
    text = dataset_card({**manifest, "settings": left})
    if not removed:
        return text
    lines = [f"- {_what(entry)}: {entry['faces']} faces, {entry['samples']} samples"
             for entry in removed]  # fmt: skip
    return "\n".join([text, "## Withdrawn from this corpus", "", *lines, ""])


def _what(entry: Mapping[str, Any]) -> str:
    if "subject" in entry:
        return f"person {entry['subject']} of {entry['source']}"
    return f"all of {entry['source']}"


def write_card_and_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the card and, last, the manifest: with it the corpus is whole."""
    write_text(folder / "README.md", card(manifest))
    write_text(folder / "manifest.json", to_json(manifest))


def to_json(value: object) -> str:
    """As the build writes it: the same contents give the same bytes."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
