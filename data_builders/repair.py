"""Files of a finished corpus that are gone or damaged, built again from the datasets.

A shard is the same bytes whenever it is built, so the manifest stays as it is and says whether what
was built is the file that was lost. Nothing else gets into the corpus: neither a row of datasets
that have changed since, nor a person who was withdrawn.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_builders.finished import card
from data_builders.progress import PROGRESS, ShardBuilder
from data_builders.shard import BLENDED, ShardJob
from facellava.corpus import read_manifest, sha256
from facellava.errors import BadCorpus
from facellava.whole_files import write_text


def lost_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files of the manifest that must be built again.

    All are looked at for their size; where one is missing or of another size, all are read.
    """
    files: Mapping[str, Mapping[str, Any]] = manifest.get("files", {})
    paths = {name: folder / name for name in files}
    if all(
        path.is_file() and path.stat().st_size == files[name].get("bytes")
        for name, path in paths.items()
    ):
        return []
    return [
        name
        for name, path in paths.items()
        if not path.is_file() or sha256(path) != files[name]["sha256"]
    ]


def is_whole(folder: Path) -> bool:
    """Whether there is a finished corpus that has lost no file."""
    return (folder / "manifest.json").is_file() and not lost_files(folder, read_manifest(folder))


def rebuild(
    folder: Path,
    manifest: Mapping[str, Any],
    lost: Iterable[str],
    work: Iterable[ShardJob],
    builder: ShardBuilder,
) -> None:
    """Build the lost files again, beside the corpus, and move those in that are the same.

    Args:
        lost: of :func:`lost_files`.
        work: all shards of the corpus.
        builder: builds some of them.

    Raises:
        BadCorpus: a file that comes out is another one than was lost.
    """
    aside = folder / PROGRESS
    left = set(lost)
    try:
        with closing(builder(_those_of(left, work, aside))) as reports:
            for report in reports:
                for name in left & set(report.files):
                    if report.files[name]["sha256"] == manifest["files"][name]["sha256"]:
                        (folder / name).parent.mkdir(exist_ok=True)
                        (aside / name).replace(folder / name)
                        left.remove(name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if left:
        raise BadCorpus(
            f"'{folder / min(left)}' cannot be built again: the datasets are not those of the "
            "corpus, or it was annotated or had faces withdrawn since; take the file from a copy, "
            "or build into a new folder."
        )


def _those_of(lost: Iterable[str], work: Iterable[ShardJob], aside: Path) -> Iterator[ShardJob]:
    """The shards that the files belong to; a shard writes its self-blends beside its faces."""
    wanted = {Path(name).stem.replace(f"_{BLENDED}-", "-") for name in lost}
    for job in work:
        if job.name in wanted:
            wanted.remove(job.name)
            yield replace(job, folder=aside)
        if not wanted:
            return


def rewrite_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the dataset card where it is gone."""
    path = folder / "README.md"
    if not path.is_file():
        write_text(path, card(manifest))
