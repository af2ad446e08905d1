"""An evaluation from faces to the report, with a model that answers from a list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from eval import run
from eval.benchmarks import BENCHMARKS
from eval.run import evaluate, write_report
from facellava.answer import Answer
from facellava.corpus import FaceRecord, record_of
from facellava.errors import BadCorpus, FacellavaError, UnreadableAnswer
from facellava.evidence import verify
from facellava.faces import Face, find_faces
from facellava.tasks import TASKS, parse_answer


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


class Scripted:
    """Gives its answers one after the other, and remembers what it was asked."""

    def __init__(self, texts: Sequence[str], fakes: Sequence[float] = ()) -> None:
        self.texts, self.fakes = iter(texts), iter(fakes)
        self.questions: list[str] = []
        self.batches: list[int] = []

    def ask_many(self, faces: Sequence[Face], questions: Sequence[str]) -> list[Answer]:
        self.questions += questions
        self.batches.append(len(faces))
        return [self.answer(face, next(self.texts)) for face in faces]

    def answer(self, face: Face, text: str) -> Answer:
        try:
            verdict = parse_answer(text)
        except UnreadableAnswer as error:
            return Answer("?", text, face, unreadable=str(error))
        fake = next(self.fakes, 0.5)
        return Answer(
            "?",
            text,
            face,
            task=verdict.task,
            label=verdict.label,
            raw={"real": 1 - fake, "fake": fake},
            evidence=tuple(verify(verdict.reasons, face)),
        )


def faces_of(face: Face, labels: Sequence[dict[str, Any]]) -> Iterator[FaceRecord]:
    for number, found in enumerate(labels):
        yield record_of(
            [face],
            face_id=f"x-{number}",
            source="x",
            split="test",
            labels=found,
            licence="x",
            origin="x",
        )


def test_expressions_are_counted_as_a_user_would_read_them(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 2)
    words = ["happiness", "happiness", "happiness", "sadness"]
    labels = [{"expression": word} for word in words]
    labels.insert(1, {"age": 30})
    model = Scripted(
        [
            "Expression: happiness. The lip corners are raised. The mouth is closed.",
            "Age: 30 years. The mouth is closed.",
            "It smiles.",
            "Expression: sadness. The mouth is closed.",
        ]
    )
    report, tally = evaluate(
        BENCHMARKS["fer2013"], faces_of(face, labels), model, count=5, explanations=True
    )  # type: ignore[arg-type]
    assert set(model.questions) == {TASKS["expression"].canonical_question}
    # The face without the label was passed over before it was asked about.
    assert model.batches == [2, 2]
    assert {name: report[name] for name in ("n", "parse_failures", "baseline_answer")} == {
        "n": 4,
        # Another task's lead, and no lead at all.
        "parse_failures": 2,
        "baseline_answer": "happiness",
    }
    assert report["metrics"] == {"WAR": 0.5, "UAR": pytest.approx(2 / 3, abs=1e-4)}
    assert report["baseline"] == {"WAR": 0.75, "UAR": 0.5}
    kinds = ["supported", "contradicted", "unmeasurable"]
    assert sum(report["claims"][kind] for kind in kinds) == 4
    assert tally.given == ["happiness", None, None, "sadness"]


def test_claims_are_reported_where_they_are_wanted(face: Face) -> None:
    model = Scripted(["Age: 30 years."])
    report, _ = evaluate(
        BENCHMARKS["utkface"],
        faces_of(face, [{"age": 33}]),
        model,  # type: ignore[arg-type]
    )
    assert list(report) == [
        "benchmark", "n", "parse_failures", "failure_rule", "metrics", "baseline",
        "baseline_answer",
    ]  # fmt: skip
    assert report["metrics"] == {"MAE": 3.0, "CS5": 1.0}


def test_an_error_in_years_that_nobody_gave_is_null(face: Face, tmp_path: Path) -> None:
    model = Scripted(["Young.", "Old."])
    report, _ = evaluate(
        BENCHMARKS["utkface"],
        faces_of(face, [{"age": 33}, {"age": 50}]),
        model,  # type: ignore[arg-type]
    )
    assert report["metrics"] == {"MAE": None, "CS5": 0.0}
    assert report["parse_failures"] == 2
    write_report(report, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["metrics"]["MAE"] is None


def test_the_auc_reads_probabilities_not_words(face: Face) -> None:
    truth = [{"deepfake": word} for word in ("fake", "real", "fake", "real")]
    texts = ["Deepfake: real.", "Deepfake: real.", "Well.", "Deepfake: real."]
    model = Scripted(texts, fakes=[0.4, 0.1, 0.3])
    report, _ = evaluate(BENCHMARKS["deepfake"], faces_of(face, truth), model)  # type: ignore[arg-type]
    # 0.4 and, for the unreadable one, 0.5 against 0.1 and 0.3.
    assert report["metrics"] == {"accuracy": 0.5, "balanced_accuracy": 0.5, "AUC": 1.0}
    assert report["baseline"]["AUC"] == 0.5


def test_no_labels_are_refused(face: Face) -> None:
    with pytest.raises(BadCorpus, match="No face carries a label for celeba"):
        evaluate(BENCHMARKS["celeba"], faces_of(face, [{"age": 3}]), Scripted([]))  # type: ignore[arg-type]


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.json"
    write_report({"n": 1, "word": "é"}, out)
    assert json.loads(out.read_text("utf-8")) == {"n": 1, "word": "é"}
    with pytest.raises(TypeError):
        write_report({"n": object()}, out)
    assert json.loads(out.read_text("utf-8"))["n"] == 1
    assert [path.name for path in out.parent.iterdir()] == ["report.json"]
    with pytest.raises(FacellavaError, match="cannot be written"):
        write_report({}, out / "beneath.json")
