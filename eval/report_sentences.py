"""What a report says in words: about the run, and about each protocol of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eval.report_tables import SEEN, Block, number, one_line, percent, spread, words

CLAIM_VERDICTS: Final = ("supported", "contradicted", "unmeasurable")
_HIDDEN: Final = {
    "occlude": "are hidden",
    "move": "have their landmarks moved",
}
_NOT_CHANGED: Final = {
    "clips": "clips",
    "unreadable": "unreadable",
    "without_regions": "citing no region",
    "no_control": "with no others as large to compare with",
}
_SHORT_HASH: Final = 12


def run_facts(results: Mapping[str, Any]) -> dict[str, str]:
    """What was measured, when, by which code and where; name to value."""
    made, engine, machine = results["made"], results["engine"], results["made"]["machine"]
    facts = {"Model": f"{one_line(engine['name'])} ({one_line(engine['kind'])})"}
    if engine.get("weights_sha256"):
        facts["Weights (SHA-256)"] = one_line(engine["weights_sha256"])
    prompt = {"question": "the bare question", "closed": "the question with its labels"}
    facts["Asked"] = prompt.get(engine["prompt"], one_line(engine["prompt"]))
    if engine.get("label_only"):
        facts["Asked"] += "; answers end with the verdict, without reasons"
    elif engine.get("free_reasons") is False:
        facts["Asked"] += "; reasons say nothing that the face's measurements do not support"
    limit = results.get("settings", {}).get("limit")
    if limit:
        seed = results["settings"].get("seed")
        facts["Sample"] = f"at most {limit:,} faces of each part, chosen by seed {seed}"
    facts["Date"] = one_line(made["at"])
    commit = f", commit {one_line(made['commit'])}" if made["commit"] else ""
    facts["Code"] = f"facellava {one_line(made['facellava'])}{commit}"
    parts = (
        machine["cpu"],
        f"{machine['cores']} cores",
        f"{machine['memory_gib']:g} GiB of memory",
        machine["gpu"] or "no GPU",
        f"Python {machine['python']}",
        f"torch {machine['torch']}",
    )
    facts["Machine"] = ", ".join(one_line(part) for part in parts)
    return facts


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What makes figures worthless, a sentence each."""
    return [
        f"INVALID: {one_line(block['title'])} ({key}): {SEEN['these faces'][1]}, so its figures "
        "measure memory and must not be quoted or compared."
        for key, block in results["protocols"].items()
        if block["trained_on"] == "these faces"
    ]


def protocol_facts(block: Block) -> dict[str, str]:
    """What was asked about whom, and what was left out; name to value."""
    people = f" of {block['n_subjects']:,} people" if block["n_subjects"] else ""
    facts = {
        "Question": one_line(block["question"]),
        "Faces": f"{block['n']:,}{people}",
    }
    if block["official_n"] and block["n"] != block["official_n"]:
        facts["Faces"] += f"; the publisher's part has {block['official_n']:,}"
    if block.get("fold"):
        facts["Faces"] += f", of fold {block['fold']} alone"
    setting, reason = SEEN[block["trained_on"]]
    facts["Training"] = f"{setting}: {reason}"
    facts["Majority answer"] = _answer(block["baselines"]["majority"]["answer"])
    facts["Unreadable"] = _unreadable(block)
    if block["left_out"]:
        facts["Left out"] = _counts(block["left_out"])
    if block["note"]:
        facts["Note"] = one_line(block["note"])
    facts["Data (SHA-256)"] = one_line(block["data_sha256"])[:_SHORT_HASH]
    return facts


def protocol_sentences(block: Block) -> list[str]:
    """Calibration, claims and what later commands found out, a sentence or two each."""
    found = (
        _likeliest(block),
        _calibration(block),
        _claims(block),
        _forms(block),
        *(_faithfulness(found) for found in (block.get("faithfulness") or {}).values()),
        _agreement(block),
    )
    return [each for each in found if each]


def _answer(answer: Any) -> str:
    """The best constant answer; of units and attributes those that are there."""
    if isinstance(answer, Mapping):
        return one_line(", ".join(name for name, there in answer.items() if there) or "none")
    return one_line(answer)


