"""A benchmark's faces through the chat answer, and what comes out beside the simplest answer.

Every face is asked the task's one canonical question; the verdict is read from the words that a
user would see, by the strict parser. Nothing is asked of the model that a user could not ask.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.benchmarks import Benchmark
from eval.served import ServedModel
from facellava.answer import Answer
from facellava.errors import BadCorpus, FacellavaError
from facellava.predictor import FaceLlava
from facellava.records import FaceRecord
from facellava.tasks import TASKS

logger = logging.getLogger(__name__)

BATCH = 64
FAILURE_RULE = (
    "an unreadable answer counts as wrong (accuracy, recall, CS5, each attribute), stands at "
    "probability 0.5 for the AUC, and is left out of the MAE"
)


@dataclass
class Tally:
    """What is kept of the answers: all that scoring needs, and nothing of the pictures."""

    truth: list[Any] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    tables: list[dict[str, float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    claims: Counter[str] = field(default_factory=Counter)
    claims_an_answer: list[int] = field(default_factory=list)

    def add(self, truth: Any, answer: Answer, task: str) -> None:
        """Count one answer; the right words under another task's lead are no answer."""
        readable = answer.task == task
        self.truth.append(truth)
        self.given.append(answer.label if readable else None)
        self.tables.append(answer.raw if readable else {})
        self.texts.append(answer.text)
        self.claims.update(item.verdict for item in answer.evidence)
        self.claims_an_answer.append(len({item.claim for item in answer.evidence}))


def evaluate(
    benchmark: Benchmark,
    records: Iterable[FaceRecord],
    model: FaceLlava | ServedModel,
    *,
    count: int | None = None,
    explanations: bool = False,
) -> tuple[dict[str, Any], Tally]:
    """Ask about every labelled face and score the answers.

    Args:
        records: the benchmark's faces table; faces without its label are passed over.
        model: what answers.
        count: how many faces there are, for the progress bar.
        explanations: report the claims' verdicts too.

    Returns:
        The report that goes to JSON, and the answers.

    Raises:
        BadCorpus: no face carries the benchmark's label.
    """
    tally = Tally()
    question = TASKS[benchmark.task].canonical_question
    labelled = (
        (record, benchmark.label(record.labels))
        for record in records
        if benchmark.label(record.labels) is not None
    )
    with tqdm(total=count, unit="face", desc=benchmark.name) as bar:
        for part in _batches(labelled):
            faces = [record.faces()[0] for record, _ in part]
            answers = model.ask_many(faces, [question] * len(faces))
            for (_, truth), answer in zip(part, answers, strict=True):
                tally.add(truth, answer, benchmark.task)
            bar.update(len(part))
    if not tally.truth:
        raise BadCorpus(f"No face carries a label for {benchmark.name}; give its own data file.")
    return report(benchmark, tally, explanations=explanations), tally


def report(benchmark: Benchmark, tally: Tally, *, explanations: bool) -> dict[str, Any]:
    """The figures of the answers beside those of the best constant answer."""
    simplest = benchmark.simplest(tally.truth)
    n = len(tally.truth)
    found: dict[str, Any] = {
        "benchmark": benchmark.name,
        "n": n,
        "parse_failures": sum(given is None for given in tally.given),
        "failure_rule": FAILURE_RULE,
        "metrics": _clean(benchmark.measure(tally.truth, tally.given, tally.tables)),
        "baseline": _clean(benchmark.measure(tally.truth, [simplest] * n, [{}] * n)),
        "baseline_answer": simplest,
    }
    if explanations:
        kinds = ("supported", "contradicted", "unmeasurable")
        found["claims"] = {kind: tally.claims[kind] for kind in kinds}
        found["claims"]["distinct_per_answer"] = round(sum(tally.claims_an_answer) / n, 3)
    return found


def write_report(found: dict[str, Any], path: Path) -> None:
    """Write the report as JSON, whole or not at all.

    Raises:
        FacellavaError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(path)
    except OSError as error:
        raise FacellavaError(
            f"'{path}' cannot be written; give --json a file in a folder that is writable."
        ) from error
    finally:
        # A rest after a failure; beneath something that is no folder there is none.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _clean(metrics: dict[str, float]) -> dict[str, float | None]:
    """Four places; JSON has no NaN, so a figure that cannot be had is null."""
    return {k: None if math.isnan(v) else round(v, 4) for k, v in metrics.items()}


def _batches(
    rows: Iterator[tuple[FaceRecord, Any]],
) -> Iterator[Sequence[tuple[FaceRecord, Any]]]:
    while part := list(islice(rows, BATCH)):
        yield part
