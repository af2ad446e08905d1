"""The sheet as one page: each face with its landmarks, its answer, its reasons measured again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eval.faithfulness import belief
from eval.items import Item
from eval.pages import data_url, write_page
from eval.protocols import Protocol
from eval.report_sentences import run_facts
from eval.report_tables import SEEN, Table, one_line, percent
from eval.sheet import RIGHT, Part, rightness
from facellava.claims import NEAR, OVER
from facellava.evidence import WEAK_NOTE, Evidence, verify
from facellava.faces import CROP_SIZE
from facellava.faces.clips import apex
from facellava.records import FaceRecord

MARKS: Final = {
    "supported": ("✓", "supported"),
    "contradicted": ("✗", "not supported"),
    "unmeasurable": ("?", "cannot be measured"),
}


@dataclass(frozen=True)
class Reason:
    """A claim of an answer and what its face says about it."""

    phrase: str
    verdict: str
    mark: str
    words: str
    measured: str


@dataclass(frozen=True)
class Card:
    """All that is shown of one face.

    Attributes:
        face_id: of the faces table.
        picture: the crop as a data URL; of a clip the frame that was measured.
        points: its landmarks in pixels of the crop.
        outcome: "right", "wrong" or "unreadable".
        mark: the same in words; of ages the error, of lists how many entries are wrong.
        facts: question, truth, answer and the like, name to value.
        text: the answer, word for word.
        reasons: its claims, measured again.
        notes: what makes the face or its measurements doubtful, a sentence each.
    """

    face_id: str
    picture: str
    points: Sequence[tuple[float, float]]
    outcome: str
    mark: str
    facts: Mapping[str, str]
    text: str
    reasons: Sequence[Reason]
    notes: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A protocol and its cards."""

    title: str
    key: str
    invalid: bool
    facts: Mapping[str, str]
    cards: Sequence[Card]


def write_sheet(run: Mapping[str, Any], parts: Sequence[Part], seed: int, out: Path) -> None:
    """Write the page.

    Args:
        run: as in run.json.
        parts: of :func:`eval.sheet.draw_sheet`.
        seed: that they were drawn with.
        out: the file.

    Raises:
        BadCorpus: a picture of the faces table is damaged.
        FacellavaError: the file cannot be written.
    """
    shown = [_section(part) for part in parts if part.drawn]
    cards = [card for section in shown for card in section.cards]
    facts = run_facts(run)
    facts["Drawn"] = (
        f"{len(cards)} of {sum(part.answers for part in parts):,} answers, by chance alone, with "
        f"seed {seed}"
    )
    facts["Reasons"] = _claims(Counter(each.verdict for card in cards for each in card.reasons))
    write_page(
        "sheet.html.j2",
        out,
        engine=one_line(run["engine"]["name"]),
        facts=facts,
        terms=_terms(parts),
        shares=_shares(parts),
        sections=shown,
        side=CROP_SIZE,
    )


def _terms(parts: Sequence[Part]) -> dict[str, str]:
    """Whose the pictures are: each dataset's terms, once; made faces are under that of theirs."""
    found: dict[str, dict[str, None]] = {}
    for part in parts:
        for _, record in part.drawn:
            dataset = one_line(part.protocol.made_from or record.source)
            found.setdefault(dataset, {})[one_line(record.licence)] = None
    return {dataset: "; ".join(terms) for dataset, terms in found.items()}


def _claims(counts: Counter[str]) -> str:
    said = ", ".join(
        f"{counts[verdict]:,} {words} ({percent(counts[verdict] / counts.total())})"
        for verdict, (_, words) in MARKS.items()
        if counts
    )
    return f"{counts.total():,} claims, measured again: {said}" if said else "no claim"


def _shares(parts: Sequence[Part]) -> Table:
    rows = [
        (
            one_line(part.protocol.title),
            f"{len(part.drawn):,}",
            percent(part.right_here),
            percent(part.right_of_all),
            RIGHT[part.protocol.kind],
        )
        for part in parts
    ]
    head = ("Protocol", "Faces here", "Right here", "Right of all", "What counts as right")
    return Table(
        "How often the answers are right",
        head,
        "lrrrt",
        rows,
        note="Right of all: of all answers of the run. An unreadable answer counts as wrong.",
    )


