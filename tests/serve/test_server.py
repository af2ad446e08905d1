"""The life of `facellava serve`, as a process of its own with a small engine in vLLM's place."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from pydantic import SecretStr

from facellava.checkpoint import load
from facellava.errors import BadCheckpoint, BadModelInput, FacellavaError
from facellava.faces import Face
from facellava.faces.face_png import data_url, to_png
from facellava.predictor import embedded_weights
from serve.chat_server import listen
from serve.server import ServeOptions, load_reading_parts, serve
from serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_engine.py")
SCRIPT = f"""
import logging, sys
from facellava.errors import FacellavaError
from serve.engine_options import Backend
from serve.server import ServeOptions, serve
from serve.settings import Settings

logging.basicConfig(level="INFO", format="%(message)s")
try:
    serve(
        ServeOptions(port=0, settings=Settings(face_workers=1, drain_seconds=2)),
        backend=Backend((sys.executable, {str(FAKE)!r}), on_cpu=True),
    )
except FacellavaError as error:
    sys.stderr.write(f"{{error}}\\n")
    sys.exit(1)
"""


class Served:
    """A server process, and what it says."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said += self.process.stderr

    def address(self) -> str:
        """From the ready line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(
            r"facellava is ready at (http://127.0.0.1:\d+)/v1 "
            r"\(model nano; Ctrl\+C ends it\)\.\n",
            line,
        )
        assert found is not None, (line, self.said)
        return found[1]

    def port(self) -> int:
        """That it listens on, also before it is ready."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for connection in psutil.Process(self.process.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    return int(connection.laddr.port)
            time.sleep(0.05)
        raise AssertionError("it does not listen")

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def end(self) -> tuple[int, str]:
        """Exit code and all that was said."""
        code = self.process.wait(60)
        self._listening.join(10)
        return code, "".join(self.said)


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    """Called with environment variables: a server process; nothing of it outlives the test."""
    started: list[Served] = []

    def start(**environment: str) -> Served:
        started.append(Served(**environment))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def all_gone(processes: list[psutil.Process], seconds: float = 5) -> bool:
    """Whether they all end in time; what nobody has asked about (a zombie) has ended."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            return not left
        time.sleep(0.05)
    return True


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def question(words: int) -> dict[str, Any]:
    """A request for a stream of so many words about a face that is found already."""
    face = Face(
        crop=np.full((192, 192, 3), 90, np.uint8),
        landmarks=np.linspace(0.2, 0.8, 136, dtype=np.float32).reshape(68, 2),
        box=(0.0, 0.0, 192.0, 192.0),
        index=0,
        score=2.0,
        source="supplied",
        crop_to_photo=np.eye(2, 3),
    )
    picture = {"type": "image_url", "image_url": {"url": data_url(to_png(face), clip=False)}}
    content = [{"type": "text", "text": "How old is she?"}, picture]
    return {
        "model": "nano",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "max_tokens": words,
    }


def test_port_answers_before_the_engine_does_and_a_signal_ends_the_start(
    served: Callable[..., Served],
) -> None:
    server = served(FAKE_ENGINE="slow")
    port = server.port()
    while True:
        try:
            health = httpx.get(f"http://127.0.0.1:{port}/health")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    assert health.status_code == 503
    assert health.json()["error"]["code"] == "engine_unavailable"
    family = server.family()
    assert len(family) >= 3
    server.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, said = server.end()
    assert (code, time.monotonic() - began < 5) == (0, True)
    assert "Traceback" not in said
    assert all_gone(family, 1)


def test_a_signal_lets_requests_finish_or_ends_them_with_an_error(
    served: Callable[..., Served],
) -> None:
    server = served()
    address = server.address()
    family = server.family()
    heard: dict[int, list[Any]] = {}

    def ask(words: int) -> None:
        events = heard[words] = []
        with httpx.stream(
            "POST", f"{address}/v1/chat/completions", json=question(words), timeout=30
        ) as response:
            for line in response.iter_lines():
                if line:
                    events.append(line.removeprefix("data: "))

    short, endless = 12, 300
    askers = [threading.Thread(target=ask, args=[words]) for words in (short, endless)]
    with httpx.Client() as early:
        assert early.get(f"{address}/health").status_code == 200
        for asker in askers:
            asker.start()
        deadline = time.monotonic() + 20
        while not all(heard.get(words) for words in (short, endless)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        time.sleep(0.2)
        refused = early.post(f"{address}/v1/chat/completions", json=question(1))
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    code, said = server.end()
    seconds = time.monotonic() - began
    for asker in askers:
        asker.join(5)
    assert code == 0
    assert seconds < 5
    assert "Traceback" not in said
    assert heard[short][-1] == "[DONE]"
    assert "word11" in heard[short][-2]
    assert json.loads(heard[endless][-1])["error"]["code"] == "engine_unavailable"
    assert all_gone(family, 1)


def test_a_second_signal_ends_it_at_once(served: Callable[..., Served]) -> None:
    server = served(FAKE_ENGINE="deaf")
    address = server.address()
    family = server.family()
    with httpx.stream(
        "POST", f"{address}/v1/chat/completions", json=question(300), timeout=30
    ) as response:
        next(response.iter_lines())
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        code, _ = server.end()
    assert code == 128 + signal.SIGINT
    assert time.monotonic() - began < 1
    assert all_gone(family)


def test_an_engine_that_dies_twice_ends_the_server(served: Callable[..., Served]) -> None:
    server = served()
    address = server.address()

    def engine() -> psutil.Process:
        return next(p for p in server.family() if str(FAKE) in p.cmdline()[1:2])

    def status() -> int:
        return httpx.get(f"{address}/health").status_code

    first = engine()
    first.kill()
    deadline = time.monotonic() + 10
    while status() == 200:
        assert time.monotonic() < deadline
    refused = httpx.post(f"{address}/v1/chat/completions", json=question(1))
    assert refused.json()["error"]["code"] == "engine_unavailable"
    while status() != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = engine()
    assert second.pid != first.pid
    family = server.family()
    second.kill()
    code, said = server.end()
    assert code == 1
    assert said.splitlines()[-1].startswith("The engine has died twice")
    assert "Traceback" not in said
    assert all_gone(family, 1)


def test_a_killed_server_leaves_nothing(served: Callable[..., Served]) -> None:
    server = served(FAKE_ENGINE="deaf")
    server.address()
    family = server.family()
    # The server, the guard, the engine, and those that find faces.
    assert len(family) >= 5
    server.process.kill()
    assert all_gone(family, 8)


def test_an_engine_that_does_not_start_is_one_sentence(served: Callable[..., Served]) -> None:
    code, said = served(FAKE_ENGINE="no_plugin").end()
    assert code == 1
    assert "plugin did not load in the engine" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(FacellavaError, match=f"Port {port} is taken"):
            serve(ServeOptions(port=port))


def test_strangers_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    open_door = ServeOptions(port=0, settings=Settings(host="0.0.0.0"))
    monkeypatch.delenv("FACELLAVA_API_KEY", raising=False)
    with pytest.raises(FacellavaError, match="needs a key") as raised:
        serve(open_door)
    assert "FACELLAVA_API_KEY" in str(raised.value)
    # With one, the next thing wrong is found.
    with pytest.raises(BadCheckpoint):
        serve(
            ServeOptions(
                model=Path("/nowhere"),
                port=0,
                settings=Settings(host="0.0.0.0", api_key=SecretStr("k")),
            )
        )
    monkeypatch.setenv("FACELLAVA_API_KEY", "k")
    with pytest.raises(BadCheckpoint):
        serve(ServeOptions(model=Path("/nowhere"), port=0, settings=open_door.settings))


def test_refused_options_are_told_before_anything_starts() -> None:
    with pytest.raises(BadModelInput, match="--trust-remote-code cannot be passed on"):
        serve(ServeOptions(port=0, vllm_options=["--trust-remote-code"]))


def test_reading_parts_are_those_of_the_checkpoint() -> None:
    model, _ = load(embedded_weights())
    processor, encoder = load_reading_parts(embedded_weights(), weights=True)
    wanted = model.face_encoder.state_dict()
    found = encoder.state_dict()
    assert found.keys() == wanted.keys()
    assert all(bool((found[name] == wanted[name]).all()) for name in wanted)
    assert not encoder.training
    assert processor.tokens_per_frame == model.config.tokens_per_frame
    _, empty = load_reading_parts(embedded_weights(), weights=False)
    assert {weight.device.type for weight in empty.parameters()} == {"meta"}
