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

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those that share dear fixtures run in the same one."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        fixtures = getattr(item, "fixturenames", ())
        group = "api" if "api" in fixtures else folder if folder == "train" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("browser"):
            # Chromium now and then starts no camera or loses a click on a machine that has other
            # work. A wrong page fails both times.
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=["TimeoutError"]))


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
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of nano with random weights, enough to make it say other things."""
    # Heavy, and most tests do without.
    import torch
    from peft import LoraConfig, get_peft_model

    from facellava.checkpoint import load
    from facellava.predictor import embedded_weights

    torch.manual_seed(7)
    model, _ = load(embedded_weights())
    layers = r"language_model\.model\.layers\.\d+\.(self_attn\.[qv]_proj|mlp\.down_proj)"
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=layers))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("lora") / "twin"
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory, twin: Path) -> Iterator[str]:
    """Address of `facellava serve` on nano through vLLM, started once: http://127.0.0.1:PORT.

    Its models are nano and the adapter twin. Without vLLM the test is skipped, and fails where
    CI=true.
    """
    if importlib.util.find_spec("vllm") is None:
        reason = "vLLM is not installed: make setup"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    log = tmp_path_factory.mktemp("api") / "engine.log"
    command = "from facellava.cli import main; main()"
    options = ["serve", "--port", "0", "--engine-log", str(log), "--lora", f"twin={twin}"]
    with (
        (log.parent / "server.log").open("w") as trouble,
        subprocess.Popen(
            [sys.executable, "-c", command, *options],
            cwd=ROOT,
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
