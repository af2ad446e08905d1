"""What lmms-eval calls: the picture of a face, the verdict in an answer, the figures of all.

`eval.lmms_export` copies this file, and the parsers and metrics that it imports, beside each task
that it writes: an environment without facellava then reads and scores as `facellava eval` does. So
this file imports nothing else of facellava, and no package that lmms-eval does not bring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from PIL import Image, PngImagePlugin

from facellava import metrics
from facellava.errors import UnreadableAnswer
from facellava.tasks import Label, parse_answer
from facellava.tasks.prose import read_prose

Doc = Mapping[str, Any]
"""A row of the exported table: face_id, image, question, closed_question, target (JSON), task,
kind, labels."""
Row = Mapping[str, Any]
"""An answer that was read: face_id, truth, given (None where unreadable), strict."""

FACE_CHUNK: Final = "facellava"
_FAILED: Final = "[LMMS_EVAL_"


def doc_to_visual(doc: Doc) -> list[Image.Image]:
    """The face's crop, whose landmarks survive that lmms-eval encodes it as PNG again.

    Pillow leaves out a picture's text chunks when it saves, unless `encoderinfo` asks for them. A
    facellava server reads the landmarks there and need not find the face again.
    """
    picture: Image.Image = doc["image"]
    facts = picture.info.get(FACE_CHUNK)
    if facts:
        notes = PngImagePlugin.PngInfo()
        notes.add_text(FACE_CHUNK, facts)
        picture.encoderinfo = {"pnginfo": notes}
    return [picture]


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Row]:
    """The answer beside the truth, under the name of each figure of the task."""
    given, strict = read(doc, results[0])
    truth = json.loads(doc["target"])
    row = {"face_id": doc["face_id"], "truth": truth, "given": given, "strict": strict}
    return dict.fromkeys(FIGURES[doc["kind"]], row)


def read(doc: Doc, text: str) -> tuple[Any, bool]:
    """The verdict in the truth's form, None where there is none; and whether it is our grammar.

    Our grammar is read strictly. Where a text does not follow it, one clear statement is looked
    for. An answer to another question is none.
    """
    if text.startswith(_FAILED):
        return None, False
    strict = True
    try:
        verdict = parse_answer(text)
    except UnreadableAnswer:
        strict = False
        try:
            verdict = read_prose(doc["task"], text)
        except UnreadableAnswer:
            return None, strict
    return (_given(doc, verdict.label) if verdict.task == doc["task"] else None), strict


def _given(doc: Doc, label: Label) -> Any:
    labels = doc["labels"]
    if doc["kind"] == "units":
        return {unit: unit in label for unit in labels} if isinstance(label, tuple) else None
    if doc["kind"] == "attributes":
        return label if isinstance(label, dict) and set(label) == set(labels) else None
    if doc["kind"] == "classes" and isinstance(label, int):
        return next(group for group in labels if _is_in(label, group))
    return label


def _is_in(years: int, group: str) -> bool:
    """Whether an age is in a group such as "20-29" or "70+", asked from the youngest on."""
    return group.endswith("+") or years <= int(group.partition("-")[2])


def war(rows: Sequence[Row]) -> float:
    """Share of right answers."""
    return metrics.war(*_both(rows))


def uar(rows: Sequence[Row]) -> float:
    """Mean over the classes of their recall."""
    return metrics.uar(*_both(rows))


def mae(rows: Sequence[Row]) -> float:
    """Mean absolute error in years over the answers that could be read."""
    return metrics.mae(*_both(rows))


def cs5(rows: Sequence[Row]) -> float:
    """Share of answers within five years."""
    return metrics.cs(*_both(rows))


def unit_f1(rows: Sequence[Row]) -> float:
    """Mean over the units of F1, each over the faces that were coded for it."""
    return metrics.mean_f1(*_both(rows))[0]


def unit_accuracy(rows: Sequence[Row]) -> float:
    """Mean over the units of accuracy."""
    return metrics.mean_f1(*_both(rows))[1]


def attribute_accuracy(rows: Sequence[Row]) -> float:
    """mAcc: mean over the attributes of the share of right answers."""
    return metrics.mean_accuracy(*_both(rows))[0]


def attribute_balanced_accuracy(rows: Sequence[Row]) -> float:
    """Mean over the attributes of balanced accuracy."""
    return metrics.mean_accuracy(*_both(rows))[1]


def unreadable(rows: Sequence[Row]) -> float:
    """Share of answers without a verdict."""
    return sum(row["given"] is None for row in rows) / len(rows)


def not_our_grammar(rows: Sequence[Row]) -> float:
    """Share of answers that do not follow facellava's grammar, read or not."""
    return sum(not row["strict"] for row in rows) / len(rows)


def _both(rows: Sequence[Row]) -> tuple[list[Any], list[Any]]:
    return [row["truth"] for row in rows], [row["given"] for row in rows]


Figure = Callable[[Sequence[Row]], float]
_READING: Final[Mapping[str, Figure]] = {
    "unreadable": unreadable,
    "not_our_grammar": not_our_grammar,
}
FIGURES: Final[Mapping[str, Mapping[str, Figure]]] = {
    "classes": {"WAR": war, "UAR": uar, **_READING},
    "years": {"MAE": mae, "CS5": cs5, **_READING},
    "units": {"mean_F1": unit_f1, "mean_accuracy": unit_accuracy, **_READING},
    "attributes": {
        "mAcc": attribute_accuracy,
        "balanced_accuracy": attribute_balanced_accuracy,
        **_READING,
    },
    "deepfake": {"accuracy": war, "balanced_accuracy": uar, **_READING},
}
"""Kind to the figures of `eval.protocols.FIGURES`, less the AUC, which wants probabilities."""
