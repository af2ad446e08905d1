"""How fast faces are evaluated: the suite's batches against one `generate` at a time.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.evaluation --faces 64

The same model asks the same faces the one question of each task, a task after the other as a run
over protocols does, each way in turn in one process. "One at a time" is the reference's way: batch
1, the whole answer, nothing but its text. The suite asks in batches and wants probabilities, which
one more pass over the verdict gives; it also measures each face again to check the answer's claims.
"Label only" is its --label-only, which ends an answer with the verdict: the same is scored, and no
reasons are written. Faces are made up and their landmarks known, so no face is searched.

CPU seconds are of all threads; they tell a slow way from a busy computer.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Optional

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.made_up_faces import MadeUp
from data_builders.media import DEFAULT_LOOK
from eval.engines import LOCAL_BATCH
from facellava.answer import verdict_of
from facellava.conversation import face_conversation
from facellava.faces import Face
from facellava.predictor import MAX_NEW_TOKENS, FaceLlava
from facellava.tasks import ANSWERABLE, TASKS, Label, Verdict

WARM_UP: Final = 4
OBVIOUS: Final = "one"
WAYS: Final = {
    OBVIOUS: "one at a time, text",
    "probabilities": "batches, probabilities",
    "text": "batches, text",
    "label": "label only, probabilities",
    "label_text": "label only, text",
}

Ask = Callable[[Sequence[Face], str], list[str]]
"""Faces and the question to the texts of the answers."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@dataclass(frozen=True)
class Timing:
    """One way with one task: a round's seconds each, and the verdicts, None where unreadable."""

    seconds: list[float]
    cpu_seconds: list[float]
    labels: list[Label | None]


def one_at_a_time(model: FaceLlava) -> Ask:
    """Transformers' generate on one face after the other."""
    tokenizer = model.processor.tokenizer

    @torch.inference_mode()
    def ask(faces: Sequence[Face], question: str) -> list[str]:
        texts = []
        for face in faces:
            encoded = model.processor.encode([face_conversation("image", question)], [face])
            ids = model.model.generate(
                **encoded,
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            start = encoded["input_ids"].shape[1]
            texts.append(tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip())
        return texts

    return ask


def in_batches(model: FaceLlava, batch: int, *, probabilities: bool, label_only: bool) -> Ask:
    """`ask_many`, as the suite's engine calls it."""

    def ask(faces: Sequence[Face], question: str) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(faces), batch):
            part = faces[start : start + batch]
            answers = model.ask_many(
                part,
                [question] * len(part),
                probabilities=probabilities,
                label_only=label_only,
            )
            texts += [answer.text for answer in answers]
        return texts

    return ask


def label_of(task: str, text: str) -> Label | None:
    """The verdict, read strictly; None where there is none, or one of another task."""
    verdict = verdict_of(text)
    return verdict.label if isinstance(verdict, Verdict) and verdict.task == task else None


def measure(ask: Ask, faces: Sequence[Face], task: str, rounds: int) -> Timing:
    """Ask about all faces, again each round."""
    question, texts = TASKS[task].canonical_question, [""]
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        start, cpu_start = time.perf_counter(), time.process_time()
        texts = ask(faces, question)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return Timing(seconds, cpu_seconds, [label_of(task, text) for text in texts])


def row_of(timings: Sequence[Timing], obvious: Sequence[Timing]) -> dict[str, Any]:
    """A way's figures over some tasks, beside those of the obvious way."""
    labels = [label for timing in timings for label in timing.labels]
    wanted = [label for timing in obvious for label in timing.labels]
    seconds, cpu_seconds = _sums(timings)
    obvious_seconds, obvious_cpu = _sums(obvious)
    return {
        "answers": len(labels),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "answers_per_second": len(labels) / seconds,
        "times_as_fast": obvious_seconds / seconds,
        "times_as_fast_by_cpu": obvious_cpu / cpu_seconds,
        "parse_failures": sum(label is None for label in labels),
        "same_label": sum(a == b for a, b in zip(labels, wanted, strict=True)) / len(labels),
    }


def _sums(timings: Sequence[Timing]) -> tuple[float, float]:
    """Seconds and CPU seconds of all tasks, each the median of its rounds."""
    return (
        sum(statistics.median(timing.seconds) for timing in timings),
        sum(statistics.median(timing.cpu_seconds) for timing in timings),
    )


@app.command()
def run(
    count: Annotated[int, typer.Option("--faces", min=1, help="Asked once each task.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Faces of a batch.")] = LOCAL_BATCH,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--model", help="A checkpoint folder; without it, the embedded model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not tables.")] = False,
) -> None:
    """Measure all ways."""
    model = FaceLlava.load(weights)
    faces = [MadeUp(seed, find=False).face(DEFAULT_LOOK)[0] for seed in range(count)]
    ways = {
        OBVIOUS: one_at_a_time(model),
        "probabilities": in_batches(model, batch, probabilities=True, label_only=False),
        "text": in_batches(model, batch, probabilities=False, label_only=False),
        "label": in_batches(model, batch, probabilities=True, label_only=True),
        "label_text": in_batches(model, batch, probabilities=False, label_only=True),
    }
    timings: dict[str, dict[str, Timing]] = {way: {} for way in WAYS}
    for task in ANSWERABLE:
        for way, ask in ways.items():
            measure(ask, faces[:WARM_UP], task, 1)
            timings[way][task] = measure(ask, faces, task, rounds)
            typer.echo(f"{task}, {WAYS[way]}: {timings[way][task].seconds[-1]:.1f} s", err=True)
    obvious = timings[OBVIOUS]
    found = {
        way: {
            "all": row_of(list(by_task.values()), list(obvious.values())),
            **{task: row_of([timing], [obvious[task]]) for task, timing in by_task.items()},
        }
        for way, by_task in timings.items()
    }
    if as_json:
        facts = {"faces": count, "rounds": rounds, "batch": batch, "ways": found}
        typer.echo(json.dumps(facts))
    else:
        show(found)


def show(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Two tables: all tasks together, and answers/s a task."""
    table = Table(
        "way", "answers/s", "times as fast", "by CPU time", "parse failures", "same verdict"
    )
    for way, rows in found.items():
        row = rows["all"]
        table.add_row(
            WAYS[way],
            f"{row['answers_per_second']:.1f}",
            f"{row['times_as_fast']:.1f}",
            f"{row['times_as_fast_by_cpu']:.1f}",
            f"{row['parse_failures']} of {row['answers']}",
            f"{row['same_label']:.1%}",
        )
    console.print(table)
    by_task = Table("answers/s", *(TASKS[task].title for task in ANSWERABLE))
    for way, rows in found.items():
        rates = (rows[task]["answers_per_second"] for task in ANSWERABLE)
        by_task.add_row(WAYS[way], *(f"{rate:.1f}" for rate in rates))
    console.print(by_task)


if __name__ == "__main__":
    app()
