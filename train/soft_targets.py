"""What the soft labels are at each decision of an answer, and how far the model is off.

A verdict is said token by token (see train.twins); what its soft labels say of a face becomes a
distribution over what can be said at each of them. Units are said one after the other: the chance
of each to be the next is that it is active and none before it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facellava.tasks import TASKS
from train.face_arrays import ABSENT, ATTRIBUTES, EXPRESSIONS, UNITS, FaceArrays
from train.heads import AGES
from train.rows import Row
from train.soft_labels import SoftLabels
from train.twins import Choices, Decision, chances
from train.verdict_loss import AGE_SPREAD_YEARS

Chances = NDArray[np.float32]
# Less is no chance: every further unit is ruled out, though the answer says one.
LEAST: Final = 1e-4
UNSURE: Final = 0.03  # of a label that is taken at its word
_FAKE: Final = tuple(str(word).strip() for word in TASKS["deepfake"].scored_words)


@dataclass(frozen=True)
class Target:
    """What is to be decided at one place.

    Attributes:
        decision: where, and of which kind.
        chances: of the kind's groups in `Choices`; NaN for what is no choice, as a unit that
            nobody coded is neither right nor wrong.
    """

    decision: Decision
    chances: Chances


@dataclass(frozen=True)
class Targets:
    """The targets of one row of a batch.

    Attributes:
        row: its place in the batch.
        form: "prose" or "json".
        targets: in order.
    """

    row: int
    form: str
    targets: tuple[Target, ...]


class SoftTargets:
    """Targets of answers about faces.

    Args:
        soft: of the faces, mixed with their labels.
        arrays: their labels. Only faces with coded units have targets for these, as only faces
            with a label have them for real or fake.
        choices: of the tokenizer.
        rare: (N,) bool, faces of datasets too small for soft labels to tell real from fake: there
            the label alone counts.
    """

    def __init__(
        self,
        soft: SoftLabels,
        arrays: FaceArrays,
        choices: Choices,
        rare: NDArray[np.bool_] | None = None,
    ) -> None:
        self.soft, self.choices = soft, choices
        self.uncoded = arrays.units == ABSENT
        self.coded = (arrays.units != ABSENT).any(axis=1)
        self.fake = arrays.fake
        self.judged = arrays.fake != ABSENT
        if rare is not None:
            self.judged &= ~rare
        self._expressions = [EXPRESSIONS.index(word) for word in choices.expressions]
        self._unit_of = {
            int(token): number
            for form in ("prose", "json")
            for number, token in enumerate(choices.of("unit", form)[:, 0])
        }

    def of_row(self, row: Row) -> tuple[Target, ...]:
        """The targets of its verdict; none where nothing is known of the face."""
        face, task = row.face, row.task
        decisions = self.choices.decisions(row.text, row.naming.stop, task, row.form)
        if task == "expression" and np.isfinite(self.soft.expression[face, 0]):
            found = self.soft.expression[face][self._expressions]
            return tuple(Target(decision, found) for decision in decisions)
        if task == "age" and np.isfinite(self.soft.years[face]):
            return tuple(Target(decision, self._years(face)) for decision in decisions)
        if task == "deepfake" and self.judged[face] and np.isfinite(self.soft.fake[face]):
            found = _real_or_fake(float(self.soft.fake[face]))
            return tuple(Target(decision, found) for decision in decisions)
        if task == "attributes" and len(row.label) == len(decisions):
            yes = [float(self.soft.attributes[face, ATTRIBUTES.index(name)]) for name in row.label]
            return tuple(
                Target(decision, np.array([share, 1 - share], np.float32))
                for decision, share in zip(decisions, yes, strict=True)
            )
        if task == "action_units" and self.coded[face]:
            listed = self._listed(face, row.text.input_ids, decisions)
            return tuple(listed) if np.isfinite(self.soft.units[face]).all() else ()
        return ()

    def of_mixed(self, row: Row, other: int, share: float) -> tuple[Target, ...]:
        """The targets of a row about real or fake that shows a mean of two faces.

        Args:
            row: about the first.
            other: the second face.
            share: of the first, from 0 to 1.
        """
        fake = share * float(self.fake[row.face]) + (1 - share) * float(self.fake[other])
        found = _real_or_fake(UNSURE + (1 - 2 * UNSURE) * fake)
        decisions = self.choices.decisions(row.text, row.naming.stop, row.task, row.form)
        return tuple(Target(decision, found) for decision in decisions)

    def _years(self, face: int) -> Chances:
        off = np.arange(AGES) - self.soft.years[face]
        near = np.exp(-(off**2) / (2 * AGE_SPREAD_YEARS**2))
        return (near / near.sum()).astype(np.float32)

    def _listed(
        self, face: int, said: Sequence[int], decisions: Sequence[Decision]
    ) -> Iterator[Target]:
        active, first = self.soft.units[face], 0
        for decision in decisions:
            left = active[first:]
            none = float(np.prod(1 - left))
            if decision.kind == "unit":
                following = left * np.concatenate([[1.0], np.cumprod(1 - left)[:-1]])
                if following.sum() < LEAST:
                    return
                each = np.zeros(len(UNITS), np.float32)
                each[first:] = following / following.sum()
                each[self.uncoded[face]] = np.nan
                yield Target(decision, each)
                first = self._unit_of[said[decision.place]] + 1
            else:
                # " none" or any; "." or ",".
                yield Target(decision, np.array([none, 1 - none], np.float32))


def _real_or_fake(fake: float) -> Chances:
    return np.array([fake if word == "fake" else 1 - fake for word in _FAKE], np.float32)


def apart_from_targets(
    logits: Tensor, keep: Tensor, rows: Sequence[Targets], choices: Choices
) -> Tensor:
    """How far the verdicts are from their targets, a scalar.

    The mean over rows of the Kullback-Leibler divergences of their decisions, summed and divided
    by the square root of their number: a list of forty weighs more than one word, but not forty
    times as much.

    Args:
        logits: (B, K, V) of the batch, at the places `keep`.
        keep: (K,) places in the texts, in order; those before each decision are among them.
        rows: with a target at least.
        choices: of the tokenizer.
    """
    found: dict[tuple[Any, str], list[tuple[int, int, float, Chances]]] = {}
    for row in rows:
        share = len(row.targets) ** -0.5 / len(rows)
        for target in row.targets:
            place = (row.row, target.decision.place - 1, share, target.chances)
            found.setdefault((target.decision.kind, row.form), []).append(place)
    total = logits.new_zeros((), dtype=torch.float32)
    for (kind, form), places in found.items():
        number, place, shares, wanted = zip(*places, strict=True)
        here = torch.searchsorted(keep, torch.tensor(place, device=logits.device))
        at = logits[torch.tensor(number, device=logits.device), here]
        aim = torch.from_numpy(np.stack(wanted)).to(logits.device)
        open_to = ~aim.isnan()
        given = chances(at, choices.of(kind, form)).masked_fill(~open_to, -torch.inf)
        given = given.log_softmax(dim=1).masked_fill(~open_to, 0.0)
        away = functional.kl_div(given, aim.nan_to_num(), reduction="none").sum(dim=1)
        total = total + (away * torch.tensor(shares, device=logits.device)).sum()
    return total
