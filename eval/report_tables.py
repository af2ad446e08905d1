"""The tables of a report, for whoever draws them: Markdown and HTML show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eval.protocols import SMALLER_IS_BETTER
from eval.published import PublishedTable, published
from facellava.tasks.judging import RATINGS

Block = Mapping[str, Any]
"""What results.json says about one protocol."""

NONE: Final = "-"
IN_YEARS: Final = frozenset({"MAE", "bias"})
SEEN: Final = {
    "no": ("zero-shot", "training saw no face of this dataset"),
    "other splits": ("fine-tuned", "training saw other splits of this dataset"),
    "these faces": ("INVALID", "training saw these very faces"),
    "unknown": ("unknown", "the model does not say what it was trained on"),
}
"""What `trained_on` makes of a figure, in a word and in a sentence."""

FIGURE_WORDS: Final = {
    "WAR": "share of right answers (accuracy)",
    "UAR": "mean over the classes of the share of right answers",
    "MAE": "mean absolute error in years; smaller is better",
    "CS5": "share of answers within five years",
    "mean_F1": "mean over the action units of F1",
    "mean_accuracy": "mean over the action units of accuracy",
    "mAcc": "mean over the attributes of accuracy",
    "balanced_accuracy": "the same where rare and common answers weigh alike; chance is 0.5",
    "accuracy": "share of right answers",
    "AUC": "chance that a fake is given a higher probability of fake than a genuine face is",
}
RATING_WORDS: Final = {
    "reason_media": "Fits the picture",
    "reason_label": "Fits the label",
    "completeness": "Complete",
}
GAP_WORDS: Final = {
    "demographic_parity": "Demographic parity: how often a label is answered",
    "equal_opportunity": "Equal opportunity: how often it is answered to those who have it",
    "equalized_odds": "Equalized odds: the same, and to those who have it not",
}
LANDMARK_WAYS: Final = {
    "as_they_are": "As they are",
    "shuffled": "Another face's landmarks",
    "removed": "Without FRGCA",
}
LANDMARKS_NOTE: Final = (
    "A change whose interval holds 0 may be chance; what another face's landmarks cost is what a "
    "face's own are worth, and leaving FRGCA out may cost more, since the model never learnt to do "
    "without it."
)
FRAMING_NOTE: Final = (
    "each in a blurred surround, where the face has to be found anew; then one thing is changed. "
    "Changes and the same verdict (of ages within three years, of lists the share of entries) are "
    "over the faces found."
)
GAP_NOTE: Final = (
    "0 is none; a dash: too few faces of a label to say. Chance alone lifts a gap above 0, and the "
    "more so the fewer faces a group has."
)


@dataclass(frozen=True)
class Table:
    """A table in words.

    Attributes:
        title: what it shows, in a line.
        head: the columns' names.
        align: a letter a column: "l" for words, "k" for words whose lines are kept whole, "t" for
            sentences, "r" for numbers.
        rows: cells; a line break in a cell is meant as one.
        strong: places of the rows to stand out.
        note: what has to be known to read it.
    """

    title: str
    head: tuple[str, ...]
    align: str
    rows: Sequence[tuple[str, ...]]
    strong: frozenset[int] = frozenset()
    note: str = ""


def one_line(text: object) -> str:
    """Text from outside, on one line."""
    return " ".join(str(text).split())


def words(name: str) -> str:
    """A figure's or column's name as people write it."""
    return name.replace("_", " ")


def number(name: str, value: float | None) -> str:
    """A figure: years at two places, shares at three, counts as they are."""
    if value is None:
        return NONE
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if name in IN_YEARS else f"{value:.3f}"


def spread(name: str, found: Mapping[str, Any] | None) -> str:
    """A figure with its interval."""
    if not found or found["value"] is None:
        return NONE
    value = number(name, found["value"])
    if found["low"] is None or found["high"] is None:
        return value
    return f"{value} [{number(name, found['low'])}, {number(name, found['high'])}]"


def change(name: str, found: Mapping[str, Any]) -> str:
    """A figure's difference with its sign and interval."""
    numbers = [found[key] for key in ("difference", "low", "high")]
    if None in numbers:
        return NONE
    value, low, high = (f"{each:+.{2 if name in IN_YEARS else 3}f}" for each in numbers)
    return f"{value} [{low}, {high}]"


def percent(share: float | None) -> str:
    """A share in percent."""
    return NONE if share is None else f"{100 * share:.1f}%"


def faces(block: Block) -> str:
    """How many were asked about, and of how many that the publisher's part has."""
    whole = block["official_n"]
    part = f" of {whole:,}" if whole and whole != block["n"] else ""
    return f"{block['n']:,}{part}"


