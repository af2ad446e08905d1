"""Some faces of a run, drawn by chance alone: what a reader looks at before the figures.

A sheet of picked answers flatters or slanders. Here every answer is as likely as any other, so that
right and wrong ones come as often as they do in the run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

import numpy as np

from eval.figures import CS_YEARS
from eval.items import Item
from eval.protocols import Kind, Protocol
from eval.run import items_of
from eval.run_folder import RunFolder
from eval.seen import Seen, seen_in_training
from facellava.records import FaceRecord

RIGHT: Final[dict[Kind, str]] = {
    "classes": "the very class",
    "years": f"within {CS_YEARS} years",
    "units": "each unit that is said or left out rightly",
    "attributes": "each attribute that is said rightly",
    "deepfake": "real or fake",
}
"""What counts as right, by the protocol's kind."""


@dataclass(frozen=True, eq=False)
class Part:
    """What a sheet shows of one protocol.

    Attributes:
        protocol: whose answers they are.
        trained_on: whether training saw these faces.
        answers: how many the run has.
        right_of_all: how right those are on the mean, see :func:`rightness`.
        drawn: the answers that are shown, with their faces.
    """

    protocol: Protocol
    trained_on: Seen
    answers: int
    right_of_all: float
    drawn: Sequence[tuple[Item, FaceRecord]]

    @property
    def right_here(self) -> float | None:
        """How right the drawn answers are on the mean; None where none was drawn."""
        return mean_rightness(self.protocol, [item for item, _ in self.drawn])


def draw_sheet(run: RunFolder, faces: int, seed: int = 0) -> list[Part]:
    """Faces drawn evenly over the protocols of a run.

    A face about which two protocols ask the same is shown once. Where a protocol has too few faces
    the others give more.

    Raises:
        FacellavaError: there is no run, no protocol of it was finished, or its faces were changed.
    """
    training, found = run.facts().get("training"), run.protocols()
    answered = {
        key: items_of(protocol, table, run.answers(protocol))
        for key, (protocol, table) in found.items()
    }
    asked = {key: f"{run.answers(protocol)}" for key, (protocol, _) in found.items()}
    parts = []
    for key, items in _evenly(answered, asked, faces, seed).items():
        protocol, table = found[key]
        shown = {item.face_id: item for item in items}
        parts.append(
            Part(
                protocol=protocol,
                trained_on=seen_in_training(protocol, training, table.fold),
                answers=len(answered[key]),
                right_of_all=mean_rightness(protocol, answered[key]) or 0.0,
                drawn=[
                    (shown[record.face_id], record)
                    for record in table.records(protocol)
                    if record.face_id in shown
                ],
            )
        )
    return parts


def _evenly(
    answered: Mapping[str, Sequence[Item]], asked: Mapping[str, str], faces: int, seed: int
) -> dict[str, list[Item]]:
    """So many answers, one of each protocol in turn; `asked` says which share their answers."""
    rng = random.Random(seed)
    shuffled = [
        [(key, item) for item in rng.sample(items, len(items))] for key, items in answered.items()
    ]
    drawn: dict[tuple[str, str], tuple[str, Item]] = {}
    for pair in chain.from_iterable(zip_longest(*shuffled)):
        if len(drawn) == faces:
            break
        if pair is not None:
            key, item = pair
            drawn.setdefault((asked[key], item.face_id), pair)
    chosen: dict[str, list[Item]] = {key: [] for key in answered}
    for key, item in drawn.values():
        chosen[key].append(item)
    return chosen


def mean_rightness(protocol: Protocol, items: Sequence[Item]) -> float | None:
    """The mean of :func:`rightness`; None where there are no items."""
    return float(np.mean([rightness(protocol, item) for item in items])) if items else None


def rightness(protocol: Protocol, item: Item) -> float:
    """How right an answer is, in [0, 1]; unreadable ones are 0. See RIGHT."""
    if item.given is None:
        return 0.0
    if protocol.kind == "years":
        return float(abs(item.given - item.truth) <= CS_YEARS)
    if protocol.kind in ("units", "attributes"):
        return float(np.mean([item.given[name] == there for name, there in item.truth.items()]))
    return float(item.given == item.truth)
