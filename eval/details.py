"""What stands behind the figures: a row for each label or age group, and the confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from eval.figures import Scorer, known_mean, ratio
from eval.items import Item
from eval.protocols import AGE_GROUPS, Kind, Protocol, age_group

UNREADABLE: Final = "unreadable"

Rows = dict[str, dict[str, float]]


def details(protocol: Protocol, items: Sequence[Item]) -> Rows:
    """A row of figures for each label; years: for each age group that occurs.

    classes and deepfake: n, recall, precision, F1; units: n (faces coded for it), positives, F1,
    precision, recall, accuracy; attributes: n, positives, accuracy, balanced_accuracy, majority
    (accuracy of the commoner answer); years: n, MAE, CS5, bias (mean of answer minus truth). NaN
    where a figure cannot be had, such as the precision of a class that was never answered.
    """
    return _ROWS[protocol.kind](Scorer(protocol, items))


def confusion(protocol: Protocol, items: Sequence[Item]) -> dict[str, Any] | None:
    """How often each label (rows) was answered with each word (columns); else than words: None.

    Columns are the protocol's labels, then other words of the task that were answered, then
    "unreadable".
    """
    if protocol.kind not in ("classes", "deepfake"):
        return None
    pairs = Counter((item.truth, item.given) for item in items)
    others = {given for _, given in pairs} - {*protocol.labels, None}
    answers = (*protocol.labels, *sorted(others), None)
    return {
        "labels": list(protocol.labels),
        "columns": [UNREADABLE if answer is None else answer for answer in answers],
        "counts": [[pairs[truth, given] for given in answers] for truth in protocol.labels],
    }


def _class_rows(scorer: Scorer) -> Rows:
    rows: Rows = {}
    for place, label in enumerate(scorer.protocol.labels):
        truth, given = scorer.truth == place, scorer.given == place
        rows[label] = {"n": int(truth.sum()), **_retrieval(truth, given)}
    return rows


def _unit_rows(scorer: Scorer) -> Rows:
    rows: Rows = {}
    for place, unit in enumerate(scorer.protocol.labels):
        seen = scorer.truth[:, place] >= 0
        truth, given = scorer.truth[seen, place] == 1, scorer.given[seen, place] == 1
        found = _retrieval(truth, given)
        if len(truth):
            found["F1"] = float(np.nan_to_num(found["F1"]))
        rows[unit] = {
            "n": len(truth),
            "positives": int(truth.sum()),
            **found,
            "accuracy": _share(truth == given),
        }
    return rows


def _attribute_rows(scorer: Scorer) -> Rows:
    rows: Rows = {}
    for place, name in enumerate(scorer.protocol.labels):
        truth, given = scorer.truth[:, place], scorer.given[:, place]
        right, yes = truth == given, truth == 1
        recalls = np.array([_share(right[yes]), _share(right[~yes])])
        rows[name] = {
            "n": len(truth),
            "positives": int(yes.sum()),
            "accuracy": _share(right),
            "balanced_accuracy": float(known_mean(recalls)),
            "majority": max(_share(yes), _share(~yes)),
        }
    return rows


def _age_rows(scorer: Scorer) -> Rows:
    groups = np.array([age_group(int(years)) for years in scorer.truth])
    off = scorer.given - scorer.truth
    return {
        group: {
            "n": int(within.sum()),
            **scorer.figures(np.flatnonzero(within)),
            "bias": float(known_mean(off[within])),
        }
        for group in AGE_GROUPS
        if (within := groups == group).any()
    }


_ROWS: Final[dict[Kind, Callable[[Scorer], Rows]]] = {
    "classes": _class_rows,
    "deepfake": _class_rows,
    "years": _age_rows,
    "units": _unit_rows,
    "attributes": _attribute_rows,
}


def _retrieval(truth: np.ndarray, given: np.ndarray) -> dict[str, float]:
    hit, there, named = (float(x.sum()) for x in (truth & given, truth, given))
    return {
        "recall": _divide(hit, there),
        "precision": _divide(hit, named),
        "F1": _divide(2 * hit, there + named),
    }


def _divide(part: float, whole: float) -> float:
    return float(ratio(np.array(part), np.array(whole)))


def _share(yes: np.ndarray) -> float:
    return _divide(float(yes.sum()), yes.size)
