"""vLLM as a child process: started, watched, restarted once, and ended without a trace left.

It listens on a Unix socket in a folder that only this user can open. Between this process and it
stands :mod:`serve.engine_guard`, which ends the engine and all its processes when this one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import numpy as np

from facellava.config import FaceLlavaConfig
from facellava.errors import FacellavaError
from facellava.faces.crop import CROP_SIZE
from facellava.faces.face import Face
from facellava.faces.face_png import data_url, to_png
from facellava.regions import N_LANDMARKS
from serve.adapters import adapter_options
from serve.engine_guard import ASK, KILL
from serve.engine_log import EngineLog
from serve.engine_options import (
    Backend,
    EngineOptions,
    installed_vllm,
    vllm_command,
    vllm_environment,
)

State = Literal["starting", "ready", "restarting", "stopped", "dead"]

GUARD: Final = Path(__file__).with_name("engine_guard.py")
POLL_SECONDS: Final = 0.25  # between two looks at an engine that starts
PROGRESS_SECONDS: Final = 10.0
HEALTH_SECONDS: Final = 2.0  # between two looks at one that runs
HUNG_SECONDS: Final = 60.0  # without any answer to /health it is taken for dead
STOP_SECONDS: Final = 1.2  # to end by itself; then it is killed
KILLED_SECONDS: Final = 12.0
LONGEST_FOLDER: Final = 64  # vLLM adds 37 for its sockets, and the system allows 107

logger = logging.getLogger(__name__)


class Engine:
    """The engine of one model.

    Args:
        options: what it serves and how.
        config: of the checkpoint.
        backend: the program; by default the vLLM of this Python, looked for at the start.

    Attributes:
        state: "starting" until it answers, then "ready"; "restarting" after its first death,
            "dead" after its second; "stopped" once it has been asked to end.
        client: speaks to it; the same one over all restarts.
        model_name: by which requests name the model.
        adapter_names: by which requests name its LoRA adapters.
    """

    def __init__(
        self, options: EngineOptions, config: FaceLlavaConfig, backend: Backend | None = None
    ) -> None:
        self.state: State = "starting"
        self.model_name = options.model_name
        self.adapter_names = tuple(options.adapters)
        self._options, self._config, self._backend = options, config, backend
        self._folder = Path(tempfile.mkdtemp(prefix="facellava-"))  # of mode 0700
        self._socket = self._folder / "engine.sock"
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(self._socket),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=128),
            ),
            base_url="http://engine",
            # The gateway limits each request's time itself.
            timeout=httpx.Timeout(None, connect=5.0),
            trust_env=False,
        )
        self._log: EngineLog | None = None
        self._guard: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the guard, above all processes of the engine; None while there is none."""
        return self._guard.pid if self._guard else None

    @property
    def _stopped(self) -> bool:
        return self.state == "stopped"

    async def start(self) -> None:
        """Start the engine and wait until it answers about a face.

        Raises:
            MissingBackend: vLLM is not installed, or not as it must be.
            FacellavaError: it does not start; the sentence says why.
        """
        self._check_folder()
        self._backend = self._backend or installed_vllm()
        await self._launch()
        self.state = "ready"

    async def watch(self) -> None:
        """Look after the running engine; returns once it has died twice, or has been stopped."""
        why = await self._death()
        if self._stopped:
            return
        self.state = "restarting"
        logger.warning("The engine died (%s) and is started once more.", why)
        await self._end_child()
        try:
            await self._launch()
        except FacellavaError as error:
            logger.error("%s", error)
        else:
            self.state = "ready"
            why = await self._death()
            if self._stopped:
                return
            logger.error("The engine died again (%s).", why)
        self.state = "dead"
        await self._end_child()

    async def stop(self, grace: float = STOP_SECONDS) -> None:
        """End the engine and everything that it started; requests under way are broken off.

        Args:
            grace: seconds to end by itself; then it is killed.
        """
        self.state = "stopped"
        await self._end_child(grace)
        await self.client.aclose()
        if self._log:
            self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_folder(self) -> None:
        if len(os.fsencode(self._folder)) > LONGEST_FOLDER:
            raise FacellavaError(
                f"The folder for temporary files, {self._folder.parent}, has too long a name for "
                "sockets; set TMPDIR to a shorter one, such as /tmp."
            )

    async def _launch(self) -> None:
        """One start. Whatever goes wrong, no process is left."""
        assert self._backend is not None
        command = vllm_command(
            self._options,
            self._backend,
            self._config,
            self._socket,
            adapter_options(self._options.adapters, self._config),
        )
        environment = vllm_environment(
            self._options, self._backend, self._config, self._folder, os.environ
        )
        self._log = self._log or EngineLog(self._options.log_file or self._folder / "engine.log")
        self._log.forget()
        self._socket.unlink(missing_ok=True)
        logger.info("Starting vLLM with %s.", self._options.model)
        try:
            self._guard = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(GUARD), str(self._folder), *command),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=2**20,
                start_new_session=True,
            )
            self._reader = asyncio.create_task(self._read_output(self._guard, self._log))
            await self._wait_until_healthy()
            await self._try_out()
        except BaseException:
            # Also where the start is given up: nothing may go on by itself.
            await self._end_child()
            raise

    async def _read_output(self, guard: asyncio.subprocess.Process, log: EngineLog) -> None:
        assert guard.stdout is not None
        while line := await _read_line(guard.stdout):
            log.add(line)

    async def _wait_until_healthy(self) -> None:
        assert self._guard is not None
        began = shown = time.monotonic()
        while await self._health() != 200:
            now = time.monotonic()
            if self._guard.returncode is not None:
                # Its last words may still be on their way.
                await self._finish_reading()
                raise self._failure("The engine did not start")
            if now - began > self._options.start_seconds:
                raise self._failure(
                    f"The engine did not start within {self._options.start_seconds:g} s"
                )
            if now - shown > PROGRESS_SECONDS:
                shown = now
                logger.info("vLLM is starting: %d s so far.", now - began)
            await asyncio.sleep(POLL_SECONDS)
        logger.info("vLLM started in %.1f s.", time.monotonic() - began)

    async def _health(self) -> int:
        """Status that /health answers; 0 for none."""
        try:
            return (await self.client.get("/health", timeout=HUNG_SECONDS / 4)).status_code
        except httpx.HTTPError:
            return 0

    async def _try_out(self) -> None:
        """Ask about a blank face and a blank clip: that all parts of the plugin are in their place.

        vLLM swallows errors of plugins, and looks for the reader of clips at the first clip only.
        """
        listed = await self._ask("GET", "/v1/models")
        names = {model["id"] for model in listed["data"]}
        if not names >= {self.model_name, *self.adapter_names}:
            raise self._failure("The engine serves another model")
        face = _blank_face()
        config = self._config
        steps = -(-2 // config.clip_merge)
        for kind, called, url, least in (
            ("image", "photos", data_url(to_png(face), clip=False), config.tokens_per_frame),
            (
                "video",
                "clips",
                data_url(to_png([face, face], [0.0, 1.0]), clip=True),
                steps * config.tokens_per_clip_frame,
            ),
        ):
            parts = [
                {"type": "text", "text": f"<{kind}>\n?"},
                {"type": f"{kind}_url", f"{kind}_url": {"url": url}},
            ]
            body = {
                "model": self.model_name,
                "messages": [{"role": "user", "content": parts}],
                "max_tokens": 1,
                "temperature": 0,
            }
            answer = await self._ask("POST", "/v1/chat/completions", body)
            if answer["usage"]["prompt_tokens"] < least:
                raise self._failure(f"The engine does not see {called}")

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = await self.client.request(
                method, path, json=body, timeout=self._options.start_seconds
            )
        except httpx.HTTPError as error:
            await asyncio.sleep(POLL_SECONDS)
            raise self._failure("The engine started and then broke off") from error
        if response.status_code != 200:
            raise self._failure(
                f"The engine started, but its plugin does not answer about a face ({path} gave "
                f"{response.status_code})"
            )
        return response.json()

    def _failure(self, what: str) -> FacellavaError:
        why = self._log.reason() if self._log else ""
        kept = self._options.log_file
        where = f"see {kept}" if kept else "--engine-log FILE keeps its whole output"
        return FacellavaError(f"{what}{f': {why}' if why else ''}; {where}.")

    async def _death(self) -> str:
        """Wait until the engine is dead, and say by what it is known."""
        assert self._guard is not None
        ended = asyncio.create_task(self._guard.wait())
        answered = time.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait([ended], timeout=HEALTH_SECONDS)
                if done:
                    await self._finish_reading()
                    return self._reason() or f"exit code {self._guard.returncode}"
                status = await self._health()
                if status == 200:
                    answered = time.monotonic()
                elif status:
                    # The process that listens lives, the one that computes does not.
                    return self._reason() or f"/health gave {status}"
                elif time.monotonic() - answered > HUNG_SECONDS:
                    return f"no answer for {HUNG_SECONDS:g} s"
        finally:
            ended.cancel()

    def _reason(self) -> str:
        return self._log.reason() if self._log else ""

    async def _finish_reading(self) -> None:
        if self._reader:
            # Something that escaped could hold the pipe open.
            await asyncio.wait([self._reader], timeout=1.0)

    async def _end_child(self, grace: float = 0.0) -> None:
        guard = self._guard
        if guard is None:
            return
        if grace > 0:
            await _order(guard, ASK)
            await _wait(guard, grace)
        await _order(guard, KILL)
        await _wait(guard, KILLED_SECONDS)
        if guard.returncode is None or guard.returncode < 0:
            # Somebody killed the guard, or it hangs: what it watched over is in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
            await _wait(guard, KILLED_SECONDS)
        await self._finish_reading()
        if self._reader:
            self._reader.cancel()
        self._guard = self._reader = None


async def _order(guard: asyncio.subprocess.Process, order: bytes) -> None:
    if guard.returncode is None and guard.stdin is not None:
        with contextlib.suppress(ConnectionError):  # it ended meanwhile, as wanted
            guard.stdin.write(order)
            await guard.stdin.drain()


async def _wait(process: asyncio.subprocess.Process, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of an endless one; b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed or 1)


def _blank_face() -> Face:
    """A grey crop with landmarks on a circle: enough to be looked at."""
    turn = np.linspace(0, 2 * np.pi, N_LANDMARKS, endpoint=False)
    return Face(
        crop=np.full((CROP_SIZE, CROP_SIZE, 3), 128, np.uint8),
        landmarks=(0.5 + 0.3 * np.stack([np.cos(turn), np.sin(turn)], axis=1)).astype(np.float32),
        box=(0.0, 0.0, float(CROP_SIZE), float(CROP_SIZE)),
        index=0,
        score=0.0,
        source="supplied",
        crop_to_photo=np.eye(2, 3),
    )
