"""What a corpus holds, in words: the manifest's counts, the report on it, the dataset card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from facellava.corpus import SPLITS, TABLES, read_manifest

RATINGS: Final = {
    "label": "label is right",
    "face": "text agrees with face",
    "text": "text agrees with label",
    "overall": "overall",
}
BAR: Final = 40  # characters of the longest bar of a histogram
MOST_LABELS: Final = 12

Counts = dict[str, Any]


def gathered(counts: Iterable[Mapping[str, int]]) -> Counts:
    """Counts of many shards as one tree: "faces/celeba/train" becomes faces, celeba, train."""
    tree: Counts = {}
    for shard in counts:
        for key, number in shard.items():
            *groups, last = key.split("/")
            branch = tree
            for group in groups:
                branch = branch.setdefault(group, {})
            branch[last] = branch.get(last, 0) + number
    return tree


def summary(folder: Path) -> str:
    """What the corpus in the folder holds.

    Raises:
        BadCorpus: there is no finished corpus.
    """
    return report_text(read_manifest(folder))


def report_text(manifest: Mapping[str, Any]) -> str:
    """Faces and samples by split, labels, ratings, and what was dropped and why."""
    counts = manifest["counts"]
    parts = [
        _table("Faces", counts.get("faces", {}), SPLITS),
        _table("Samples kept", counts.get("samples", {}), SPLITS),
        _table("Samples not kept for low ratings", counts.get("low_rated", {}), SPLITS),
        _labels(counts.get("labels", {})),
        _ratings(counts.get("ratings", {})),
        _drops(manifest["dropped"], counts.get("unwritten", {})),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(title: str, rows: Mapping[str, Mapping[str, int]], columns: Iterable[str]) -> str:
    if not rows:
        return ""
    columns = [*columns, "all"]
    width = max(len(title), *(len(name) for name in rows))
    lines = [f"{title:<{width}}" + "".join(f"{column:>12}" for column in columns)]
    for name in sorted(rows):
        numbers = {**rows[name], "all": sum(rows[name].values())}
        lines.append(f"{name:<{width}}" + "".join(f"{numbers.get(c, 0):>12}" for c in columns))
    return "\n".join(lines)


def _labels(labels: Mapping[str, Mapping[str, int]]) -> str:
    lines = ["Labels of the kept samples"] if labels else []
    for task in sorted(labels):
        found = sorted(labels[task].items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{name} {number}" for name, number in found[:MOST_LABELS])
        more = f", and {len(found) - MOST_LABELS} more" if len(found) > MOST_LABELS else ""
        lines.append(f"  {task}: {listed}{more}")
    return "\n".join(lines)


def _ratings(ratings: Mapping[str, Mapping[str, int]]) -> str:
    parts = []
    for name, title in RATINGS.items():
        found = ratings.get(name, {})
        most = max(found.values(), default=0)
        if most:
            parts.append(f"Rating: {title}")
            for value in range(1, 11):
                number = found.get(str(value), 0)
                bar = "#" * round(BAR * number / most)
                parts.append(f"{value:>4} {number:>8} {bar}".rstrip())
    return "\n".join(parts)


def _drops(dropped: Mapping[str, Mapping[str, Any]], unwritten: Mapping[str, int]) -> str:
    lines = []
    for source in sorted(dropped):
        for reason, found in sorted(dropped[source].items()):
            examples = ", ".join(found["examples"])
            lines.append(f"  {found['count']:>6} rows of {source}: {reason} ({examples})")
    lines += [f"  {number:>6} samples: {reason}" for reason, number in sorted(unwritten.items())]
    return "\n".join(["Dropped", *lines]) if lines else ""


def _authors(manifest: Mapping[str, Any]) -> str:
    """Who wrote the reasons and who rated them."""
    asked = manifest.get("endpoint")
    low = "samples with low ratings have `kept` false."
    if asked is not None:
        rater = asked["rater"]
        rated = f"rated by {rater['model']}; {low}" if rater else "are not rated."
        return (
            f"Reasons were written by {asked['annotator']['model']}, shown face and label, and "
            f"{rated}"
        )
    if manifest["settings"].get("annotator") is None:
        return "No answers have been written yet."
    written = manifest["settings"]["annotator"]
    return f"Reasons were written from each face's own measurements ({written}) and rated; {low}"


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """README.md of the corpus: how to load it, where it is from, what is in it."""
    settings = manifest["settings"]
    configs, uses = [], []
    for table in TABLES:
        splits = [
            split
            for split in SPLITS
            if any(name.startswith(f"{table}/{split}-") for name in manifest["files"])
        ]
        if not splits:
            continue  # `datasets` would take the files of the other table for it
        configs += [f"- config_name: {table}", "  data_files:"]
        for split in splits:
            configs += [f"  - split: {split}", f"    path: {table}/{split}-*.parquet"]
        uses.append(f'{table} = datasets.load_dataset("DIR", "{table}", split="{splits[0]}")')
    blends = ", ".join(sorted({*settings["self_blends"]} & {*settings["sources"]})) or "none"
    return "\n".join(
        [
            "---",
            "configs:",
            *configs,
            "task_categories:",
            "- visual-question-answering",
            "---",
            "# Faces with questions and explained answers",
            "",
            f"Made by `facellava build run` {settings['code_version']} from "
            f"{', '.join(settings['sources'])} with seed {settings['seed']}. Self-blended fakes of "
            f"real faces from: {blends} (Shiohara & Yamasaki, CVPR 2022).",
            "",
            f"Labels are the sources'. {_authors(manifest)} Labels that were measured, not given "
            "by a person, have `weak` true.",
            "",
            "## Terms and consent",
            "",
            "| source | terms | people shown |",
            "|---|---|---|",
            *(
                f"| {terms['title']} | {terms['licence']} | {terms['consent']} |"
                for _, terms in sorted(manifest["sources"].items())
            ),
            "",
            "Each row of `faces` carries its source's terms. The corpus as a whole is bound by the "
            "strictest of them.",
            "",
            "## Use",
            "",
            "```python",
            *uses,
            "```",
            "",
            "```",
            report_text(manifest),
            "```",
            "",
        ]
    )
