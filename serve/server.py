"""`facellava serve`: gateway, engine and, if wanted, the chat page as one process with one life.

The port answers from the beginning (/health with 503) and is announced once questions are answered.
A signal ends it: what is under way finishes or gets an error, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn

import httpx
import torch
import typer
from fastapi import FastAPI
from pydantic import SecretStr
from safetensors import SafetensorError, safe_open
from starlette.responses import RedirectResponse

from facellava.checkpoint import register_auto_classes
from facellava.config import FaceLlavaConfig
from facellava.errors import BadCheckpoint, FacellavaError
from facellava.face_encoder import FaceEncoder
from facellava.predictor import FaceLlava, embedded_weights
from facellava.processor import FaceLlavaProcessor
from serve.chat_server import listen
from serve.connections import QuietServer, careful_server
from serve.engine import Engine
from serve.engine_options import Backend, EngineOptions, check_vllm_options
from serve.gateway import create_app
from serve.library_engine import LibraryEngine
from serve.settings import Settings
from serve.vllm_plugin import check_clips_can_be_served

KEY_VARIABLE: Final = "FACELLAVA_API_KEY"
STOP_SECONDS: Final = 4.9  # after a signal; whatever still runs then is ended at once
ENGINE_GRACE: Final = 0.6  # it has nothing left to do
WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
CHAT: Final = "/chat"
ENCODER: Final = "face_encoder."
OPEN_FILES: Final = 65_536

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeOptions:
    """What is served, and where.

    Attributes:
        model: the checkpoint folder; None is the embedded nano.
        model_name: by which requests name it; by default the folder's name.
        port: 0 takes any free one, None the first from 7860.
        settings: of the gateway: address, key, limits and times.
        adapters: name and folder of each LoRA adapter.
        vllm_options: vLLM's own options, in its own words.
        engine_log: the file that keeps the engine's output.
        start_seconds: how long the engine may take to start.
        chat: also serve the chat page, at /chat.
        engine: "library" answers with the library's own model in this process, one request after
            the other: for machines without vLLM. It has no adapters and no guided JSON.
    """

    model: Path | None = None
    model_name: str | None = None
    port: int | None = 8000
    settings: Settings = field(default_factory=Settings)
    adapters: Mapping[str, Path] = field(default_factory=dict)
    vllm_options: Sequence[str] = ()
    engine_log: Path | None = None
    start_seconds: float = 900.0
    chat: bool = False
    engine: Literal["vllm", "library"] = "vllm"


def serve(
    options: ServeOptions,
    *,
    announce: Callable[[str], None] = typer.echo,
    when_ready: Callable[[str], None] | None = None,
    backend: Backend | None = None,
) -> NoReturn:
    """Serve until a signal ends it, and the process with it: exit code 0.

    Args:
        options: what and where.
        announce: called with the line that says that questions are answered.
        when_ready: called after that with the API's address, in a thread of its own.
        backend: the engine's program; by default the vLLM of this Python.

    Raises:
        FacellavaError: it cannot be served, the engine does not start, or it has died twice; one
            sentence says why.
    """
    settings = _with_key(options.settings)
    if not settings.loopback and settings.api_key is None:
        raise FacellavaError(
            f"A server at {settings.host} can be reached by others and needs a key: give "
            f"--api-key, set {KEY_VARIABLE}, or stay at 127.0.0.1."
        )
    if options.engine == "library" and (options.adapters or options.vllm_options):
        raise FacellavaError("Adapters and vLLM's options need vLLM; leave --engine library out.")
    check_vllm_options(options.vllm_options)
    with listen(settings.host, options.port) as listener:
        model = options.model or embedded_weights()
        processor, face_encoder = load_reading_parts(model, weights=settings.region_attention)
        if options.engine == "vllm":
            check_clips_can_be_served(face_encoder.config)
        engine_options = EngineOptions(
            model=model,
            model_name=options.model_name or model.resolve().name,
            adapters=options.adapters,
            vllm_options=options.vllm_options,
            log_file=options.engine_log,
            start_seconds=options.start_seconds,
            max_images=settings.max_images,
            max_videos=settings.max_videos,
        )
        _allow_many_connections()
        # It would note every look at the engine's health.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        engine: Engine | LibraryEngine
        if options.engine == "library":
            engine = LibraryEngine(FaceLlava.load(model), engine_options.model_name)
        else:
            engine = Engine(engine_options, face_encoder.config, backend)
        address = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        app = create_app(engine, processor, face_encoder, settings)
        if options.chat:
            _add_chat(app, address, settings)
        line = f"facellava is ready at {address}/v1"
        line += f", the chat at {address}{CHAT}" if options.chat else ""
        ready = f"{line} (model {engine.model_name}; Ctrl+C ends it)."

        def tell() -> None:
            announce(ready)
            if when_ready is not None:
                threading.Thread(target=when_ready, args=(f"{address}/v1",), daemon=True).start()

        life = _Life(careful_server(app), engine, app, listener)
        with (
            _nothing_old_collected(),
            asyncio.Runner(loop_factory=life.server.config.get_loop_factory()) as runner,
        ):
            runner.run(life.run(tell))
        life.end_process()


class _Life:
    """From the first connection to the last.

    Args:
        server: of the gateway.
        engine: not yet started.
        app: the gateway.
        listener: its socket.
    """

    def __init__(
        self,
        server: QuietServer,
        engine: Engine | LibraryEngine,
        app: FastAPI,
        listener: socket.socket,
    ) -> None:
        self.server = server
        self._engine, self._app, self._listener = engine, app, listener
        self._asked = asyncio.Event()
        # A thread's: it must fire whatever the event loop waits for.
        self._last_resort = threading.Timer(STOP_SECONDS, self._end_late)
        self._last_resort.daemon = True

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal, or until the engine is dead.

        Raises:
            FacellavaError: the engine does not start, or has died twice.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        serving = asyncio.create_task(self.server.serve(sockets=[self._listener]))
        living = asyncio.create_task(self._look_after_engine(ready))
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait((serving, living, asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._last_resort.start()
            living.cancel()
            asked.cancel()
            await self._stop(serving)
        for task in (serving, living):
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, Exception):
                self._last_resort.cancel()
                raise outcome

    def end_process(self) -> NoReturn:
        """Do all that is left to do at the end of a process, but do not take it apart.

        For all that torch and transformers are made of, Python takes more than a second of a core.
        """
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        _end_at_once(0)

    def _end_late(self) -> None:
        logger.warning("Stopping took too long; what was left is ended at once.")
        _end_at_once(0 if self._asked.is_set() else 1)

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set():
            # The guard of the engine takes everything with it.
            _end_at_once(128 + number)
        logger.info("Stopping.")
        self._asked.set()

    async def _look_after_engine(self, ready: Callable[[], None]) -> None:
        await self._engine.start()
        await self._answers()
        ready()
        await self._engine.watch()
        raise FacellavaError(
            "The engine has died twice, so the server ends; the lines above say why."
        )

    async def _answers(self) -> None:
        """Wait until the port itself says that all is well."""
        host, port = self._listener.getsockname()[:2]
        name = _reachable(host)
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(f"http://{name}:{port}/health")
                except httpx.TransportError:
                    answer = None
                if answer is not None and answer.status_code == 200:
                    return
                await asyncio.sleep(0.1)

    async def _stop(self, serving: asyncio.Task[None]) -> None:
        try:
            await self._app.state.traffic.drain()
        except TimeoutError:
            logger.error("Requests that do not end are left.")
        _let_pages_go(self._app)
        self.server.should_exit = True
        stopping = asyncio.create_task(self._engine.stop(ENGINE_GRACE))
        await asyncio.wait((stopping, serving))
        stopping.result()


def _end_at_once(code: int) -> NoReturn:
    os._exit(code)


@contextmanager
def _nothing_old_collected() -> Iterator[None]:
    """Keep the garbage collector from the million objects that stay: it would hold up requests."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _let_pages_go(app: FastAPI) -> None:
    if hasattr(app.state, "chat_page"):
        from serve.chat_pages import let_go

        let_go(app)


