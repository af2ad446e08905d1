"""Answers and faces as a person reads them in a terminal, and faces as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from facellava.answer import Answer
from facellava.faces import MEASUREMENTS, Face, measure

MARKS = {"supported": ("✓", "green"), "contradicted": ("✗", "red"), "unmeasurable": ("?", "yellow")}
BARS_SHOWN = 3
BAR_WIDTH = 24


def show_answer(path: Path, answer: Answer, *, several: bool) -> None:
    """The words, the likeliest labels, and each reason with its measurement."""
    console = plain_console()
    if several:
        console.print(f"{path.name}, face {answer.face.index}", style="bold")
    # Whole lines: whoever reads them from a pipe wants sentences, not a terminal's width.
    console.print(answer.text, soft_wrap=True)
    if answer.unreadable:
        typer.echo(f"This answer cannot be read: {answer.unreadable}", err=True)
        return
    if answer.weak:
        why = (
            "its landmarks are uncertain"
            if answer.face.weak
            else "no human-coded action units were at hand to train or check it"
        )
        console.print(f"Weak answer: {why}.", style="yellow")
    for name, value in likeliest(answer):
        console.print(f"  {name:<22}{'█' * round(value * BAR_WIDTH):<{BAR_WIDTH}} {value:.2f}")
    if answer.evidence:
        table = Table(show_header=False, box=None, padding=(0, 1))
        for item in answer.evidence:
            mark, colour = MARKS[item.verdict]
            size = "not measured" if item.value is None else f"{item.value:.2f} {item.unit}"
            verdict = f"{item.verdict} ({item.note})" if item.note else item.verdict
            table.add_row(Text(f" {mark}", colour), item.phrase, size, verdict)
        console.print(table)
    console.print()


def plain_console() -> Console:
    """stdout, where brackets and colons in names and answers mean nothing."""
    return Console(highlight=False, markup=False, emoji=False)


def likeliest(answer: Answer) -> list[tuple[str, float]]:
    """The labels to show first: the most probable ones, calibrated."""
    ranked = sorted(answer.calibrated.items(), key=lambda pair: -pair[1])
    return ranked[:BARS_SHOWN]


def show_faces(path: Path, found: list[Face]) -> None:
    """A line a face, and under it everything that was measured."""
    console = plain_console()
    console.print(f"{path.name}: {len(found)} face(s)", style="bold")
    for face in found:
        box = ", ".join(f"{value:.0f}" for value in face.box)
        note = " (weak)" if face.weak else ""
        console.print(f"  face {face.index}: box {box}, score {face.score:.2f}{note}")
        table = Table(show_header=False, box=None, padding=(0, 1))
        for name, item in measure(face).items():
            value = f"- ({item.note})" if item.value is None else f"{item.value:.3f} {item.unit}"
            table.add_row("   ", name.replace("_", " "), value)
        console.print(table)


def face_facts(face: Face) -> dict[str, Any]:
    """A face for JSON: box and landmarks in photo pixels, score, measurements."""
    return {
        "index": face.index,
        "box": [round(value, 1) for value in face.box],
        "score": round(face.score, 3),
        "source": face.source,
        "weak": face.weak,
        "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in face.photo_landmarks],
        "measurements": {
            name: {
                "value": None if item.value is None else round(item.value, 5),
                "unit": item.unit,
                "regions": list(MEASUREMENTS[name].regions),
                **({"note": item.note} if item.note else {}),
            }
            for name, item in measure(face).items()
        },
    }
