"""What a task is: its labels, its questions, how its answer opens, how that is read back.

A prose answer is ``"<Title>: <label words>."`` followed by reasons. A JSON answer is
``{"task":...,"label":...,"reasons":[...]}``. Both carry the same label;
`facellava.tasks.parse_answer` reads both.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from facellava.errors import BadSample
from facellava.tasks.grammar import WHY_AGAIN, Grammar, roughen

Label = str | int | tuple[str, ...] | dict[str, bool] | None
"""A label as Python holds it.

expression and deepfake: a word; age: whole years; action_units: ascending names such as
``("AU6", "AU12")``; attributes: name to bool, all 40 or one; unanswerable: None.
"""

JSON_KEYS: Final = ("task", "label", "reasons")


@dataclass(frozen=True)
class Verdict:
    """What an answer says, read back from its text.

    Attributes:
        task: A key of `facellava.tasks.TASKS`.
        label: See `Label`.
        reasons: The text after the lead, or the JSON reasons joined by spaces; may be empty. For an
            unanswerable question it opens with why there is no answer.
    """

    task: str
    label: Label
    reasons: str


@dataclass(frozen=True)
class Task:
    """One thing that can be asked about a face.

    Attributes:
        name: Key in `facellava.tasks.TASKS` and in JSON answers.
        title: The words that open a prose answer, before the colon.
        labels: The label words an answer may hold (attributes: the 40 names; ages as digits).
        canonical_question: The one wording used by eval and by ``--task``.
        questions: Grammar of the questions that this task answers.
        follow_ups: Grammar of questions that turn a running conversation to this task.
        label_schema: JSON schema of the label.
        check: Returns the label in its Python form; raises ValueError with a short reason.
        write: Label to the words between ``"<Title>: "`` and the full stop.
        read: Those words to a label that `check` still has to accept; raises ValueError.
        closed_words: Words, each with its leading space, that a tokenizer should hold as single
            tokens.
        scored_words: The words, each with its leading space, over which the model's probability
            is taken.
        claim_ids: Ids of `facellava.claims.CLAIMS` that a reason of this task may use.
        claims_for: For a label word, the claim ids that speak for it, strongest first.
            Attributes: under "<name> yes" and "<name> no", where a measurement bears on it.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    canonical_question: str
    questions: Grammar
    follow_ups: Grammar
    label_schema: Mapping[str, Any]
    check: Callable[[object], Label]
    write: Callable[[Label], str]
    read: Callable[[str], object]
    closed_words: tuple[str, ...]
    scored_words: tuple[str, ...]
    claim_ids: tuple[str, ...] = ()
    claims_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lead(self, label: Label) -> str:
        """The opening sentence of a prose answer, such as ``"Age: 34 years."``.

        Raises:
            BadSample: `label` is not one of this task's.
        """
        return f"{self.title}: {self.write(self._checked(label))}."

    def write_json(self, label: Label, reasons: Sequence[str]) -> str:
        """The JSON answer, compact, keys in the order of `JSON_KEYS`.

        Raises:
            BadSample: `label` is not one of this task's.
        """
        label = self._checked(label)
        body = {"task": self.name, "label": label, "reasons": list(reasons)}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    def json_schema(self) -> dict[str, Any]:
        """JSON schema of this task's JSON answer, keys in the order in which they are written.

        Only keywords that the usual guided decoders support are used, so the order and uniqueness
        of action units is left to `facellava.tasks.parse_answer`.
        """
        return {
            "type": "object",
            "properties": {
                "task": {"const": self.name},
                "label": dict(self.label_schema),
                "reasons": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            },
            "required": list(JSON_KEYS),
            "additionalProperties": False,
        }

    def question(self, rng: random.Random) -> str:
        """A wording as a user may type it: formal, casual, short, lower case, with a slip."""
        return roughen(self.questions.draw(rng), rng)

    def follow_up(self, rng: random.Random, after: str | None = None) -> str:
        """A next question in a conversation whose last answer was of task `after`.

        After this very task it asks for reasons or certainty ("Why?"), which the same lead answers
        again. After another task, or with None, it turns to this task ("And how old?").
        """
        grammar = WHY_AGAIN if after == self.name else self.follow_ups
        return roughen(grammar.draw(rng), rng)

    def _checked(self, label: object) -> Label:
        try:
            return self.check(label)
        except ValueError as error:
            raise BadSample(f"The label of task {self.name!r} cannot be used: {error}.") from error


def every_claim(claims_for: Mapping[str, tuple[str, ...]], *more: str) -> tuple[str, ...]:
    """All claim ids of the table and `more`, each once, in order of first mention."""
    return tuple(dict.fromkeys([*(id for ids in claims_for.values() for id in ids), *more]))


def check_word(label: object, allowed: Sequence[str]) -> str:
    """The label itself when it is one of `allowed`; ValueError otherwise."""
    if isinstance(label, str) and label in allowed:
        return label
    raise ValueError(f"unknown label {label!r}, allowed are {', '.join(allowed)}")
