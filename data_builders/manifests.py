"""Reads the manifest of a corpus that is shown, changed or written elsewhere as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facellava.corpus import check_manifest, read_manifest
from facellava.errors import BadCorpus


def sound_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished corpus of this version.

    Raises:
        BadCorpus: no finished corpus, one of another version, or a manifest without its parts.
    """
    manifest = read_manifest(folder)
    check_manifest(manifest, folder / "manifest.json")
    return manifest


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
