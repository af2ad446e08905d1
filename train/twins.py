"""Twins: two rows about one face that must decide alike, JSON beside prose, a clip beside a photo.

Each form of an answer learns its verdicts from the labels by itself, and where the model is in
doubt the two forms fall on different sides. Of twins, the second row learns the first row's
probabilities at every decision of its verdict, which is worth more than the label where the label
itself is uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from facellava.errors import BadSettings
from facellava.processor import EncodedText
from facellava.tasks import TASKS
from train.face_arrays import UNITS
from train.tokenizer import JSON_FURTHER, JSON_LAST, JSON_NONE, JSON_SOME, NO, YES

Kind = Literal["expression", "age", "fake", "yes_no", "any_unit", "unit", "further_unit"]
_CLOSED: Final[dict[str, Kind]] = {"expression": "expression", "age": "age", "deepfake": "fake"}


@dataclass(frozen=True)
class Decision:
    """One token of an answer that says something of its verdict.

    Attributes:
        place: of that token in the text.
        kind: what is decided there.
    """

    place: int
    kind: Kind


class Choices(nn.Module):
    """What can be decided, as groups of tokens that mean the same, in prose and in JSON.

    Args:
        tokenizer: nano's: its verdict words are single tokens, in JSON too.

    Raises:
        BadSettings: a tokenizer that splits one of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        # Those that are one token in both forms; of rare ones a tokenizer knows little.
        self.expressions = [
            word
            for word in _words("expression")
            if len(self._ids(word)) == len(self._ids(f" {word}")) == 1
        ]
        units = [[f" {unit}"] for unit in UNITS]
        prose: dict[Kind, list[list[str]]] = {
            "age": [[f" {year}"] for year in _words("age")],
            "fake": [[f" {word}"] for word in _words("deepfake")],
            "yes_no": [[*YES], [*NO]],
            "any_unit": [[" none"], [word for group in units for word in group]],
            "unit": units,
            "further_unit": [["."], [","]],
            "expression": [[f" {word}"] for word in self.expressions],
        }
        json: dict[Kind, list[list[str]]] = {
            "age": [[year] for year in _words("age")],
            "fake": [[word] for word in _words("deepfake")],
            "yes_no": [["true"], ["false"]],
            "any_unit": [[JSON_NONE], [JSON_SOME]],
            "unit": [[unit] for unit in UNITS],
            "further_unit": [[JSON_LAST], [JSON_FURTHER]],
            "expression": [[word] for word in self.expressions],
        }
        self.members: dict[tuple[Kind, str], frozenset[int]] = {}
        for form, kinds in (("prose", prose), ("json", json)):
            for kind, groups in kinds.items():
                table = self._table(groups)
                self.register_buffer(f"{form}_{kind}", table, persistent=False)
                self.members[kind, form] = frozenset(table.flatten().tolist()) - {-1}

    def _ids(self, word: str) -> list[int]:
        return list(self.tokenizer.encode(word, add_special_tokens=False))

    def _table(self, groups: list[list[str]]) -> Tensor:
        """(G, M) token ids, -1 where a group has fewer."""
        split = [word for group in groups for word in group if len(self._ids(word)) != 1]
        if split:
            raise BadSettings(
                f"The tokenizer has no single token for {split[0]!r}, which twins and soft "
                "labels need: train in a new out, where the tokenizer is made anew."
            )
        most = max(map(len, groups))
        ids = [[self._ids(word)[0] for word in group] for group in groups]
        return torch.tensor([group + [-1] * (most - len(group)) for group in ids])

    def of(self, kind: Kind, form: str) -> Tensor:
        """(G, M) ids of a kind's groups in "prose" or "json"."""
        table: Tensor = getattr(self, f"{form}_{kind}")
        return table

    def decisions(self, text: EncodedText, after: int, task: str, form: str) -> list[Decision]:
        """Where the last answer of a text says its verdict, in order.

        Args:
            text: a row's.
            after: the place behind the task's name, where `naming_places` ends.
            task: the answer's.
            form: "prose" or "json".
        """
        return list(self._found(text.input_ids, after, task, form))

    def _found(self, ids: Sequence[int], after: int, task: str, form: str) -> Iterator[Decision]:
        def says(kind: Kind, place: int) -> bool:
            return ids[place] in self.members[kind, form]

        json = form == "json"
        if task in _CLOSED:
            # In JSON a mark stands between the name and the verdict.
            if says(_CLOSED[task], after + json):
                yield Decision(after + json, _CLOSED[task])
        elif task == "attributes":
            end = self._ids("reasons" if json else ".")[0]
            full_stop = self._ids(" yes.") + self._ids(" no.")
            for place in range(after, len(ids)):
                if says("yes_no", place):
                    yield Decision(place, "yes_no")
                if ids[place] == end or ids[place] in full_stop:
                    break
        elif task == "action_units":
            yield Decision(after, "any_unit")
            if ids[after] == int(self.of("any_unit", form)[0, 0]):
                return
            place = after + json
            stop = int(self.of("further_unit", form)[0, 0])
            while says("unit", place) and says("further_unit", place + 1):
                yield Decision(place, "unit")
                yield Decision(place + 1, "further_unit")
                if ids[place + 1] == stop:
                    return
                place += 2


@dataclass(frozen=True)
class Verdicts:
    """The decisions of one row of a pair.

    Attributes:
        row: its place in the batch.
        form: "prose" or "json".
        decisions: in order.
    """

    row: int
    form: str
    decisions: tuple[Decision, ...]


def _words(task: str) -> list[str]:
    return [str(word).strip() for word in TASKS[task].scored_words]


def disagreement(
    logits: Tensor, keep: Tensor, pairs: Sequence[tuple[Verdicts, Verdicts]], choices: Choices
) -> Tensor:
    """How far the second row of each pair decides otherwise than the first, a scalar.

    The mean over pairs of the mean Kullback-Leibler divergence over their decisions. The first row
    does not learn from it.

    Args:
        logits: (B, K, V) of the batch, at the places `keep`.
        keep: (K,) places in the texts, in order; those before each decision are among them.
        pairs: of as many decisions of the same kinds each.
        choices: of the tokenizer.
    """
    found: dict[tuple[Kind, str, str], list[tuple[int, int, int, int, float]]] = {}
    for first, second in pairs:
        share = 1 / (len(pairs) * max(1, len(first.decisions)))
        for one, other in zip(first.decisions, second.decisions, strict=True):
            places = (first.row, one.place - 1, second.row, other.place - 1, share)
            found.setdefault((one.kind, first.form, second.form), []).append(places)
    total = logits.new_zeros((), dtype=torch.float32)
    for (kind, form, twin_form), rows in found.items():
        row, place, twin, twin_place, shares = (
            torch.tensor(column, device=logits.device) for column in zip(*rows, strict=True)
        )
        here, there = (torch.searchsorted(keep, places) for places in (place, twin_place))
        wanted = chances(logits[row, here], choices.of(kind, form)).detach()
        given = chances(logits[twin, there], choices.of(kind, twin_form))
        apart = functional.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=1)
        total = total + (apart * shares).sum()
    return total


def chances(logits: Tensor, groups: Tensor) -> Tensor:
    """Logits (N, V) to log probabilities (N, G) of the groups (G, M) among each other."""
    members = logits.float()[:, groups.clamp(min=0)].masked_fill(groups < 0, -torch.inf)
    return members.logsumexp(dim=2).log_softmax(dim=1)
