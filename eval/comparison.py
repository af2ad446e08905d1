"""Is one run better than another, or was it luck? Two runs over the same faces, face by face.

Both runs are drawn together in the bootstrap, so that hard faces are hard for both. Nothing is
corrected for looking at many figures: of twenty that do not differ, one has p below 0.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.stats import binomtest, wilcoxon

from eval.figures import RESAMPLES, Array, Scorer, draws, interval
from eval.items import Item
from eval.protocols import SMALLER_IS_BETTER, Protocol
from eval.run import items_of
from eval.run_folder import RunFolder
from facellava.errors import FacellavaError

MCNEMAR: Final = "McNemar, exact"
WILCOXON: Final = "Wilcoxon signed-rank"


def compare_runs(first: RunFolder, second: RunFolder) -> dict[str, Any]:
    """:func:`compare` for every protocol of both runs.

    Returns:
        {"runs": the two names, "protocols": {key: as of :func:`compare`}, "in_one_only": keys}

    Raises:
        FacellavaError: the runs share no protocol, or one of them is of different data in the two.
    """
    one, two = first.protocols(), second.protocols()
    shared = [key for key in one if key in two]
    if not shared:
        raise FacellavaError(
            f"'{first.path}' and '{second.path}' share no protocol; compare runs that asked the "
            "same."
        )
    for key in shared:
        if one[key][1].data_sha256 != two[key][1].data_sha256:
            raise FacellavaError(
                f"The faces of {key} are not the same in '{first.path}' and '{second.path}'; run "
                "both on the same data."
            )
    names = [run.path.name for run in (first, second)]
    return {
        "runs": names if names[0] != names[1] else [str(run.path) for run in (first, second)],
        "protocols": {
            key: compare(
                one[key][0],
                items_of(*one[key], first.answers(one[key][0])),
                items_of(*two[key], second.answers(two[key][0])),
            )
            for key in shared
        },
        "in_one_only": sorted(one.keys() ^ two.keys()),
    }


def compare(
    protocol: Protocol,
    first: Sequence[Item],
    second: Sequence[Item],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Both runs' figures and their differences, second minus first, over the faces of both.

    The interval is the 95% percentile bootstrap of the difference, the same faces (whole subjects
    where there are any) drawn for both runs; p is two-sided, twice the smaller share of resamples
    on one side of 0. The test counts faces, whoever they show: for classes and deepfake McNemar's
    exact test on the faces that one run alone gets right; for years Wilcoxon's signed-rank test on
    the absolute errors of the faces that both answer readably (while each run's MAE is over its
    own readable answers). Units and attributes have none: the labels of a face are not independent.

    Returns:
        {"n", "n_subjects" or None, "only_first" and "only_second" (faces left out),
        "figures": {"WAR": {"first", "second", "difference", "low", "high", "p"}},
        "test": {"name", "p", "n", "first_only", "second_only"} or None}; n is the faces where
        the runs differ, the other two on how many of them one run alone is right or is nearer.

    Raises:
        FacellavaError: no face is in both, or a face has another truth in the second.
    """
    mine, yours = _pairs(protocol, first, second)
    one, two = Scorer(protocol, mine), Scorer(protocol, yours)
    samples = np.concatenate(
        [two.weighted(weights) - one.weighted(weights) for weights in draws(mine, resamples, seed)]
    )
    before, after = one.figures(), two.figures()
    subjects = {item.subject for item in mine if item.subject is not None}
    return {
        "n": len(mine),
        "n_subjects": len(subjects) or None,
        "only_first": len(first) - len(mine),
        "only_second": len(second) - len(mine),
        "figures": {
            name: {
                "first": before[name],
                "second": after[name],
                "difference": after[name] - before[name],
                **interval(column),
                "p": _two_sided(column),
            }
            for name, column in zip(protocol.figures, samples.T, strict=True)
        },
        "test": _test(one, two),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """What :func:`compare_runs` found as a Markdown table, a row a figure."""
    one, two = found["runs"]
    lines = [
        f"| Protocol | Faces | Figure | {one} | {two} | {two} - {one} (95%) | p | Paired test |",
        "|---|--:|---|--:|--:|--:|--:|---|",
    ]
    for key, each in found["protocols"].items():
        test = _in_words(each["test"], one, two)
        for name, row in each["figures"].items():
            note = " (smaller is better)" if name in SMALLER_IS_BETTER else ""
            spread = f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
            lines.append(
                f"| {key} | {each['n']} | {name}{note} | {row['first']:.4f} "
                f"| {row['second']:.4f} | {spread} | {row['p']:.3f} | {test} |"
            )
            test = ""  # said once a protocol
    if found["in_one_only"]:
        lines += ["", f"In one run only: {', '.join(found['in_one_only'])}."]
    return "\n".join(lines) + "\n"


def _pairs(
    protocol: Protocol, first: Sequence[Item], second: Sequence[Item]
) -> tuple[list[Item], list[Item]]:
    """The faces of both runs, in the first one's order."""
    others = {item.face_id: item for item in second}
    mine = [item for item in first if item.face_id in others]
    if not mine:
        raise FacellavaError(
            f"The runs share no face of {protocol.key}; run both on the same data."
        )
    for item in mine:
        if others[item.face_id].truth != item.truth:
            raise FacellavaError(
                f"Face {item.face_id} of {protocol.key} has two truths in the two runs; run both "
                "on the same data."
            )
    return mine, [others[item.face_id] for item in mine]


def _two_sided(samples: Array) -> float:
    """The level at which the percentile interval just touches 0; by counting one more, never 0."""
    known = samples[~np.isnan(samples)]
    if not known.size:
        return float("nan")
    tail = min(np.sum(known <= 0), np.sum(known >= 0))
    return float(min(1.0, 2 * (tail + 1) / (known.size + 1)))


def _test(one: Scorer, two: Scorer) -> dict[str, Any] | None:
    kind = one.protocol.kind
    if kind in ("units", "attributes"):
        return None
    if kind == "years":
        return _wilcoxon(np.abs(two.given - two.truth) - np.abs(one.given - one.truth))
    right, righter = one.given == one.truth, two.given == two.truth
    lost, won = int((right & ~righter).sum()), int((righter & ~right).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return {"name": MCNEMAR, "p": p, "n": won + lost, "first_only": lost, "second_only": won}


def _wilcoxon(change: Array) -> dict[str, Any]:
    known = change[~np.isnan(change)]
    moved = known[known != 0]
    p = float(wilcoxon(moved).pvalue) if moved.size else 1.0
    return {
        "name": WILCOXON,
        "p": p,
        "n": int(moved.size),
        "first_only": int((moved > 0).sum()),
        "second_only": int((moved < 0).sum()),
    }


def _in_words(test: Mapping[str, Any] | None, one: str, two: str) -> str:
    if test is None:
        return ""
    verb = "nearer" if test["name"] == WILCOXON else "right"
    return (
        f"{test['name']}: p {test['p']:.3f}; only {one} {verb} on {test['first_only']} faces, "
        f"only {two} on {test['second_only']}"
    )
