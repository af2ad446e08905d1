"""Label words are single tokens, and every text comes back as it went in."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from facellava.checkpoint import FaceLlavaImageProcessor
from facellava.processor import FaceLlavaProcessor
from facellava.tasks import TASKS
from train.tokenizer import SPECIAL, VOCABULARY, closed_words, verdict_words

TABLE = {name: n % 3 == 0 for n, name in enumerate(TASKS["attributes"].labels)}


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("task", [name for name in TASKS if name != "attributes"])
def test_each_label_is_one_token_in_its_answer(
    mini_tokenizer: PreTrainedTokenizerFast, task: str
) -> None:
    title = f"{TASKS[task].title}:"
    for word in TASKS[task].closed_words:
        [token] = ids(mini_tokenizer, word)
        assert ids(mini_tokenizer, f"{title}{word}")[-1] == token


def test_ages_are_single_tokens(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    found = {ids(mini_tokenizer, TASKS["age"].lead(age))[2] for age in range(117)}
    assert len(found) == 117
    assert len(ids(mini_tokenizer, " 117")) > 1


def test_verdicts_in_json_are_single_tokens(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    for age in (7, 43, 101):
        written = ids(mini_tokenizer, TASKS["age"].write_json(age, []))
        assert ids(mini_tokenizer, str(age))[0] in written
        assert len(ids(mini_tokenizer, str(age))) == 1
    for word in ("happiness", "AU12", "fake", "true"):
        assert len(ids(mini_tokenizer, word)) == 1


def test_two_tokens_an_attribute(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    lead = TASKS["attributes"].lead(TABLE)
    opening = len(ids(mini_tokenizer, "Attributes:"))
    assert len(ids(mini_tokenizer, lead)) == opening + 2 * 40
    # Names are whole before yes and no only: elsewhere they are words like others.
    [whole, *_] = ids(mini_tokenizer, " bags under the eyes no.")
    assert whole not in ids(mini_tokenizer, "There are bags under the eyes now.")


@pytest.mark.parametrize(
    "text",
    [
        *(f"Age: {age} years." for age in range(117)),
        TASKS["attributes"].lead(TABLE),
        TASKS["attributes"].write_json(TABLE, ["The mouth is closed.", 'A "quote".']),
        TASKS["action_units"].write_json(("AU6", "AU12"), []),
        TASKS["age"].write_json(34, ["Deep folds."]),
        "Action units: AU1, AU12, AU26. No, nose. Yes, yesterday; 5 o'clock.",
        "Wie alt ist sie? ñandú, 日本語, \U0001f642, e\u0301, ½ ²",
        "  two  spaces\n\tand a tab ",
        'HE\'S "HAPPY"?!.. <b>&amp;</b>',
    ],
)
def test_texts_come_back(mini_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert mini_tokenizer.decode(ids(mini_tokenizer, text), skip_special_tokens=True) == text


def test_size_and_special_tokens(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(mini_tokenizer) <= VOCABULARY
    assert set(mini_tokenizer.all_special_tokens) == set(SPECIAL)
    assert mini_tokenizer.eos_token == "</s>"
    assert mini_tokenizer.pad_token_id != mini_tokenizer.eos_token_id


def test_a_user_cannot_type_a_special_token(mini_tokenizer: PreTrainedTokenizerFast) -> None:
    processor = FaceLlavaProcessor(
        FaceLlavaImageProcessor(size=(96, 96)), mini_tokenizer, tokens_per_frame=36
    )
    typed = "".join(SPECIAL) + "<|us</s>er|>"
    message = {"role": "user", "content": [{"type": "text", "text": typed}]}
    encoded = processor.encode_text([message]).input_ids
    special = {mini_tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    # The template's own: whose turn it is, its end, whose turn comes.
    assert [token for token in encoded if token in special] == [
        mini_tokenizer.convert_tokens_to_ids(token)
        for token in ("<|user|>", "</s>", "<|assistant|>")
    ]


def test_names_of_attributes_say_no_verdict() -> None:
    assert set(closed_words()) - set(verdict_words()) == {
        f" {name}" for name in TASKS["attributes"].labels
    }