def summary_table(protocols: Mapping[str, Block]) -> Table:
    """A row a protocol: its figures beside what costs no skill."""
    rows = []
    for key, block in protocols.items():
        names, simple = block["figures"], block["baselines"]
        rows.append(
            (
                f"{one_line(block['title'])}\n{key}",
                faces(block),
                _lines(f"{words(name)} {spread(name, each)}" for name, each in names.items()),
                _lines(number(name, simple["majority"]["figures"].get(name)) for name in names),
                _lines(number(name, simple["random"]["figures"].get(name)) for name in names),
                percent(block["unreadable"]["share"]),
                SEEN[block["trained_on"]][0],
            )
        )
    return Table(
        "All protocols",
        ("Protocol", "Faces", "Figures [95% interval]", "Majority", "Random", "Unreadable",
         "Training"),
        "lrkrrrl",
        rows,
        note="Majority: the best answer that looks at no face. Random: answers drawn as often as "
        "the truth has them.",
    )  # fmt: skip


def figures_table(block: Block) -> Table:
    """The figures of one protocol, a row each."""
    simple, likely = block["baselines"], block["by_probability"]
    head = ["Figure", "Value [95% interval]", "Majority", "Random"]
    rows = []
    for name, found in block["figures"].items():
        row = [
            f"{words(name)}{' (smaller is better)' if name in SMALLER_IS_BETTER else ''}",
            spread(name, found),
            *(number(name, simple[kind]["figures"].get(name)) for kind in ("majority", "random")),
        ]
        if likely:
            row.append(number(name, likely["figures"].get(name)))
        rows.append(tuple(row))
    if likely:
        head.append("Likeliest label")
    note = "Likeliest label: the same where the most probable label is the answer, not the text."
    return Table("Figures", tuple(head), "l" + "r" * (len(head) - 1), rows,
                 note=note if likely else "")  # fmt: skip


def folds_table(block: Block) -> Table | None:
    """The figures of each fold, their mean, and those of all faces together."""
    if not block["folds_figures"]:
        return None
    named = {f"Fold {fold}": figures for fold, figures in block["folds_figures"].items()}
    named["Mean over folds"] = block["mean_over_folds"]
    named["All faces together"] = {n: each["value"] for n, each in block["figures"].items()}
    names = list(block["figures"])
    rows = [
        (name, *(number(figure, figures.get(figure)) for figure in names))
        for name, figures in named.items()
    ]
    head = ("Fold", *(words(name) for name in names))
    return Table("Folds", head, "l" + "r" * len(names), rows,
                 frozenset({len(rows) - 2, len(rows) - 1}))  # fmt: skip


def landmarks_table(block: Block) -> Table | None:
    """The figures with each face's own landmarks, with another's, and without FRGCA."""
    found = block.get("landmarks")
    if not found:
        return None
    rows = [
        (
            words(name),
            *(
                cell
                for way in LANDMARK_WAYS
                for cell in (
                    spread(name, found[way]["figures"][name]),
                    *([change(name, found[way]["change"][name])] if "change" in found[way] else []),
                )
            ),
        )
        for name in block["figures"]
    ]
    head = ["Figure"]
    for way, called in LANDMARK_WAYS.items():
        head += [f"{called} [95%]", *(["Change [95%]"] if "change" in found[way] else [])]
    note = f"{found['n']:,} faces, asked about again. {LANDMARKS_NOTE}"
    unread = {called: found[way]["unreadable"] for way, called in LANDMARK_WAYS.items()}
    if any(unread.values()):
        counts = (f"{called[0].lower()}{called[1:]} {count:,}" for called, count in unread.items())
        note += f" Unreadable answers: {', '.join(counts)}."
    return Table("What the landmarks are worth", tuple(head), "lrrrrr", rows, note=note)


def framing_table(block: Block) -> Table | None:
    """What is found and said where the pictures are shown in other ways, a row a way."""
    found = block.get("framing")
    if not found:
        return None
    names = list(block["figures"])
    given = found["as_it_is"]["figures"]
    rows = [("as it is", NONE, NONE, *(spread(name, given[name]) for name in names))]
    for way, seen in found["ways"].items():
        shares = (spread(name, seen[name]) for name in ("found", "same"))
        figures = seen["figures"]
        changes = (change(name, figures[name]) if name in figures else NONE for name in names)
        rows.append((words(way), *shares, *changes))
    head = ("Way", "Faces found [95%]", "Same verdict [95%]",
            *(f"{words(name)}, then its change [95%]" for name in names))  # fmt: skip
    note = f"The pictures of {found['n']:,} faces, {FRAMING_NOTE}"
    unread = sum(seen["unreadable"] for seen in found["ways"].values())
    if unread:
        note += f" Unreadable answers: {unread:,}."
    return Table("Photos of other framing", head, "l" + "r" * (len(head) - 1), rows, note=note)


def details_table(block: Block) -> Table | None:
    """A row for each label or age group."""
    found: Mapping[str, Mapping[str, Any]] = block["details"]
    if not found:
        return None
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [
        (one_line(label), *(number(name, row.get(name)) for name in names))
        for label, row in found.items()
    ]
    title = "By age group" if block["kind"] == "years" else "By label"
    head = (title.split()[-1].capitalize(), *("faces" if n == "n" else words(n) for n in names))
    return Table(title, head, "l" + "r" * len(names), rows)


