"""Mixed good and bad traffic for minutes: does the server live, keep its memory, and stay quick?

    python -m benchmarks.soak --minutes 30 --out soak

Starts `facellava serve`, lets clients ask until the time is over (crops, photos, clips, streams,
analyses; a third of the requests are hostile media, requests that are none, and clients that leave)
and writes `soak.json` and `soak.png`. Exit code 1 when a request came out otherwise than it should,
the server ended, or its memory still grew by more than --growth MiB an hour at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import matplotlib
import numpy as np
import psutil
import typer
from matplotlib import pyplot
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.engine import QUESTIONS
from benchmarks.serve import body, crops, photos, processes, server
from facellava.tasks import TASKS
from tests.serve.bad_media import BAD_MEDIA, OddMedia

EVERY_SECONDS: Final = 5.0
STARTED: Final = 0.5
"""Share of the time in which caches fill; memory is judged after it."""
GOOD_CLIPS: Final = ("mp4 h264", "webm vp9", "rotated by 90", "variable frame rate")
NO_REQUESTS: Final = (
    b"[" * 100_000,
    b"\x00" * 2000,
    b'{"model": "nano"}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "nano", "messages": [], "mm_processor_kwargs": {}}',
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@dataclass
class Record:
    """What happened.

    Attributes:
        milliseconds: of each kind of request.
        outcomes: of each kind: how often "ok", an error's code, or "left".
        wrong: requests that came out otherwise than they should.
        memory: seconds since the start, and MiB of each process by what it does.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, dict[str, float]]] = field(default_factory=list)


class Traffic:
    """Clients of one server.

    Args:
        client: speaks to the API's address.
        record: what happens is written here.
        seed: of what is asked.
    """

    def __init__(self, client: httpx.AsyncClient, record: Record, seed: int) -> None:
        self._client, self._record, self._random = client, record, random.Random(seed)
        self._odd = [one for one in BAD_MEDIA if not one.costly and len(one.make()) < 2**21]
        self._clips = [one for one in BAD_MEDIA if one.name in GOOD_CLIPS]
        self._crops, self._photos = crops(64, seed), photos(32, seed)
        self._kinds: list[tuple[str, int, Callable[[], Awaitable[str]]]] = [
            ("chat about a crop", 24, self._crop),
            ("streamed chat", 8, self._stream),
            ("chat about a photo", 6, self._photo),
            ("analysis of a photo", 6, self._analysis),
            ("faces of a photo", 4, self._faces),
            ("chat about a clip", 2, self._clip),
            ("json answer", 4, self._json),
            ("hostile medium", 14, self._hostile),
            ("no request", 6, self._nonsense),
            ("client leaves", 6, self._leave),
        ]

    async def until(self, end: float) -> None:
        """Ask one thing after another."""
        names = [name for name, _, _ in self._kinds]
        asks = {name: ask for name, _, ask in self._kinds}
        weights = [weight for _, weight, _ in self._kinds]
        while time.monotonic() < end:
            [name] = self._random.choices(names, weights)
            start = time.perf_counter()
            try:
                outcome = await asks[name]()
            except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
                outcome = f"{type(error).__name__}"
                self._record.wrong.append(f"{name}: {error!r}"[:300])
            self._record.milliseconds[name].append(1000 * (time.perf_counter() - start))
            self._record.outcomes[name][outcome] += 1

    async def _post(self, path: str, asked: Any, *allowed: str) -> httpx.Response:
        """A response with one of these codes, or that is good where there are none."""
        content = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        reply = await self._client.post(path, content=content, headers=headers)
        code = "ok" if reply.is_success else reply.json()["error"]["code"]
        # A full server may say so; this is an answer, not a mistake.
        if code not in (*(allowed or ("ok",)), "rate_limit_exceeded"):
            raise AssertionError(f"{path} gave {code}, not {allowed or ('ok',)}")
        return reply

    def _question(self) -> str:
        return self._random.choice(QUESTIONS)

    async def _crop(self) -> str:
        asked = body(self._random.choice(self._crops), self._question(), answer=True)
        return _code(await self._post("chat/completions", asked))

    async def _photo(self) -> str:
        asked = body(self._random.choice(self._photos), self._question())
        return _code(await self._post("chat/completions", asked))

    async def _json(self) -> str:
        task = self._random.choice([name for name in TASKS if TASKS[name].scored_words])
        form = {"type": "json_schema", "json_schema": {"name": task}}
        asked = body(
            self._random.choice(self._crops), TASKS[task].canonical_question, response_format=form
        )
        reply = await self._post("chat/completions", asked)
        if reply.is_success:
            json.loads(reply.json()["choices"][0]["message"]["content"])
        return _code(reply)

    async def _analysis(self) -> str:
        url = self._random.choice(self._photos)
        asked = {"model": "nano", "image": url, "tasks": ["expression", "age", "attributes"]}
        reply = await self._post("analyze", asked)
        if reply.is_success and len(reply.json()["answers"]) != 3:
            raise AssertionError("an analysis of three tasks has not three answers")
        return _code(reply)

    async def _faces(self) -> str:
        return _code(await self._post("faces", {"image": self._random.choice(self._photos)}))

    async def _clip(self) -> str:
        clip = self._random.choice(self._clips)
        asked = body("", self._question())
        asked["messages"][0]["content"][0] = clip.part()
        return _code(await self._post("chat/completions", asked))

    async def _stream(self) -> str:
        asked = body(self._random.choice(self._crops), self._question(), stream=True)
        words = 0
        async with self._client.stream("POST", "chat/completions", json=asked) as reply:
            if reply.status_code == 429:
                return "rate_limit_exceeded"
            async for line in reply.aiter_lines():
                words += line.startswith("data: {")
        if not words:
            raise AssertionError("a stream brought nothing")
        return "ok"

    async def _hostile(self) -> str:
        one: OddMedia = self._random.choice(self._odd)
        allowed = {"ok" if name in ("face", "no_face") else name for name in one.outcomes}
        asked = {one.kind: one.url(), "crops": False}
        return _code(await self._post("faces", asked, *allowed))

    async def _nonsense(self) -> str:
        asked = self._random.choice(NO_REQUESTS)
        allowed = ("invalid_value", "unknown_field", "model_not_found")
        return _code(await self._post("chat/completions", asked, *allowed))

    async def _leave(self) -> str:
        asked = body(self._random.choice(self._crops), self._question(), stream=True)
        with suppress(httpx.TimeoutException):
            patience = httpx.Timeout(30, read=self._random.uniform(0.01, 0.3))
            async with self._client.stream(
                "POST", "chat/completions", json=asked, timeout=patience
            ) as reply:
                async for _ in reply.aiter_bytes():
                    break
        return "left"


