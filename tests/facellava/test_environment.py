"""Facts about the machine, from child processes and files."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from facellava.environment import Imported, find_chromium, gpu_name, half_installed, probe_imports


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules child processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_imports_are_reported_and_a_deadly_one_hides_no_other(packages: Path) -> None:
    (packages / "whole.py").write_text("__version__ = '1.2'\nprint('noise')\n")
    (packages / "faulty.py").write_text("raise OSError('libcudart.so: not there\\nsecond line')\n")
    (packages / "deadly.py").write_text("import os\nos.abort()\n")
    found = probe_imports(["whole", "deadly", "faulty", "no_such_module"])
    assert found["whole"] == Imported(present=True, version="1.2")
    assert found["faulty"].error == "OSError: libcudart.so: not there"
    assert "interpreter died" in found["deadly"].error
    assert found["no_such_module"] == Imported(present=False)


def test_an_import_that_hangs_is_given_up(packages: Path) -> None:
    (packages / "hanging.py").write_text("import time\ntime.sleep(60)\n")
    found = probe_imports(["hanging"], seconds=1.0)
    assert found["hanging"].error == "not imported within 1 s"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA L4'; echo 'NVIDIA L4'", "NVIDIA L4"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ""),
        ("exit 0", ""),
    ],
)
def test_gpu_is_what_nvidia_smi_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: str
) -> None:
    program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu_name() == expected


def test_chromium_is_searched_on_the_path_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACELLAVA_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() == ""
    program(tmp_path, "google-chrome", "exit 0")
    program(tmp_path, "mine", "exit 0")
    assert find_chromium() == str(tmp_path / "google-chrome")
    monkeypatch.setenv("FACELLAVA_CHROMIUM", str(tmp_path / "mine"))
    assert find_chromium() == str(tmp_path / "mine")
    monkeypatch.setenv("FACELLAVA_CHROMIUM", str(tmp_path / "absent"))
    assert find_chromium() == ""


def installed_package(site_packages: Path, name: str, *, content: str = "x = 1\n") -> Path:
    """A package as pip leaves it; returns its metadata folder."""
    module = site_packages / f"{name}.py"
    module.write_text(content)
    metadata = site_packages / f"{name}-1.0.dist-info"
    metadata.mkdir()
    metadata.joinpath("RECORD").write_text(
        f"{name}.py,sha256=abc,{len(content)}\n"
        f"__pycache__/{name}.cpython-311.pyc,,\n"
        f"{metadata.name}/RECORD,,\n"
    )
    return metadata


def test_packages_cut_short_are_found(tmp_path: Path) -> None:
    installed_package(tmp_path, "whole")
    assert half_installed(tmp_path) == []
    unrecorded = installed_package(tmp_path, "unrecorded")
    unrecorded.joinpath("RECORD").unlink()
    truncated = installed_package(tmp_path, "truncated", content="x = 12345\n")
    tmp_path.joinpath("truncated.py").write_text("x = 1")
    absent = installed_package(tmp_path, "absent")
    tmp_path.joinpath("absent.py").unlink()
    removed = tmp_path / "~emoved"
    removed.mkdir()
    assert set(half_installed(tmp_path)) == {unrecorded, truncated, absent, removed}


def test_module_needs_the_standard_library_only() -> None:
    # -S: without site-packages, as before anything is installed.
    root = Path(__file__).resolve().parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import facellava.environment"
    ended = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
