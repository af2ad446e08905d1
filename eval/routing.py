"""Do free questions reach the right task? The lead of the answer is the routing.

The questions were written apart from the training wordings (`free_questions.jsonl`). A follow-up
is asked after the model's own answers to the turns before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tqdm import tqdm

from facellava.faces import Face
from facellava.predictor import FaceLlava
from facellava.tasks import TASKS

BATCH = 32


@dataclass(frozen=True)
class FreeQuestion:
    """A question as somebody may type it.

    Attributes:
        lead: the title of the task whose lead the answer has to open with.
        kind: general, single_attribute, follow_up, out_of_scope or json.
        earlier: the questions asked before it.
    """

    question: str
    lead: str
    kind: str
    earlier: tuple[str, ...] = ()


def read_questions() -> list[FreeQuestion]:
    """The committed questions, in their order."""
    text = (files("eval") / "free_questions.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [
        FreeQuestion(
            row["question"],
            row["lead"],
            row["kind"],
            tuple(turn["question"] for turn in row.get("history") or ()),
        )
        for row in rows
    ]


def evaluate_routing(
    model: FaceLlava, face: Face, questions: Sequence[FreeQuestion]
) -> dict[str, Any]:
    """Ask every question about one face and compare leads.

    Returns:
        n, right, share, share by kind and by lead, and the questions that went astray.
    """
    histories: list[list[tuple[str, str]]] = [[] for _ in questions]
    for turn in range(max(len(question.earlier) for question in questions)):
        asked = [n for n, question in enumerate(questions) if len(question.earlier) > turn]
        wordings = [questions[n].earlier[turn] for n in asked]
        answers = _leads(model, face, wordings, [histories[n] for n in asked])
        for n, wording, (_, text) in zip(asked, wordings, answers, strict=True):
            histories[n].append((wording, text))
    found = _leads(model, face, [question.question for question in questions], histories)
    right = [lead == question.lead for question, (lead, _) in zip(questions, found, strict=True)]
    return {
        "n": len(questions),
        "right": sum(right),
        "share": round(sum(right) / len(questions), 4),
        "by_kind": _shares([question.kind for question in questions], right),
        "by_lead": _shares([question.lead for question in questions], right),
        "astray": [
            {"question": question.question, "wanted": question.lead, "given": lead}
            for question, (lead, _), ok in zip(questions, found, right, strict=True)
            if not ok
        ],
    }


def _leads(
    model: FaceLlava,
    face: Face,
    questions: Sequence[str],
    histories: Sequence[Sequence[tuple[str, str]]],
) -> list[tuple[str, str]]:
    """The title of each answer's lead, "unreadable" where it has none, and the answer."""
    found = []
    for start in tqdm(range(0, len(questions), BATCH), unit="batch", desc="questions"):
        part = questions[start : start + BATCH]
        answers = model.ask_many(
            [face] * len(part), part, histories[start : start + BATCH], probabilities=False
        )
        for answer in answers:
            title = TASKS[answer.task].title if answer.task else "unreadable"
            found.append((title, answer.text))
    return found


def _shares(groups: Sequence[str], right: Sequence[bool]) -> dict[str, float]:
    totals, hits = Counter(groups), Counter(g for g, ok in zip(groups, right, strict=True) if ok)
    return {group: round(hits[group] / total, 4) for group, total in totals.items()}
