"""The loss of nano's answers: the words that carry a verdict weigh more, a year has neighbours.

On the assistant's turns only. The words that carry a verdict count more than the reasons around
them, and a year's target is spread over its neighbours, since no face shows its exact age.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from facellava.processor import IGNORED_LABEL
from facellava.tasks import TASKS
from train.face_arrays import UNITS
from train.tokenizer import json_words, verdict_words

VERDICT_WEIGHT = 3.0
AGE_SPREAD_YEARS = 2.5


class VerdictLoss(nn.Module):
    """Cross-entropy with a weight a token, soft targets for years, and no blame for uncoded units.

    Args:
        tokenizer: nano's, whose label words are single tokens.
    """

    weights: Tensor
    year_ids: Tensor  # (F, Y), of each form in which years are written
    year_targets: Tensor
    year_of_token: Tensor  # (V, 2), year and form
    colons: Tensor
    unit_ids: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        weights = torch.ones(len(tokenizer))

        def token(word: str) -> int:
            ids = tokenizer.encode(word, add_special_tokens=False)
            return int(ids[0])

        def is_whole(word: str) -> bool:
            return len(tokenizer.encode(word, add_special_tokens=False)) == 1

        for word in (*verdict_words(), *filter(is_whole, json_words())):
            weights[token(word)] = VERDICT_WEIGHT
        years = torch.arange(len(TASKS["age"].labels), dtype=torch.float32)
        spread = torch.exp(-((years - years[:, None]) ** 2) / (2 * AGE_SPREAD_YEARS**2))
        self.register_buffer("weights", weights)
        self.register_buffer("year_targets", spread / spread.sum(dim=1, keepdim=True))
        # " 26" in prose, "26" in JSON, which some tokenizers write as two tokens.
        numbers = range(len(years))
        forms = [[f" {y}" for y in numbers], [str(y) for y in numbers]]
        whole = [form for form in forms if all(map(is_whole, form))]
        self.register_buffer("year_ids", torch.tensor([[*map(token, form)] for form in whole]))
        index = torch.full((len(tokenizer), 2), -1)
        for form, ids in enumerate(self.year_ids):
            index[ids] = torch.stack([torch.arange(len(ids)), torch.full_like(ids, form)], dim=1)
        self.register_buffer("year_of_token", index)
        self.register_buffer("unit_ids", torch.tensor([token(f" {unit}") for unit in UNITS]))
        self.register_buffer("colons", torch.tensor([token(":"), token('":')]))

    def forward(self, logits: Tensor, labels: Tensor, uncoded: Tensor) -> Tensor:
        """The weighted mean over the tokens that are learned; arguments as of :meth:`summed`."""
        return self.summed(logits, labels, uncoded) / self.weight_of(labels)

    def weight_of(self, labels: Tensor) -> Tensor:
        """Sum of the weights of the tokens that are learned, labels (B, L)."""
        targets = labels[:, 1:]
        return self.weights[targets[targets != IGNORED_LABEL]].sum()

    def summed(
        self, logits: Tensor, labels: Tensor, uncoded: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """The weighted sum over the tokens that are learned.

        Args:
            logits: (B, L, V).
            labels: (B, L) with -100 where there is no loss.
            uncoded: (B, U) bool, units that nobody coded for the row's face; (B, L, U), for each
                token's face, where a row is packed.
            rows: (B,) further weight of each row; None for 1.
        """
        learned = labels[:, 1:] != IGNORED_LABEL
        scores = logits[:, :-1][learned].float()
        targets = labels[:, 1:][learned]
        # A unit that nobody looked for is neither right nor wrong: it is no choice at all, unless
        # the text itself speaks of it.
        of_token = uncoded if uncoded.ndim == 3 else uncoded[:, None].expand(*labels.shape, -1)
        unknown = of_token[:, 1:][learned] & (self.unit_ids != targets[:, None])
        scores[:, self.unit_ids] = scores[:, self.unit_ids].masked_fill(unknown, -torch.inf)
        # Only behind "Age:" or "label": is a number an age; elsewhere (" 5 o'clock") it is a word.
        behind_colon = torch.isin(labels[:, :-1][learned], self.colons)
        weights = self.weights[targets]
        if rows is not None:
            weights = weights * rows[:, None].expand_as(learned)[learned]
        logs = functional.log_softmax(scores, dim=-1)
        errors = -logs.gather(1, targets[:, None])[:, 0]
        years, forms = self.year_of_token[targets].unbind(dim=1)
        aged = (years >= 0) & behind_colon
        if aged.any():
            offered = logs[aged].gather(1, self.year_ids[forms[aged]])
            soft = -(self.year_targets[years[aged]] * offered).sum(dim=1)
            errors = errors.masked_scatter(aged, soft)
        return (errors * weights).sum()
