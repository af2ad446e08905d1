"""The same faces asked here and through a server: do words, verdicts and figures agree?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.engines import ModelEngine, ServedEngine
from eval.figures import Scorer
from eval.protocols import Protocol
from eval.results import clean
from eval.run import item_of
from facellava.errors import BadCorpus
from facellava.records import FaceRecord


def parity_of(
    protocol: Protocol, records: Iterable[FaceRecord], here: ModelEngine, there: ServedEngine
) -> dict[str, Any]:
    """Figures of both ways, and how many answers are the same.

    Args:
        records: faces that have part in the protocol.
        here: the model in this process.
        there: the same weights behind a server.

    Raises:
        BadCorpus: there are no faces.
        FacellavaError: the server refuses, or does not answer.
    """
    faces = list(records)
    if not faces:
        raise BadCorpus(f"No face has part in {protocol.key}; give the dataset of it.")
    own = [item_of(protocol, *pair) for pair in _asked(protocol, faces, here)]
    other = [item_of(protocol, *pair) for pair in _asked(protocol, faces, there)]
    pairs = list(zip(own, other, strict=True))
    gaps = [
        abs(probability - twin.table.get(label, 0.0))
        for item, twin in pairs
        for label, probability in item.table.items()
    ]
    found: dict[str, Any] = clean(
        {
            "protocol": protocol.key,
            "n": len(faces),
            "in_process": Scorer(protocol, own).figures(),
            "served": Scorer(protocol, other).figures(),
            "same_label": sum(item.given == twin.given for item, twin in pairs),
            "same_text": sum(item.text == twin.text for item, twin in pairs),
            "largest_probability_gap": max(gaps, default=0.0),
        }
    )
    return found


def _asked(
    protocol: Protocol, faces: list[FaceRecord], engine: ModelEngine | ServedEngine
) -> list[tuple[FaceRecord, Any]]:
    replies = [
        reply
        for start in range(0, len(faces), engine.batch)
        for reply in engine.ask(faces[start : start + engine.batch], protocol.question)
    ]
    return list(zip(faces, replies, strict=True))
