"""How fast a corpus is built, and with how much memory: `build` against the obvious loop.

    python -m benchmarks.corpus run --faces 2000 --faces 10000

The same made-up faces go through each way: the portrait of scikit-image, turned, lit and blurred
anew for each, with an age and an expression. With --find the face is looked for in each picture, as
in a dataset; without, its landmarks are known and only the rest of the work is measured, so that
10^5 faces take minutes. The obvious loop keeps everything in a list and writes two files at its
end. Memory is the proportional set size of all processes of a way, looked at once a second.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.made_up_faces import MadeUp
from data_builders.annotate.measured import write_samples
from data_builders.build import BuildOptions, build
from data_builders.media import DEFAULT_LOOK
from data_builders.mixture import MixtureEntry
from data_builders.rate import rate_samples
from data_builders.raw_face import Drops, RawFace, Source
from data_builders.shard import record_of_row
from data_builders.sources import SOURCES
from facellava.corpus import FaceRecord, Sample, read_manifest, write_shard
from facellava.tasks.expression import BASIC

Way = Literal["loop", "local", "ray"]

NAME: Final = "made_up"
LICENCE: Final = "scikit-image's portrait, public domain"
MILLION: Final = 1_000_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


def rows(count: int, *, find: bool) -> Iterator[RawFace]:
    """So many labelled made-up faces."""
    for seed in range(count):
        label = {"expression": BASIC[seed % len(BASIC)], "age": 15 + seed % 60}
        yield RawFace(f"{seed:07d}", MadeUp(seed, find), label, "train", LICENCE, str(seed))


def obvious_loop(count: int, out: Path, *, find: bool) -> int:
    """One process, everything in lists, two files at the end; returns the number of samples."""
    records: list[FaceRecord] = []
    samples: list[Sample] = []
    for row in rows(count, find=find):
        record = record_of_row(NAME, row, row.media.face(DEFAULT_LOOK))
        face = record.faces()[0]
        written = write_samples(record, face, random.Random(f"0:{record.face_id}"))
        samples += rate_samples(written, face, record.labels)
        records.append(record)
    write_shard(out / "faces" / "all.parquet", records, "faces")
    write_shard(out / "samples" / "all.parquet", samples, "samples")
    return len(samples)


@app.command()
def one(
    way: Annotated[str, typer.Argument(help="loop, local or ray.")],
    faces: int,
    out: Path,
    workers: int = 1,
    find: bool = False,
) -> None:
    """One way, in this process; tells seconds and samples as JSON."""
    began = time.perf_counter()
    if way == "loop":
        samples = obvious_loop(faces, out, find=find)
    else:
        made_up = Source(
            NAME,
            lambda root, drops: _all(faces, drops, find=find),
            "nothing",
            LICENCE,
            "public figures, not asked",
        )
        SOURCES[NAME] = made_up
        options = BuildOptions(self_blends=())
        executor: Literal["local", "ray"] = "ray" if way == "ray" else "local"
        build(
            [MixtureEntry(name=NAME, root=out.parent)],
            out,
            options,
            workers=workers,
            executor=executor,
        )
        files = read_manifest(out)["files"]
        samples = sum(file["rows"] for name, file in files.items() if name.startswith("samples/"))
    typer.echo(json.dumps({"seconds": time.perf_counter() - began, "samples": samples}))


def _all(count: int, drops: Drops, *, find: bool) -> Iterator[RawFace]:
    return rows(count, find=find)


@dataclass(frozen=True)
class Figures:
    """What one way took."""

    way: str
    workers: int
    faces: int
    samples: int
    seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        return self.faces / self.seconds


def measure(way: Way, workers: int, faces: int, *, find: bool) -> Figures:
    """Run one way in processes of its own and watch their memory."""
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    command = [sys.executable, "-m", "benchmarks.corpus", "one", way, str(faces)]
    command += [str(folder / "corpus"), "--workers", str(workers)]
    command += ["--find"] if find else []
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(1)
        told = json.loads((process.stdout.read() if process.stdout else "").splitlines()[-1])
    finally:
        shutil.rmtree(folder)
    return Figures(way, workers, faces, told["samples"], told["seconds"], peak)


def _memory(pid: int) -> float:
    """MiB of a process and its children; pages that several share count once."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss / 2**20
    return total


@app.command()
def run(
    faces: Annotated[list[int], typer.Option(help="Sizes of the corpus, repeatable.")],
    workers: Annotated[list[int], typer.Option(help="Processes, repeatable.")] = [1, 2],  # noqa: B006
    ray: Annotated[bool, typer.Option(help="Also with Ray Data.")] = True,
    find: Annotated[bool, typer.Option(help="Look for the face in each picture.")] = False,
    out: Annotated[Path, typer.Option(help="Written: the figures as JSON.")] = Path("corpus.json"),
) -> None:
    """Each way with each size and number of workers."""
    ways: list[tuple[Way, int]] = [("loop", 1), *(("local", count) for count in workers)]
    ways += [("ray", workers[-1])] if ray else []
    found = []
    for size in faces:
        for way, count in ways:
            figures = measure(way, count, size, find=find)
            found.append(figures)
            said = f"{figures.seconds:.0f} s, at most {figures.peak_mib:,.0f} MiB"
            console.print(f"{way} x{count}, {size} faces: {said}", style="dim")
            out.write_text(json.dumps([vars(each) for each in found], indent=1) + "\n")
    loops = {figures.faces: figures for figures in found if figures.way == "loop"}
    table = Table("way", "workers", "faces", "faces/s", "samples/s", "peak MiB", "against the loop")
    for figures in found:
        table.add_row(
            figures.way,
            str(figures.workers),
            f"{figures.faces:,}",
            f"{figures.rate:.1f}",
            f"{figures.samples / figures.seconds:.1f}",
            f"{figures.peak_mib:,.0f}",
            f"{figures.rate / loops[figures.faces].rate:.2f}",
        )
    console.print(table)
    last = found[-1] if not ray else found[-2]
    hours = MILLION / (last.samples / last.seconds) / 3600
    console.print(
        f"At the rate of {last.way} with {last.workers} workers, 10^6 samples take {hours:.1f} h "
        f"and {MILLION * last.faces / last.samples:,.0f} faces, if nothing else becomes slower."
    )


if __name__ == "__main__":
    app()
