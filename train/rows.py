"""A row of stage 2: one sample as the model reads it, about a face that is kept as features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facellava.processor import EncodedText


@dataclass(frozen=True)
class Row:
    """One sample as the model reads it.

    Attributes:
        face: index into the feature cache.
        text: token ids and labels.
        frames: 1 for a photo; more where the face is shown as a clip.
        naming: the places in the text where the last answer names its task.
        task: the last answer's.
        form: the last answer's, "prose" or "json".
        label: the last answer's.
        first: whether nothing was asked before.
        at_rest: so many of the frames show a face at rest instead.
        mixed: it is shown as a mean of the face and another (see train.rare_fakes).
    """

    face: int
    text: EncodedText
    frames: int = 1
    naming: range = range(0)
    task: str = ""
    form: str = "prose"
    label: Any = None
    first: bool = True
    at_rest: int = 0
    mixed: bool = False
