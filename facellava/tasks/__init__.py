"""What can be asked: one file a task with labels, questions, answer grammar and claims.

`TASKS` holds them by name. `parse_answer` reads a model's text back, strictly: text that does not
follow the grammar raises `facellava.errors.UnreadableAnswer` and is counted, never given a default
label. Prose of other models is read by `facellava.tasks.prose`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from facellava.errors import UnknownTask, UnreadableAnswer
from facellava.tasks.action_units import ACTION_UNITS_TASK
from facellava.tasks.age import AGE
from facellava.tasks.attributes import ATTRIBUTES_TASK
from facellava.tasks.deepfake import DEEPFAKE
from facellava.tasks.expression import EXPRESSION
from facellava.tasks.grammar import JSON_REQUEST, ask_for_json
from facellava.tasks.task import JSON_KEYS, Label, Task, Verdict
from facellava.tasks.unanswerable import UNANSWERABLE

__all__ = [
    "ANSWERABLE",
    "TASKS",
    "Label",
    "Task",
    "Verdict",
    "JSON_REQUEST",
    "ask_for_json",
    "closed_set_words",
    "find_task",
    "has_whole_lead",
    "parse_answer",
    "parse_json",
    "parse_prose",
]

TASKS: Final[dict[str, Task]] = {
    "expression": EXPRESSION,
    "action_units": ACTION_UNITS_TASK,
    "attributes": ATTRIBUTES_TASK,
    "age": AGE,
    "deepfake": DEEPFAKE,
    "unanswerable": UNANSWERABLE,
}
ANSWERABLE: Final = tuple(name for name in TASKS if name != UNANSWERABLE.name)
"""The tasks that a user may name; the rest of `TASKS` is the refusal."""

_BY_TITLE: Final = {task.title: task for task in TASKS.values()}
_TITLES: Final = "|".join(_BY_TITLE)
_LEAD: Final = re.compile(rf"({_TITLES}): ([^.\n]*)\.(?: +|\n|$)")
_ANY_LEAD: Final = re.compile(rf"(?<!\w)({_TITLES}):")
# Errors quote model text, which may be long.
_QUOTED: Final = 80


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownTask: There is none.
    """
    if name not in TASKS:
        raise UnknownTask(f"There is no task {name!r}; choose one of {', '.join(ANSWERABLE)}.")
    return TASKS[name]


def closed_set_words(task: str) -> list[str]:
    """The words, each with its leading space, that answers of this task choose from.

    A tokenizer made for facellava holds each as one token; `Task.scored_words` is the part over
    which a probability is taken. Several are prefixes of others (" AU1" of " AU12", " 3" of " 34")
    or of plain words (" no" of " nose"): match the longest, and whole words only.

    Raises:
        UnknownTask: There is no such task.
    """
    return list(find_task(task).closed_words)


def parse_answer(text: str) -> Verdict:
    """Reads an answer of either form: prose with its lead, or JSON (it then starts with a brace).

    Raises:
        UnreadableAnswer: The text does not follow the answer grammar; the message says how.
    """
    text = text.strip()
    if not text:
        raise UnreadableAnswer("The answer is empty.")
    return parse_json(text) if text.startswith("{") else parse_prose(text)


def has_whole_lead(text: str) -> bool:
    """Whether a prose answer that is still being written has said its verdict."""
    return _LEAD.match(text.lstrip()) is not None


def parse_prose(text: str) -> Verdict:
    """Reads a prose answer: ``"<Title>: <label>."``, then reasons.

    Raises:
        UnreadableAnswer: No lead, a lead cut short, a label that is not the task's, a second lead.
    """
    text = text.strip()
    lead = _LEAD.match(text)
    if lead is None:
        opening = _ANY_LEAD.match(text)
        if opening is None:
            raise UnreadableAnswer(f"The answer opens with no task's lead: {_quote(text)}.")
        raise UnreadableAnswer(f"The lead of the answer does not end: {_quote(text)}.")
    task = _BY_TITLE[lead.group(1)]
    label = _label(task, lambda: task.check(task.read(lead.group(2))))
    reasons = text[lead.end() :].strip()
    second = _ANY_LEAD.search(reasons)
    if second is not None:
        raise UnreadableAnswer(f"The answer has a second lead, {second.group(1)!r}.")
    if task is UNANSWERABLE:
        reasons = f"{lead.group(2)}. {reasons}".strip()
    return Verdict(task.name, label, reasons)


def parse_json(text: str) -> Verdict:
    """Reads a JSON answer: an object with exactly the keys ``task``, ``label``, ``reasons``.

    Raises:
        UnreadableAnswer: Not JSON, other or repeated keys, an unknown task, a label that is not
            the task's, reasons that are not a list of strings.
    """
    try:
        body = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"The answer is not whole JSON: {_quote(text)}.") from error
    if not isinstance(body, dict) or set(body) != set(JSON_KEYS):
        raise UnreadableAnswer(f"The JSON answer has not the keys {', '.join(JSON_KEYS)}.")
    name, reasons = body["task"], body["reasons"]
    if not isinstance(name, str) or name not in TASKS:
        raise UnreadableAnswer(f"The JSON answer names the unknown task {_quote(str(name))}.")
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise UnreadableAnswer("The reasons of the JSON answer are not a list of strings.")
    task = TASKS[name]
    label = _label(task, lambda: task.check(body["label"]))
    if task is UNANSWERABLE and not reasons:
        raise UnreadableAnswer("The JSON answer gives no reason why it cannot answer.")
    return Verdict(name, label, " ".join(reasons))


def _label(task: Task, reader: Callable[[], Label]) -> Label:
    try:
        return reader()
    except ValueError as error:
        raise UnreadableAnswer(f"The {task.name} answer cannot be read: {error}.") from error


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is repeated")
    return table


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")
