"""Reasons that the visual tokens bear out: of an answer's reasons only these are learned.

The annotator measures pixels and landmarks, the language model reads a few dozen tokens. A clause
about what the tokens do not tell of this face would have to be guessed, and guesses are
contradicted when they are measured again. What stage 1's head reads from a face's tokens, and how
far off it is on faces aside, give the chance that a clause would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase

from facellava.claims import NEAR, OVER, Claim
from facellava.evidence import find_claims
from facellava.processor import IGNORED_LABEL, EncodedText
from facellava.whole_files import open_to_others
from train.face_arrays import MEASURED

LIKELY = 0.6
"""A clause's least chance of being supported; the rest may be too close to the threshold."""

_COLUMN = {name: number for number, name in enumerate(MEASURED)}


@dataclass(frozen=True)
class Readings:
    """What the tokens tell of the measurements of N faces.

    Attributes:
        read: (N, M) float32, each measurement in its own unit, in the order of MEASURED.
        off: (M,) float32, deviation of the reading from the measurement on faces that were not
            learned from; NaN where none of these could be measured.
    """

    read: NDArray[np.float32]
    off: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write both as safetensors; the file appears only when it is whole."""
        partial = path.with_suffix(".partial")
        save_file({"read": self.read, "off": self.off}, partial)
        open_to_others(partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Readings:
        """What `save` wrote."""
        return cls(**load_file(path))

    def bear_out(self, face: int, claim: Claim, doubt: float) -> bool:
        """Whether the tokens tell enough of a face to say the claim.

        Args:
            face: index of the face.
            claim: one that is said of it.
            doubt: the highest chance that it is contradicted, from 0 to 1.
        """
        column = _COLUMN[claim.measurement]
        off = float(self.off[column])
        if not off > 0:
            return False
        value = NormalDist(float(self.read[face, column]), off).cdf
        if claim.direction == NEAR:
            within = claim.width + claim.dead_band
            supported = value(claim.threshold + claim.width) - value(claim.threshold - claim.width)
            contradicted = 1 - value(claim.threshold + within) + value(claim.threshold - within)
        else:
            below = value(claim.threshold)
            supported = 1 - below if claim.direction == OVER else below
            short = value(claim.threshold - claim.direction * claim.dead_band)
            contradicted = short if claim.direction == OVER else 1 - short
        return contradicted <= doubt and supported >= LIKELY


def deviations(read: NDArray[np.float32], measured: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square of (N, M) readings against measurements, whose NaN are left out: (M,)."""
    known = np.isfinite(measured)
    square = np.where(known, read - measured, 0.0) ** 2
    count = known.sum(axis=0)
    mean = np.divide(square.sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
    return np.sqrt(mean).astype(np.float32)


def learning_sure_reasons(
    text: EncodedText,
    face: int,
    readings: Readings,
    doubt: float,
    tokenizer: PreTrainedTokenizerBase,
) -> EncodedText:
    """The text, without learning an answer from its first clause on that the tokens do not tell.

    The answers of earlier turns are cut likewise.
    """
    labels = list(text.labels or ())
    for answer in _answers(labels):
        words = [tokenizer.decode([text.input_ids[place]]) for place in answer]
        ends = np.cumsum([len(word) for word in words])
        for claim, (start, _) in find_claims("".join(words)):
            if not readings.bear_out(face, claim, doubt):
                first = answer.start + int(np.searchsorted(ends, start, side="right"))
                labels[first : answer.stop] = [IGNORED_LABEL] * (answer.stop - first)
                break
    return EncodedText(text.input_ids, labels)


def _answers(labels: list[int]) -> list[range]:
    """The places that are learned, in one piece an answer."""
    learned = np.flatnonzero(np.array(labels) != IGNORED_LABEL)
    pieces = np.split(learned, np.flatnonzero(np.diff(learned) > 1) + 1)
    return [range(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]
