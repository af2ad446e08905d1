"""Reads the manifest of a corpus that is shown, changed or written elsewhere as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from facellava.corpus import CORPUS_VERSION, read_manifest
from facellava.errors import BadCorpus

_PARTS: Final = ("settings", "sources", "files", "counts", "dropped")


def sound_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus of this version.

    Raises:
        BadCorpus: no finished corpus, one of another version, or a manifest without its parts.
    """
    manifest = read_manifest(folder)
    check_manifest(manifest, folder / "manifest.json")
    return manifest


def check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest of another version, or one that lacks a part.

    Args:
        path: of the file that holds it.

    Raises:
        BadCorpus: it is refused.
    """
    if manifest.get("version") != CORPUS_VERSION:
        raise BadCorpus(
            f"The manifest in '{path}' has the form {manifest.get('version')}, and this facellava "
            f"reads form {CORPUS_VERSION}; build the corpus again."
        )
    lacking = [part for part in _PARTS if not isinstance(manifest.get(part), Mapping)]
    if lacking:
        raise BadCorpus(
            f"The manifest in '{path}' lacks {', '.join(lacking)}; take the file from a copy, or "
            "build the corpus again."
        )


def whole_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus whose files are all there.

    Raises:
        BadCorpus: as :func:`sound_manifest`, or a file of the manifest is missing.
    """
    manifest = sound_manifest(folder)
    lost = sorted(name for name in manifest["files"] if not (folder / name).is_file())
    if lost:
        raise BadCorpus(
            f"'{folder}' has lost {len(lost)} of the {len(manifest['files'])} files of its "
            f"manifest, such as {lost[0]}; run its build again, or take them from a copy."
        )
    return manifest