def _add_chat(app: FastAPI, address: str, settings: Settings) -> None:
    # Gradio is heavy, and a server without the page does without it.
    from serve.chat_api import ChatApi
    from serve.chat_pages import mount_chat

    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    hosts = sorted(settings.local_names) if settings.loopback else ()
    # The gateway asks for the key already, by HTTP Basic.
    mount_chat(app, ChatApi(f"{address}/v1", key), path=CHAT, hosts=hosts)
    for way in ("/", CHAT):
        app.add_api_route(way, lambda: RedirectResponse(f"{CHAT}/"), include_in_schema=False)


def _with_key(settings: Settings) -> Settings:
    key = os.environ.get(KEY_VARIABLE)
    if settings.api_key is not None or not key:
        return settings
    return settings.model_copy(update={"api_key": SecretStr(key)})


def _reachable(host: str) -> str:
    """The host of a URL by which a bound address is reached from here."""
    name = WILDCARDS.get(host, host)
    return f"[{name}]" if ":" in name else name


def _allow_many_connections() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def load_reading_parts(folder: Path, *, weights: bool) -> tuple[FaceLlavaProcessor, FaceEncoder]:
    """What of a checkpoint the gateway needs: everything but the language model.

    Args:
        folder: the checkpoint.
        weights: whether the face encoder's weights are wanted; without, it takes no memory.

    Raises:
        BadCheckpoint: the folder cannot be read.
    """
    register_auto_classes()
    try:
        config = FaceLlavaConfig.from_pretrained(folder, local_files_only=True)
        processor = FaceLlavaProcessor.from_pretrained(folder, local_files_only=True)
        with torch.device("cpu" if weights else "meta"):
            encoder = FaceEncoder(config).eval()
        if weights:
            encoder.load_state_dict(_encoder_weights(folder))
    except FacellavaError as error:
        raise BadCheckpoint(f"{folder} does not hold a whole checkpoint: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{folder} cannot be read as a Face-LLaVA checkpoint; give the folder that holds its "
            "config.json, and copy it anew where a file is damaged."
        ) from error
    return processor, encoder


def _encoder_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if name.startswith(ENCODER):
                    tensor = opened.get_tensor(name)
                    floating = tensor.is_floating_point()
                    weights[name.removeprefix(ENCODER)] = tensor.float() if floating else tensor
    return weights
