"""Rates samples from measurements alone: does the text fit the face, the label, and itself?

The four ratings are those of Face-LLaVA's rating step (arXiv 2504.07198, construction of
FaceInstruct-1M), given there by a language model. Here each has a written rule, so that a rating
can be recomputed and disputed. The paper's threshold is not published; ours is a setting.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from data_builders.annotate.grounds import sides
from facellava.errors import UnreadableAnswer
from facellava.evidence import Evidence, check
from facellava.faces import Face
from facellava.faces.measurements import Measurement, measure
from facellava.records import Ratings, Sample
from facellava.tasks import TASKS, Verdict, parse_answer

# Ratings of a label where no votes exist: by hand, by measurement, on a weak face.
_LABEL_BY_HAND: Final = 8
_LABEL_UNKNOWN: Final = 7
_LABEL_MEASURED: Final = 5
_FEWEST_CLAIMS: Final = 2
_WORDS: Final = range(8, 61)  # words of the reasons
_WORD: Final = re.compile(r"[\w']+")


@dataclass(frozen=True)
class Threshold:
    """The lowest ratings with which a sample is kept.

    Attributes:
        label: label accuracy; 3 asks for about every sixth vote.
        face: text against face; 6 drops every contradiction and texts with many open claims.
        text: text against label; 4 drops texts whose claims speak against their label.
        overall: quality; 5 drops texts that cannot be read or hold fewer than two claims.
    """

    label: int = 3
    face: int = 6
    text: int = 4
    overall: int = 5


DEFAULT_THRESHOLD: Final = Threshold()
Rule = Literal["each", "mean"]
"""What reaches the threshold: each rating its own, or the ratings' mean the thresholds' mean."""

REFUSAL: Final = Ratings(10, 10, 10, 10, "A refusal; nothing is claimed about the face.")


def rate(
    sample: Sample,
    face: Face,
    labels: Mapping[str, Any],
    measurements: Mapping[str, Measurement] | None = None,
) -> Ratings:
    """The four ratings of a sample, 1 to 10, without any model.

    label: the share of FER+ votes for the label where the face has votes, else how it was found.
    face: 10 where all claims are supported, less for claims that cannot be decided, at most 3 with
    a contradicted claim. text: claims that speak for the label against those that speak against it.
    overall: readable by `parse_answer`, at least two distinct claims, of a fair length.

    Args:
        labels: of the face's record; "expression_votes" is read.
        measurements: of the face, where they are at hand; measured now where None.
    """
    try:
        verdict = parse_answer(sample.answer)
    except UnreadableAnswer as error:
        return Ratings(1, 1, 1, 1, f"The text cannot be read: {error}")
    if verdict.task != sample.task or _plain(verdict.label) != _plain(sample.label):
        return Ratings(1, 1, 1, 1, "The text says another label than the sample.")
    if verdict.label is None:
        return REFUSAL
    found = check(verdict.reasons, measure(face) if measurements is None else measurements)
    label, label_reason = _rate_label(sample, face, labels)
    agreement, face_reason = _rate_against_face(found)
    text, text_reason = _rate_against_label(verdict, found)
    overall, quality_reason = _rate_quality(verdict, found)
    reason = " ".join(filter(None, (face_reason, text_reason, label_reason, quality_reason)))
    return Ratings(label, agreement, text, overall, reason)


def keep(ratings: Ratings, threshold: Threshold = DEFAULT_THRESHOLD, rule: Rule = "each") -> bool:
    """Whether training should see the sample: no rating, or not their mean, is too low."""
    given = [getattr(ratings, field.name) for field in fields(threshold)]
    wanted = [getattr(threshold, field.name) for field in fields(threshold)]
    if rule == "mean":
        return sum(given) >= sum(wanted)
    return all(rating >= least for rating, least in zip(given, wanted, strict=True))


def rate_samples(
    samples: Iterable[Sample],
    face: Face,
    labels: Mapping[str, Any],
    threshold: Threshold = DEFAULT_THRESHOLD,
    measurements: Mapping[str, Measurement] | None = None,
) -> list[Sample]:
    """The samples of one face with ratings, and `kept` set by the threshold.

    The last answer of a conversation is rated; its first turn is a sample of its own.
    """
    measurements = measure(face) if measurements is None else measurements
    rated = []
    for sample in samples:
        ratings = rate(sample, face, labels, measurements)
        rated.append(replace(sample, ratings=ratings, kept=keep(ratings, threshold)))
    return rated


def histogram(samples: Sequence[Sample]) -> str:
    """How many rated samples have each rating, one line a rating, and how many are kept."""
    rated = [(sample, sample.ratings) for sample in samples if sample.ratings is not None]
    lines = ["rating " + "".join(f"{value:>7}" for value in range(1, 11))]
    for field in fields(Threshold):
        counts = Counter(getattr(ratings, field.name) for _, ratings in rated)
        lines.append(f"{field.name:<7}" + "".join(f"{counts[value]:>7}" for value in range(1, 11)))
    kept = sum(sample.kept for sample, _ in rated)
    share = kept / len(rated) if rated else 0.0
    lines.append(f"kept {kept} of {len(rated)} ({share:.1%})")
    return "\n".join(lines)


def _plain(label: Any) -> Any:
    return list(label) if isinstance(label, tuple) else label


def _rate_label(sample: Sample, face: Face, labels: Mapping[str, Any]) -> tuple[int, str]:
    votes: Mapping[str, int] = labels.get("expression_votes") or {}
    total = sum(votes.values())
    if sample.task == "expression" and total:
        given = votes.get(str(sample.label), 0)
        return 1 + round(9 * given / total), f"{given} of {total} votes are for the label."
    if sample.weak:
        return _LABEL_MEASURED, "The label was measured, not given by a person."
    if face.weak:
        return _LABEL_UNKNOWN, "The face was hard to find."
    return _LABEL_BY_HAND, ""


def _rate_against_face(found: Sequence[Evidence]) -> tuple[int, str]:
    supported = sum(item.verdict == "supported" for item in found)
    wrong = [item.phrase for item in found if item.verdict == "contradicted"]
    open_claims = len(found) - supported - len(wrong)
    reason = f"{supported} of {len(found)} claims hold on the face."
    if wrong:
        return max(1, 4 - len(wrong)), f"{reason} The face contradicts: {'; '.join(wrong)}."
    return max(4, 10 - 3 * open_claims), reason


def _rate_against_label(verdict: Verdict, found: Sequence[Evidence]) -> tuple[int, str]:
    table = sides(TASKS[verdict.task], verdict.label)
    claims = {item.claim for item in found}
    speaking = len(claims & set(table.speaking))
    against = len(claims & table.against)
    rating = (6, 8, 10)[min(speaking, 2)] - 2 * against
    return max(1, rating), f"{speaking} speak for the label, {against} against it."


def _rate_quality(verdict: Verdict, found: Sequence[Evidence]) -> tuple[int, str]:
    rating, faults = 10, []
    distinct = len({item.measurement for item in found})
    if distinct < _FEWEST_CLAIMS:
        rating -= 6
        faults.append("it has fewer than two distinct claims")
    if distinct < len(found):
        rating -= 2
        faults.append("it says something twice")
    words = len(_WORD.findall(verdict.reasons))
    if words not in _WORDS:
        rating -= 2
        faults.append(f"its reasons have {words} words")
    return rating, f"As a text, {' and '.join(faults)}." if faults else ""
