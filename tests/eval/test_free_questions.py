"""The committed free-wording questions are well formed, so a routing score can be trusted."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

LEADS = {"Expression", "Action units", "Attributes", "Age", "Deepfake", "Cannot answer"}
KINDS = {"general", "single_attribute", "follow_up", "out_of_scope", "json"}
HISTORY_TASKS = {"expression", "action_units", "attributes", "age", "deepfake"}


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    text = files("eval").joinpath("free_questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_there_are_enough_questions_of_each_kind_and_lead(questions: list[dict[str, Any]]) -> None:
    assert len(questions) >= 150
    assert {q["kind"] for q in questions} == KINDS
    assert {q["lead"] for q in questions} == LEADS


def test_fields_are_valid(questions: list[dict[str, Any]]) -> None:
    for q in questions:
        wanted = {"question", "lead", "kind"} | ({"history"} if q["kind"] == "follow_up" else set())
        assert set(q) == wanted, q
        assert q["question"], q
        assert q["question"] == q["question"].strip(), q
        if q["kind"] == "single_attribute":
            assert q["lead"] == "Attributes", q
        if q["kind"] == "out_of_scope":
            assert q["lead"] == "Cannot answer", q
        if q["kind"] == "follow_up":
            assert 1 <= len(q["history"]) <= 2, q
            for turn in q["history"]:
                assert set(turn) == {"question", "lead_task"}, q
                assert turn["question"].strip(), q
                assert turn["lead_task"] in HISTORY_TASKS, q


def test_no_question_is_asked_twice(questions: list[dict[str, Any]]) -> None:
    """Case, punctuation and spacing alone do not make a new question."""
    counts = Counter("".join(c for c in q["question"].lower() if c.isalnum()) for q in questions)
    assert [text for text, n in counts.items() if n > 1] == []
