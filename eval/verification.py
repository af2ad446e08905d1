"""Every claim of the answers measured again on the faces that they speak of.

A claim that holds for most faces says little about this one. So the same texts are checked against
other faces of the protocol, too: what is supported more often on the own face than on another is
what the explanations say about this face in particular. Only the clauses of the inventory
(`facellava.claims`) are found; in the prose of other models they are rare, so how many answers hold
any is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from eval.items import Item
from facellava.errors import BadSample
from facellava.evidence import Verdict, find_claims, verdict
from facellava.faces import Face
from facellava.faces.measurements import Measurement, measure

VERDICTS: Final[tuple[Verdict, ...]] = ("supported", "contradicted", "unmeasurable")


def verify_items(
    items: Sequence[Item], face_of: Callable[[str], Face], *, seed: int = 0
) -> dict[str, Any]:
    """Check the claims of all answers, each face being measured once.

    Args:
        items: the answers of one protocol; those without a text are no answers.
        face_of: a face id to the face that is measured; of a clip its apex frame.
        seed: which other face each text is checked against.

    Returns:
        "n_answers"; the number of claims that are "supported", "contradicted", "unmeasurable";
        "distinct_per_answer", the mean number of different claims; "without_claims", the answers
        that hold none; "on_other_faces" with the three counts, None where there is one answer;
        "by_claim" with the three counts of each claim, the commonest first.

    Raises:
        BadSample: there is no answer.
    """
    answers = [item for item in items if item.text]
    if not answers:
        raise BadSample("No answer has a text; there are no claims to verify.")
    claims = [[claim for claim, _ in find_claims(item.text)] for item in answers]
    measured: list[Mapping[str, Measurement]] = [
        measure(face_of(item.face_id)) for item in tqdm(answers, unit="face", desc="measured")
    ]
    own = Counter[tuple[str, Verdict]]()
    other = Counter[Verdict]()
    for place, elsewhere in enumerate(derangement(len(answers), seed)):
        for claim in claims[place]:
            own[claim.id, verdict(claim, measured[place][claim.measurement])] += 1
            other[verdict(claim, measured[elsewhere][claim.measurement])] += 1
    said = Counter(claim.id for found in claims for claim in found)
    by_claim = {
        name: {word: own[name, word] for word in VERDICTS} for name, _ in said.most_common()
    }
    distinct = [len({claim.id for claim in found}) for found in claims]
    return {
        "n_answers": len(answers),
        **{word: sum(row[word] for row in by_claim.values()) for word in VERDICTS},
        "distinct_per_answer": float(np.mean(distinct)),
        "without_claims": distinct.count(0),
        "on_other_faces": {word: other[word] for word in VERDICTS} if len(answers) > 1 else None,
        "by_claim": by_claim,
    }


def derangement(n: int, seed: int) -> list[int]:
    """For each of n places another one, each once; itself where n is 1."""
    ring = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, dtype=int)
    other[ring] = np.roll(ring, 1)
    return [int(place) for place in other]