def confusion_table(block: Block) -> Table | None:
    """How often each label was answered with each word."""
    found = block["confusion"]
    if not found:
        return None
    rows = [
        (one_line(label), *(f"{count:,}" for count in counts))
        for label, counts in zip(found["labels"], found["counts"], strict=True)
    ]
    head = ("Truth", *(one_line(column) for column in found["columns"]))
    return Table("Truth (rows) and answer (columns), counts", head, "l" + "r" * (len(head) - 1),
                 rows)  # fmt: skip


def fairness_tables(block: Block) -> list[Table]:
    """For each way to slice: its groups, and the gaps between them."""
    tables = []
    for key, found in block["fairness"].items():
        names, by = list(block["figures"]), one_line(words(key))
        groups = [
            (
                one_line(group),
                f"{each['n']:,}" + (f" ({one_line(each['note'])})" if each.get("note") else ""),
                *(spread(name, each["figures"].get(name)) for name in names),
            )
            for group, each in found["groups"].items()
        ]
        head = (by.capitalize(), "Faces", *(f"{words(name)} [95%]" for name in names))
        tables.append(Table(f"By {by}", head, "lr" + "r" * len(names), groups))
        if found["gaps"]:
            tables.append(_gaps_table(by, found["gaps"]))
    return tables


def _gaps_table(by: str, gaps: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (
            GAP_WORDS.get(name, f"{words(name)}: best group to worst"),
            spread(name, gap),
            one_line(gap.get("worst") or NONE),
            one_line(gap.get("label") or NONE),
        )
        for name, gap in gaps.items()
    ]
    head = ("Gap", "Value [95% interval]", "Worst off", "Label")
    return Table(f"Gaps by {by}", head, "lrll", rows, note=GAP_NOTE)


def paper_tables(results: Mapping[str, Any]) -> list[Table]:
    """Our figures beside the published ones, a table a protocol that has any."""
    engine = one_line(results["engine"]["name"])
    known = published().protocols
    return [
        _beside(engine, block, known[block["published"]])
        for block in results["protocols"].values()
        if block["published"] in known
    ]


def _beside(engine: str, block: Block, others: PublishedTable) -> Table:
    names = list(block["figures"])
    setting, reason = SEEN[block["trained_on"]]
    here = f"measured here, {block['n']:,} faces; {reason}"
    rows = [(f"{engine} (ours)", setting, *(spread(n, block["figures"][n]) for n in names), here)]
    if block["mean_over_folds"]:
        mean = (number(name, block["mean_over_folds"].get(name)) for name in names)
        rows.append((f"{engine} (ours), mean over folds", setting, *mean, "the same answers"))
    ours = frozenset(range(len(rows)))
    for row in others.rows:
        figures = (number(name, row.figures.get(name)) for name in names)
        source = f"published: {row.source}" + (f"; {row.caveat}" if row.caveat else "")
        rows.append((row.model, row.setting, *figures, source))
    head = ("Model", "Setting", *(words(name) for name in names), "Where from")
    return Table(one_line(block["title"]), head, "lk" + "r" * len(names) + "t", rows, ours,
                 others.caveat)  # fmt: skip


def judged_tables(results: Mapping[str, Any]) -> list[Table]:
    """Our reasons' ratings beside the published ones, a table a task that was judged."""
    known = published().reasoning
    by_task: dict[str, list[Block]] = {}
    for block in results["protocols"].values():
        if block.get("judged"):
            by_task.setdefault(block["task"], []).append(block)
    engine, tables = one_line(results["engine"]["name"]), []
    for task, blocks in by_task.items():
        rows = [_judged_row(engine, block) for block in blocks]
        ours = frozenset(range(len(rows)))
        for model, ratings in known.ratings(task).items():
            numbers = (f"{ratings[name]:.2f}" for name in RATINGS)
            rows.append((model, *numbers, f"published: {known.source}"))
        head = ("Model", *(RATING_WORDS[name] for name in RATINGS), "Where from")
        title = f"Ratings of the reasons, 1 to 10: {words(task)}"
        note = f"Judge of the published ones: {known.judge}. {known.caveat}"
        tables.append(Table(title, head, "lrrrt", rows, ours, note))
    return tables


def _judged_row(engine: str, block: Block) -> tuple[str, ...]:
    judged = block["judged"]
    here = f"{one_line(block['title'])}, {judged['n']:,} answers, judge {one_line(judged['judge'])}"
    return (f"{engine} (ours)", *(_rating(judged["ratings"].get(name)) for name in RATINGS), here)


def _rating(found: Mapping[str, float | None] | None) -> str:
    if not found or found["mean"] is None:
        return NONE
    if found["low"] is None or found["high"] is None:
        return f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)
