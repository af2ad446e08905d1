"""Do the figures hold for everybody? Slices by group, and how far the groups lie apart.

The gaps between rates are those of Hardt, Price and Srebro, Equality of Opportunity in Supervised
Learning (NeurIPS 2016); `facellava.metrics` has them as plain functions for one yes-or-no label.

A gap is the largest minus the smallest of several noisy numbers, so it is above 0 even where the
groups are alike, and the more so the smaller they are and the more of them there are. Read it with
its interval, whose low end above 0 therefore proves nothing, and never without the groups' n.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eval.figures import Array, Scorer, draws, interval, known_mean, ratio
from eval.items import Item
from eval.protocols import AGE_GROUPS, SMALLER_IS_BETTER, Protocol

LEAST: Final = 30
RESAMPLES: Final = 500
TOO_FEW: Final = "too few"
OF_PICTURES: Final = frozenset({"method", "blend_ratio"})
"""Keys that say how a picture was made: such groups are owed no equal rates."""
MADE_BY: Final = {"gender": ("male",), "age": ("young",)}
"""CelebA's attributes that make groups."""
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)")


def slices(
    protocol: Protocol,
    items: Sequence[Item],
    *,
    least: int = LEAST,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """For each key of the items' groups, such as "gender": its groups and the gaps between them.

    A face that lacks the key is not in the slice. All values have a 95% bootstrap interval in which
    whole subjects are drawn.

    groups: n and the protocol's figures; a group of fewer than `least` faces has no figures and
    the note "too few". gaps, where at least two groups have figures: for each figure the best
    group's minus the worst group's, and which that is; and, but for years, with l a label, a and
    b groups, and M the largest over the labels (units and attributes: the mean for the last two):

    - demographic_parity: max over l, a, b of P(answer l | a) - P(answer l | b)
    - equal_opportunity: M over l of max over a, b of P(answer l | truth l, a) - P(... | b)
    - equalized_odds: the larger of equal_opportunity and of the same for P(answer l | not l, a)

    Of deepfake the one label is "fake". A rate over fewer than `least` faces of a group does not
    count; where that leaves no two groups to compare, the gap is NaN. An unreadable answer is
    no label. Groups of pictures (OF_PICTURES) have no gaps of rates, and a label that makes the
    groups (MADE_BY) is in none. "label" is the one with the largest gap, None for means; "worst" is
    the group that is worst off there, None for demographic parity, which does not say who is
    wronged.

    Returns:
        {"gender": {"groups": {"female": {"n", "figures": {"WAR": {"value", "low", "high"}}}},
        "gaps": {"WAR": {"value", "low", "high", "worst"}, "equal_opportunity": {..., "label"}}}}
    """
    keys = sorted({key for item in items for key in item.groups})
    members_of = {key: _members(items, key) for key in keys}
    large = {
        key: {
            name: _Group(protocol, items, rows, least)
            for name, rows in members.items()
            if len(rows) >= least
        }
        for key, members in members_of.items()
    }
    samples: dict[_Group, list[_Measured]] = {
        group: [] for groups in large.values() for group in groups.values()
    }
    for weights in draws(items, resamples, seed):
        for group, measured in samples.items():
            measured.append(group.measure(weights))
    spread = {group: _join(measured) for group, measured in samples.items()}
    return {
        key: {
            "groups": {
                name: _described(rows, large[key].get(name), spread)
                for name, rows in members.items()
            },
            "gaps": _gaps(protocol, key, large[key], spread),
        }
        for key, members in members_of.items()
    }


def _members(items: Sequence[Item], key: str) -> dict[str, NDArray[np.intp]]:
    """The rows of each group, by name; groups of ages from young to old, others as people count."""
    names = np.array([item.groups.get(key, "") for item in items])
    found = {str(name) for name in np.unique(names) if name}
    ages = [group for group in AGE_GROUPS if group in found]
    ordered = [*ages, *sorted(found - {*ages}, key=_as_people_count)]
    return {name: np.flatnonzero(names == name) for name in ordered}


def _as_people_count(name: str) -> list[str | float]:
    """Sorts "mst-2" before "mst-10", and "0.25" before "0.5"."""
    parts = _NUMBER.split(name)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


@dataclass(frozen=True)
class _Measured:
    """What R resamples of a group say.

    Attributes:
        figures: (R, figures).
        rates: (3, R, labels): how often a label is answered, how often it is to those who have it,
            how often it is not to those who have it not; NaN where too few faces are counted.
    """

    figures: Array
    rates: Array


class _Group:
    """The faces of one group, counted once."""

    def __init__(
        self, protocol: Protocol, items: Sequence[Item], rows: NDArray[np.intp], least: int
    ) -> None:
        self.rows = rows
        self.scorer = Scorer(protocol, [items[row] for row in rows])
        truth, answered = _label_cases(self.scorer)
        asked = [truth >= 0, truth == 1, truth == 0]
        self.asked = np.stack(asked).astype(float)
        self.hits = self.asked * np.stack([answered, answered, ~answered])
        self.enough = self.asked.sum(axis=1) >= least
        whole = np.zeros(len(items))
        whole[rows] = 1
        self.whole = self.measure(whole[None])

    def measure(self, weights: Array) -> _Measured:
        """Figures and rates under weights of all faces, (R, n)."""
        own = weights[:, self.rows]
        rates = ratio(own @ self.hits, own @ self.asked)
        rates[~np.broadcast_to(self.enough[:, None], rates.shape)] = np.nan
        return _Measured(self.scorer.weighted(own), rates)


def _label_cases(scorer: Scorer) -> tuple[NDArray, NDArray[np.bool_]]:
    """Each label as yes or no: truth (n, labels) 1, 0 or -1 for unknown, and whether answered."""
    if scorer.protocol.kind == "years":
        return np.empty((len(scorer.items), 0)), np.empty((len(scorer.items), 0), dtype=bool)
    if scorer.truth.ndim == 2:
        return scorer.truth, scorer.given == 1
    places = np.array([scorer.protocol.labels.index(label) for label in _labels(scorer.protocol)])
    return (scorer.truth[:, None] == places).astype(int), scorer.given[:, None] == places


def _labels(protocol: Protocol) -> tuple[str, ...]:
    return ("fake",) if protocol.kind == "deepfake" else protocol.labels


def _join(measured: Sequence[_Measured]) -> _Measured:
    return _Measured(
        np.concatenate([each.figures for each in measured]),
        np.concatenate([each.rates for each in measured], axis=1),
    )


def _described(
    rows: NDArray, group: _Group | None, spread: dict[_Group, _Measured]
) -> dict[str, Any]:
    if group is None:
        return {"n": len(rows), "figures": {}, "note": TOO_FEW}
    names, values = group.scorer.protocol.figures, group.whole.figures[0]
    return {
        "n": len(rows),
        "figures": {
            name: {"value": float(value), **interval(samples)}
            for name, value, samples in zip(names, values, spread[group].figures.T, strict=True)
        },
    }


def _gaps(
    protocol: Protocol, key: str, groups: dict[str, _Group], spread: dict[_Group, _Measured]
) -> dict[str, dict[str, Any]]:
    if len(groups) < 2:
        return {}
    names = list(groups)
    figures = np.stack([group.whole.figures for group in groups.values()])
    drawn = np.stack([spread[group].figures for group in groups.values()])
    gaps: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(protocol.figures):
        sign = -1 if name in SMALLER_IS_BETTER else 1
        gaps[name] = {
            "value": float(_apart(figures[..., place])[0]),
            **interval(_apart(drawn[..., place])),
            "worst": _lowest(names, sign * figures[:, 0, place]),
        }
    if protocol.kind == "years" or key in OF_PICTURES:
        return gaps
    # Where the groups are made by a label, its answers differ because the truth does.
    own = [label not in MADE_BY.get(key, ()) for label in _labels(protocol)]
    labels = [label for label, kept in zip(_labels(protocol), own, strict=True) if kept]
    rates = np.stack([group.whole.rates[..., own] for group in groups.values()])
    drawn = np.stack([spread[group].rates[..., own] for group in groups.values()])
    over = known_mean if protocol.kind in ("units", "attributes") else _largest
    parity, chance, calm = (
        _rate_gap(names, labels, rates[:, place], drawn[:, place], summary)
        for place, summary in enumerate((_largest, over, over))
    )
    larger = calm if calm.value > chance.value else chance
    odds = replace(
        larger,
        value=float(np.maximum(chance.value, calm.value)),
        samples=np.maximum(chance.samples, calm.samples),
    )
    return gaps | {
        "demographic_parity": replace(parity, worst=None).described(),
        "equal_opportunity": chance.described(),
        "equalized_odds": odds.described(),
    }


@dataclass(frozen=True)
class _RateGap:
    """How far groups lie apart in a rate, over all labels: on all faces, and in R resamples."""

    value: float
    samples: Array
    worst: str | None
    label: str | None

    def described(self) -> dict[str, Any]:
        spread = interval(self.samples)
        return {"value": self.value, **spread, "worst": self.worst, "label": self.label}


def _rate_gap(
    names: Sequence[str],
    labels: Sequence[str],
    rates: Array,
    drawn: Array,
    over: Callable[[Array], Array],
) -> _RateGap:
    """The gap of one rate.

    Args:
        names: of the G groups.
        labels: L of them.
        rates: (G, 1, L), the higher the better for a group.
        drawn: (G, R, L), the same in R resamples.
        over: from the gaps of the labels to one, over the last axis.
    """
    apart = _apart(rates)[0]
    value, samples = float(over(apart)), over(_apart(drawn))
    if np.isnan(value):
        return _RateGap(value, samples, None, None)
    if over is known_mean:
        return _RateGap(value, samples, _lowest(names, known_mean(rates[:, 0])), None)
    label = int(np.nanargmax(apart))
    return _RateGap(value, samples, _lowest(names, rates[:, 0, label]), labels[label])


def _apart(values: Array) -> Array:
    """Largest minus smallest over the first axis (groups); NaN where fewer than two are known."""
    known = ~np.isnan(values)
    high = np.where(known, values, -np.inf).max(axis=0)
    low = np.where(known, values, np.inf).min(axis=0)
    enough = known.sum(axis=0) > 1
    return np.subtract(high, low, out=np.full(high.shape, np.nan), where=enough)


def _largest(values: Array) -> Array:
    """Largest over the last axis of what is not NaN; NaN where all is."""
    found = np.where(np.isnan(values), -np.inf, values).max(axis=-1)
    return np.where(np.isneginf(found), np.nan, found)


def _lowest(names: Sequence[str], values: Array) -> str | None:
    """Who has the smallest value; None where none is known."""
    return None if np.isnan(values).all() else names[int(np.nanargmin(values))]
