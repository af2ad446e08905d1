"""From answers to figures: all that a report shows, as one table that other programs read."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eval import calibration, details, fairness, figures
from eval.faces_table import FacesTable
from eval.items import Item
from eval.protocols import Protocol
from eval.run import items_of
from eval.run_folder import RunFolder, read_json, write_json
from eval.seen import seen_in_training
from facellava.corpus import read_manifest
from facellava.errors import FacellavaError
from facellava.tasks.closed_question import question_in

logger = logging.getLogger(__name__)

VERSION: Final = 1
EXTRAS: Final = ("claims", "judged", "forms", "landmarks", "framing")
FAITHFULNESS: Final = ("occlude", "move")
WORST: Final = 12
_NEEDED: Final = {
    "claims": {"n_answers", "supported", "contradicted", "unmeasurable", "on_other_faces"},
    "judged": {"judge", "n", "ratings", "agreement", "unjudged"},
    "forms": {"n", "json_read", "prose_read", "same", "json_cut", "prose_cut"},
    "landmarks": {"n", "as_they_are", "shuffled", "removed"},
    "framing": {"n", "as_it_is", "ways"},
    "faithfulness": {"method", "n", "cited_fall", "control_fall", "difference", "share_larger"},
}
_PLACES: Final = 4


def score_run(run: RunFolder) -> dict[str, Any]:
    """Score every protocol of a run from its files, and write results.json; no model is needed.

    Raises:
        FacellavaError: answers are missing, or of other data or another protocol.
    """
    facts = run.facts()
    found: dict[str, Any] = {
        "version": VERSION,
        "made": facts["made"],
        "engine": facts["engine"],
        "settings": facts["settings"],
        "protocols": {},
    }
    for key, (protocol, table) in run.protocols().items():
        items = items_of(protocol, table, run.answers(protocol))
        block = score(protocol, items)
        prompt = facts["engine"].get("prompt", "question")
        block["question"] = question_in(prompt, protocol.task, protocol.labels)
        block["data_sha256"] = table.data_sha256
        block["left_out"] = _left_out(table)
        block["fold"] = table.fold
        block["trained_on"] = seen_in_training(protocol, facts.get("training"), table.fold)
        for name in EXTRAS:
            block[name] = _extra(run, protocol, name, len(items))
        methods = {
            name: _extra(run, protocol, f"faithfulness-{name}", len(items)) for name in FAITHFULNESS
        }
        block["faithfulness"] = {name: found for name, found in methods.items() if found} or None
        found["protocols"][key] = block
    found = clean(found)
    write_json(run.path / "results.json", found)
    return found


def _extra(run: RunFolder, protocol: Protocol, name: str, answers: int) -> dict[str, Any] | None:
    path = run.extra(protocol, name)
    if not path.is_file():
        return None
    found = read_json(path)
    if not _NEEDED[name.partition("-")[0]] <= found.keys():
        raise FacellavaError(
            f"'{path}' is not as it was written; delete it, or make it again with "
            f"`{_command(name)}`."
        )
    of = found["n_answers" if name == "claims" else "n"]
    if of > answers:
        # The protocol had more faces when it was made.
        logger.warning(
            "'%s' is left out: it tells of %d answers where %s has %d; make it again with `%s`.",
            path, of, protocol.key, answers, _command(name),
        )  # fmt: skip
        return None
    return found


def _command(extra: str) -> str:
    """What writes an extra."""
    name, _, method = extra.partition("-")
    words = {"claims": "verify", "judged": "judge"}.get(name, name)
    return f"facellava eval {words}" + (f" --method {method}" if method else "")


def score(protocol: Protocol, items: Sequence[Item]) -> dict[str, Any]:
    """The figures of one protocol's answers.

    Raises:
        BadSample: there are no items.
    """
    scorer = figures.Scorer(protocol, items)
    answer, simplest = figures.majority(protocol, items)
    by_fold, mean_over_folds = figures.folds(protocol, items)
    subjects = {item.subject for item in items if item.subject is not None}
    return {
        "title": protocol.title,
        "source": protocol.source,
        "task": protocol.task,
        "kind": protocol.kind,
        "question": protocol.question,
        "note": protocol.note,
        "labels": list(protocol.labels),
        "folds": protocol.folds,
        "published": protocol.published,
        "n": len(items),
        "official_n": protocol.size,
        "n_subjects": len(subjects) or None,
        "unreadable": _unreadable(protocol, items),
        "figures": figures.intervals(scorer),
        "baselines": {
            "majority": {"answer": answer, "figures": simplest},
            "random": {"figures": figures.random_figures(protocol, items)},
        },
        "folds_figures": by_fold,
        "mean_over_folds": mean_over_folds,
        "details": details.details(protocol, items),
        "confusion": details.confusion(protocol, items),
        "by_probability": calibration.by_probability(protocol, items),
        "calibration": calibration.calibration(protocol, items),
        "fairness": fairness.slices(protocol, items),
        "worst": _worst(protocol, items),
    }


def _unreadable(protocol: Protocol, items: Sequence[Item]) -> dict[str, Any]:
    reasons = Counter(item.problem for item in items if item.given is None)
    count = reasons.total()
    return {
        "count": count,
        "share": count / len(items),
        "rule": figures.FAILURE_RULE[protocol.kind],
        "not_our_grammar": sum(not item.strict for item in items),
        "reasons": dict(reasons.most_common()),
    }


def _worst(protocol: Protocol, items: Sequence[Item]) -> list[dict[str, Any]]:
    """The surest mistakes; of ages the farthest."""

    def size(item: Item) -> float:
        if protocol.kind == "years":
            return float(abs(item.given - item.truth))
        if protocol.kind in ("units", "attributes"):
            return float(sum(item.given[name] != there for name, there in item.truth.items()))
        return item.table.get(str(item.given), 0.0)

    wrong = [item for item in items if item.given is not None and item.given != item.truth]
    return [
        {
            "face_id": item.face_id,
            "truth": item.truth,
            "given": item.given,
            "probability": item.table.get(str(item.given)),
            "text": item.text,
        }
        for item in sorted(wrong, key=size, reverse=True)[:WORST]
    ]


def _left_out(table: FacesTable) -> dict[str, int]:
    dropped: Mapping[str, Mapping[str, Any]] = read_manifest(table.folder).get("dropped", {})
    counts = Counter[str]()
    for reasons in dropped.values():
        counts.update({reason: found["count"] for reason, found in reasons.items()})
    return dict(sorted(counts.items()))


def clean(value: Any) -> Any:
    """Floats at four places; JSON has no NaN, so a figure that cannot be had is null."""
    if isinstance(value, float):
        return round(value, _PLACES) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each) for each in value]
    return value
