"""What the page is tried with: portraits, and an answerer that has learned its answers by heart."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from facellava.answer import Answer
from facellava.errors import UnreadableAnswer
from facellava.evidence import verify
from facellava.faces import Face
from facellava.tasks import TASKS, parse_answer

SMILING_YOUNG = {name: name in {"smiling", "young"} for name in TASKS["attributes"].labels}
RECITATIONS = {
    TASKS["age"].canonical_question: (
        "Age: 34 years. The cheeks are smooth and the lip corners are raised."
    ),
    TASKS["expression"].canonical_question: (
        "Expression: happiness. The lip corners are raised, the teeth are visible, "
        "and the lips are shut."
    ),
    TASKS["action_units"].canonical_question: "Action units: AU6, AU12. The teeth are visible.",
    TASKS["attributes"].canonical_question: (
        TASKS["attributes"].lead(SMILING_YOUNG) + " The lip corners are raised."
    ),
    TASKS["deepfake"].canonical_question: "Deepfake: real. The picture is sharp.",
    "Who is this?": "Cannot answer: I do not identify people. Ask about the expression.",
    "Sing a song": "La la la.",
}


class Reciter:
    """The three doors of FaceLlava that the page knows, without weights.

    "Why?" gives the lead of the turn before, so that lost or foreign history shows.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def stream(
        self, item: Face, question: str, history: Sequence[tuple[str, str]] = ()
    ) -> Iterator[str]:
        if question == "Why?":
            before = history[-1][1].split(".")[0] if history else "Cannot answer: nothing said"
            text = f"{before}. The lip corners are raised ({len(history)} earlier)."
        elif question == "Break down":
            raise RuntimeError("secret detail")
        else:
            text = RECITATIONS[question]
        for word in text.split(" "):
            time.sleep(self.pause)
            yield f"{word} "

    def read(
        self, item: Face, question: str, text: str, history: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        try:
            verdict = parse_answer(text)
        except UnreadableAnswer as error:
            return Answer(question=question, text=text, face=item, unreadable=str(error))
        table = self._table(verdict.task, verdict.label)
        return Answer(
            question=question,
            text=text,
            face=item,
            task=verdict.task,
            label=verdict.label,
            explanation=verdict.reasons,
            raw=table,
            calibrated={name: 0.9 * share + 0.1 / len(table) for name, share in table.items()},
            evidence=tuple(verify(verdict.reasons, item)),
            weak=item.weak or verdict.task == "action_units",
        )

    def region_attention(self, face: Face) -> NDArray[np.float32]:
        return np.tile(np.linspace(0, 0.2, 9, dtype=np.float32), (36, 1))

    def _table(self, task: str, label: object) -> dict[str, float]:
        if task == "age":
            near = np.exp(-((np.arange(117) - 34) ** 2) / 50)
            return {str(year): float(share) for year, share in enumerate(near / near.sum())}
        names = TASKS[task].labels
        if isinstance(label, dict):
            return {name: 0.8 if label[name] else 0.1 for name in label}
        if isinstance(label, tuple):
            return {name: 0.8 if name in label else 0.1 for name in names}
        return {name: 0.7 if name == label else 0.3 / (len(names) - 1) for name in names}


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """Head and shoulders of scikit-image's public-domain astronaut."""
    return np.ascontiguousarray(data.astronaut()[:300, 60:390])


@pytest.fixture(scope="session")
def couple(portrait: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The portrait beside a smaller, mirrored one."""
    mirrored = Image.fromarray(portrait[:, ::-1]).resize((264, 240))
    canvas = np.full((300, 330 + 264, 3), 120, np.uint8)
    canvas[:, :330] = portrait
    canvas[:240, 330:] = np.asarray(mirrored)
    return canvas


@pytest.fixture(scope="session")
def landscape() -> NDArray[np.uint8]:
    """A picture that shows no face."""
    rows = np.linspace(60, 200, 300, dtype=np.uint8)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(rows, (300, 400, 3)))


@pytest.fixture(scope="session")
def recite() -> Callable[[Face, str], Answer]:
    """Called with a face and a task, or with any text of an answer: the Answer."""
    reciter = Reciter()

    def answer(face: Face, task_or_text: str) -> Answer:
        task = TASKS.get(task_or_text)
        question = task.canonical_question if task else "?"
        return reciter.read(face, question, RECITATIONS.get(question, task_or_text))

    return answer


@pytest.fixture(scope="session")
def reciter() -> Callable[..., Reciter]:
    return Reciter
