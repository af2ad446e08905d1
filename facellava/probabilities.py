"""Probabilities of labels, from token scores over a task's closed set.

The lead of the answer is given to the model again, and the scores at the places where it had to
choose a label word are renormalised over the words that could stand there. So prose and JSON
answers, and every tokenizer, are scored alike, with one more forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facellava.conversation import FaceItem, Message
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.tasks import TASKS, Task, Verdict

Conversation = Sequence[Message]
YES_NO = (" yes", " no")


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
        tables: list[dict[str, float]] = []
        for conversation, item, verdict in zip(conversations, items, verdicts, strict=True):
            task = TASKS[verdict.task]
            if not task.scored_words:
                tables.append({})
            elif isinstance(verdict.label, dict):
                tables.append(self._listed(conversation, item, task, verdict.label))
            elif isinstance(verdict.label, tuple):
                tables.append(self._chosen_in_order(conversation, item, task, verdict.label))
            else:
                tables.append(self._one_of(conversation, item, task))
        return tables

    def _ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def _log_probabilities(
        self, conversation: Conversation, item: FaceItem, endings: Sequence[str]
    ) -> list[tuple[list[int], Tensor]]:
        """For each ending: its token ids, and (len + 1, V) log-probabilities from before it on."""
        encoded = self.processor.encode([conversation], [item])
        prompt = encoded["input_ids"][0].tolist()
        ids = [self._ids(ending) for ending in endings]
        rows = self.processor.pad([EncodedText(prompt + end, None) for end in ids], side="right")
        features = self.model.face_encoder.encode_pixels(encoded["pixel_values"])
        repeats = len(endings)
        logits = self.model(
            **rows,
            image_features=features.repeat(repeats, 1, 1),
            landmarks=encoded["landmarks"].repeat(repeats, 1, 1),
        ).logits
        start = len(prompt) - 1
        return [
            (end, logits[row, start : start + len(end) + 1].float().log_softmax(dim=-1))
            for row, end in enumerate(ids)
        ]

    def _one_of(self, conversation: Conversation, item: FaceItem, task: Task) -> dict[str, float]:
        """A single label word behind the lead's colon."""
        lead = f"{task.title}:"
        tokens = [self._ids(word) for word in task.scored_words]
        if all(len(ids) == 1 for ids in tokens):
            [(_, logs)] = self._log_probabilities(conversation, item, [lead])
            scores = logs[-1, [ids[0] for ids in tokens]]
        else:
            ends = [lead + word for word in task.scored_words]
            found = self._log_probabilities(conversation, item, ends)
            scores = torch.stack(
                [logs[:-1].gather(1, torch.tensor(ids)[:, None]).sum() for ids, logs in found]
            )
        words = [word.strip() for word in task.scored_words]
        return dict(zip(words, scores.softmax(dim=0).tolist(), strict=True))

    def _listed(
        self, conversation: Conversation, item: FaceItem, task: Task, label: dict[str, bool]
    ) -> dict[str, float]:
        """A list of names with yes or no: the place of each yes or no is scored."""
        lead = task.lead(label)
        [(ids, logs)] = self._log_probabilities(conversation, item, [lead])
        vocabulary = [{self._ids(word + mark)[0] for mark in ("", ",", ".")} for word in YES_NO]
        yes, no = (sorted(ids) for ids in vocabulary)
        # No attribute's name holds the word yes or no, so these are the verdicts.
        places = [place for place, token in enumerate(ids) if token in {*yes, *no}]
        table = {}
        for name, place in zip(label, places, strict=True):
            scores = torch.stack([logs[place, yes].logsumexp(0), logs[place, no].logsumexp(0)])
            table[name] = float(scores.softmax(dim=0)[0])
        return table

    def _chosen_in_order(
        self, conversation: Conversation, item: FaceItem, task: Task, label: tuple[str, ...]
    ) -> dict[str, float]:
        """A list of the labels that are present, in fixed order.

        Before each label the model chose between it, those that follow, and the list's end. What
        it gave to one label, as a share of all that it had not passed over yet, is that label's
        probability given the answer so far.
        """
        words = [word for word in task.scored_words if word.strip() in task.labels]
        tokens = torch.tensor([self._ids(word)[0] for word in words])
        names = [word.strip() for word in words]
        written = f"{task.title}:" + ",".join(f" {name}" for name in label) + ("," if label else "")
        [(ids, logs)] = self._log_probabilities(conversation, item, [written])
        comma, stop = self._ids(",")[0], self._ids(".")[0]
        none = self._ids(" none")[0]
        colon = len(self._ids(f"{task.title}:"))
        table: dict[str, float] = {}
        first = 0
        place, goes_on = colon, 0.0
        ended = logs[colon, none]
        for name in (*label, None):
            upto = len(names) if name is None else names.index(name) + 1
            shares = torch.cat([logs[place, tokens[first:]] + goes_on, ended[None]])
            for offset in range(upto - first):
                left = shares[offset:]
                table[names[first + offset]] = float((shares[offset] - left.logsumexp(0)).exp())
            if name is None:
                break
            first = upto
            after = place + 1
            pair = logs[after, [comma, stop]].log_softmax(dim=0)
            goes_on, ended, place = float(pair[0]), pair[1], after + 1
        return table


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