def _section(part: Part) -> Section:
    setting, reason = SEEN[part.trained_on]
    return Section(
        title=one_line(part.protocol.title),
        key=part.protocol.key,
        invalid=part.trained_on == "these faces",
        facts={
            "Training": f"{setting}: {reason}",
            **({"Note": part.protocol.note} if part.protocol.note else {}),
        },
        cards=[_card(part.protocol, item, record) for item, record in part.drawn],
    )


def _card(protocol: Protocol, item: Item, record: FaceRecord) -> Card:
    frames = record.faces()
    place = apex(frames)
    face = frames[place]
    notes = []
    if len(frames) > 1:
        notes.append(f"A clip of {len(frames)} frames; the one that was measured is shown.")
    if face.weak:
        notes.append("The landmarks are uncertain.")
    points = (face.landmarks * CROP_SIZE).round(1).tolist()
    return Card(
        face_id=one_line(item.face_id),
        picture=data_url("image/jpeg", record.frames[place]),
        points=[(x, y) for x, y in points],
        outcome=_outcome(protocol, item),
        mark=_mark(protocol, item),
        facts=_facts(protocol, item),
        text=item.text,
        reasons=[_reason(found) for found in verify(item.text, face)],
        notes=notes,
    )


def _outcome(protocol: Protocol, item: Item) -> str:
    if item.given is None:
        return "unreadable"
    return "right" if rightness(protocol, item) == 1 else "wrong"


def _mark(protocol: Protocol, item: Item) -> str:
    if item.given is None:
        return f"unreadable: {one_line(item.problem)}"
    if protocol.kind == "years":
        error = item.given - item.truth
        years = f"{abs(error)} year{'' if abs(error) == 1 else 's'}"
        return f"{years} too {'old' if error > 0 else 'young'}" if error else "the very year"
    if protocol.kind in ("units", "attributes"):
        wrong = sum(map(len, _faults(item).values()))
        return f"{wrong} of {len(item.truth)} wrong" if wrong else f"all {len(item.truth)} right"
    return _outcome(protocol, item)


def _facts(protocol: Protocol, item: Item) -> dict[str, str]:
    """Question, truth and answer in words, and how sure the model is."""
    facts = {"Asked": protocol.question, "Truth": _in_words(item.truth)}
    if item.given is None:
        return facts
    facts["Answered"] = _in_words(item.given)
    table = item.calibrated or item.table
    if protocol.kind in ("units", "attributes"):
        for fault, names in _faults(item).items():
            if names:
                facts[fault] = ", ".join(_with_share(name, table) for name in names)
    elif protocol.kind == "years" and table:
        facts["Probability, within 5 years"] = percent(belief(item.given, table))
    elif str(item.given) in table:
        facts["Probability"] = percent(table[str(item.given)])
    return facts


def _faults(item: Item) -> dict[str, list[str]]:
    """Of a list: what is there and was not said, and the other way round."""
    wrong = [name for name, there in item.truth.items() if item.given[name] != there]
    return {
        "Missed": [name for name in wrong if item.truth[name]],
        "Wrongly said": [name for name in wrong if not item.truth[name]],
    }


def _with_share(name: str, table: Mapping[str, float]) -> str:
    return f"{name} ({percent(table[name])})" if name in table else name


def _in_words(label: Any) -> str:
    """A label in words; of a list what is there."""
    if isinstance(label, Mapping):
        return ", ".join(name for name, there in label.items() if there) or "none"
    return f"{label} years" if isinstance(label, int) else one_line(label)


def _reason(found: Evidence) -> Reason:
    mark, words = MARKS[found.verdict]
    value = "" if found.value is None else f"{found.value:.3g} {found.unit}, wanted {_rule(found)}"
    # That the landmarks are weak stands on the card once.
    note = found.note.removesuffix(WEAK_NOTE).removesuffix("; ")
    measured = "; ".join(part for part in (value, note) if part)
    return Reason(found.phrase, found.verdict, mark, words, measured)


def _rule(found: Evidence) -> str:
    if found.direction == NEAR:
        return f"{found.threshold:g} ± {found.width:g}"
    return f"{'over' if found.direction == OVER else 'under'} {found.threshold:g}"
