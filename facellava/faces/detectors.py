"""Where faces are in a picture: dlib's HOG always, and by name what its user has a model file for.

HOG finds upright faces from 40 pixels up and comes with its package. BlazeFace (MediaPipe,
Apache-2.0, run by LiteRT) and YuNet (MIT, run by OpenCV) also see masked, half hidden, strongly
turned and smaller faces; their model files come from the user, and nothing is downloaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from facellava.errors import MissingBackend

BACKEND_VARIABLE: Final = "FACELLAVA_FACE_BACKEND"
MODEL_VARIABLE: Final = "FACELLAVA_FACE_MODEL"
MAX_OVERLAP: Final = 0.3  # two boxes that share more (IoU) are one face
BLAZE_SCORE: Final = {128: 0.5, 192: 0.6}  # by the model's input side: short and full range
YUNET_SCORE: Final = 0.7
# The landmark model was made for HOG's boxes, which are a little smaller than BlazeFace's.
BLAZE_TO_HOG_SIDE: Final = 0.93

Box = tuple[float, float, float, float]

_thread = threading.local()


@dataclass(frozen=True)
class Detection:
    """A box (x0, y0, x1, y1) in pixels of the picture given, and the detector's score.

    The box is as upright as the face: `roll` says by how many degrees the face is turned
    clockwise in the picture, about the middle of the box.
    """

    box: Box
    score: float
    roll: float = 0.0


@dataclass(frozen=True)
class FaceBackend:
    """The detector that helps HOG: "dlib" for none, "blazeface" or "yunet" with a model file."""

    name: str = "dlib"
    model_path: Path | None = None

    @classmethod
    def from_environment(cls) -> FaceBackend:
        """What FACELLAVA_FACE_BACKEND and FACELLAVA_FACE_MODEL name; HOG alone where unset."""
        path = os.environ.get(MODEL_VARIABLE)
        return cls(os.environ.get(BACKEND_VARIABLE) or "dlib", Path(path) if path else None)

    def detector(self) -> Callable[[NDArray[np.uint8]], list[Detection]] | None:
        """This thread's detector: RGB picture (H, W, 3) to detections. None for HOG alone.

        Raises:
            MissingBackend: an unknown name, or a package or model file that is not there.
        """
        if self.name == "dlib":
            return None
        if self.name not in _LOADERS:
            raise MissingBackend(
                f"There is no face backend '{self.name}'; choose dlib, {' or '.join(_LOADERS)}."
            )
        if self.model_path is None:
            raise MissingBackend(
                f"The face backend '{self.name}' needs its model file; name it in {MODEL_VARIABLE}."
            )
        if not self.model_path.is_file():
            raise MissingBackend(
                f"The model file '{self.model_path}' of the face backend '{self.name}' is "
                f"missing; correct the path or choose the backend dlib."
            )
        loaded: dict[FaceBackend, Any] = _thread.__dict__.setdefault("backends", {})
        if self not in loaded:
            loaded[self] = _LOADERS[self.name](self.model_path)
        return loaded[self]


def detect(
    picture: NDArray[np.uint8], threshold: float = 0.0, *, magnify: bool = True
) -> list[Detection]:
    """Upright faces of an RGB picture as HOG sees them, unsorted: from 40 pixels, or else 80."""
    if not hasattr(_thread, "hog"):  # a dlib object may not be shared between threads
        _thread.hog = dlib.get_frontal_face_detector()
    boxes, scores, _ = _thread.hog.run(np.ascontiguousarray(picture), int(magnify), threshold)
    return [
        Detection((box.left(), box.top(), box.right() + 1, box.bottom() + 1), float(score))
        for box, score in zip(boxes, scores, strict=True)
    ]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(shared / (areas - shared))


def _broken_model(name: str, path: Path) -> MissingBackend:
    return MissingBackend(
        f"The file '{path}' is no model that the face backend '{name}' can use; fetch it again."
    )


class BlazeFace:
    """MediaPipe's short-range (128 px) and full-range sparse (192 px) face detectors, by LiteRT.

    Anchors stand at cell centres with a fixed size; the network gives, for each anchor, the box
    centre and size and six key points as offsets in input pixels, and a logit.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("ai_edge_litert") is None:
            raise MissingBackend(
                "The face backend 'blazeface' needs LiteRT; run: pip install 'ai-edge-litert>=2.3'"
            )
        interpreter = import_module("ai_edge_litert.interpreter")
        try:
            self._model: Any = interpreter.Interpreter(model_path=str(path), num_threads=1)
            self._model.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _broken_model("blazeface", path) from error
        given, outputs = self._model.get_input_details()[0], self._model.get_output_details()
        self._input = given["index"]
        self.side = int(given["shape"][1])
        by_width = {int(output["shape"][-1]): output["index"] for output in outputs}
        if self.side not in BLAZE_SCORE or set(by_width) != {16, 1}:
            raise _broken_model("blazeface", path)
        self._offsets, self._logits = by_width[16], by_width[1]
        self.anchors = self._anchors()

    def _anchors(self) -> NDArray[np.float64]:
        """Anchor centres (N, 2) in input pixels, in the order of the network's rows."""
        per_cell = {8: 2, 16: 6} if self.side == 128 else {4: 1}
        grids = []
        for stride, count in per_cell.items():
            cells = (np.arange(self.side // stride) + 0.5) * stride
            x, y = np.meshgrid(cells, cells)
            grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
        return np.concatenate(grids)

    def __call__(self, picture: NDArray[np.uint8]) -> list[Detection]:
        """Faces of an RGB picture; score is the network's probability."""
        height, width = picture.shape[:2]
        scale = self.side / max(height, width)
        small = cv2.resize(
            picture,
            (max(1, round(width * scale)), max(1, round(height * scale))),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        canvas = np.full((1, self.side, self.side, 3), -1.0, dtype=np.float32)
        top, left = (self.side - small.shape[0]) // 2, (self.side - small.shape[1]) // 2
        canvas[0, top : top + small.shape[0], left : left + small.shape[1]] = small / 127.5 - 1.0
        self._model.set_tensor(self._input, canvas)
        self._model.invoke()
        logits = self._model.get_tensor(self._logits).reshape(-1).astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-logits.clip(-80, 80)))
        kept = np.flatnonzero(scores >= BLAZE_SCORE[self.side])
        rows = self._model.get_tensor(self._offsets).reshape(len(scores), 16)[kept].astype(float)
        found = []
        for anchor, row, score in zip(self.anchors[kept], rows, scores[kept], strict=True):
            points = [(anchor + row[i : i + 2] - [left, top]) / scale for i in (0, 4, 6)]
            half = BLAZE_TO_HOG_SIDE * max(row[2], row[3]) / scale / 2
            found.append(_with_roll(points[0], half, points[1], points[2], float(score)))
        return _distinct(found)


class YuNet:
    """OpenCV's FaceDetectorYN with a YuNet ONNX file."""

    def __init__(self, path: Path) -> None:
        try:
            self._model: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), YUNET_SCORE)
        except cv2.error as error:
            raise _broken_model("yunet", path) from error

    def __call__(self, picture: NDArray[np.uint8]) -> list[Detection]:
        """Faces of an RGB picture; score is the network's, up to 1."""
        self._model.setInputSize((picture.shape[1], picture.shape[0]))
        _, rows = self._model.detect(np.ascontiguousarray(picture[:, :, ::-1]))
        found = []
        for x, y, width, height, *points, score in [] if rows is None else rows.astype(float):
            # YuNet's box is a tall one about forehead and chin; HOG's is a square of its area.
            centre = np.array([x + width / 2, y + height / 2])
            half = float(np.sqrt(width * height)) / 2
            eyes = np.array(points[:4]).reshape(2, 2)
            found.append(_with_roll(centre, half, eyes[0], eyes[1], float(score)))
        return _distinct(found)


_LOADERS: Final[dict[str, Callable[[Path], Callable[[NDArray[np.uint8]], list[Detection]]]]] = {
    "blazeface": BlazeFace,
    "yunet": YuNet,
}


def _with_roll(
    centre: NDArray[np.float64],
    half: float,
    right_eye: NDArray[np.float64],
    left_eye: NDArray[np.float64],
    score: float,
) -> Detection:
    across = left_eye - right_eye
    box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
    return Detection(
        (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        score,
        float(np.degrees(np.arctan2(across[1], across[0]))),
    )


def _distinct(found: list[Detection]) -> list[Detection]:
    """The best of each group of overlapping boxes."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda one: -one.score):
        if all(overlap(one.box, other.box) <= MAX_OVERLAP for other in kept):
            kept.append(one)
    return kept
