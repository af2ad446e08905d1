"""Results of a run that never was, for the tests of reports: scored like any other."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.items import Item
from eval.protocols import PROTOCOLS, Protocol
from eval.results import clean, score

ATTACK = '<img src=x onerror="alert(1)"> [win](https://evil.test) | `x` $\\frac{ "</script>'
PER_PROTOCOL = 240
PEOPLE = {
    "gender": ("female", "male"),
    "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "White"),
}

EXTRAS: dict[str, Any] = {
    "claims": {"n_answers": 240, "supported": 300, "contradicted": 60, "unmeasurable": 40,
               "distinct_per_answer": 1.667,
               "on_other_faces": {"supported": 200, "contradicted": 180, "unmeasurable": 20}},
    "judged": {"judge": "gpt-4o", "n": 100, "unjudged": {"refused": 2},
               "agreement": {"completeness": {"equal": 0.5, "within_one": 0.9, "kappa": 0.71,
                                              "shift": -0.25}},
               "ratings": {"reason_media": {"mean": 6.51, "low": 6.2, "high": 6.83},
                           "reason_label": {"mean": 7.0, "low": 6.7, "high": 7.25},
                           "completeness": {"mean": 5.5, "low": None, "high": None}}},
    "forms": {"n": 60, "unread": {"The answer is not whole JSON": 2},
              "same": {"value": 0.95, "low": 0.8633, "high": 0.9829},
              "json_read": {"value": 0.9667, "low": 0.8864, "high": 0.9908},
              "prose_read": {"value": 1.0, "low": 0.9398, "high": 1.0},
              "json_cut": {"value": 0.0333, "low": 0.0092, "high": 0.1136},
              "prose_cut": {"value": 0.0, "low": 0.0, "high": 0.0602}},
    "faithfulness": {
        "occlude": {"n": 90, "method": "occlude", "share_larger": 0.64,
                    "cited_fall": {"value": 0.12, "low": 0.1, "high": 0.14},
                    "control_fall": {"value": 0.05, "low": 0.03, "high": 0.07},
                    "difference": {"value": 0.07, "low": 0.04, "high": 0.1}}},
    "framing": {
        "n": 60,
        "as_it_is": {"figures": {"WAR": {"value": 0.5, "low": 0.38, "high": 0.62},
                                 "UAR": {"value": 0.4, "low": 0.29, "high": 0.51}}},
        "ways": {
            "in_a_photo": {"found": {"value": 0.95, "low": 0.8633, "high": 0.9829},
                           "same": {"value": 0.9123, "low": 0.811, "high": 0.962},
                           "unreadable": 1,
                           "figures": {"WAR": {"first": 0.5, "second": 0.48, "difference": -0.02,
                                               "low": -0.05, "high": 0.01, "p": 0.2},
                                       "UAR": {"first": 0.4, "second": 0.4, "difference": 0.0,
                                               "low": -0.02, "high": 0.02, "p": 1.0}}},
            "far_away": {"found": {"value": 0.0, "low": 0.0, "high": 0.0602},
                         "same": {"value": None, "low": None, "high": None},
                         "unreadable": 0, "figures": {}}}},
    "landmarks": {
        "n": 300,
        "as_they_are": {"unreadable": 0,
                        "figures": {"WAR": {"value": 0.5, "low": 0.44, "high": 0.56},
                                    "UAR": {"value": 0.4, "low": 0.34, "high": 0.46}}},
        "shuffled": {"unreadable": 2,
                     "figures": {"WAR": {"value": 0.45, "low": 0.39, "high": 0.51},
                                 "UAR": {"value": 0.38, "low": None, "high": None}},
                     "change": {"WAR": {"difference": -0.05, "low": -0.081, "high": -0.02,
                                        "p": 0.002},
                                "UAR": {"difference": -0.02, "low": None, "high": None,
                                        "p": None}}},
        "removed": {"unreadable": 30,
                    "figures": {"WAR": {"value": 0.3, "low": 0.25, "high": 0.35},
                                "UAR": {"value": 0.2, "low": 0.15, "high": 0.25}},
                    "change": {"WAR": {"difference": -0.2, "low": -0.25, "high": -0.15, "p": 0.002},
                               "UAR": {"difference": -0.2, "low": -0.25, "high": -0.15,
                                       "p": 0.002}}}},
}  # fmt: skip


def usual_results() -> dict[str, Any]:
    """All kinds of protocols, folds, an invalid one, one without probabilities, hostile words."""
    keys = ("dfew/5-folds", "disfa/3-folds", "celeba/test", "utkface/21-60", "real_fake_faces/test")
    blocks = {key: scored_block(key, seed) for seed, key in enumerate(keys)}
    blocks["dfew/5-folds"] |= {"trained_on": "no", **EXTRAS}
    blocks["celeba/test"]["trained_on"] = "these faces"
    blocks["utkface/21-60"] |= {"trained_on": "other splits", "left_out": {ATTACK: 3}}
    hostile = blocks["real_fake_faces/test"]
    hostile["worst"][0] |= {"face_id": f'"{ATTACK}', "text": ATTACK * 200}
    hostile["unreadable"]["reasons"] = {ATTACK: 2}
    hostile["fairness"] = {
        ATTACK: {
            "groups": {ATTACK: {"n": 40, "figures": hostile["figures"]},
                       "few": {"n": 3, "figures": {}, "note": "too few"}},
            "gaps": {},
        }
    }  # fmt: skip
    return results_of(blocks)


def results_of(blocks: dict[str, Any]) -> dict[str, Any]:
    """Results of these protocols, by key."""
    return {
        "version": 1,
        "made": {
            "at": "2026-11-26T08:00:00Z",
            "facellava": "0.1.0",
            "commit": "15b6d4b15b6d4b15b6d4b15b6d4b15b6d4b15b6d",
            "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 7.8, "gpu": None,
                        "python": "3.13.5", "torch": "2.13.0"},
        },
        "engine": {"kind": "model", "name": "nano", "weights_sha256": "ab" * 32,
                   "prompt": "question", "label_only": False},
        "settings": {"limit": 240, "seed": 0, "fold": None},
        "protocols": blocks,
    }  # fmt: skip


def written_block() -> dict[str, Any]:
    """A protocol's block with figures that were made up."""
    war = {"value": 0.5, "low": 0.45, "high": 0.55}
    uar = {"value": 0.4, "low": 0.35, "high": 0.45}
    none = {"value": None, "low": None, "high": None, "worst": None, "label": None}
    chance = {"WAR": 0.2, "UAR": 0.1429}
    bins = [{"low": 0.4, "high": 0.4667, "confidence": 0.45, "accuracy": 0.5, "count": 1176}]
    return {
        "title": "DFEW, five folds",
        "source": "dfew",
        "task": "expression",
        "kind": "classes",
        "question": "What is the expression of this face?",
        "note": "single-labelled clips",
        "labels": ["happiness", "sadness"],
        "folds": 2,
        "fold": None,
        "published": "dfew",
        "data_sha256": "cd" * 32,
        "left_out": {"no face": 5},
        "trained_on": "no",
        "n": 1200, "official_n": None,
        "n_subjects": 30,
        "unreadable": {"count": 24, "share": 0.02, "rule": "An unreadable answer counts as wrong.",
                       "not_our_grammar": 40, "reasons": {"refused": 20, "empty": 4}},
        "figures": {"WAR": war, "UAR": uar},
        "baselines": {
            "majority": {"answer": "happiness", "figures": {"WAR": 0.3, "UAR": 0.1429}},
            "random": {"figures": chance},
        },
        "folds_figures": {"1": {"WAR": 0.53, "UAR": 0.43}, "2": {"WAR": 0.48, "UAR": 0.38}},
        "mean_over_folds": {"WAR": 0.505, "UAR": 0.405},
        "details": {"happiness": {"n": 360, "recall": 0.9, "precision": None},
                    "sadness": {"n": 840, "recall": 0.25, "precision": 0.7}},
        "confusion": {"labels": ["happiness", "sadness"],
                      "columns": ["happiness", "sadness", "unreadable"],
                      "counts": [[324, 30, 6], [612, 210, 18]]},
        "by_probability": {"n": 1176, "figures": {"WAR": 0.51, "UAR": 0.41}, "agreement": 0.97},
        "calibration": {"raw": {"n": 1176, "ECE": 0.12, "Brier": 0.6, "bins": bins},
                        "calibrated": {"n": 1176, "ECE": 0.04, "Brier": 0.55, "bins": bins}},
        "fairness": {
            "gender": {
                "groups": {
                    "female": {"n": 700, "figures": {
                        "WAR": {"value": 0.52, "low": 0.47, "high": 0.57},
                        "UAR": {"value": 0.42, "low": 0.37, "high": 0.47}}},
                    "male": {"n": 497, "figures": {"WAR": war | {"value": 0.47}, "UAR": uar}},
                    "unknown": {"n": 3, "figures": {}, "note": "too few"},
                },
                "gaps": {"WAR": {"value": 0.05, "low": 0.01, "high": 0.09, "worst": "male"},
                         "equalized_odds": none},
            }
        },
        "worst": [{"face_id": "dfew-1", "truth": "sadness", "given": "happiness",
                   "probability": 0.981, "text": "Expression: happiness."}],
        **EXTRAS,
    }  # fmt: skip


