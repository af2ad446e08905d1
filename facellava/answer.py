"""What `ask` gives back: verdict, words, probabilities, and evidence that was checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from facellava.evidence import Evidence
from facellava.faces import Face
from facellava.tasks import Label

Probabilities = dict[str, float]


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