def _unreadable(block: Block) -> str:
    found = block["unreadable"]
    said = [f"{found['count']:,} of {block['n']:,} ({percent(found['share'])})."]
    if found["reasons"]:
        said.append(f"Reasons: {_counts(found['reasons'])}.")
    said.append(one_line(found["rule"]))
    if found["not_our_grammar"]:
        said.append(f"{found['not_our_grammar']:,} answers do not follow facellava's own grammar.")
    return " ".join(said)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{one_line(name)} {count:,}" for name, count in counts.items())


def _likeliest(block: Block) -> str:
    found = block["by_probability"]
    if not found:
        known = "AUC" in block["figures"]
        return "No answer has a probability, so there is no AUC." if known else ""
    return (
        f"{found['n']:,} answers have probabilities; the likeliest label agrees with the text in "
        f"{percent(found['agreement'])} of them."
    )


def _calibration(block: Block) -> str:
    readings = {name: each for name, each in (block["calibration"] or {}).items() if each}
    if not readings:
        return ""
    said = (
        f"{name} ECE {number('ECE', each['ECE'])}, Brier {number('Brier', each['Brier'])} "
        f"(n = {each['n']:,})"
        for name, each in readings.items()
    )
    return f"Calibration: {'; '.join(said)}."


def _claims(block: Block) -> str:
    found = block.get("claims")
    if not found:
        return ""
    said = [f"Claims in {found['n_answers']:,} answers, measured again: {_verdicts(found)}."]
    if found["distinct_per_answer"] is not None:
        said.append(f"An answer has {found['distinct_per_answer']:.1f} distinct claims.")
    if found.get("without_claims"):
        said.append(f"{found['without_claims']:,} answers have none that can be measured.")
    if found["on_other_faces"]:
        said.append(f"The same claims on other faces: {_verdicts(found['on_other_faces'])}.")
    return " ".join(said)


def _verdicts(found: Mapping[str, Any]) -> str:
    total = sum(found[name] for name in CLAIM_VERDICTS)
    return ", ".join(
        f"{found[name]:,} {name} ({percent(found[name] / total if total else None)})"
        for name in CLAIM_VERDICTS
    )


def _forms(block: Block) -> str:
    found = block.get("forms")
    if not found:
        return ""
    names = {
        "same": "the verdict is that of the prose in",
        "within_one": "it is within one year in",
        "same_entries": "of single entries the same are",
        "json_read": "the JSON follows the task's schema in",
        "prose_read": "the prose can be read in",
    }
    said = [
        f"{words} {spread(name, found[name])}" for name, words in names.items() if name in found
    ]
    cut = " and ".join(
        f"{spread(f'{form}_cut', found[f'{form}_cut'])} of the {words}"
        for form, words in {"json": "JSON", "prose": "prose"}.items()
    )
    unread = f" Not read: {_counts(found['unread'])}." if found.get("unread") else ""
    return (
        f"JSON beside prose, {found['n']:,} answers asked in both: {'; '.join(said)}. Cut at the "
        f"longest that an answer may be: {cut}.{unread}"
    )


def _faithfulness(found: Mapping[str, Any]) -> str:
    how = _HIDDEN.get(found["method"], f"are changed by {one_line(found['method'])}")
    fall, control, difference = (
        spread("fall", found[name]) for name in ("cited_fall", "control_fall", "difference")
    )
    left_out = ", ".join(
        f"{found[name]:,} {reason}" for name, reason in _NOT_CHANGED.items() if found.get(name)
    )
    return (
        f"Faithfulness, {found['n']:,} answers: where the regions that an answer cites {how}, its "
        f"probability falls by {fall}; where others {how}, by {control}; the difference is "
        f"{difference}. The cited ones weigh more in {percent(found['share_larger'])} of the "
        f"answers.{f' Left out: {left_out}.' if left_out else ''}"
    )


def _agreement(block: Block) -> str:
    """How well the judge agrees with itself where it reads the same in another order."""
    found: Mapping[str, Mapping[str, float]] = (block.get("judged") or {}).get("agreement") or {}
    said = [
        f"{one_line(words(name))}: {percent(rating['within_one'])} within one point, kappa "
        f"{number('kappa', rating['kappa'])}, shift {number('shift', rating['shift'])}"
        for name, rating in found.items()
    ]
    return f"Agreement of the judge's two orders: {'; '.join(said)}." if said else ""
