"""One question that was asked: the right answer beside the one that was given.

All scoring works on lists of these, so it needs neither a model nor a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """A face of a protocol and its answer.

    The forms of `truth` and `given` by the protocol's kind: classes and deepfake: a word of the
    protocol's labels (given: any word of the task); years: int; units: unit to bool, in the truth
    only the units that were coded for the face, in the answer all of the protocol; attributes: all
    40 names to bool.

    Attributes:
        face_id: of the faces table.
        truth: the right answer.
        given: what was read from the text; None where it could not be read.
        text: the answer, word for word.
        problem: why it could not be read, or why there is no text; empty where it was read.
        strict: the text follows facellava's own answer grammar.
        table: label to probability in [0, 1], as the model gave it; empty where there is none.
        calibrated: the same with the checkpoint's temperature.
        claims: the claims of the text, each with "claim", "regions" and "verdict".
        fold: from 1, where the protocol has folds.
        subject: who it is, where the dataset says.
        groups: what the dataset says to slice by, such as {"gender": "female", "age": "20-29",
            "race": "Black", "method": "Deepfakes"}.
    """

    face_id: str
    truth: Any
    given: Any
    text: str = ""
    problem: str = ""
    strict: bool = True
    table: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()
    fold: int | None = None
    subject: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
