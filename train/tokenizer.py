"""Nano's tokenizer: byte-level BPE trained on the corpus, with every label word as one token.

The probability of a label is then the probability of one token. To get that without tokens that
match inside other words, the pre-tokenizer keeps each closed word in one piece (an attribute's
name only where "yes" or "no" follows it) and the trainer sees it often enough to merge it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN
from facellava.conversation import CHAT_TEMPLATE_TOKENS
from facellava.errors import BadSample
from facellava.tasks import TASKS

VOCABULARY = 4096
PAD, UNKNOWN = "<pad>", "<unk>"
END = CHAT_TEMPLATE_TOKENS[-1]
SPECIAL = (PAD, UNKNOWN, *CHAT_TEMPLATE_TOKENS, IMAGE_TOKEN, VIDEO_TOKEN)
# A list of forty "name yes, name no" costs two tokens an attribute when the comma is in the word.
YES, NO = (" yes", " yes,", " yes."), (" no", " no,", " no.")
LISTED = tuple(chain.from_iterable(zip(YES, NO, strict=True)))
# What JSON has between a verdict's words: whether a list is empty, goes on or ends is one token.
JSON_NONE, JSON_SOME, JSON_FURTHER, JSON_LAST = JSON_MARKS = ('":[],"', '":["', '","', '"],"')
# A training text repeats each closed word this often in all, so that every one is merged.
OFTEN, A_TEXT = 20_000, 100


def closed_words() -> list[str]:
    """Every word, with its leading space, that has to be one token."""
    words = [word for task in TASKS.values() for word in task.closed_words]
    return list(dict.fromkeys([*words, *LISTED]))


def verdict_words() -> list[str]:
    """The closed words that say a verdict: all but the names of attributes, which say what of."""
    names = {f" {name}" for name in TASKS["attributes"].labels}
    return [word for word in closed_words() if word not in names]


def json_words() -> list[str]:
    """The verdicts as JSON writes them, without a space: one token each, too."""
    listed = {" yes", " no", *LISTED}
    return ["true", "false", *(word.strip() for word in verdict_words() if word not in listed)]


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Pieces: attribute names before yes or no, yes/no with its mark, words, numbers, the rest."""
    names = sorted((re.escape(f" {name}") for name in TASKS["attributes"].labels), key=len)
    listed = "|".join(reversed(names))
    pieces = (
        rf"(?:{listed})(?= (?:yes|no)\b)"
        r"| (?:yes|no)[,.]"
        r"|'(?:s|t|re|ve|m|ll|d)\b"
        r"| ?\p{L}+\p{N}*"
        r"| ?\p{N}+"
        r"| ?[^\s\p{L}\p{N}]+"
        r"|\s+"
    )
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of at most 4096 entries for these questions and answers.

    Raises:
        BadSample: a closed word did not become one token.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=20,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = closed_words()
    quoted = [f'"{word}"' for word in json_words()]
    marked = [f"label{mark}AU" for mark in JSON_MARKS]
    tokenizer.train_from_iterator(chain(_repeated([*words, *quoted, *marked]), texts), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        additional_special_tokens=[*CHAT_TEMPLATE_TOKENS[:-1], IMAGE_TOKEN, VIDEO_TOKEN],
    )
    words += [*json_words(), *JSON_MARKS]
    split = [word for word in words if len(_in_context(wrapped, word)) != 1]
    if split:
        raise BadSample(f"These label words are not single tokens: {', '.join(split)}.")
    return wrapped


def _context(word: str) -> str:
    """What follows a word where answers use it: attribute names stand before yes or no."""
    return " yes" if word.strip() in TASKS["attributes"].labels else ""


def _in_context(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    after = tokenizer.encode(_context(word), add_special_tokens=False) if _context(word) else []
    ids = tokenizer.encode(word + _context(word), add_special_tokens=False)
    return ids[: len(ids) - len(after)]


def _repeated(words: list[str]) -> Iterator[str]:
    for word in words:
        for _ in range(OFTEN // A_TEXT):
            yield (word + _context(word)) * A_TEXT
