"""The same faces asked here and through a server: do words, verdicts and figures agree?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.benchmarks import Benchmark
from eval.run import evaluate
from eval.served import ServedModel
from facellava.predictor import FaceLlava
from facellava.records import FaceRecord


def compare(
    benchmark: Benchmark, records: Iterable[FaceRecord], loaded: FaceLlava, served: ServedModel
) -> dict[str, Any]:
    """Figures of both ways, and how many answers are the same.

    Args:
        records: the benchmark's faces table.
        loaded: the model in this process.
        served: the same weights behind a server.

    Raises:
        BadCorpus: no face carries the benchmark's label.
        FacellavaError: the server refuses, or does not answer.
    """
    faces = list(records)
    here, own = evaluate(benchmark, faces, loaded, count=len(faces))
    there, other = evaluate(benchmark, faces, served, count=len(faces))
    gaps = [
        abs(probability - table.get(label, 0.0))
        for table, twin in zip(other.tables, own.tables, strict=True)
        for label, probability in twin.items()
    ]
    return {
        "benchmark": benchmark.name,
        "n": here["n"],
        "in_process": here["metrics"],
        "served": there["metrics"],
        "same_label": sum(a == b for a, b in zip(own.given, other.given, strict=True)),
        "same_text": sum(a == b for a, b in zip(own.texts, other.texts, strict=True)),
        "largest_probability_gap": round(max(gaps, default=0.0), 4),
    }
