"""Requests made from our own OpenAPI document, good and bad ones, with schemathesis's checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.serve.abuse_rig import fake_server

ROOT = Path(__file__).resolve().parents[2]


def test_every_route_keeps_its_word(tmp_path: Path) -> None:
    with fake_server(max_body_bytes=2**22) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"{server.base}/openapi.json", "--no-color", "--generation-deterministic"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "150"]
        # What fits the schema need not be answered: a conversation without a photo, say.
        command += ["--exclude-checks", "positive_data_acceptance"]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.serve.fuzz_hooks", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command,
            cwd=tmp_path,  # schemathesis leaves a report
            env=os.environ | hooks,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Tested: 6" in done.stdout
        # Some requests were good enough for the engine to be asked.
        assert len(server.engine.asked) > 20
        assert server.is_well()
