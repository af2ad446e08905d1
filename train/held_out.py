"""What is kept out of training, and task metrics on some of it: greedy answers, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from facellava.answer import verdict_of
from facellava.conversation import FaceItem, face_conversation
from facellava.metrics import cs, mae, mean_f1, uar, war
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord, Sample
from facellava.tasks import Verdict
from train.dataset import Reader, shown
from train.face_arrays import ABSENT, UNITS, coded_units
from train.usable import Usable

BATCH: Final = 16


@dataclass(frozen=True, eq=False)
class Asked:
    """A held-out sample with its face, and the action units that count for it."""

    sample: Sample
    item: FaceItem
    coded: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """What the model answered to a held-out sample."""

    sample_id: str
    task: str
    question: str
    wanted: str
    text: str


class HeldOutAnswers:
    """Asks a model the same held-out questions again and again.

    Attributes:
        last: its latest answers, for the report.

    Args:
        asked: the questions.
        processor: of the model.
        max_new_tokens: longer answers are cut, and then may be unreadable.
    """

    def __init__(
        self, asked: Sequence[Asked], processor: FaceLlavaProcessor, max_new_tokens: int
    ) -> None:
        self.asked, self.processor, self.max_new_tokens = asked, processor, max_new_tokens
        self.last: list[Given] = []

    def __call__(self, model: FaceLlavaForConditionalGeneration) -> dict[str, float]:
        """Figures by name, such as "eval_expression_UAR", with each task's number of answers."""
        texts = self._texts(model)
        self.last = [
            Given(one.sample.sample_id, one.sample.task, one.sample.question, one.sample.answer, t)
            for one, t in zip(self.asked, texts, strict=True)
        ]
        verdicts = [verdict_of(text) for text in texts]
        found: dict[str, float] = {
            "eval_readable": float(np.mean([isinstance(v, Verdict) for v in verdicts]))
        }
        for task in sorted({one.sample.task for one in self.asked}):
            chosen = [n for n, one in enumerate(self.asked) if one.sample.task == task]
            answers = [_label(verdicts[n], task) for n in chosen]
            figures = _figures(task, [self.asked[n] for n in chosen], answers)
            found[f"eval_{task}_n"] = len(chosen)
            found |= {f"eval_{task}_{name}": value for name, value in figures.items()}
        return found

    @torch.inference_mode()
    def _texts(self, model: FaceLlavaForConditionalGeneration) -> list[str]:
        model.eval()
        texts: list[str] = []
        tokenizer = self.processor.tokenizer
        for start in range(0, len(self.asked), BATCH):
            part = self.asked[start : start + BATCH]
            conversations = [
                face_conversation(
                    "video" if isinstance(one.item, Sequence) else "image",
                    one.sample.question,
                    one.sample.history,
                )
                for one in part
            ]
            encoded = self.processor.encode(conversations, [one.item for one in part])
            ids = model.generate(
                **encoded.to(model.device),
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            length = encoded["input_ids"].shape[1]
            texts += tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
        return [text.strip() for text in texts]


def set_aside(record: FaceRecord, share: float) -> bool:
    """Whether a face of the training split is kept out of training.

    One person's faces stay together, and so do a face and what was blended from it.
    """
    made = record.source.endswith("self_blended")
    person = record.subject or (record.origin if made else record.face_id)
    digest = hashlib.sha256(person.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def choose(reader: Reader, usable: Usable, count: int) -> list[Asked]:
    """So many held-out samples, as many of each task, spread over the split."""
    tasks = np.array(reader.tables.samples.data.column("task").to_pylist())[usable.rows]
    names = sorted(set(tasks.tolist()))
    found: list[Asked] = []
    for number, task in enumerate(names):
        rows = usable.rows[tasks == task]
        most = count // len(names) + (number < count % len(names))
        places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
        for row in rows[places].tolist():
            record = reader.tables.face(row)
            units = coded_units(record.labels)
            seen = units != ABSENT
            coded = tuple(u for u, one in zip(UNITS, seen, strict=True) if one or not seen.any())
            found.append(Asked(reader.tables.sample(row), shown(record, reader.clip_frames), coded))
    return found


def _label(verdict: object, task: str) -> Any:
    """The verdict's label; None where it is unreadable or of another task."""
    if not isinstance(verdict, Verdict) or verdict.task != task:
        return None
    return task if task == "unanswerable" else verdict.label


def _figures(task: str, asked: Sequence[Asked], answers: Sequence[Any]) -> dict[str, float]:
    truth = [one.sample.label for one in asked]
    if task == "age":
        years = [int(value) for value in truth]
        return {"MAE": mae(years, answers), "CS5": cs(years, answers)}
    if task == "action_units":
        there = [{u: u in one.sample.label for u in one.coded} for one in asked]
        given = [None if a is None else {unit: unit in a for unit in UNITS} for a in answers]
        return {"F1": mean_f1(there, given)[0]}
    if task == "attributes":
        pairs = [
            (value, None if answer is None else answer.get(name))
            for label, answer in zip(truth, answers, strict=True)
            for name, value in _table(label).items()
        ]
        return {"accuracy": war([t for t, _ in pairs], [a for _, a in pairs])}
    if task == "unanswerable":
        return {"refused": war([task] * len(answers), answers)}
    return {"WAR": war(truth, answers), "UAR": uar(truth, answers)}


def _table(label: Any) -> Mapping[str, bool]:
    table: Mapping[str, bool] = label
    return table
