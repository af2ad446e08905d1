"""`facellava eval` of models elsewhere: endpoints that are paid for, killed runs, the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.facellava.command_line import Facellava
from tests.facellava.endpoint_rig import fake_endpoint, reply
from tests.facellava.eval_command import KEY, asked


def test_any_endpoint_is_asked_with_the_closed_set_and_its_price_is_known_before(
    facellava: Facellava, packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    prices = tmp_path / "prices.toml"
    prices.write_text('["gpt-x"]\ninput = 1.0\noutput = 2.0\n')
    run = tmp_path / "run"
    with fake_endpoint(lambda *_: reply("Expression: sadness. The mouth is closed.")) as server:
        words = asked(
            packs, run, "--prompt", "closed", "--endpoint", server.url, "--name", "gpt-x",
            "--prices", prices, "--max-cost", "1",
        )  # fmt: skip
        dry = facellava(*words, "--dry-run")
        assert dry.code == 0, dry.err
        assert "4 requests to send" in dry.out
        assert server.prompts == []
        done = facellava(*words)
        assert done.code == 0, done.err
        assert facellava(*words).code == 0
    assert len(server.prompts) == 4
    assert "X is one of: anger, disgust, fear, happiness" in server.prompts[0]
    results = json.loads((run / "results.json").read_text())
    assert results["engine"]["prompt"] == "closed"
    block = results["protocols"][KEY]
    assert "X is one of: anger" in block["question"]
    assert block["figures"]["WAR"]["value"] == 0.25
    assert block["calibration"] is None
    spent = json.loads((run / "run.json").read_text())["spent"]
    assert spent["gpt-x"] > 0
    left = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"sk-secret-of-mine" not in left


def test_an_endpoint_that_talks_nonsense_gives_failures_not_figures(
    facellava: Facellava, packs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with fake_endpoint(lambda *_: reply("<script>alert(1)</script> lorem ipsum")) as server:
        done = facellava(*asked(packs, run, "--endpoint", server.url, "--name", "m"))
    assert done.code == 0, done.err
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]
    assert block["unreadable"]["share"] == 1
    assert block["figures"]["WAR"]["value"] == 0
    assert "<script>alert" not in (run / "report.html").read_text()


def test_the_server_and_this_process_agree(
    facellava: Facellava, packs: Path, tmp_path: Path, api: str
) -> None:
    out, where = tmp_path / "parity", ["--root", packs, "--api", f"{api}/v1"]
    done = facellava("eval", "parity", KEY, *where, "--out", out)
    assert done.code == 0, done.err
    [found] = json.loads((out / "parity.json").read_text())["protocols"]
    assert found["same_label"] == found["same_text"] == found["n"] == 4
    there = facellava(*asked(packs, tmp_path / "run", "--api", f"{api}/v1"))
    assert there.code == 0, there.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    figures = results["protocols"][KEY]["figures"]
    assert {k: v["value"] for k, v in figures.items()} == found["served"] == found["in_process"]


def test_a_killed_run_goes_on_and_asks_nothing_twice(packs: Path, tmp_path: Path) -> None:
    """kill -9 while the endpoint is asked: the end is that of a run that was left alone."""
    delays: dict[str, Any] = {"delay": 0.0}

    def script(prompt: str, before: int, body: dict[str, Any]) -> Any:
        return reply("Expression: happiness. The mouth is closed.", **delays)

    runs = {name: tmp_path / name / "run" for name in ("whole", "killed")}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def command(run: Path, url: str) -> list[str]:
        return [
            sys.executable, "-m", "facellava",
            *map(str, asked(packs, run, "--endpoint", url, "--name", "m", "--concurrency", "1")),
        ]  # fmt: skip

    with fake_endpoint(script) as server:
        subprocess.run(command(runs["whole"], server.url), check=True, env=environment,
                       capture_output=True, timeout=120)  # fmt: skip
        assert len(server.prompts) == 4
        delays["delay"] = 0.5
        process = subprocess.Popen(
            command(runs["killed"], server.url), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(server.prompts) < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(command(runs["killed"], server.url), check=True, env=environment,
                       capture_output=True, timeout=120)  # fmt: skip
        # What was under way when it died may have been paid for; nothing that had come was.
        assert 8 <= len(server.prompts) <= 9
    whole, killed = (
        json.loads((run / "results.json").read_text())["protocols"] for run in runs.values()
    )
    assert killed == whole
