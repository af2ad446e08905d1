"""The engine in a process of its own, and the library beside it, for the tests of the plugin."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from PIL import Image
from skimage import data

from facellava.checkpoint import load
from facellava.conversation import FaceItem
from facellava.faces import Face, find_faces
from facellava.held_reasons import HeldReasons, OnlyHeldReasons
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import embedded_weights

needs_vllm = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make setup"
    ),
    pytest.mark.timeout(240),
]
ENGINE = pytest.StashKey["EngineProcess"]()
ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("vllm_worker.py")
MAX_TOKENS = 40
QUESTIONS = (
    "How old is this person?",
    "Which expression does this face show?",
    "Describe this face's attributes.",
    "Is this face real or fake?",
    "Which action units are active?",
    "Who is this?",
)


class EngineProcess:
    """vllm_worker.py in a process of its own."""

    def __init__(self, address: Path) -> None:
        self.listener = Listener(str(address))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.log = address.with_suffix(".log")
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(address)],
            env=environment,
            cwd=address.parent,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        self.connection = self.listener.accept()
        self._answer()

    def _answer(self) -> Any:
        while not self.connection.poll(1):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
        kind, value = self.connection.recv()
        assert kind != "failed", value
        return value

    def _ask(self, method: str, settings: dict[str, Any]) -> None:
        # Plain pickling: a connection's own would share tensors' memory with a stranger.
        self.connection.send_bytes(pickle.dumps((method, settings)))

    def call(self, method: str, **settings: Any) -> Any:
        self._ask(method, settings)
        return self._answer()

    def refusal(self, method: str, **settings: Any) -> str:
        self._ask(method, settings)
        kind, value = self.connection.recv()
        assert kind == "failed", f"{method} was not refused: {value}"
        return str(value)

    def close(self) -> None:
        self.connection.close()
        self.listener.close()
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()


class Library:
    """The model of a checkpoint, asked one prompt at a time."""

    def __init__(self, folder: Path) -> None:
        self.model, self.processor = load(folder)
        self.folder = folder

    def prompt(self, items: Sequence[FaceItem], question: str) -> dict[str, Any]:
        """What vLLM's `generate` takes."""
        kinds = ["video" if isinstance(item, Sequence) else "image" for item in items]
        held = {
            kind: [item for item, own in zip(items, kinds, strict=True) if own == kind]
            for kind in dict.fromkeys(kinds)
        }
        text = self.processor.render(conversation(items, question))
        return {"prompt": text, "multi_modal_data": held}

    @torch.inference_mode()
    def ids(
        self,
        items: Sequence[FaceItem],
        question: str,
        max_tokens: int = MAX_TOKENS,
        model: FaceLlavaForConditionalGeneration | PeftModel | None = None,
        held: list[str] | None = None,
        reasons: HeldReasons | None = None,
    ) -> list[int]:
        """The library's greedy answer, kept to the claims that hold where some are given."""
        encoded = self.processor.encode([conversation(items, question)], items)
        start = encoded["input_ids"].shape[1]
        kept = []
        if held is not None and reasons is not None:
            kept = [OnlyHeldReasons(reasons, start, [held])]
        written = (model or self.model).generate(
            **encoded, do_sample=False, max_new_tokens=max_tokens, logits_processor=kept
        )
        return written[0, start:].tolist()


def conversation(items: Sequence[FaceItem], question: str) -> list[dict[str, Any]]:
    parts = [{"type": "video" if isinstance(item, Sequence) else "image"} for item in items]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def moved(face: Face, by: float, part: slice = slice(48, 68)) -> Face:
    """The same crop, the mouth's landmarks elsewhere."""
    landmarks = face.landmarks.copy()
    landmarks[part] += np.float32(by)
    return replace(face, landmarks=landmarks)


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    return np.ascontiguousarray(data.astronaut()[:300, 60:390])


@pytest.fixture(scope="session")
def faces(portrait: NDArray[np.uint8]) -> list[Face]:
    """Six faces: the portrait's, those of a photo that shows it twice, and it in other light."""
    twice = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    dark = (portrait * 0.6).astype(np.uint8)
    shifted = np.roll(portrait, 9, axis=0)
    blurred = np.asarray(Image.fromarray(portrait).resize((165, 150)))
    photos = [portrait, twice, dark, shifted, blurred]
    found = [face for photo in photos for face in find_faces(photo)]
    assert len(found) == 6
    return found


@pytest.fixture(scope="session")
def nano() -> Library:
    return Library(embedded_weights())


@pytest.fixture(scope="session")
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> EngineProcess:
    """One engine for all test files that import this fixture: starting it takes ten seconds."""
    stash = request.config.stash
    if ENGINE not in stash:
        process = EngineProcess(tmp_path_factory.mktemp("vllm") / "worker")
        request.config.add_cleanup(process.close)
        process.call(
            "start",
            name="nano",
            folder=str(embedded_weights()),
            max_model_len=1024,
            enable_lora=True,
            max_lora_rank=8,
        )
        stash[ENGINE] = process
    return stash[ENGINE]
