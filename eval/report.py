"""The report of a run as Markdown, and the short table of it for a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from eval.report_sentences import protocol_facts, protocol_sentences, run_facts, warnings
from eval.report_tables import (
    FIGURE_WORDS,
    SEEN,
    Block,
    Table,
    confusion_table,
    details_table,
    faces,
    fairness_tables,
    figures_table,
    folds_table,
    framing_table,
    judged_tables,
    landmarks_table,
    number,
    one_line,
    paper_tables,
    spread,
    summary_table,
    words,
)

PAPER_NOTE: Final = (
    "Rows marked as published are quoted from their sources and were not measured here; their "
    "splits, crops and sampling of frames may differ from ours."
)

# Names come from outside: no markup, no pictures, no links. Brackets alone are none.
_MARKUP: Final = re.compile(r"[\\`*<>|]|\](?=[(\[:])")


def report_markdown(results: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        results: as in results.json.
    """
    protocols: Mapping[str, Block] = results["protocols"]
    parts = [
        "# Evaluation of a model of faces",
        *(f"> **{_safe(warning)}**" for warning in warnings(results)),
        _facts(run_facts(results)),
        "## Summary",
        _table(summary_table(protocols), heading=None),
        _facts(figure_words(protocols.values())),
        *(_beside_the_paper(results)),
    ]
    for key, block in protocols.items():
        parts += [f"## {_safe(one_line(block['title']))}", f"`{key}`", _protocol(block)]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_table(results: Mapping[str, Any]) -> str:
    """A line a protocol: its figures with intervals, the majority's, and what training saw."""
    rows = []
    for block in results["protocols"].values():
        majority = block["baselines"]["majority"]["figures"]
        rows.append(
            (
                one_line(block["title"]),
                faces(block),
                "\n".join(f"{words(n)} {spread(n, each)}" for n, each in block["figures"].items()),
                "\n".join(number(name, majority.get(name)) for name in block["figures"]),
                SEEN[block["trained_on"]][0],
            )
        )
    head = ("Protocol", "Faces", "Figures [95% interval]", "Majority", "Training")
    return _table(Table("", head, "lrkrl", rows), heading=None) + "\n"


def figure_words(blocks: Iterable[Block]) -> dict[str, str]:
    """What the figures of these protocols mean, each once."""
    names = dict.fromkeys(name for block in blocks for name in block["figures"])
    return {words(name): FIGURE_WORDS[name] for name in names}


def leading_tables(block: Block) -> list[Table]:
    """Of one protocol: its figures, by fold, how they change with the input, for whom they hold."""
    tables = (folds_table(block), landmarks_table(block), framing_table(block))
    return [figures_table(block), *filter(None, tables), *fairness_tables(block)]


def detail_tables(block: Block) -> list[Table]:
    """Of one protocol: what stands behind the figures."""
    return [table for table in (details_table(block), confusion_table(block)) if table]


def _beside_the_paper(results: Mapping[str, Any]) -> list[str]:
    tables = [*paper_tables(results), *judged_tables(results)]
    if not tables:
        return []
    return ["## Beside published figures", PAPER_NOTE, *(_table(table) for table in tables)]


def _protocol(block: Block) -> str:
    parts = [
        _facts(protocol_facts(block)),
        *(_safe(each) for each in protocol_sentences(block)),
        *(_table(table) for table in (*leading_tables(block), *detail_tables(block))),
    ]
    return "\n\n".join(parts)


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {_safe(name)}: {_safe(value)}" for name, value in facts.items())


def _table(table: Table, heading: str | None = "###") -> str:
    lines = [] if heading is None else [f"{heading} {_safe(table.title)}", ""]
    rules = ("--:" if side == "r" else "---" for side in table.align)
    lines += [_row(table.head), f"|{'|'.join(rules)}|"]
    for place, row in enumerate(table.rows):
        lines.append(_row(row, strong=place in table.strong))
    if table.note:
        lines += ["", _safe(table.note)]
    return "\n".join(lines)


def _row(cells: Iterable[str], *, strong: bool = False) -> str:
    mark = "**" if strong else ""
    shown = ("<br>".join(f"{mark}{_safe(line)}{mark}" if line else "" for line in cell.split("\n"))
             for cell in cells)  # fmt: skip
    return f"| {' | '.join(shown)} |"


def _safe(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", text)
