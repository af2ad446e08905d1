"""The measured annotator: questions and answers about one labelled face, with no model behind them.

The label is the dataset's; the reasons are claims that the face's own measurements support with a
margin. What was not measured is never said, and a claim that does not fit the label is said to be
one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Final

from data_builders.annotate.frames import HARD_TO_READ
from data_builders.annotate.grounds import grounds_of, held_claims
from data_builders.annotate.reasons import Reasons, write_reasons
from data_builders.annotate.topics import (
    DEFAULT_SHARES,
    Author,
    FaceSamples,
    Shares,
    Topic,
    labelled_topics,
)
from facellava.evidence import action_units
from facellava.faces import Face
from facellava.faces.measurements import Measurement, measure
from facellava.records import FaceRecord, Sample
from facellava.tasks import TASKS, ask_for_json
from facellava.tasks.action_units import UNION
from facellava.tasks.unanswerable import KINDS, refusal, unanswerable_question

ANNOTATOR: Final = "measured"
ANNOTATOR_VERSION: Final = "1"
_AUTHOR: Final = Author(ANNOTATOR, ANNOTATOR_VERSION)

_HARD_TO_READ: Final = 0.3  # share of answers about weak faces that say so
_SWITCH: Final = 0.5  # share of follow-ups that turn to another task, where there is one
_AFTER_REFUSAL: Final = 0.1  # share of follow-ups whose first question had no answer


def write_samples(
    record: FaceRecord,
    face: Face,
    rng: random.Random,
    *,
    shares: Shares = DEFAULT_SHARES,
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
        self.samples = FaceSamples(record.face_id)

    def write(self, shares: Shares) -> list[Sample]:
        """All samples, in an order that depends on nothing but the generator."""
        rng = self.rng
        topics = labelled_topics(self.record.labels)
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
            self.samples.add(topic, question, answer, _AUTHOR)
            if rng.random() < shares.json:
                self._add_json(topic)
            if rng.random() < shares.follow_up:
                self._add_follow_up(topic, (question, answer), reasons, topics)
            if rng.random() < shares.unanswerable:
                self.samples.add_refusal(_AUTHOR, rng)
        return self.samples.written

    def _reasons(
        self, topic: Topic, used: tuple[str, ...] = (), again: bool = False
    ) -> Reasons | None:
        grounds = grounds_of(topic.task, topic.label, self.held, _blended_regions(self.record))
        reasons = write_reasons(topic.task, topic.label, grounds, self.rng, used=used, again=again)
        if reasons is None:
            self.dropped[f"{topic.task.name}: fewer than two measured claims"] += 1
        return reasons

    def _prose(self, topic: Topic, reasons: Reasons) -> str:
        hedge = self.face.weak and self.rng.random() < _HARD_TO_READ
        ending = self.rng.choice(HARD_TO_READ) if hedge else ""
        return f"{topic.task.lead(topic.label)} {reasons.prose}{ending}"

    def _add_json(self, topic: Topic) -> None:
        reasons = self._reasons(topic)
        if reasons is not None:
            question = ask_for_json(topic.question(self.rng), self.rng)
            answer = topic.task.write_json(topic.label, reasons.sentences)
            self.samples.add(topic, question, answer, _AUTHOR, json=True)

    def _add_follow_up(
        self, topic: Topic, turn: tuple[str, str], reasons: Reasons, topics: list[Topic]
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
        self, topic: Topic, question: str, turn: tuple[str, str], used: tuple[str, ...] = ()
    ) -> None:
        reasons = self._reasons(topic, used, again=bool(used))
        if reasons is not None:
            answer = self._prose(topic, reasons)
            self.samples.add(topic, question, answer, _AUTHOR, history=(turn,))


def _measured_units(measurements: Mapping[str, Measurement]) -> Topic:
    active = action_units(measurements)
    label = tuple(unit for unit in UNION if unit in active)
    return Topic(TASKS["action_units"], label, weak=True)


def _single_attributes(
    attributes: Mapping[str, bool], count: int, rng: random.Random
) -> list[Topic]:
    """Attributes to ask for one by one, about as many that are there as are not."""
    present = [name for name, there in attributes.items() if there]
    absent = [name for name, there in attributes.items() if not there]
    rng.shuffle(present)
    rng.shuffle(absent)
    chosen = []
    for _ in range(min(count, len(attributes))):
        names = present if present and (not absent or rng.random() < 0.5) else absent
        name = names.pop()
        chosen.append(Topic(TASKS["attributes"], {name: attributes[name]}, attribute=name))
    return chosen


def _blended_regions(record: FaceRecord) -> tuple[str, ...]:
    """The regions that a self-blend changed: a reason names them first."""
    blend = record.labels.get("blend") or {}
    return (*blend.get("inside", ()), *blend.get("crossed", ()))
