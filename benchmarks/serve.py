"""How fast nano answers over HTTP: `facellava serve` against one `generate` at a time.

    python -m benchmarks.serve --requests 128

The same weights, questions and faces, in one run. The server is started by this command and asked
from this process, which shares the machine's cores with it, as clients on one computer do. Crops
are faces that were found before (the PNGs of /v1/faces); photos are searched by the server, and
each is asked about once, so that no cache helps, except where the table says so.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.engine import QUESTIONS, measured, requests
from facellava.faces.face_png import data_url, to_png

READY: Final = re.compile(r"ready at (http\S+/v1)")
PHOTO_LIMIT: Final = 48  # face finding takes its time: fewer will do
BESIDE: Final = 16  # answers under way while first tokens are timed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@dataclass(frozen=True)
class Load:
    """What came of a number of requests, so many at once.

    Attributes:
        seconds: from the first request to the last answer.
        milliseconds: of each answer.
        tokens: that were written in all.
        cpu_milliseconds: of an answer, by process.
    """

    what: str
    at_once: int
    seconds: float
    milliseconds: list[float]
    tokens: int
    cpu_milliseconds: dict[str, float]

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


def crops(count: int, round_number: int) -> list[str]:
    """Found faces as data: URLs, no two alike."""
    faces, _ = requests(count, round_number)
    return [data_url(to_png(face), clip=False) for face in faces]


def photos(count: int, round_number: int) -> list[str]:
    """Photos of 512 x 512 pixels as JPEG, no two alike."""
    random = np.random.default_rng(round_number)
    picture = Image.fromarray(data.astronaut())
    urls = []
    for _ in range(count):
        turned = picture.rotate(float(random.uniform(-6, 6)), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        turned.save(buffer, "JPEG", quality=92)
        urls.append(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return urls


def body(url: str, question: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return {"model": "nano", "messages": [{"role": "user", "content": parts}], **more}


@contextmanager
def server(options: Sequence[str]) -> Iterator[str]:
    """`facellava serve` while the block runs; gives the API's address."""
    command = [sys.executable, "-m", "facellava", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready = READY.search(line)
        if ready is None:
            raise typer.Exit("The server did not start.")  # type: ignore[arg-type]
        yield ready[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def processes(port: int) -> Iterator[tuple[str, psutil.Process]]:
    """The server's processes, each after what it does.

    Args:
        port: at which the gateway listens.
    """
    [gateway] = [
        psutil.Process(link.pid)
        for link in psutil.net_connections("tcp")
        if link.status == psutil.CONN_LISTEN and link.laddr and link.laddr.port == port
    ]
    yield "gateway", gateway
    for process in gateway.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            words = f"{process.name()} {' '.join(process.cmdline())}"
            if "EngineCore" in words:
                yield "vLLM's engine", process
            elif "vllm" in words.lower():
                yield "vLLM's server", process
            else:
                yield "face finding", process


def cpu_seconds(port: int) -> dict[str, float]:
    """CPU time that each kind of process has used so far, the client's included."""
    found = {"this client": time.process_time()}
    for kind, process in processes(port):
        spent = process.cpu_times()
        found[kind] = found.get(kind, 0.0) + spent.user + spent.system
    return found


async def load(client: httpx.AsyncClient, what: str, urls: Sequence[str], at_once: int) -> Load:
    """Ask about each picture, `at_once` requests at a time."""
    line, milliseconds, tokens = asyncio.Semaphore(at_once), [], []

    async def ask(number: int, url: str) -> None:
        async with line:
            start = time.perf_counter()
            reply = await client.post(
                "/chat/completions", json=body(url, QUESTIONS[number % len(QUESTIONS)])
            )
            milliseconds.append(1000 * (time.perf_counter() - start))
            reply.raise_for_status()
            tokens.append(reply.json()["usage"]["completion_tokens"])

    port = client.base_url.port or 80
    start, cpu_start = time.perf_counter(), cpu_seconds(port)
    await asyncio.gather(*(ask(number, url) for number, url in enumerate(urls)))
    seconds, cpu = time.perf_counter() - start, cpu_seconds(port)
    spent = {kind: 1000 * (cpu[kind] - cpu_start.get(kind, 0)) / len(urls) for kind in cpu}
    return Load(what, at_once, seconds, milliseconds, sum(tokens), spent)


async def first_token(client: httpx.AsyncClient, url: str) -> float:
    """Milliseconds until the first word of an answer has come."""
    asked = body(url, QUESTIONS[0], stream=True)
    start = time.perf_counter()
    async with client.stream("POST", "/chat/completions", json=asked) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    return 1000 * (time.perf_counter() - start)
    raise RuntimeError("A stream brought no words.")


async def first_tokens(
    client: httpx.AsyncClient, what: str, urls: Sequence[str]
) -> tuple[str, list[float]]:
    return what, [await first_token(client, url) for url in urls]


async def beside_others(
    client: httpx.AsyncClient, work: Callable[[], Awaitable[tuple[str, list[float]]]]
) -> tuple[str, list[float]]:
    """The work while BESIDE other answers are under way, about crops."""
    urls, done = crops(BESIDE, 7), asyncio.Event()

    async def others(url: str) -> None:
        number = 0
        while not done.is_set():
            await client.post("/chat/completions", json=body(url, QUESTIONS[number % 5]))
            number += 1

    tasks = [asyncio.create_task(others(url)) for url in urls]
    await asyncio.sleep(1)
    try:
        return await work()
    finally:
        done.set()
        await asyncio.gather(*tasks)


async def measure(
    address: str, count: int, concurrencies: Sequence[int]
) -> tuple[list[Load], list[tuple[str, list[float]]]]:
    limits = httpx.Limits(max_connections=max(concurrencies) + BESIDE + 1)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
        await load(client, "warm-up", crops(16, 10**6), 16)
        await load(client, "warm-up", photos(4, 10**6), 4)
        loads = []
        for number, at_once in enumerate(concurrencies):
            asked = count if at_once > 1 else max(8, count // 4)
            loads.append(await load(client, "crops", crops(asked, number), at_once))
        few = min(count, PHOTO_LIMIT)
        for number, at_once in enumerate(concurrencies[:3]):
            asked = few if at_once > 1 else few // 2
            loads.append(await load(client, "photos", photos(asked, number), at_once))
        one = photos(1, 99)
        loads.append(
            await load(client, "one photo again and again", one * count, concurrencies[-1])
        )
        firsts = [
            await first_tokens(client, "a crop", crops(20, 50)),
            await first_tokens(client, "a photo", photos(20, 51)),
            await beside_others(
                client, lambda: first_tokens(client, f"a crop, {BESIDE} beside", crops(20, 52))
            ),
            await beside_others(
                client, lambda: first_tokens(client, f"a photo, {BESIDE} beside", photos(20, 53))
            ),
        ]
    return loads, firsts


@app.command()
def run(
    count: Annotated[int, typer.Option("--requests", help="Requests of a row.")] = 128,
    concurrency: Annotated[str, typer.Option(help="How many at once, by commas.")] = "1,4,16,64",
    option: Annotated[list[str], typer.Option(help="Of facellava serve, repeatable.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Measure the reference's way, then the server."""
    console.print("One generate at a time ...")
    one = measured("one", min(count, 40), 3, 1, "{}")
    own = min(count, 40) / statistics.median(one["seconds"])
    console.print("The server ...")
    with server(option) as address:
        at_once = [int(number) for number in concurrency.split(",")]
        loads, firsts = asyncio.run(measure(address, count, at_once))
    table = Table("asked with", "at once", "answers/s", "tokens/s", "p50 ms", "p95 ms", "ratio")
    tokens = statistics.median(sum(lengths) for lengths in one["tokens"])
    table.add_row(
        "one generate at a time, faces found before", "1", f"{own:.1f}",
        f"{tokens / statistics.median(one['seconds']):.0f}", "", "", "1.0",
    )  # fmt: skip
    for done in loads:
        table.add_row(
            done.what, str(done.at_once), f"{done.per_second:.1f}",
            f"{done.tokens / done.seconds:.0f}", f"{done.percentile(50):.0f}",
            f"{done.percentile(95):.0f}", f"{done.per_second / own:.1f}",
        )  # fmt: skip
    console.print(table)
    words = Table("first token of", "p50 ms", "p95 ms")
    for what, milliseconds in firsts:
        p50, p95 = np.percentile(milliseconds, [50, 95])
        words.add_row(what, f"{p50:.0f}", f"{p95:.0f}")
    console.print(words)
    crops_load = [done for done in loads if done.what == "crops"][-1]
    photos_load = [done for done in loads if done.what == "photos"][-1]
    where = Table("CPU ms of an answer", *crops_load.cpu_milliseconds)
    for done in (crops_load, photos_load):
        told = [f"{done.cpu_milliseconds[kind]:.1f}" for kind in crops_load.cpu_milliseconds]
        where.add_row(f"{done.what}, {done.at_once} at once", *told)
    console.print(where)
    if out is not None:
        found = {"one": one, "loads": [asdict(done) for done in loads], "first_tokens": firsts}
        out.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    app()
