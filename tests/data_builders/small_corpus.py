"""A UTKFace and a real_fake_faces folder of one portrait; builds of them that are broken off."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

from data_builders.build import BuildOptions

FACES = 9
OPTIONS = BuildOptions(seed=7, shard_rows=3, self_blends=("utkface",))


def write_pictures(folder: Path, names: list[str], first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    astronaut = skimage.data.astronaut()
    for number, name in enumerate(names, start=first):
        cut = astronaut[10 + number : 200 + number, 125 + 2 * number : 315 + 2 * number]
        data = io.BytesIO()
        Image.fromarray(cut).resize((120, 120)).save(data, "JPEG", quality=95)
        (folder / name).write_bytes(data.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start_and_kill(raw, out: Path, shards_wanted: int) -> None:
    """Run a build in a process of its own and kill it and its workers without warning."""
    roots = [(entry.name, str(entry.root)) for entry in raw]
    code = (
        "from pathlib import Path\nfrom data_builders.build import BuildOptions, build\n"
        "from data_builders.mixture import MixtureEntry\n"
        f"roots = [MixtureEntry(name=n, root=Path(r)) for n, r in {roots!r}]\n"
        f"options = BuildOptions({OPTIONS.seed}, None, {OPTIONS.self_blends!r}, shard_rows=3)\n"
        f"build(roots, Path({str(out)!r}), options, workers=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, process_group=0
    )
    deadline = time.monotonic() + 240
    while len(list(out.glob(".progress/*-*.json"))) < shards_wanted:
        assert process.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def utkface_rows(root: Path, ages: Sequence[int]) -> list[dict[str, Any]]:
    """A row of UTKFace as a pack for each age, in the split test; its picture is written, too."""
    names = [f"{age}_0_0_2017.jpg" for age in ages]
    write_pictures(root, names)
    facts = {"gender": 0, "race": 0, "split": "test"}
    return [
        {"image": (root / name).read_bytes(), "age": age, "source_path": name, **facts}
        for age, name in zip(ages, names, strict=True)
    ]
