"""Probabilities of labels: what a model has to read again, and how its scores become a table.

The lead of the answer is read again, and the scores at the places where the model had to choose a
label are renormalised over the labels that could stand there. So prose and JSON answers are scored
alike. A tokenizer that splits label words into several tokens is served too: there the whole leads
are read, one a label. Who reads is another matter: the library's own model
(`facellava.label_scorer`) or a serving engine that returns scores of chosen tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from facellava.tasks import TASKS, Task, Verdict

YES, NO = " yes", " no"
# What may stick to a word of a list: a tokenizer may hold " yes," as one token.
MARKS = ("", ",", ".")


@dataclass(frozen=True, eq=False)
class ScoredEnding:
    """Words that the model might have answered.

    Attributes:
        ids: their tokens.
        logs: (len(ids) + 1, K) log-probabilities, from before the first token to behind the last.
        columns: which column of `logs` belongs to which token; None where K is the vocabulary.
    """

    ids: list[int]
    logs: Tensor
    columns: Mapping[int, int] | None = None

    def at(self, place: int, tokens: Sequence[int]) -> Tensor:
        """Log-probability of each of the tokens to be number `place`: (len(tokens),)."""
        where = tokens if self.columns is None else [self.columns[token] for token in tokens]
        return self.logs[place, list(where)]

    @property
    def total(self) -> Tensor:
        """The log-probability of all the words, a scalar."""
        return torch.cat([self.at(place, [token]) for place, token in enumerate(self.ids)]).sum()


Endings = list[str]
Reader = Callable[[list[ScoredEnding]], dict[str, float]]


@dataclass(frozen=True, eq=False)
class ScorePlan:
    """How one answer's labels are scored.

    Attributes:
        endings: texts behind the prompt that the model has to read; empty where nothing is scored.
        token_ids: besides the endings' own tokens, those whose scores are needed at every place.
        read: the endings' scores, in order, to the probability of each label.
    """

    endings: Endings
    token_ids: list[int]
    read: Reader


def plan(verdict: Verdict, tokenizer: PreTrainedTokenizerBase) -> ScorePlan:
    """What to let the model read for an answer, and how a table comes from its scores."""
    task = TASKS[verdict.task]
    planner = _Planner(tokenizer)
    if not task.scored_words:
        return ScorePlan([], [], lambda _: {})
    if isinstance(verdict.label, dict):
        return planner.listed(task, verdict.label)
    if isinstance(verdict.label, tuple):
        return planner.in_order(task, verdict.label)
    return planner.one_of(task)


class _Planner:
    """The three kinds of labels, in one tokenizer's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _single_ids(self, words: Sequence[str]) -> list[int] | None:
        """A token each, or None where the tokenizer splits one of the words."""
        ids = [self._ids(word) for word in words]
        return [first for first, *_ in ids] if all(len(each) == 1 for each in ids) else None

    def _token_at(self, text: str, place: int) -> tuple[int, int]:
        """Index and id of the token that holds character number `place`."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        index = next(n for n, (_, end) in enumerate(encoded["offset_mapping"]) if end > place)
        return index, int(encoded["input_ids"][index])

    def one_of(self, task: Task) -> ScorePlan:
        """A single label behind the lead's colon."""
        words = [word.strip() for word in task.scored_words]
        tokens = self._single_ids(task.scored_words)
        if tokens is None:
            # Whole leads: " 3" begins like " 34", so only with its end is it that label.
            labels = [int(word) if word.isdigit() else word for word in words]
            return ScorePlan(
                [task.lead(label) for label in labels],
                [],
                lambda scored: _shares(words, torch.stack([ending.total for ending in scored])),
            )
        return ScorePlan(
            [f"{task.title}:"], tokens, lambda scored: _shares(words, scored[0].at(-1, tokens))
        )

    def listed(self, task: Task, label: dict[str, bool]) -> ScorePlan:
        """A list of names with yes or no: the place of each yes or no is scored."""
        lead = task.lead(label)
        yes, no = (
            sorted({self._token_at(word + mark, 1)[1] for mark in MARKS}) for word in (YES, NO)
        )
        places = []
        written = f"{task.title}:"
        for name, present in label.items():
            written += f" {name}"
            places.append(self._token_at(lead, len(written) + 1)[0])
            written += f"{YES if present else NO},"

        def read(scored: list[ScoredEnding]) -> dict[str, float]:
            [ending] = scored
            pairs = torch.stack(
                [
                    torch.stack([ending.at(place, ids).logsumexp(dim=0) for ids in (yes, no)])
                    for place in places
                ]
            )
            return dict(zip(label, pairs.softmax(dim=1)[:, 0].tolist(), strict=True))

        return ScorePlan([lead], sorted({*yes, *no}), read)

    def in_order(self, task: Task, label: tuple[str, ...]) -> ScorePlan:
        """A list of the labels that are present, in fixed order.

        Before each label the model chose between it, those that follow, and the list's end. What
        it gave to one label, as a share of all that it had not passed over yet, is that label's
        probability given the answer so far.
        """
        single = self._single_ids([*(f" {name}" for name in task.labels), " none"])
        # The labels that could stand next: at first all, behind each label those that follow it.
        firsts = [0, *(task.labels.index(name) + 1 for name in label)]
        if single is None:
            return self._in_order_by_text(task, label, firsts)
        *tokens, none = single
        comma, stop = (self._ids(mark)[0] for mark in ",.")
        colon = len(self._ids(f"{task.title}:"))

        def read(scored: list[ScoredEnding]) -> dict[str, float]:
            [ending] = scored
            table: dict[str, float] = {}
            place, goes_on, ended = colon, torch.zeros(()), ending.at(colon, [none])[0]
            for first in firsts:
                chosen = ending.at(place, tokens[first:]) + goes_on
                table |= _passing(task.labels[first:], chosen, ended)
                if first != firsts[-1]:
                    goes_on, ended = ending.at(place + 1, [comma, stop]).log_softmax(dim=0)
                    place += 2
            return table

        ending = f"{task.title}:" + "".join(f" {name}," for name in label)
        return ScorePlan([ending], [*tokens, none, comma, stop], read)

    def _in_order_by_text(
        self, task: Task, label: tuple[str, ...], firsts: Sequence[int]
    ) -> ScorePlan:
        """The same where names are several tokens: each next label as text, with its mark."""
        endings: Endings = []
        for number, first in enumerate(firsts):
            written = f"{task.title}:" + ",".join(f" {name}" for name in label[:number])
            endings.append(f"{written}." if number else f"{written} none.")
            before = f"{written}," if number else written
            endings += [f"{before} {name}{end}" for name in task.labels[first:] for end in ",."]

        def read(scored: list[ScoredEnding]) -> dict[str, float]:
            totals = iter([ending.total for ending in scored])
            table: dict[str, float] = {}
            for first in firsts:
                ended, names = next(totals), task.labels[first:]
                chosen = [torch.logaddexp(next(totals), next(totals)) for _ in names]
                table |= _passing(
                    names, torch.stack(chosen) if chosen else ended.new_zeros(0), ended
                )
            return table

        return ScorePlan(endings, [], read)


