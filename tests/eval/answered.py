"""Small protocols and lists of answers for the tests of scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eval.items import Item
from eval.protocols import PROTOCOLS, Kind, Protocol

_LIKE = {
    "classes": "rafdb/test",
    "years": "utkface/all-ages",
    "units": "disfa/3-folds",
    "attributes": "celeba/test",
    "deepfake": "faceforensics/c40",
}


def protocol_of(kind: Kind, *labels: str) -> Protocol:
    """A protocol of this kind with these labels, or with its own."""
    found = PROTOCOLS[_LIKE[kind]]
    return replace(found, labels=labels) if labels else found


def answered(truth: Sequence[Any], given: Sequence[Any], **columns: Sequence[Any]) -> list[Item]:
    """Items number by number; `columns` are further fields of the item."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [
        Item(f"face-{place}", right, answer, **(rows[place] if rows else {}))
        for place, (right, answer) in enumerate(zip(truth, given, strict=True))
    ]


def at_random(kind: Kind, n: int, seed: int) -> tuple[Protocol, list[Item]]:
    """Random truths and answers, some unreadable; units that are not coded for every face."""
    rng = np.random.default_rng(seed)
    names = ("smiling", "bald", "young")
    labels = {
        "classes": ("happiness", "sadness", "anger"), "years": (), "deepfake": ("real", "fake"),
        "units": ("AU1", "AU2", "AU4"), "attributes": names,
    }[kind]  # fmt: skip

    def label(coded: float) -> Any:
        if kind == "years":
            return int(rng.integers(0, 20))
        if kind in ("units", "attributes"):
            kept = [name for name in labels if rng.random() < coded] or labels[:1]
            return {name: bool(rng.random() < 0.3) for name in kept}
        return str(rng.choice(labels))

    truth = [label(0.7 if kind == "units" else 1) for _ in range(n)]
    given = [None if rng.random() < 0.1 else label(1) for _ in range(n)]
    # One place only, so that scores tie.
    fake = [round(float(rng.random()), 1) for _ in range(n)]
    tables = [
        {"fake": share, "real": 1 - share} if kind == "deepfake" and answer is not None else {}
        for share, answer in zip(fake, given, strict=True)
    ]
    return protocol_of(kind, *labels), answered(truth, given, table=tables)
