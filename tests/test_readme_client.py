"""README's example of OpenAI's client runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_of_openais_client_runs_as_written(api: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [example] = [block for block in blocks if "from openai import OpenAI" in block]
    assert "http://127.0.0.1:8000" in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace("http://127.0.0.1:8000", api)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    words, verdict = done.stdout.strip().splitlines()
    assert words.startswith("Expression: happiness.")
    assert re.fullmatch(r"happiness \[('supported'(, )?)+\]", verdict)
