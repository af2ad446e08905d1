"""Files that appear whole or not at all, whatever kills the process, and that others may read."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file, on the disk before it has its name; what was there is replaced.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        if partial.exists():
            partial.unlink()


def open_to_others(path: Path) -> None:
    """Give a file, or a folder with all in it, the modes that the user's umask says.

    tempfile and safetensors make theirs for the owner alone.
    """
    mask = os.umask(0)
    os.umask(mask)
    for each in (path, *path.rglob("*")):
        each.chmod((0o777 if each.is_dir() else 0o666) & ~mask)