def scored_block(key: str, seed: int) -> dict[str, Any]:
    """A protocol's block, from answers that are mostly right."""
    protocol, rng = PROTOCOLS[key], np.random.default_rng(seed)
    items = [_item(protocol, rng, place) for place in range(PER_PROTOCOL)]
    block = score(protocol, items)
    extra = {"claims": None, "judged": None, "faithfulness": None}
    more = {"data_sha256": "cd" * 32, "left_out": {}, "fold": None, "trained_on": "unknown"}
    return clean(block | more | extra)


def _item(protocol: Protocol, rng: np.random.Generator, place: int) -> Item:
    groups = {key: str(rng.choice(names)) for key, names in PEOPLE.items()}
    truth, given, table = _answer(protocol, rng)
    readable = rng.random() > 0.04
    with_table = readable and protocol.key != "real_fake_faces/test"
    return Item(
        f"{protocol.source}-{place}",
        truth,
        given if readable else None,
        text=f"{protocol.task.capitalize()}: {given}. The lip corners are raised.",
        problem="" if readable else "no statement was found",
        strict=readable,
        table=table if with_table else {},
        calibrated={} if not with_table else _cooler(table),
        fold=place % protocol.folds + 1 if protocol.folds else None,
        subject=f"p{place % 40}",
        groups=groups | ({"age": "20-29" if place else "70+"}),
    )


