"""Is the probability worth what it says, and what would be answered by it alone?

A table of probabilities counts where it covers the answer: for units and attributes all of the
protocol's labels. Faces without such a table, which are mostly the unreadable answers, are left
out, so that these figures are of fewer faces than the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from eval.figures import CS_YEARS, Scorer
from eval.items import Item
from eval.protocols import Protocol, age_group
from facellava.metrics import binary_brier, brier, ece, reliability

Table = Mapping[str, float]


def calibration(protocol: Protocol, items: Sequence[Item]) -> dict[str, Any] | None:
    """How well confidence and correctness agree, for the "raw" and the "calibrated" tables.

    Each is None where no face has one, and all is None for years, where the probability of a
    single year says little. ECE takes the likelier answer's probability and whether it is right,
    in 15 equal-width bins (Guo et al., On Calibration of Modern Neural Networks, ICML 2017); for
    units and attributes each label is a case of its own, units only where coded. Brier: classes:
    mean squared distance to the right label, in [0, 2]; deepfake, units and attributes: mean
    squared error of the probability, in [0, 1].
    """
    if protocol.kind == "years":
        return None
    found = {
        "raw": _reading(protocol, [(item.truth, item.table) for item in items]),
        "calibrated": _reading(protocol, [(item.truth, item.calibrated) for item in items]),
    }
    return found if any(found.values()) else None


def by_probability(protocol: Protocol, items: Sequence[Item]) -> dict[str, Any] | None:
    """The figures where the likeliest label is the verdict; None where no face has a table.

    Returns:
        "n" faces with a table, their "figures", and "agreement": how often the verdict is the
        text's. Units and attributes agree label by label; years agree within five, as in CS5.
    """
    pairs = [
        (item, replace(item, given=likeliest(protocol, item.table)))
        for item in items
        if _covers(protocol, item.table)
    ]
    if not pairs:
        return None
    return {
        "n": len(pairs),
        "figures": Scorer(protocol, [likely for _, likely in pairs]).figures(),
        "agreement": float(
            np.mean([_agreement(protocol, item.given, likely.given) for item, likely in pairs])
        ),
    }


def likeliest(protocol: Protocol, table: Table) -> Any:
    """The verdict of a table, in the form of :class:`eval.items.Item`.

    classes and deepfake: the likeliest of all labels that the table holds; years: the expected
    value, rounded; units and attributes: each where its probability is at least 0.5.
    """
    if protocol.kind == "years":
        expected = sum(int(years) * share for years, share in table.items())
        return round(expected / sum(table.values()))
    if protocol.kind in ("units", "attributes"):
        return {name: table[name] >= 0.5 for name in protocol.labels}
    words = _words(protocol, table)
    return max(words, key=words.__getitem__)


def _covers(protocol: Protocol, table: Table) -> bool:
    if protocol.kind in ("units", "attributes"):
        return all(name in table for name in protocol.labels)
    return bool(table)


def _words(protocol: Protocol, table: Table) -> Table:
    """The table over the protocol's words; ages are summed where age groups are asked about."""
    if protocol.task != "age":
        return table
    groups: dict[str, float] = {}
    for years, share in table.items():
        group = age_group(int(years))
        groups[group] = groups.get(group, 0.0) + share
    return groups


def _agreement(protocol: Protocol, given: Any, likely: Any) -> float:
    if given is None:
        return 0.0
    if protocol.kind == "years":
        return float(abs(given - likely) <= CS_YEARS)
    if isinstance(likely, dict):
        return float(np.mean([given.get(name) == answer for name, answer in likely.items()]))
    return float(given == likely)


def _reading(protocol: Protocol, pairs: Sequence[tuple[Any, Table]]) -> dict[str, Any] | None:
    covered = [(truth, table) for truth, table in pairs if _covers(protocol, table)]
    if not covered:
        return None
    if protocol.kind == "classes":
        truths = [truth for truth, _ in covered]
        tables = [_words(protocol, table) for _, table in covered]
        answers = [max(table, key=table.__getitem__) for table in tables]
        confidence = [table[answer] for table, answer in zip(tables, answers, strict=True)]
        right = [answer == truth for answer, truth in zip(answers, truths, strict=True)]
        score = brier(truths, tables)
    else:
        cases = [case for truth, table in covered for case in _cases(protocol, truth, table)]
        yes, shares = [y for y, _ in cases], [share for _, share in cases]
        confidence = [max(share, 1 - share) for share in shares]
        right = [(share >= 0.5) == y for y, share in cases]
        score = binary_brier(yes, shares)
    return {
        "n": len(covered),
        "ECE": ece(confidence, right),
        "Brier": score,
        "bins": [asdict(each) for each in reliability(confidence, right)],
    }


def _cases(protocol: Protocol, truth: Any, table: Table) -> list[tuple[bool, float]]:
    """Of each yes-or-no question that the truth settles: the answer and its probability."""
    if protocol.kind == "deepfake":
        return [(truth == "fake", table.get("fake", 0.0))]
    return [(truth[name], table[name]) for name in protocol.labels if name in truth]
