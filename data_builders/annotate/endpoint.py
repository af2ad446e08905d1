"""The annotator of any OpenAI-compatible endpoint: a multimodal model explains people's labels.

As in the construction of FaceInstruct-1M the model is shown the face, the label and instructions.
Verdicts stay the datasets': the model writes the reasons, the lead before them is ours.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from data_builders.annotate.measured import ANNOTATOR as MEASURED
from data_builders.annotate.measured import ANNOTATOR_VERSION as MEASURED_VERSION
from data_builders.annotate.topics import (
    DEFAULT_SHARES,
    Author,
    FaceSamples,
    Shares,
    Topic,
    labelled_topics,
)
from facellava.endpoint import Asker, Failure, Message, message, refuses
from facellava.errors import UnreadableAnswer
from facellava.records import FaceRecord, Sample
from facellava.tasks import Label, ask_for_json, parse_answer
from facellava.tasks.annotation import ANNOTATION, prompt_version
from facellava.tasks.prose import read_prose

ANNOTATOR_VERSION: Final = "endpoint-1"
FRAMES: Final = 4
_MOST_REASONS: Final = 6
_LONGEST_REASON: Final = 400  # characters
_NEAR_AGE: Final = 5  # years by which "in the forties" may miss the label
_REFUSAL_AUTHOR: Final = Author(MEASURED, MEASURED_VERSION)  # refusals are templates everywhere

Unwritten = Literal["refused", "another label", "unreadable"]


def _sentence(text: str) -> str:
    """One line with a full stop at its end."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


class Annotation(BaseModel):
    """What a model writes about a labelled face. Looking comes before reasoning."""

    model_config = ConfigDict(extra="forbid")

    description: str
    reasons: list[str]

    @field_validator("reasons")
    @classmethod
    def _sentences(cls, reasons: list[str]) -> list[str]:
        cleaned = [_sentence(reason) for reason in reasons if reason.strip()]
        if not 1 <= len(cleaned) <= _MOST_REASONS:
            raise ValueError(f"{len(cleaned)} reasons where 1 to {_MOST_REASONS} are wanted")
        if max(map(len, cleaned)) > _LONGEST_REASON:
            raise ValueError(f"a reason of more than {_LONGEST_REASON} characters")
        return cleaned


EXAMPLE: Final = Annotation(
    description="The brows are lowered and drawn together. The lips are pressed and thin. " * 2,
    reasons=["The brows are lowered and drawn together, which makes lines between them."] * 3,
)
"""A reply of the usual length, for estimates."""


def annotation_messages(record: FaceRecord, topic: Topic, frames: int) -> list[Message]:
    """The instructions of the task; the face and its label."""
    label = f"The label is: {topic.task.lead(topic.label)}"
    return [
        message(ANNOTATION[topic.task.name], role="system"),
        message(label, record.shown_frames(frames)),
    ]


async def write_samples(
    record: FaceRecord,
    asker: Asker,
    rng: random.Random,
    *,
    frames: int = FRAMES,
    shares: Shares = DEFAULT_SHARES,
    dropped: Counter[str] | None = None,
) -> list[Sample]:
    """A sample for each label of a face, and by chance the same in JSON, and a refusal.

    Deterministic for the generator's state and the replies.

    Args:
        frames: pictures of a clip that the model is shown, at most.
        shares: `json` and `unanswerable` are used: forms that cost nothing.
        dropped: counts the labels without a sample, by "<task>: <reason>".

    Raises:
        BadSample: a label that is not one of its task's.
        EndpointStopped: the endpoint cannot be asked any more.
    """
    samples = FaceSamples(record.face_id)
    counter = Counter() if dropped is None else dropped
    for topic in labelled_topics(record.labels):
        found = await asker.ask(annotation_messages(record, topic, frames), Annotation)
        fault = found.reason if isinstance(found, Failure) else fault_of(topic, found)
        question = topic.question(rng)
        form, refusing = rng.random() < shares.json, rng.random() < shares.unanswerable
        if isinstance(found, Failure) or fault:
            counter[f"{topic.task.name}: {fault}"] += 1
            continue
        prompt = prompt_version(ANNOTATION[topic.task.name])
        author = Author(asker.settings.model, ANNOTATOR_VERSION, prompt)
        samples.add(topic, question, answer_of(topic, found), author)
        if form:
            answer = topic.task.write_json(topic.label, found.reasons)
            samples.add(topic, ask_for_json(topic.question(rng), rng), answer, author, json=True)
        if refusing:
            samples.add_refusal(_REFUSAL_AUTHOR, rng)
    return samples.written


def answer_of(topic: Topic, annotation: Annotation) -> str:
    """Our lead and the model's reasons."""
    return f"{topic.task.lead(topic.label)} {' '.join(annotation.reasons)}"


def fault_of(topic: Topic, annotation: Annotation) -> Unwritten | None:
    """Why the annotation cannot be used: it refuses, has a lead of its own, or another label."""
    if refuses(annotation.description) or any(map(refuses, annotation.reasons)):
        return "refused"
    try:
        verdict = parse_answer(answer_of(topic, annotation))
    except UnreadableAnswer:
        return "unreadable"
    if (verdict.task, verdict.label) != (topic.task.name, topic.label):
        return "unreadable"
    try:
        said = read_prose(topic.task.name, verdict.reasons).label
    except UnreadableAnswer:
        return None  # names no label, which is what was asked for, or no single one
    return None if _agree(topic.label, said) else "another label"


def _agree(label: Label, said: Label) -> bool:
    """Whether what the reasons say is the label, or a part of it."""
    if isinstance(label, tuple) and isinstance(said, tuple):
        return set(said) <= set(label)
    if isinstance(label, int) and isinstance(said, int):
        return abs(label - said) <= _NEAR_AGE
    return label == said