def _code(reply: httpx.Response) -> str:
    return "ok" if reply.is_success else str(reply.json()["error"]["code"])


def memory(port: int) -> dict[str, float]:
    """MiB in memory of the server's processes, by what they do."""
    found: dict[str, float] = defaultdict(float)
    for kind, process in processes(port):
        with suppress(psutil.NoSuchProcess):
            found[kind] += process.memory_info().rss / 2**20
    return dict(found)


def growth(record: Record) -> dict[str, float]:
    """MiB an hour by which each process grew after the start, as a straight line fits it."""
    end = record.memory[-1][0]
    later = [(at, kinds) for at, kinds in record.memory if at >= STARTED * end]
    times = np.array([at for at, _ in later])
    return {
        kind: float(np.polyfit(times, [kinds.get(kind, 0.0) for _, kinds in later], 1)[0] * 3600)
        for kind in record.memory[-1][1]
    }


async def soak(address: str, minutes: float, clients: int, record: Record) -> None:
    """Let the clients ask, and watch."""
    url = httpx.URL(address)
    port = url.port or 80
    limits = httpx.Limits(max_connections=2 * clients)
    start = time.monotonic()
    end = start + 60 * minutes
    async with httpx.AsyncClient(base_url=f"{address}/", timeout=180, limits=limits) as client:
        asking = [
            asyncio.create_task(Traffic(client, record, seed).until(end)) for seed in range(clients)
        ]
        with Progress(console=console, transient=True) as bar:
            shown = bar.add_task("soaking", total=60 * minutes)
            while time.monotonic() < end:
                at = time.monotonic() - start
                record.memory.append((at, await asyncio.to_thread(memory, port)))
                bar.update(shown, completed=at)
                await asyncio.sleep(EVERY_SECONDS)
        await asyncio.gather(*asking)
        good = await client.post("chat/completions", json=body(crops(1, 5)[0], QUESTIONS[0]))
        good.raise_for_status()


def draw(record: Record, path: Path) -> None:
    """Memory over time."""
    matplotlib.use("agg")
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    minutes = [at / 60 for at, _ in record.memory]
    for kind in record.memory[-1][1]:
        axes.plot(minutes, [kinds.get(kind, np.nan) for _, kinds in record.memory], label=kind)
    axes.set(xlabel="minutes", ylabel="MiB in memory", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def show(record: Record, rates: dict[str, float], minutes: float) -> None:
    """The tables."""
    table = Table("request", "count", "p50 ms", "p95 ms", "p99 ms", "came out as")
    for kind, milliseconds in record.milliseconds.items():
        p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
        told = ", ".join(f"{n} {code}" for code, n in record.outcomes[kind].most_common())
        table.add_row(kind, str(len(milliseconds)), f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}", told)
    console.print(table)
    sizes = Table("process", "MiB at the start", "at half-time", "at the end", "MiB an hour")
    settled = next(kinds for at, kinds in record.memory if at >= STARTED * record.memory[-1][0])
    for kind, rate in rates.items():
        held = (
            record.memory[0][1].get(kind, 0.0),
            settled.get(kind, 0.0),
            record.memory[-1][1][kind],
        )
        sizes.add_row(kind, *(f"{mib:.0f}" for mib in held), f"{rate:+.0f}")
    console.print(sizes)
    count = sum(map(len, record.milliseconds.values()))
    console.print(
        f"{count} requests in {minutes:g} minutes, {len(record.wrong)} of them came out otherwise "
        "than they should."
    )
    for line in record.wrong[:20]:
        console.print(f"  {line}", markup=False)


@app.command()
def run(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 30,
    clients: Annotated[int, typer.Option(min=1, help="How many ask at once.")] = 8,
    grows: Annotated[float, typer.Option("--growth", help="MiB an hour that are too much.")] = 200,
    option: Annotated[Sequence[str], typer.Option(help="Of facellava serve, repeatable.")] = (),
    out: Annotated[Path, typer.Option(help="Written: OUT.json and OUT.png.")] = Path("soak"),
) -> None:
    """Soak the server."""
    record = Record()
    with server(option) as address:
        asyncio.run(soak(address, minutes, clients, record))
    rates = growth(record)
    show(record, rates, minutes)
    draw(record, out.with_suffix(".png"))
    found = {
        "minutes": minutes,
        "clients": clients,
        "milliseconds": {
            kind: dict(zip(("p50", "p95", "p99"), np.percentile(ms, [50, 95, 99]), strict=True))
            for kind, ms in record.milliseconds.items()
        },
        "outcomes": record.outcomes,
        "wrong": record.wrong,
        "growth_mib_an_hour": rates,
        "memory": record.memory,
    }
    out.with_suffix(".json").write_text(json.dumps(found) + "\n")
    if record.wrong or sum(rates.values()) > grows:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
