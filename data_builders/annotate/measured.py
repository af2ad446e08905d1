"""The measured annotator: questions and answers about one labelled face, with no model behind them.

The label is the dataset's; the reasons are claims that the face's own measurements support with a
margin. What was not measured is never said, and a claim that does not fit the label is said to be
one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from data_builders.annotate.frames import HARD_TO_READ
from data_builders.annotate.grounds import grounds_of, held_claims
from data_builders.annotate.reasons import Reasons, write_reasons
from facellava.evidence import action_units
from facellava.faces import Face
from facellava.faces.measurements import Measurement, measure
from facellava.records import FaceRecord, Sample
from facellava.tasks import ANSWERABLE, TASKS, Label, Task, ask_for_json
from facellava.tasks.action_units import UNION
from facellava.tasks.attributes import (
    attribute_follow_up,
    canonical_attribute_question,
    single_attribute_question,
)
from facellava.tasks.unanswerable import KINDS, refusal, refusal_reasons, unanswerable_question

ANNOTATOR: Final = "measured"
ANNOTATOR_VERSION: Final = "1"

_HARD_TO_READ: Final = 0.3  # share of answers about weak faces that say so
_CANONICAL: Final = 0.12  # share of questions in the wording of eval
_SWITCH: Final = 0.5  # share of follow-ups that turn to another task, where there is one
_AFTER_REFUSAL: Final = 0.1  # share of follow-ups whose first question had no answer


@dataclass(frozen=True)
class Shares:
    """How many samples of each kind a face gets.

    Attributes:
        measured_units: chance of an action-unit sample from measurements alone.
        attribute_questions: single-attribute questions of a face with attributes.
        json: chance that a prose sample is joined by one in the JSON form.
        follow_up: chance that a prose sample is joined by a second turn.
        unanswerable: chance that a prose sample is joined by a question without an answer.
    """

    measured_units: float = 0.35
    attribute_questions: int = 3
    json: float = 0.135
    follow_up: float = 0.105
    unanswerable: float = 0.08


@dataclass(frozen=True)
class _Topic:
    """Something that can be asked about this face, and its label.

    Attributes:
        attribute: the attribute's name where one is asked for.
        weak: the label was measured, not given by a person.
    """

    task: Task
    label: Label
    attribute: str | None = None
    weak: bool = False

    def question(self, rng: random.Random) -> str:
        """As a first question."""
        canonical = rng.random() < _CANONICAL
        if self.attribute is not None:
            if canonical:
                return canonical_attribute_question(self.attribute)
            return single_attribute_question(self.attribute, rng)
        return self.task.canonical_question if canonical else self.task.question(rng)

    def follow_up(self, after: Task, rng: random.Random) -> str:
        """As a question that turns a conversation to this topic."""
        if self.attribute is not None:
            return attribute_follow_up(self.attribute, rng)
        return self.task.follow_up(rng, after=None if after is self.task else after.name)


def write_samples(
    record: FaceRecord,
    face: Face,
    rng: random.Random,
    *,
    shares: Shares = Shares(),
    measurements: Mapping[str, Measurement] | None = None,
    dropped: Counter[str] | None = None,
) -> list[Sample]:
    """All samples of one labelled face, deterministic for the generator's state.

    A prose sample for each label, action units from measurements for a share of faces (marked
    weak), single-attribute questions, and by chance JSON answers, second turns and refusals.

    Args:
        face: the record's face, or the frame of its clip that is measured.
        measurements: of the face, where they are at hand; measured now where None.
        dropped: counts the samples that could not be written, by "<task>: <reason>".

    Returns:
        Samples without ratings; their ids are "<face_id>#<number>".

    Raises:
        BadSample: a label that is not one of its task's.
    """
    measured = measure(face) if measurements is None else measurements
    counter = Counter() if dropped is None else dropped
    return _Annotation(record, face, measured, rng, counter).write(shares)


class _Annotation:
    """The samples of one face while they are written."""

    def __init__(
        self,
        record: FaceRecord,
        face: Face,
        measurements: Mapping[str, Measurement],
        rng: random.Random,
        dropped: Counter[str],
    ) -> None:
        self.record, self.face, self.rng, self.dropped = record, face, rng, dropped
        self.measurements = measurements
        self.held = held_claims(measurements)
        self.samples: list[Sample] = []

    def write(self, shares: Shares) -> list[Sample]:
        """All samples, in an order that depends on nothing but the generator."""
        rng = self.rng
        topics = _labelled_topics(self.record.labels)
        if "action_units" not in self.record.labels and rng.random() < shares.measured_units:
            topics.append(_measured_units(self.measurements))
        for topic in list(topics):
            if isinstance(topic.label, dict):
                topics += _single_attributes(topic.label, shares.attribute_questions, rng)
        for topic in topics:
            reasons = self._reasons(topic)
            if reasons is None:
                continue
            question, answer = topic.question(rng), self._prose(topic, reasons)
            self._add(topic, question, answer)
            if rng.random() < shares.json:
                self._add_json(topic)
            if rng.random() < shares.follow_up:
                self._add_follow_up(topic, (question, answer), reasons, topics)
            if rng.random() < shares.unanswerable:
                self._add_refusal()
        return self.samples

    def _reasons(
        self, topic: _Topic, used: tuple[str, ...] = (), again: bool = False
    ) -> Reasons | None:
        grounds = grounds_of(topic.task, topic.label, self.held, _blended_regions(self.record))
        reasons = write_reasons(topic.task, topic.label, grounds, self.rng, used=used, again=again)
        if reasons is None:
            self.dropped[f"{topic.task.name}: fewer than two measured claims"] += 1
        return reasons

    def _prose(self, topic: _Topic, reasons: Reasons) -> str:
        hedge = self.face.weak and self.rng.random() < _HARD_TO_READ
        ending = self.rng.choice(HARD_TO_READ) if hedge else ""
        return f"{topic.task.lead(topic.label)} {reasons.prose}{ending}"

    def _add(
        self,
        topic: _Topic,
        question: str,
        answer: str,
        *,
        history: tuple[tuple[str, str], ...] = (),
        json: bool = False,
    ) -> None:
        label: Any = list(topic.label) if isinstance(topic.label, tuple) else topic.label
        self.samples.append(
            Sample(
                sample_id=f"{self.record.face_id}#{len(self.samples)}",
                face_id=self.record.face_id,
                task=topic.task.name,
                question=question,
                history=history,
                answer=answer,
                form="json" if json else "prose",
                label=label,
                weak=topic.weak,
                annotator=ANNOTATOR,
                annotator_version=ANNOTATOR_VERSION,
            )
        )

    def _add_json(self, topic: _Topic) -> None:
        reasons = self._reasons(topic)
        if reasons is not None:
            question = ask_for_json(topic.question(self.rng), self.rng)
            answer = topic.task.write_json(topic.label, reasons.sentences)
            self._add(topic, question, answer, json=True)

    def _add_follow_up(
        self, topic: _Topic, turn: tuple[str, str], reasons: Reasons, topics: list[_Topic]
    ) -> None:
        """A second turn: another task's question where there is one, or "Why?"."""
        rng = self.rng
        if rng.random() < _AFTER_REFUSAL:
            kind = rng.choice(list(KINDS))
            first = (unanswerable_question(kind, rng), refusal(kind, rng))
            self._add_turn(topic, topic.follow_up(TASKS["unanswerable"], rng), first)
            return
        others = [other for other in topics if other is not topic]
        if others and rng.random() < _SWITCH:
            other = rng.choice(others)
            self._add_turn(other, other.follow_up(topic.task, rng), turn)
            return
        question = topic.task.follow_up(rng, after=topic.task.name)
        self._add_turn(topic, question, turn, reasons.claims)

    def _add_turn(
        self, topic: _Topic, question: str, turn: tuple[str, str], used: tuple[str, ...] = ()
    ) -> None:
        reasons = self._reasons(topic, used, again=bool(used))
        if reasons is not None:
            self._add(topic, question, self._prose(topic, reasons), history=(turn,))

    def _add_refusal(self) -> None:
        rng = self.rng
        topic = _Topic(TASKS["unanswerable"], None)
        kind = rng.choice(list(KINDS))
        question = unanswerable_question(kind, rng)
        if rng.random() < Shares.json:
            answer = topic.task.write_json(None, refusal_reasons(kind, rng))
            self._add(topic, ask_for_json(question, rng), answer, json=True)
        else:
            self._add(topic, question, refusal(kind, rng))


