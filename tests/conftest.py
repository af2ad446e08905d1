"""What tests of every package share."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from facellava.environment import find_chromium


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive; without one the test is skipped, and fails where CI=true."""
    path = find_chromium()
    if not path:
        reason = "no Chromium on PATH: apt-get install chromium, or set FACELLAVA_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `facellava serve` on nano through vLLM, started once: http://127.0.0.1:PORT.

    Without vLLM the test is skipped, and fails where CI=true.
    """
    if importlib.util.find_spec("vllm") is None:
        reason = "vLLM is not installed: make setup"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    log = tmp_path_factory.mktemp("api") / "engine.log"
    command = "from facellava.cli import main; main()"
    options = ["serve", "--port", "0", "--engine-log", str(log)]
    with (
        (log.parent / "server.log").open("w") as trouble,
        subprocess.Popen(
            [sys.executable, "-c", command, *options],
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            stderr=trouble,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        line = server.stdout.readline()
        ready = re.match(r"facellava is ready at (http://127\.0\.0\.1:\d+)/v1", line)
        if ready is None:
            server.wait()
            pytest.fail(f"No server: {Path(trouble.name).read_text()}")
        yield ready[1]
        server.send_signal(signal.SIGTERM)
        try:
            assert server.wait(10) == 0
        finally:
            # Where it has ended, this does nothing.
            server.kill()