def _answer(protocol: Protocol, rng: np.random.Generator) -> tuple[Any, Any, dict[str, float]]:
    right = rng.random() < 0.7
    if protocol.kind == "years":
        age = int(rng.integers(21, 61))
        return age, age + int(rng.normal(0, 5)), {}
    if protocol.kind in ("units", "attributes"):
        rates = np.linspace(0.05, 0.9, len(protocol.labels))
        truth = {n: bool(rng.random() < r) for n, r in zip(protocol.labels, rates, strict=True)}
        table = {n: abs(float(rng.beta(1, 4)) - there) for n, there in truth.items()}
        return truth, {n: share >= 0.5 for n, share in table.items()}, table
    labels = protocol.labels
    truth = str(rng.choice(labels, p=_shares(len(labels))))
    given = truth if right else str(rng.choice(labels))
    sure = float(rng.uniform(0.5, 0.98))
    rest = (1 - sure) / (len(labels) - 1)
    return truth, given, {label: sure if label == given else rest for label in labels}


def _cooler(table: dict[str, float]) -> dict[str, float]:
    """Less sure of everything."""
    return {label: 0.7 * share + 0.3 / len(table) for label, share in table.items()}


def _shares(count: int) -> np.ndarray:
    return np.arange(count, 0, -1) / (count * (count + 1) / 2)
