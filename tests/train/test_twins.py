"""What an answer decides where, and how far two answers decide alike."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from facellava.conversation import face_conversation
from facellava.errors import BadSettings
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.tasks import TASKS, Label
from train.instruct import naming_places
from train.tokenizer import JSON_MARKS
from train.twins import Choices, Decision, Verdicts, disagreement

REASONS = ("The mouth is closed.", "The head is held level.")
FORTY: Label = {name: n % 3 == 0 for n, name in enumerate(TASKS["attributes"].labels)}
UNIT = ["unit", "further_unit"]


@pytest.fixture
def choices(mini_tokenizer: PreTrainedTokenizerFast) -> Choices:
    return Choices(mini_tokenizer)


def said(
    processor: FaceLlavaProcessor, task: str, label: Label, form: str
) -> tuple[EncodedText, range]:
    prose = f"{TASKS[task].lead(label)} {' '.join(REASONS)}"
    answer = prose if form == "prose" else TASKS[task].write_json(label, REASONS)
    messages = face_conversation("image", "What is it?", (), answer)
    text = processor.encode_text(messages, [1], training=True)
    return text, naming_places(answer, text, processor.tokenizer)


@pytest.mark.parametrize(
    ("task", "label", "kinds"),
    [
        ("expression", "fear", ["expression"]),
        ("age", 7, ["age"]),
        ("age", 104, ["age"]),
        ("deepfake", "fake", ["fake"]),
        ("attributes", {"big nose": True}, ["yes_no"]),
        ("attributes", FORTY, ["yes_no"] * 40),
        ("action_units", (), ["any_unit"]),
        ("action_units", ("AU6",), ["any_unit", *UNIT]),
        ("action_units", ("AU1", "AU2", "AU25"), ["any_unit", *UNIT * 3]),
        ("unanswerable", None, []),
    ],
)
def test_both_forms_decide_the_same(
    new_parts, choices: Choices, task: str, label: Label, kinds: list[str]
) -> None:
    processor = new_parts()[1]
    for form in ("prose", "json"):
        text, naming = said(processor, task, label, form)
        found = choices.decisions(text, naming.stop, task, form)
        assert [decision.kind for decision in found] == kinds, form
        for decision in found:
            groups = choices.of(decision.kind, form).tolist()
            token = text.input_ids[decision.place]
            assert sum(token in group for group in groups) == 1
            assert (text.labels or [])[decision.place] == token


def test_a_years_group_is_the_same_year_in_both_forms(choices: Choices) -> None:
    tokenizer = choices.tokenizer
    for year in (0, 9, 34, 110, 116):
        prose, json = (int(choices.of("age", form)[year, 0]) for form in ("prose", "json"))
        assert tokenizer.decode([prose]) == f" {year}"
        assert tokenizer.decode([json]) == str(year)


def test_every_json_mark_is_one_token(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    for mark in JSON_MARKS:
        assert len(mini_tokenizer.encode(mark, add_special_tokens=False)) == 1, mark


def test_a_tokenizer_that_splits_a_verdict_is_refused() -> None:
    letters = {letter: n for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    spelled = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(letters, [])))
    with pytest.raises(
        BadSettings, match="no single token for ' 0', which twins and soft labels need: train"
    ):
        Choices(spelled)


def test_disagreement_is_the_divergence_of_the_second_row_alone(choices: Choices) -> None:
    size = len(choices.tokenizer)
    prose, json = (choices.of("fake", form)[:, 0] for form in ("prose", "json"))
    logits = torch.zeros(2, 3, size)
    logits[0, 1, prose] = torch.tensor([math.log(0.9), math.log(0.1)])
    logits[1, 0, json] = torch.tensor([math.log(0.5), math.log(0.5)])
    # A word that is no choice takes part in neither distribution.
    logits[:, :, choices.tokenizer.pad_token_id] = 9.0
    logits.requires_grad_()
    pair = (
        Verdicts(0, "prose", (Decision(6, "fake"),)),
        Verdicts(1, "json", (Decision(4, "fake"),)),
    )
    # The texts' places 3, 5 and 7 were kept: a decision's logits are those before it.
    apart = disagreement(logits, torch.tensor([3, 5, 7]), [pair], choices)
    assert apart.item() == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    apart.backward()
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1, 0, json].tolist() == pytest.approx([-0.4, 0.4])


def test_groups_of_one_meaning_are_added_up(choices: Choices) -> None:
    yes = choices.of("yes_no", "prose")[0].tolist()
    logits = torch.full((2, 1, len(choices.tokenizer)), -20.0)
    logits[0, 0, yes] = 0.0
    logits[0, 0, choices.of("yes_no", "prose")[1, 0]] = 0.0
    logits[1, 0, choices.of("yes_no", "json")[:, 0]] = torch.tensor([math.log(3.0), 0.0])
    pair = (
        Verdicts(0, "prose", (Decision(1, "yes_no"),)),
        Verdicts(1, "json", (Decision(1, "yes_no"),)),
    )
    assert disagreement(logits, torch.tensor([0]), [pair], choices).item() == pytest.approx(
        0, abs=1e-6
    )


def test_pairs_weigh_alike_however_much_they_decide(choices: Choices) -> None:
    size = len(choices.tokenizer)
    torch.manual_seed(0)
    logits = torch.randn(4, 6, size)
    one = (
        Verdicts(0, "prose", (Decision(1, "age"),)),
        Verdicts(1, "json", (Decision(2, "age"),)),
    )
    many = tuple(
        Verdicts(row, form, tuple(Decision(place, "yes_no") for place in range(1, 6)))
        for row, form in ((2, "prose"), (3, "json"))
    )
    keep = torch.arange(6)
    alone = [disagreement(logits, keep, [pair], choices).item() for pair in (one, many)]
    both = disagreement(logits, keep, [one, many], choices).item()
    assert both == pytest.approx(sum(alone) / 2)
    assert disagreement(logits, keep, [], choices).item() == 0
