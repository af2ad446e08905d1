"""The loss of nano's answers: which words weigh more, which years are near, what nobody coded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from facellava.processor import IGNORED_LABEL
from facellava.tasks import TASKS
from train.face_arrays import UNITS
from train.tokenizer import closed_words
from train.verdict_loss import AGE_SPREAD_YEARS, VERDICT_WEIGHT, VerdictLoss


@pytest.fixture
def loss(mini_tokenizer: PreTrainedTokenizerFast) -> VerdictLoss:
    return VerdictLoss(mini_tokenizer)


def cost(loss: VerdictLoss, ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    labels = torch.tensor([[IGNORED_LABEL, *ids]])
    return loss(logits, labels, torch.zeros(1, len(UNITS), dtype=torch.bool))


def test_plain_words_cost_their_cross_entropy(
    loss: VerdictLoss, mini_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = mini_tokenizer("The mouth is closed.", add_special_tokens=False)["input_ids"]
    logits = torch.randn(1, len(ids) + 1, len(mini_tokenizer), generator=torch.manual_seed(0))
    wanted = functional.cross_entropy(logits[0, :-1], torch.tensor(ids))
    assert cost(loss, ids, logits).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_verdicts_weigh_more_and_names_do_not(
    loss: VerdictLoss, mini_tokenizer: PreTrainedTokenizerFast
) -> None:
    def weight(word: str, context: str = "") -> float:
        ids = mini_tokenizer(word + context, add_special_tokens=False)["input_ids"]
        return float(loss.weights[ids[0]])

    for word in closed_words():
        named = word.strip() in TASKS["attributes"].labels
        found = weight(word, " yes" if named else "")
        assert found == (1.0 if named else VERDICT_WEIGHT), word
    assert weight(" mouth") == 1.0


def test_years_are_spread_behind_age_only(
    loss: VerdictLoss, mini_tokenizer: PreTrainedTokenizerFast
) -> None:
    def ids(text: str) -> list[int]:
        return mini_tokenizer(text, add_special_tokens=False)["input_ids"]

    def error(text: str, given: str) -> float:
        """What it costs to be sure of another number where the text's number stands."""
        wanted, offered = ids(text), ids(given)
        [place] = [n for n, (a, b) in enumerate(zip(wanted, offered, strict=True)) if a != b]
        logits = torch.zeros(1, len(wanted) + 1, len(mini_tokenizer))
        logits[0, place, offered[place]] = 20.0
        return cost(loss, wanted, logits).item()

    spread = [error("Age: 34 years.", f"Age: {years} years.") for years in (35, 37, 44)]
    assert spread == sorted(spread)
    assert spread[0] < spread[1] < spread[2]
    in_json = [error('"label":34,', f'"label":{years},') for years in (35, 37, 44)]
    assert in_json == pytest.approx(spread, rel=0.5)
    assert in_json[0] < in_json[1] < in_json[2]
    far = error("There are 34 folds.", "There are 44 folds.")
    near = error("There are 34 folds.", "There are 35 folds.")
    assert near == pytest.approx(far)
    shares = loss.year_targets[34]
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    deviation = float((shares * (torch.arange(117) - 34) ** 2).sum().sqrt())
    assert deviation == pytest.approx(AGE_SPREAD_YEARS, abs=0.05)


def test_units_that_nobody_coded_are_no_wrong_choice(
    loss: VerdictLoss, mini_tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = mini_tokenizer("Action units: AU6, AU12.", add_special_tokens=False)["input_ids"]
    [other] = mini_tokenizer(" AU10", add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[IGNORED_LABEL, *ids]] * 2)
    logits = torch.zeros(2, len(ids) + 1, len(mini_tokenizer))
    tempted = logits.clone()
    tempted[:, :, other] = 5.0
    coded = torch.zeros(2, len(UNITS), dtype=torch.bool)
    of_one = coded.clone()
    of_one[1, UNITS.index("AU10")] = True
    # Of two rows the one whose AU10 is unknown stops paying for it.
    dear, half, cheap = (
        loss(given, labels, mask).item()
        for given, mask in ((tempted, coded), (tempted, of_one), (logits, coded))
    )
    assert half == pytest.approx((dear + cheap) / 2, rel=0.01)
    # A text that names it all the same is learned, not infinitely wrong.
    named = torch.tensor([[IGNORED_LABEL, other]])
    found = loss(torch.zeros(1, 2, len(mini_tokenizer)), named, of_one[1:])
    assert found.item() == pytest.approx(float(np.log(len(mini_tokenizer))), rel=1e-4)
