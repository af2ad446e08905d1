"""Reasons that hold: while an answer is written, a claim that its face does not support is barred.

A claim of the inventory is a clause of known words, so it can be seen coming: as soon as every
clause that could still follow is one that the face's measurements do not support, the token that
leads there is barred and the model says the next likely thing. A claim that is begun is said to its
end, and none is said twice. The verdict before the reasons, and
words that are no claim, are the model's own.
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
from facellava.tasks import has_whole_lead
from facellava.tasks.unanswerable import UNANSWERABLE

# How tokenizers spell what is no letter: of bytes, and of pieces of sentences.
_SPELLED: Final = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
_LINE_BREAK: Final = "<0x0A>"
# Sentences that are no claims begin like this, too ("The face hardly moves").
_OPENINGS: Final = ("the face", "the facial", "the picture", "a", "no", "face", "hardly", "nothing")
# A refusal says what can be asked instead, and nothing of the face.
_REFUSAL: Final = re.compile(
    rf'\s*(?:{UNANSWERABLE.title}:|\{{\s*"task"\s*:\s*"{UNANSWERABLE.name}")'
)
_REASONS: Final = re.compile(r'"reasons"\s*:')
_NEVER_BARRED: Final = 1 << len(CLAIMS)  # the bit behind those of the claims

HELD_KEY: Final = "facellava_held"
"""Under this key of `vllm_xargs` an engine is told which claims hold."""

_NUMBERED: Final = {claim_id: 1 << number for number, claim_id in enumerate(CLAIMS)}
# No claims, but they begin like some.
_SET_PHRASES: Final = (
    "the face is at rest", "the face is hard to read here", "the face is hard to see",
)  # fmt: skip
_CLAUSES: Final = {
    phrase: _NUMBERED[claim.id] for claim in CLAIMS.values() for phrase in claim.phrases
} | dict.fromkeys(_SET_PHRASES, _NEVER_BARRED)
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
        self._most = max(map(len, self._spelled))
        # A few thousand beginnings at most, and each is met again and again.
        self._opening = lru_cache(maxsize=None)(self._openings)
        self._leading = lru_cache(maxsize=None)(self._tokens_into_claims)
        self._further = lru_cache(maxsize=None)(self._going_on)

    def text(self, ids: Sequence[int]) -> str:
        """The words of tokens; special ones say nothing."""
        return "".join(self._spelled[number] for number in ids if 0 <= number < len(self._spelled))

    def barred(self, text: str, held: Collection[str]) -> list[int]:
        """Ids of the tokens that would begin, or go on with, nothing but claims that do not hold.

        Args:
            text: of the answer so far.
            held: ids of the claims that hold, of :func:`facellava.evidence.supported_claims`.
        """
        if not self._gives_reasons(text):
            return []
        allowed = self._allowed(text, held)
        leading = self._leading(self._begun(text), text[-1:].isalnum())
        return [token for token, claims in leading.items() if not claims & allowed]

    def onward(self, text: str, held: Collection[str]) -> list[int]:
        """Ids of the tokens that go on with a claim that is begun and may be said.

        Nothing else may follow, or the model would end it in words of its own ("the face is close
        together"); empty where no claim is begun.

        Args:
            text, held: see :meth:`barred`.
        """
        begun = self._begun(text) if self._gives_reasons(text) else ""
        if not begun or not _is_telling(begun.rstrip()):
            return []
        allowed = self._allowed(text, held)
        return [
            token
            for token, claims in self._further(begun).items()
            if claims & allowed and (self._spelled[token].islower() or text.isupper())
        ]

    @staticmethod
    def _allowed(text: str, held: Collection[str]) -> int:
        """Bits of the claims that hold and were not made yet."""
        said = {claim.id for claim, _ in find_claims(text)}
        return sum((_NUMBERED[claim] for claim in held if claim not in said), _NEVER_BARRED)

    @staticmethod
    def _begun(text: str) -> str:
        """The clause that the text has begun and not ended, "" where there is none."""
        said = " ".join(text[-2 * _LONGEST :].lower().split())
        gap = " " * text[-1:].isspace()
        # What a whole clause ends with begins no other one ("shade lies on the forehead and the").
        whole = max((end for _, (_, end) in find_claims(said)), default=0)
        starts = [s.start() for s in re.finditer(r"\b\w", said) if s.start() >= whole]
        return next((said[s:] + gap for s in starts if said[s:] + gap in _BEGUN), "")

    @staticmethod
    def _gives_reasons(text: str) -> bool:
        if _REFUSAL.match(text):
            return False
        if text.lstrip().startswith("{"):
            return _REASONS.search(text) is not None
        return has_whole_lead(text)

    def _tokens_into_claims(self, begun: str, after_word: bool) -> Mapping[int, int]:
        """Tokens that go on with a claim or begin one: the claims that they may lead to, as bits.

        Args:
            begun: the clause that is begun, "" where none is.
            after_word: whether a letter stands before the token.
        """
        found = dict(self._opening(after_word))
        starts = [match.start() for match in re.finditer(r"\b\w", begun)]
        # What was begun first counts: "lines" is no new clause within "show no lines".
        for clause in reversed([begun[start:] for start in starts]):
            if clause in _BEGUN:
                found |= self._going_on(clause)
                # A second space is none ("the lip corners are  level").
                found |= self._going_on(clause, " ") if clause.endswith(" ") else {}
        return found

    def _openings(self, after_word: bool) -> dict[int, int]:
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
            token: claims if _is_telling(clause) else _NEVER_BARRED
            for clause, claims in ways.items()
            for token in self._tokens.get(glue + clause[len(begun) :], ())
        }


def _is_telling(clause: str) -> bool:
    """Whether a claim's beginning is one: more than an opening, and its first word whole."""
    if any(opening.startswith(clause) for opening in _OPENINGS):
        return False
    return " " in clause or clause in _CLAUSES or f"{clause} " in _BEGUN


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
            text = self.reasons.text(written)
            bar(row, self.reasons.barred(text, held), self.reasons.onward(text, held))
        return scores


def bar(row: Tensor, barred: Sequence[int], onward: Sequence[int] = ()) -> None:
    """Set the scores (V,) of tokens to minus infinity, unless nothing else could be said.

    Args:
        row: the scores.
        barred: what may not follow.
        onward: what alone may; empty where anything else may, too.
    """
    if not barred and not onward:
        return
    others = row.clone()
    if onward:
        kept = torch.tensor(onward, device=row.device)
        others.fill_(float("-inf"))
        others[kept] = row[kept]
    else:
        others[torch.tensor(barred, device=row.device)] = float("-inf")
    if others.isfinite().any():
        row.copy_(others)
