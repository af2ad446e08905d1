"""What `ask` gives back: verdict, words, probabilities, and evidence that was checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from facellava.conversation import FaceItem
from facellava.errors import BadModelInput, UnreadableAnswer
from facellava.evidence import Evidence, check, verify
from facellava.faces import Face
from facellava.faces.clips import apex
from facellava.faces.measurements import Measurement
from facellava.probabilities import calibrate
from facellava.tasks import Label, Verdict, parse_answer

Probabilities = dict[str, float]
# Verdicts that no human-coded data stands behind.
WEAK_TASKS = frozenset({"action_units"})


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer about one face.

    Attributes:
        question: as asked.
        text: the model's words, unchanged.
        task: which task the model took the question for; None where the text is unreadable.
        label: the verdict in Python form (:data:`facellava.tasks.Label`).
        explanation: the text without its lead.
        raw: probability of each label of the task's closed set, from token scores.
        calibrated: the same with the checkpoint's temperature for the task.
        evidence: each claim of the text, measured again on this face.
        face: the face that was asked about; of a clip the frame that was measured.
        weak: the verdict rests on weak ground: uncertain landmarks, or action units, for which no
            human-coded data was at hand.
        unreadable: why the text could not be read; None where it could.
    """

    question: str
    text: str
    face: Face
    task: str | None = None
    label: Label = None
    explanation: str = ""
    raw: Probabilities = field(default_factory=dict)
    calibrated: Probabilities = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    weak: bool = False
    unreadable: str | None = None

    @property
    def cited_regions(self) -> set[str]:
        """Regions that the explanation speaks of."""
        return {region for item in self.evidence for region in item.regions}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but pixels. Probabilities are rounded to four places."""
        return {
            "question": self.question,
            "task": self.task,
            "label": list(self.label) if isinstance(self.label, tuple) else self.label,
            "text": self.text,
            "explanation": self.explanation,
            "probabilities": {
                "raw": {name: round(value, 4) for name, value in self.raw.items()},
                "calibrated": {name: round(value, 4) for name, value in self.calibrated.items()},
            },
            "evidence": [item.to_dict() for item in self.evidence],
            "weak": self.weak,
            "unreadable": self.unreadable,
            "face": {
                "index": self.face.index,
                "box": [round(value, 1) for value in self.face.box],
                "score": round(self.face.score, 3),
                "source": self.face.source,
                "weak": self.face.weak,
            },
        }


def read_answer(
    question: str,
    text: str,
    verdict: Verdict | UnreadableAnswer,
    item: FaceItem,
    table: Probabilities,
    calibration: Mapping[str, float],
    measurements: Mapping[str, Measurement] | None = None,
) -> Answer:
    """The whole answer, with its reasons measured again, whoever generated the text.

    Args:
        question: as asked.
        text: the model's words.
        verdict: what :func:`verdict_of` says of them.
        item: the face or clip that was asked about.
        table: probability of each label, as `facellava.probabilities` makes it; may be empty.
        calibration: the checkpoint's temperature per task.
        measurements: of the face, where they are at hand; measured now where None.

    Raises:
        BadModelInput: the item holds no faces of `facellava.faces`.
    """
    face = measured_face(item)
    if isinstance(verdict, UnreadableAnswer):
        return Answer(question=question, text=text, face=face, unreadable=str(verdict))
    exclusive = isinstance(verdict.label, str | int)
    temperature = calibration.get(verdict.task, 1.0)
    return Answer(
        question=question,
        text=text,
        face=face,
        task=verdict.task,
        label=verdict.label,
        explanation=verdict.reasons,
        raw=table,
        calibrated=calibrate(table, temperature, exclusive=exclusive),
        evidence=tuple(
            verify(verdict.reasons, face)
            if measurements is None
            else check(verdict.reasons, measurements)
        ),
        weak=face.weak or verdict.task in WEAK_TASKS,
    )


def verdict_of(text: str) -> Verdict | UnreadableAnswer:
    """What the text says, or why it cannot be read."""
    try:
        return parse_answer(text)
    except UnreadableAnswer as error:
        return error


def measured_face(item: FaceItem) -> Face:
    """The face whose measurements check the answer: of a clip, its apex frame.

    Raises:
        BadModelInput: not faces of `facellava.faces`.
    """
    frames = item if isinstance(item, Sequence) else [item]
    faces = [face for face in frames if isinstance(face, Face)]
    if len(faces) != len(frames):
        raise BadModelInput("Ask about faces that facellava.faces found.")
    return faces[apex(faces)]
