"""What can be asked about a labelled face, and its samples while they are written.

Shared by all annotators: they differ in who writes the reasons, not in what is asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from facellava.records import Sample
from facellava.tasks import ANSWERABLE, TASKS, Label, Task, ask_for_json
from facellava.tasks.attributes import (
    attribute_follow_up,
    canonical_attribute_question,
    single_attribute_question,
)
from facellava.tasks.unanswerable import KINDS, refusal, refusal_reasons, unanswerable_question

_CANONICAL: Final = 0.12  # share of questions in the wording of eval


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


DEFAULT_SHARES: Final = Shares()


@dataclass(frozen=True)
class Topic:
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


@dataclass(frozen=True)
class Author:
    """Who wrote an answer, as `facellava.records.Sample` holds it."""

    annotator: str
    annotator_version: str
    prompt_version: str = ""


class FaceSamples:
    """The samples of one face while they are written; their ids are "<face_id>#<number>"."""

    def __init__(self, face_id: str) -> None:
        self.face_id = face_id
        self.written: list[Sample] = []

    def add(
        self,
        topic: Topic,
        question: str,
        answer: str,
        author: Author,
        *,
        history: tuple[tuple[str, str], ...] = (),
        json: bool = False,
    ) -> None:
        """One more sample about the topic."""
        label: Any = list(topic.label) if isinstance(topic.label, tuple) else topic.label
        self.written.append(
            Sample(
                sample_id=f"{self.face_id}#{len(self.written)}",
                face_id=self.face_id,
                task=topic.task.name,
                question=question,
                history=history,
                answer=answer,
                form="json" if json else "prose",
                label=label,
                weak=topic.weak,
                annotator=author.annotator,
                annotator_version=author.annotator_version,
                prompt_version=author.prompt_version,
            )
        )

    def add_refusal(self, author: Author, rng: random.Random) -> None:
        """A question that has no answer, refused in either form."""
        topic = Topic(TASKS["unanswerable"], None)
        kind = rng.choice(list(KINDS))
        question = unanswerable_question(kind, rng)
        if rng.random() < Shares.json:
            answer = topic.task.write_json(None, refusal_reasons(kind, rng))
            self.add(topic, ask_for_json(question, rng), answer, author, json=True)
        else:
            self.add(topic, question, refusal(kind, rng), author)


def labelled_topics(labels: Mapping[str, Any]) -> list[Topic]:
    """What the dataset says about the face, in the order of the tasks.

    Raises:
        BadSample: a label that is not one of its task's.
    """
    found = []
    for name in ANSWERABLE:
        if name in labels:
            label = labels[name]
            topic = Topic(TASKS[name], tuple(label) if isinstance(label, list) else label)
            topic.task.lead(topic.label)  # refuses a wrong label before anything is written
            found.append(topic)
    return found