def _shares(words: Sequence[str], scores: Tensor) -> dict[str, float]:
    return dict(zip(words, scores.softmax(dim=0).tolist(), strict=True))


def _passing(names: Sequence[str], chosen: Tensor, ended: Tensor) -> dict[str, float]:
    """Each name's share of itself, the names behind it and the end.

    Args:
        names: in order.
        chosen: (len(names),) log-probability of each to stand next.
        ended: scalar, log-probability that the list ends here.
    """
    left = torch.cat([chosen, ended.reshape(1)]).flip(0).logcumsumexp(dim=0).flip(0)
    return dict(zip(names, (chosen - left[:-1]).exp().tolist(), strict=True))


def calibrate(table: dict[str, float], temperature: float, *, exclusive: bool) -> dict[str, float]:
    """Probabilities with their logits divided by a temperature.

    Args:
        table: label to probability.
        temperature: above 0; 1 changes nothing.
        exclusive: the labels exclude each other and sum to 1; otherwise each stands by itself.
    """
    if not table:
        return {}
    values = torch.tensor(list(table.values()), dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    if exclusive:
        scaled = (values.log() / temperature).softmax(dim=0)
    else:
        scaled = (torch.logit(values) / temperature).sigmoid()
    return dict(zip(table, scaled.tolist(), strict=True))
