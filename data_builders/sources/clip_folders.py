"""Folders of clips: each clip a file, or a folder with its frames as pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data_builders.media import ClipFile, FrameFiles
from data_builders.raw_face import require
from facellava.faces.photo import PHOTO_SUFFIXES

NO_CLIP: Final = "clip is missing or has no frames"


def present_folders(
    root: Path, names: Sequence[str], dataset: str, layout: str
) -> tuple[Path, ...]:
    """Those of the named folders that are there.

    Raises:
        BadCorpus: none is.
    """
    found = tuple(root / name for name in names if (root / name).is_dir())
    return found or (require(root / names[0], dataset, layout),)


def clip_in(folders: Sequence[Path], names: Sequence[str]) -> ClipFile | FrameFiles | None:
    """The first clip of one of the names, which stand without ending; None where there is none."""
    for folder in folders:
        for name in names:
            clip = folder / f"{name}.mp4"
            if clip.is_file():
                return ClipFile(clip)
            paths = frames_in(folder / name)
            if paths:
                return FrameFiles(paths)
    return None


def frames_in(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder by the numbers in their names: 9.jpg comes before 10.jpg."""
    if not folder.is_dir():
        return ()
    paths = [path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES]
    return tuple(sorted(paths, key=_order))


def _order(path: Path) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", path.stem)], path.name
