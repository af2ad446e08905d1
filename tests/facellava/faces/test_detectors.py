"""Detectors by name: their geometry with stand-in networks, and their missing parts."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from facellava.errors import MissingBackend
from facellava.faces import detectors, find_faces
from facellava.faces.detectors import BlazeFace, FaceBackend, overlap


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0.0


def litert_with(one_face: dict[str, Any]) -> ModuleType:
    """A stand-in for LiteRT whose 128-pixel network sees one face, at the anchor given."""

    class Interpreter:
        def __init__(self, model_path: str, num_threads: int) -> None:
            assert Path(model_path).is_file()
            assert num_threads == 1

        def allocate_tensors(self) -> None: ...

        def get_input_details(self) -> list[dict[str, Any]]:
            return [{"index": 0, "shape": np.array([1, 128, 128, 3])}]

        def get_output_details(self) -> list[dict[str, Any]]:
            shapes = ([1, 896, 16], [1, 896, 1])
            return [{"index": i + 1, "shape": np.array(shape)} for i, shape in enumerate(shapes)]

        def set_tensor(self, index: int, value: np.ndarray) -> None:
            assert index == 0
            assert value.min() >= -1.0
            assert value.max() <= 1.0

        def invoke(self) -> None: ...

        def get_tensor(self, index: int) -> np.ndarray:
            rows, logits = np.zeros((1, 896, 16)), np.full((1, 896, 1), -9.0)
            rows[0, one_face["anchor"], :8] = one_face["row"]
            logits[0, one_face["anchor"]] = 3.0
            return rows if index == 1 else logits

    module = ModuleType("ai_edge_litert.interpreter")
    module.__dict__["Interpreter"] = Interpreter
    return module


def test_blazeface_boxes_are_in_picture_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "short.tflite"
    model.write_bytes(b"weights")
    # Anchor 2 * (16 * 8 + 8): the cell of column 8 and row 8 at stride 8, centre (68, 68).
    row = [-4, -4, 20, 20, -8, -8, 2, 2]  # centre (64, 64), 20 wide; eyes (60, 60) and (70, 70)
    fake = litert_with({"anchor": 2 * (16 * 8 + 8), "row": row})
    monkeypatch.setattr(detectors, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", fake)
    # 512 x 256: scale 1/4, padded by 32 rows above and below.
    (found,) = BlazeFace(model)(np.zeros((256, 512, 3), np.uint8))
    half = 0.93 * 80 / 2
    assert found.box == pytest.approx((256 - half, 128 - half, 256 + half, 128 + half))
    assert found.roll == pytest.approx(45.0)
    assert found.score == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_blazeface_without_litert_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "short.tflite"
    model.write_bytes(b"weights")
    monkeypatch.setattr(detectors, "find_spec", lambda name: None)
    with pytest.raises(MissingBackend, match="pip install 'ai-edge-litert"):
        FaceBackend("blazeface", model).detector()


def test_a_file_that_is_no_yunet_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"not a network")
    with pytest.raises(MissingBackend, match=r"yunet\.onnx.*is no model"):
        FaceBackend("yunet", model).detector()


def test_a_named_detector_adds_the_face_that_hog_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"weights")
    side = np.ascontiguousarray(np.rot90(data.astronaut()[20:220, 120:320]))  # a quarter turn

    class Network:
        def setInputSize(self, size: tuple[int, int]) -> None:
            self.size = size

        def detect(self, bgr: np.ndarray) -> tuple[int, np.ndarray]:
            assert self.size == (bgr.shape[1], bgr.shape[0])
            # Eyes one above the other, as the portrait's stand after the turn to the left.
            face = [55, 52, 92, 92, 85, 112, 85, 76, 0, 0, 0, 0, 0, 0, 0.9]
            return 1, np.array([face], np.float32)

    monkeypatch.setattr(cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *_: Network()))
    (found,) = find_faces(side, backend=FaceBackend("yunet", model))
    assert found.source == "yunet"
    assert found.score > 0.3  # HOG's own word, once the face is set upright
    eyes = found.photo_landmarks[36:42].mean(axis=0), found.photo_landmarks[42:48].mean(axis=0)
    assert eyes[0][1] > eyes[1][1] + 15  # the right eye is below the left one in this photo
