"""Probabilities of labels, from token scores over a task's closed set.

The lead of the answer is given to the model again, and the scores at the places where it had to
choose a label are renormalised over the labels that could stand there. So prose and JSON answers
are scored alike, with one more forward pass. A tokenizer that splits label words into several
tokens is scored too: there the whole leads are, one row a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facellava.conversation import FaceItem, Message, frames_of
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.tasks import TASKS, Task, Verdict

Conversation = Sequence[Message]
ROWS = 64
YES, NO = " yes", " no"
# What may stick to a word of a list: a tokenizer may hold " yes," as one token.
MARKS = ("", ",", ".")


@dataclass(frozen=True, eq=False)
class ScoredEnding:
    """Words that the model might have answered.

    Attributes:
        ids: their tokens.
        logs: (len(ids) + 1, V) log-probabilities, from before the first token to behind the last.
    """

    ids: list[int]
    logs: Tensor

    @property
    def total(self) -> Tensor:
        """The log-probability of all the words, a scalar."""
        return self.logs[:-1].gather(1, torch.tensor(self.ids)[:, None]).sum()


Endings = list[str]
Reader = Callable[[list[ScoredEnding]], dict[str, float]]


class LabelScorer:
    """Scores the labels of answers that were given.

    Args:
        model: in evaluation mode.
        processor: of the same checkpoint.
    """

    def __init__(
        self, model: FaceLlavaForConditionalGeneration, processor: FaceLlavaProcessor
    ) -> None:
        self.model, self.processor = model, processor

    def score(
        self,
        conversations: Sequence[Conversation],
        items: Sequence[FaceItem],
        verdicts: Sequence[Verdict],
    ) -> list[dict[str, float]]:
        """Probability of each label, one table an answer; empty for refusals.

        Expression, age and deepfake: over the labels, summing to 1. Attributes and action units:
        of presence, each between 0 and 1.

        Args:
            conversations: up to the question, one face or clip each.
            items: the faces or clips.
            verdicts: what was answered.
        """
        plans = [self._plan(verdict) for verdict in verdicts]
        found = self._log_probabilities(conversations, items, [endings for endings, _ in plans])
        return [read(scored) for (_, read), scored in zip(plans, found, strict=True)]

    def _plan(self, verdict: Verdict) -> tuple[Endings, Reader]:
        """What to let the model read, and how a table comes from its scores."""
        task = TASKS[verdict.task]
        if not task.scored_words:
            return [], lambda _: {}
        if isinstance(verdict.label, dict):
            return self._listed(task, verdict.label)
        if isinstance(verdict.label, tuple):
            return self._in_order(task, verdict.label)
        return self._one_of(task)

    def _ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _single_ids(self, words: Sequence[str]) -> list[int] | None:
        """A token each, or None where the tokenizer splits one of the words."""
        ids = [self._ids(word) for word in words]
        return [first for first, *_ in ids] if all(len(each) == 1 for each in ids) else None

    def _token_at(self, text: str, place: int) -> tuple[int, int]:
        """Index and id of the token that holds character number `place`."""
        encoded = self.processor.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        )
        index = next(n for n, (_, end) in enumerate(encoded["offset_mapping"]) if end > place)
        return index, int(encoded["input_ids"][index])

    @torch.inference_mode()
    def _log_probabilities(
        self,
        conversations: Sequence[Conversation],
        items: Sequence[FaceItem],
        endings: Sequence[Endings],
    ) -> list[list[ScoredEnding]]:
        """Each conversation's endings, scored in batches; the frames are encoded once."""
        found: list[list[ScoredEnding]] = [[] for _ in endings]
        rows = [(n, self._ids(ending)) for n, texts in enumerate(endings) for ending in texts]
        if not rows:
            return found
        encoded = self.processor.encode(conversations, items)
        prompts = [
            ids[mask == 1].tolist()
            for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        frames = [len(frames_of(item)) for item in items]
        features = self.model.face_encoder.encode_pixels(encoded["pixel_values"]).split(frames)
        landmarks = encoded["landmarks"].split(frames)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            text = self.processor.pad(
                [EncodedText(prompts[n] + ids) for n, ids in part], side="right"
            )
            # Logits are wanted from the last token of the shortest prompt on.
            skipped = min(len(prompts[n]) for n, _ in part) - 1
            logits = self.model(
                **text,
                image_features=torch.cat([features[n] for n, _ in part]),
                landmarks=torch.cat([landmarks[n] for n, _ in part]),
                logits_to_keep=text["input_ids"].shape[1] - skipped,
            ).logits
            for row, (n, ids) in enumerate(part):
                first = len(prompts[n]) - 1 - skipped
                logs = logits[row, first : first + len(ids) + 1].float().log_softmax(dim=-1)
                found[n].append(ScoredEnding(ids, logs))
        return found

    def _one_of(self, task: Task) -> tuple[Endings, Reader]:
        """A single label behind the lead's colon."""
        words = [word.strip() for word in task.scored_words]
        tokens = self._single_ids(task.scored_words)
        if tokens is None:
            # Whole leads: " 3" begins like " 34", so only with its end is it that label.
            labels = [int(word) if word.isdigit() else word for word in words]
            return [task.lead(label) for label in labels], lambda scored: _shares(
                words, torch.stack([ending.total for ending in scored])
            )
        return [f"{task.title}:"], lambda scored: _shares(words, scored[0].logs[-1, tokens])

    def _listed(self, task: Task, label: dict[str, bool]) -> tuple[Endings, Reader]:
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
                [ending.logs[places][:, ids].logsumexp(dim=1) for ids in (yes, no)], dim=1
            )
            return dict(zip(label, pairs.softmax(dim=1)[:, 0].tolist(), strict=True))

        return [lead], read

    def _in_order(self, task: Task, label: tuple[str, ...]) -> tuple[Endings, Reader]:
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
            place, goes_on, ended = colon, torch.zeros(()), ending.logs[colon, none]
            for first in firsts:
                chosen = ending.logs[place, torch.tensor(tokens)[first:]] + goes_on
                table |= _passing(task.labels[first:], chosen, ended)
                if first != firsts[-1]:
                    goes_on, ended = ending.logs[place + 1, [comma, stop]].log_softmax(dim=0)
                    place += 2
            return table

        return [f"{task.title}:" + "".join(f" {name}," for name in label)], read

    def _in_order_by_text(
        self, task: Task, label: tuple[str, ...], firsts: Sequence[int]
    ) -> tuple[Endings, Reader]:
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

        return endings, read


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
