"""The report of a run as one page: figures with their baselines, pictures, mistakes to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.pages import data_url, write_page
from eval.plots import DARK, LIGHT, Plot, plots_of
from eval.report import PAPER_NOTE, detail_tables, figure_words, leading_tables
from eval.report_sentences import protocol_facts, protocol_sentences, run_facts, warnings
from eval.report_tables import (
    Block,
    Table,
    judged_tables,
    one_line,
    paper_tables,
    percent,
    summary_table,
)

LONGEST_ANSWER: Final = 1500


@dataclass(frozen=True)
class Drawing:
    """A plot as data URLs, for light and dark."""

    plot: Plot
    light: str
    dark: str


@dataclass(frozen=True)
class Mistake:
    """A card of a worst mistake; `picture` is a data URL or None."""

    face_id: str
    picture: str | None
    truth: str
    given: str
    probability: str | None
    text: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one protocol."""

    key: str
    title: str
    invalid: bool
    facts: Mapping[str, str]
    sentences: Sequence[str]
    tables: Sequence[Table]
    details: Sequence[Table]
    drawings: Sequence[Drawing]
    mistakes: Sequence[Mistake]


def write_report_page(
    results: Mapping[str, Any], out: Path, pictures: Callable[[str, str], bytes | None]
) -> None:
    """Write the page.

    Args:
        results: as in results.json.
        out: the file.
        pictures: protocol key and face id to a JPEG of the face; None where there is none.

    Raises:
        FacellavaError: the file cannot be written.
    """
    protocols: Mapping[str, Block] = results["protocols"]
    write_page(
        "report_page.html.j2",
        out,
        engine=one_line(results["engine"]["name"]),
        facts=run_facts(results),
        warnings=warnings(results),
        summary=summary_table(protocols),
        figure_words=figure_words(protocols.values()),
        published=[*paper_tables(results), *judged_tables(results)],
        published_note=PAPER_NOTE,
        sections=[_section(key, block, pictures) for key, block in protocols.items()],
    )


def _section(key: str, block: Block, pictures: Callable[[str, str], bytes | None]) -> Section:
    return Section(
        key=key,
        title=one_line(block["title"]),
        invalid=block["trained_on"] == "these faces",
        facts=protocol_facts(block),
        sentences=protocol_sentences(block),
        tables=leading_tables(block),
        details=detail_tables(block),
        drawings=[_drawing(plot) for plot in plots_of(block)],
        mistakes=[_mistake(row, pictures(key, row["face_id"])) for row in block["worst"]],
    )


def _drawing(plot: Plot) -> Drawing:
    return Drawing(plot, *(data_url("image/svg+xml", plot.image(theme)) for theme in (LIGHT, DARK)))


def _mistake(row: Mapping[str, Any], picture: bytes | None) -> Mistake:
    truth, given = row["truth"], row["given"]
    if isinstance(truth, Mapping) and isinstance(given, Mapping):
        # Of forty attributes only those that are wrong.
        wrong = [name for name, there in truth.items() if given.get(name) != there]
        truth, given = ({name: side.get(name) for name in wrong} for side in (truth, given))
    text = row["text"]
    return Mistake(
        face_id=row["face_id"],
        picture=None if picture is None else data_url("image/jpeg", picture),
        truth=_in_words(truth),
        given=_in_words(given),
        probability=None if row["probability"] is None else percent(row["probability"]),
        text=text if len(text) <= LONGEST_ANSWER else f"{text[:LONGEST_ANSWER]}…",
    )


def _in_words(label: Any) -> str:
    if isinstance(label, Mapping):
        answers = {True: "yes", False: "no", None: "not said"}
        return ", ".join(f"{one_line(name)}: {answers[there]}" for name, there in label.items())
    return f"{label} years" if isinstance(label, int) else one_line(label)