def _labelled_topics(labels: Mapping[str, Any]) -> list[_Topic]:
    """What the dataset says about the face, in the order of the tasks.

    Raises:
        BadSample: a label that is not one of its task's.
    """
    found = []
    for name in ANSWERABLE:
        if name in labels:
            label = labels[name]
            topic = _Topic(TASKS[name], tuple(label) if isinstance(label, list) else label)
            topic.task.lead(topic.label)  # refuses a wrong label before anything is written
            found.append(topic)
    return found


def _measured_units(measurements: Mapping[str, Measurement]) -> _Topic:
    active = action_units(measurements)
    label = tuple(unit for unit in UNION if unit in active)
    return _Topic(TASKS["action_units"], label, weak=True)


def _single_attributes(
    attributes: Mapping[str, bool], count: int, rng: random.Random
) -> list[_Topic]:
    """Attributes to ask for one by one, about as many that are there as are not."""
    present = [name for name, there in attributes.items() if there]
    absent = [name for name, there in attributes.items() if not there]
    rng.shuffle(present)
    rng.shuffle(absent)
    chosen = []
    for _ in range(min(count, len(attributes))):
        names = present if present and (not absent or rng.random() < 0.5) else absent
        name = names.pop()
        chosen.append(_Topic(TASKS["attributes"], {name: attributes[name]}, attribute=name))
    return chosen


def _blended_regions(record: FaceRecord) -> tuple[str, ...]:
    """The regions that a self-blend changed: a reason names them first."""
    blend = record.labels.get("blend") or {}
    return (*blend.get("inside", ()), *blend.get("crossed", ()))
