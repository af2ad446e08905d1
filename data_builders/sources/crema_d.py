"""CREMA-D (Cao et al., IEEE TAC 2014): 91 actors speak 12 sentences in six emotions.

Original layout::

    VideoFlash/1001_DFA_ANG_XX.flv         actor, sentence, emotion that was asked for, its level
    VideoDemographics.csv                  1001,51,"Male","Caucasian","Not Hispanic"   (optional)
    processedResults/tabulatedVotes.csv    "206553",0,1,9,0,0,0,"1081_IEO_FEA_HI",...  (optional)

The label is the emotion that was asked for. Of the votes (A, D, F, H, N, S) those of people who saw
the face without hearing it are kept: their rows have numbers from 200001 on.

There is no official split. The folds are the five by actor that MAE-DFER publishes
(github.com/sunlicai/MAE-DFER, saved/data/crema-d/split01 to split05/test.csv).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from data_builders.media import ClipFile
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus
from facellava.tasks.expression import LABEL_SETS

NAME: Final = "CREMA-D"
LICENCE: Final = "CREMA-D: Open Database License 1.0"
LABELS: Final = dict(zip(LABEL_SETS["crema_d"].words, LABEL_SETS["crema_d"].labels, strict=True))
ACTORS: Final = (  # that are tested in the folds 1 to 5
    range(1001, 1019),
    range(1019, 1037),
    range(1037, 1055),
    range(1055, 1073),
    range(1073, 1092),
)
FOLDS: Final = {str(actor): fold for fold, actors in enumerate(ACTORS, 1) for actor in actors}
FILE_NAME: Final = re.compile(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_[A-Z]{1,2}")
FACE_ONLY: Final = "2"  # first digit of the row numbers of such votes
VOTES: Final = {word[0]: label for word, label in LABELS.items()}
PEOPLE: Final = ("ActorID", "Age", "Sex", "Race", "Ethnicity")
LAYOUT: Final = "clips named such as VideoFlash/1001_DFA_ANG_XX.flv"


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The clips of CREMA-D.

    Raises:
        BadCorpus: another layout, or a table without its columns.
    """
    folder = require(root / "VideoFlash", NAME, LAYOUT)
    paths = sorted(folder.glob("*.flv"))
    if not paths:
        raise BadCorpus(f"{NAME}: '{folder}' holds no .flv file; expected {LAYOUT}.")
    people = _people(root / "VideoDemographics.csv")
    votes = _votes(root / "processedResults" / "tabulatedVotes.csv")
    for path in paths:
        name = FILE_NAME.fullmatch(path.stem)
        if name is None:
            drops.add("file name lacks actor, sentence, emotion or level", path.name)
            continue
        actor, word = name[1], name[2]
        if word not in LABELS:
            drops.add(f"unknown label {word!r}", path.name)
        elif actor not in FOLDS:
            drops.add("actor is in no fold", path.name)
        else:
            labels: dict[str, Any] = {"expression": LABELS[word]}
            if path.stem in votes:
                labels["expression_votes"] = votes[path.stem]
            yield RawFace(
                key=path.stem,
                media=ClipFile(path),
                labels=labels,
                split="train",
                fold=FOLDS[actor],
                subject=actor,
                demographics=people.get(actor, {}),
                licence=LICENCE,
                origin=path.relative_to(root).as_posix(),
            )


def _people(path: Path) -> dict[str, dict[str, Any]]:
    """Actor to what the table says; what it calls unknown is left out."""
    people = {}
    for row in _table(path, PEOPLE):
        facts: dict[str, Any] = {
            "gender": row["Sex"].lower(),
            "race": row["Race"],
            "ethnicity": row["Ethnicity"],
        }
        if row["Age"].isdigit():
            facts["age"] = int(row["Age"])
        people[row["ActorID"]] = {name: fact for name, fact in facts.items() if fact != "Unknown"}
    return people


def _votes(path: Path) -> dict[str, dict[str, int]]:
    """Clip to the votes of those who saw the face alone."""
    table = _table(path, ("", *VOTES, "fileName"))
    try:
        return {
            row["fileName"]: {label: int(row[letter]) for letter, label in VOTES.items()}
            for row in table
            if len(row[""]) == 6 and row[""].startswith(FACE_ONLY)
        }
    except ValueError as error:
        raise BadCorpus(
            f"{NAME}: '{path}' has votes that are not whole numbers; get the file again."
        ) from error


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[Mapping[str, str]]:
    """The rows of a table; none where the file is not there."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, restval="")
        for column in columns:
            if column not in (table.fieldnames or ()):
                raise BadCorpus(
                    f"{NAME}: '{path}' has no column '{column}'; get the file again or remove it."
                )
        yield from table


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="participants agreed",
    folds=len(ACTORS),
)
