"""Reasons that hold: while an answer is written, a claim that its face does not support is barred.

A claim of the inventory is a clause of known words, so it can be seen coming: as soon as every
clause that could still follow is one that the face's measurements do not support, the token that
leads there is barred and the model says the next likely thing. A claim that is begun is said to its
end, or a model that is kept from its words would end it in others that nothing measures ("the face
is close together"), and none is said twice. The verdict before the reasons, and sentences that are
no claims, are the model's own; but what follows "Age:" is a number of years and a full stop,
whatever was said of the face before.

This is for models that learned the inventory's words. One whose reasons another annotator wrote
is better asked with free reasons.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from facellava.claims import CLAIMS
from facellava.evidence import find_claims
from facellava.tasks import TASKS, has_whole_lead
from facellava.tasks.unanswerable import UNANSWERABLE

# How tokenizers spell what is no letter: of bytes, and of pieces of sentences.
_SPELLED: Final = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
_LINE_BREAK: Final = "<0x0A>"
# Sentences that are no claims begin like this, too ("The face hardly moves").
_OPENING_WORDS: Final = ("a", "no", "face", "hardly", "nothing")
_OPENINGS: Final = ("the face", "the facial", "the picture")
_SENTENCE_BEGINS: Final = re.compile(r"(?:^|\.)\s*$")
# Behind these "the" begins a claim and nothing else, as it does in JSON everywhere.
_LEADS_TO_CLAIM: Final = re.compile(r"(?:\b(?:that|because|and)|[:,])\s*$")
# Behind these "the" begins no claim: "I read this from the picture", "of the face I can say".
_LEADS_ELSEWHERE: Final = re.compile(r"\b(?:from|in|judge|of|read)\s*$")
# A refusal says what can be asked instead, and nothing of the face.
_REFUSAL: Final = re.compile(
    rf'\s*(?:{UNANSWERABLE.title}:|\{{\s*"task"\s*:\s*"{UNANSWERABLE.name}")'
)
# Behind "Expression:", "Age:" and "Deepfake:" nothing but these can be read.
_LEADS: Final = (
    *(TASKS["age"].lead(int(years)) for years in TASKS["age"].labels),
    *(TASKS[name].lead(word) for name in ("expression", "deepfake") for word in TASKS[name].labels),
)
_WITHIN_LEADS: Final = {
    lead[:end] for lead in _LEADS for end in range(lead.index(":") + 1, len(lead))
}
_REASONS: Final = re.compile(r'"reasons"\s*:')
_STOPS: Final = '.,;:!?"]}) '
# Three bits behind those of the claims.
_NEVER_BARRED: Final = 1 << len(CLAIMS)
_OPENS_SENTENCE: Final = 1 << len(CLAIMS) + 1  # may be said where a sentence of prose begins
_NO_CLAIM: Final = 1 << len(CLAIMS) + 2  # what is begun need not become a claim

HELD_KEY: Final = "facellava_held"
"""Under this key of `vllm_xargs` an engine is told which claims hold."""

_NUMBERED: Final = {claim_id: 1 << number for number, claim_id in enumerate(CLAIMS)}
# No claims, but they begin like some.
_SET_PHRASES: Final = (
    "the face is at rest",
    "the face is hard to read here",
    "the face is hard to see",
)
_CLAUSES: Final = {
    phrase: _NUMBERED[claim.id] for claim in CLAIMS.values() for phrase in claim.phrases
} | dict.fromkeys(_SET_PHRASES, _OPENS_SENTENCE)
_ALL: Final = (1 << len(CLAIMS)) - 1
_SAID_ALREADY: Final = re.compile("|".join(_SET_PHRASES))
_BEGUN: Final = {clause[:end] for clause in _CLAUSES for end in range(1, len(clause))}
_LONGEST: Final = max(map(len, _CLAUSES))


class HeldReasons:
    """Says which tokens may not come next.

    Args:
        tokenizer: of the model that writes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        vocabulary = tokenizer.get_vocab()
        silent = set(tokenizer.all_special_ids)
        # Added tokens may leave numbers out.
        self._spelled = [""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            if number not in silent:
                spelled = "\n" if piece == _LINE_BREAK else piece.translate(_SPELLED)
                self._spelled[number] = spelled
        self._tokens: dict[str, list[int]] = {}
        for number, text in enumerate(self._spelled):
            # "I" is a whole word, and no piece of one in small letters.
            if text.strip() != "I":
                self._tokens.setdefault(text.lower(), []).append(number)
                # " crisp." ends a clause that " crisp" ends.
                if (bare := text.rstrip(_STOPS)) != text and bare.strip():
                    self._tokens.setdefault(bare.lower(), []).append(number)
        # In JSON, a further reason, which is not begun where nothing is left to say.
        self._another = [number for number, text in enumerate(self._spelled) if '",' in text]
        self._most = max(map(len, self._spelled))
        # A few thousand beginnings at most, and each is met again and again.
        self._first = lru_cache(maxsize=None)(self._first_tokens)
        self._leading = lru_cache(maxsize=None)(self._tokens_into_claims)
        self._further = lru_cache(maxsize=None)(self._going_on)
        self._verdicts = lru_cache(maxsize=None)(self._into_leads)
        # Asked twice for a token, and for all faces that get the same words.
        self._state = lru_cache(maxsize=1024)(self._read)

    def text(self, ids: Sequence[int]) -> str:
        """The words of tokens; special ones say nothing."""
        return "".join(self._spelled[number] for number in ids if 0 <= number < len(self._spelled))

    def keep(self, scores: Tensor, written: Sequence[int], held: Collection[str]) -> None:
        """Set the scores (V,) of what may not come next to minus infinity.

        Not so where nothing else could be said, as under a grammar that wants the opposite.

        Args:
            scores: of the next token.
            written: tokens of the answer so far.
            held: ids of the claims that hold, of :func:`facellava.evidence.supported_claims`.
        """
        text = self.text(written)
        others = scores.clone()
        if wanted := self.verdicts(text) or self.onward(text, held):
            kept = torch.tensor(wanted, device=scores.device)
            others.fill_(float("-inf"))
            others[kept] = scores[kept]
        elif barred := self.barred(text, held):
            others[torch.tensor(barred, device=scores.device)] = float("-inf")
        else:
            return
        if others.isfinite().any():
            scores.copy_(others)

    def verdicts(self, text: str) -> list[int]:
        """Ids of the tokens that go on with a verdict of one word; empty elsewhere.

        Args:
            text: of the answer so far.
        """
        lead = text.lstrip()
        return self._verdicts(lead) if lead in _WITHIN_LEADS else []

    def barred(self, text: str, held: Collection[str]) -> list[int]:
        """Ids of the tokens that would begin, or go on with, nothing but claims that do not hold.

        Args:
            text: of the answer so far.
            held: see :meth:`keep`.
        """
        if (state := self._state(text)) is None:
            return []
        begun, open_to = state
        leading, allowed = self._leading(begun, text[-1:].isalnum()), _allowed(held, open_to)
        barred = [token for token, claims in leading.items() if not claims & allowed]
        if not allowed & _ALL and _is_json(text):
            barred += self._another
        return barred

    def onward(self, text: str, held: Collection[str]) -> list[int]:
        """Ids of the tokens that go on with a claim that is begun and may be said.

        Nothing else may follow then; empty where no claim is begun.

        Args:
            text, held: see :meth:`barred`.
        """
        if (state := self._state(text)) is None or not state[0] or state[1] & _NO_CLAIM:
            return []
        if _beside_claims(state[0].rstrip()) & state[1]:
            return []
        begun, open_to = state
        allowed = _allowed(held, open_to)
        return [
            token
            for token, claims in self._further(begun).items()
            if claims & allowed and (self._spelled[token].islower() or text.isupper())
        ]

    @staticmethod
    def _read(text: str) -> tuple[str, int] | None:
        """The clause that is begun and not ended, "" for none, and bits of what is left to say.

        None before the reasons, and in a refusal.
        """
        reasons = _reasons_of(text)
        if reasons is None:
            return None
        said = " ".join(reasons.lower().split())
        gap = " " * text[-1:].isspace()
        claims = find_claims(said)
        # What a whole clause ends with begins no other one ("shade lies on the forehead and the").
        whole = max((end for _, (_, end) in claims), default=0)
        near = max(whole, len(said) - _LONGEST)
        starts = [s.start() for s in re.finditer(r"\b\w", said) if s.start() >= near]
        begun = next((said[s:] + gap for s in starts if said[s:] + gap in _BEGUN), "")
        left = _ALL | _NEVER_BARRED
        for claim, _ in claims:
            left &= ~_NUMBERED[claim.id]
        before = said[: len(said) + len(gap) - len(begun)] if begun else said
        in_json = _is_json(text)
        if begun.startswith("the") and (in_json or _LEADS_TO_CLAIM.search(before)):
            left &= ~_NEVER_BARRED
        if not in_json and _SENTENCE_BEGINS.search(before) and not _SAID_ALREADY.search(before):
            left |= _OPENS_SENTENCE
        if _LEADS_ELSEWHERE.search(before):
            left |= _OPENS_SENTENCE | _NO_CLAIM
        return begun, left

    def _tokens_into_claims(self, begun: str, after_word: bool) -> Mapping[int, int]:
        """Tokens that go on with a claim or begin one: the claims that they may lead to, as bits.

        Args:
            begun: the clause that is begun, "" where none is.
            after_word: whether a letter stands before the token.
        """
        found = dict(self._first(after_word))
        starts = [match.start() for match in re.finditer(r"\b\w", begun)]
        # What was begun first counts: "lines" is no new clause within "show no lines".
        for clause in reversed([begun[start:] for start in starts]):
            if clause in _BEGUN:
                found |= self._further(clause)
                # A second space is none ("the lip corners are  level").
                found |= self._going_on(clause, " ") if clause.endswith(" ") else {}
        return found

    def _into_leads(self, begun: str) -> list[int]:
        """Tokens that go on with a lead, or end it and say more."""
        return [
            token
            for token, text in enumerate(self._spelled)
            if text
            and (
                begun + text in _WITHIN_LEADS
                or ((begun + text).startswith(_LEADS) and has_whole_lead(begun + text))
            )
        ]

    def _first_tokens(self, after_word: bool) -> dict[int, int]:
        """Tokens that begin a claim."""
        return self._going_on("", " ") | ({} if after_word else self._going_on(""))

    def _going_on(self, begun: str, glue: str = "") -> dict[int, int]:
        """Tokens that go on with what is begun, spelled with `glue` before them."""
        ways: dict[str, int] = {}
        for clause, claim in _CLAUSES.items():
            if clause.startswith(begun):
                for end in range(len(begun) + 1, min(len(clause), len(begun) + self._most) + 1):
                    ways[clause[:end]] = ways.get(clause[:end], 0) | claim
        return {
            token: claims | _beside_claims(clause)
            for clause, claims in ways.items()
            for token in self._tokens.get(glue + clause[len(begun) :], ())
        }


def _is_json(text: str) -> bool:
    """Whether the answer is of the JSON form, however little is written."""
    return text.lstrip().startswith("{")


def _reasons_of(text: str) -> str | None:
    """What is written of the reasons; None where they are not begun, and in a refusal."""
    if _REFUSAL.match(text):
        return None
    if _is_json(text):
        key = _REASONS.search(text)
        return None if key is None else text[key.end() :]
    return text.partition(".")[2] if has_whole_lead(text) else None


def _allowed(held: Collection[str], left: int) -> int:
    """Bits of what may be said: of the claims those that hold and were not made yet."""
    return (sum(_NUMBERED[claim] for claim in held) | _NEVER_BARRED | _OPENS_SENTENCE) & left


def _beside_claims(clause: str) -> int:
    """What else a claim's beginning may be: any word, a sentence that is no claim, or nothing."""
    if " " not in clause and not (clause in _CLAUSES or f"{clause} " in _BEGUN):
        return _NEVER_BARRED  # no whole word yet
    if clause in ("the", *_OPENING_WORDS):
        return _NEVER_BARRED
    return _OPENS_SENTENCE if any(opening.startswith(clause) for opening in _OPENINGS) else 0


class OnlyHeldReasons(LogitsProcessor):
    """Bars claims in `model.generate`, each row by its own face.

    Args:
        reasons: of the model's tokenizer.
        start: tokens of the prompt.
        held: of each row, the ids of the claims that hold.
    """

    def __init__(self, reasons: HeldReasons, start: int, held: Sequence[Collection[str]]) -> None:
        self.reasons, self.start, self.held = reasons, start, held

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with minus infinity for what is barred."""
        scores = scores.clone()
        for row, written, held in zip(
            scores, input_ids[:, self.start :].tolist(), self.held, strict=True
        ):
            self.reasons.keep(row, written, held)
        return scores
