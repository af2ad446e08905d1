"""The canonical question with the closed set spelt out, for models that were not trained here.

A general model that is only asked "What is the expression of this face?" may answer "joyful" or
"pensive". These wordings name the labels and our lead, so that the same strict parser reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from facellava.tasks import find_task
from facellava.tasks.action_units import ACTION_UNITS

PromptStyle = Literal["question", "closed"]

_THEN: Final = "Then give your reasons in two or three sentences about what can be seen."


def question_in(style: PromptStyle, task: str, labels: Sequence[str]) -> str:
    """The task's one question, bare or with its closed set.

    Args:
        style: "question" asks it as a user would; "closed" adds the labels and the answer's form.
        task: a name of :data:`facellava.tasks.ANSWERABLE`.
        labels: the labels to choose among; not used for ages.

    Raises:
        UnknownTask: there is no such task.
    """
    asked = find_task(task)
    if style == "question":
        return asked.canonical_question
    return f"{asked.canonical_question} {_form(task, asked.title, labels)} {_THEN}"


def _form(task: str, title: str, labels: Sequence[str]) -> str:
    listed = ", ".join(labels)
    if task == "age":
        return f'Open with "{title}: N years.", where N is one whole number.'
    if task == "action_units":
        names = ", ".join(f"{unit} ({ACTION_UNITS[unit].name})" for unit in labels)
        return (
            f'Open with "{title}: " and the active ones among these, in this order, separated by '
            f'commas, and a full stop, or "{title}: none.": {names}.'
        )
    if task == "attributes":
        return (
            f'Open with "{title}: ", then every one of these names in this order, each followed by '
            f"yes or no, separated by commas, and a full stop: {listed}."
        )
    return f'Open with "{title}: X.", where X is one of: {listed}.'
