"""What a person reads: words unchanged, bars, reasons with their numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from facellava.answer import Answer
from facellava.evidence import verify
from facellava.faces import MEASUREMENTS, Face
from facellava.terminal import face_facts, likeliest, show_answer, show_faces

REASONS = "The lip corners are raised, and the mouth is closed."
TEXT = f"Expression: happiness. {REASONS} [bold]As it is :smile: said[/bold]."


@pytest.fixture
def answer(found_face: Face) -> Answer:
    table = {"happiness": 0.7, "anger": 0.05, "sadness": 0.15, "fear": 0.1}
    return Answer(
        question="?",
        text=TEXT,
        face=found_face,
        task="expression",
        label="happiness",
        explanation=REASONS,
        raw=dict.fromkeys(table, 0.25),
        calibrated=table,
        evidence=tuple(verify(REASONS, found_face)),
    )


def test_words_are_printed_as_they_are(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    show_answer(Path("x[1].png"), answer, several=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x[1].png, face 0"
    assert lines[1] == TEXT
    for number, name in enumerate(("happiness", "sadness", "fear")):
        assert lines[2 + number].split()[0] == name
    assert "0.70" in lines[2]
    for item in answer.evidence:
        [line] = [line for line in lines[5:] if item.phrase in line]
        assert item.verdict in line


def test_bars_are_of_the_calibrated_probabilities(answer: Answer) -> None:
    assert likeliest(answer) == [("happiness", 0.7), ("sadness", 0.15), ("fear", 0.1)]


def test_weak_ground_and_unreadable_text_are_said(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    show_answer(Path("x.png"), replace(answer, task="action_units", weak=True), several=False)
    assert "no human-coded action units" in capsys.readouterr().out
    shaky = replace(answer.face, source="assumed_box", score=0.0)
    show_answer(Path("x.png"), replace(answer, face=shaky, weak=True), several=False)
    assert "landmarks are uncertain" in capsys.readouterr().out
    show_answer(
        Path("x.png"), Answer("?", "La la.", answer.face, unreadable="No lead."), several=False
    )
    captured = capsys.readouterr()
    assert captured.out == "La la.\n"
    assert captured.err == "This answer cannot be read: No lead.\n"


def test_faces_with_everything_measured(
    found_face: Face, capsys: pytest.CaptureFixture[str]
) -> None:
    show_faces(Path("x.png"), [found_face])
    out = capsys.readouterr().out
    assert "x.png: 1 face(s)" in out
    for name in MEASUREMENTS:
        assert name.replace("_", " ") in out


def test_facts_are_in_photo_pixels(found_face: Face) -> None:
    facts = face_facts(found_face)
    assert len(facts["landmarks"]) == 68
    left, top, right, bottom = facts["box"]
    inside = [
        left - 20 < x < right + 20 and top - 20 < y < bottom + 40 for x, y in facts["landmarks"]
    ]
    assert all(inside)
    assert set(facts["measurements"]) == set(MEASUREMENTS)
    for item in facts["measurements"].values():
        assert item["regions"]
        assert item["value"] is not None or item["note"]
