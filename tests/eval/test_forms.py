"""JSON answers beside prose ones: written answers counted by hand, a scripted model, and nano."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from eval.answers import AnswerFile, Reply
from eval.forms import ask_in_json, compare_forms, json_question
from eval.intervals import share_interval
from eval.items import Item
from eval.protocols import PROTOCOLS, Kind
from facellava.answer import Answer
from facellava.errors import FacellavaError
from facellava.faces import Face, find_faces
from facellava.predictor import MAX_NEW_TOKENS, FaceLlava
from facellava.records import FaceRecord
from facellava.tasks import parse_json
from facellava.tasks.attribute_table import NAMES
from tests.eval.answered import protocol_of
from tests.eval.written_run import face_record

FACES = PROTOCOLS["rafdb/test"]
HEAD = {"faces": "rafdb-test"}


def words(text: str) -> int:
    return len(text.split())


def compared(kind: Kind, pairs: Sequence[tuple[Any, str]], *labels: str) -> dict[str, Any]:
    """What is found of pairs of a prose verdict and a JSON answer."""
    items = [Item(f"f{place}", None, prose, text="prose") for place, (prose, _) in enumerate(pairs)]
    in_json = {f"f{place}": text for place, (_, text) in enumerate(pairs)}
    return compare_forms(protocol_of(kind, *labels), items, in_json, words)


def expression(label: str, reasons: str = '["The mouth is closed."]') -> str:
    return f'{{"task":"expression","label":"{label}","reasons":{reasons}}}'


def test_verdicts_are_counted_and_what_cannot_be_read_agrees_with_nothing() -> None:
    long = "so " * MAX_NEW_TOKENS
    found = compared(
        "classes",
        [
            ("fear", expression("fear")),
            ("fear", expression("anger")),
            ("fear", f'{{"task":"expression","label":"fear","reasons":["{long}'),
            ("fear", "Expression: fear. The mouth is open."),
            ("fear", '{"task":"age","label":30,"reasons":["The mouth is closed."]}'),
            ("fear", expression("joy")),
            (None, expression("fear")),
            (None, "{"),
        ],
    )
    differing = found.pop("differing")
    assert found == {
        "n": 8,
        "json_read": share_interval(3, 8),
        "prose_read": share_interval(6, 8),
        "same": share_interval(1, 8),
        "json_cut": share_interval(1, 8),
        "prose_cut": share_interval(0, 8),
        "unread": {
            "The answer is not whole JSON": 3,
            "answered as age": 1,
            "The expression answer cannot be read": 1,
        },
    }
    assert [row["face_id"] for row in differing] == [f"f{place}" for place in range(1, 8)]
    assert differing[0] == {"face_id": "f1", "prose": "prose", "json": expression("anger")}


def test_ages_may_be_a_year_apart() -> None:
    found = compared(
        "years",
        [
            (age, f'{{"task":"age","label":{said},"reasons":["x"]}}')
            for age, said in ((30, 30), (30, 31), (30, 28), (None, 30), (30, 300))
        ],
    )
    assert found["same"] == share_interval(1, 5)
    assert found["within_one"] == share_interval(2, 5)
    assert "same_entries" not in found


def test_lists_are_the_same_as_a_whole_or_in_part() -> None:
    def units(*names: str) -> dict[str, bool]:
        return {name: name in names for name in ("AU1", "AU2", "AU4", "AU6")}

    found = compared(
        "units",
        [
            (units("AU1"), '{"task":"action_units","label":["AU1"],"reasons":["x"]}'),
            # AU12 is not a unit of the protocol.
            (units("AU1"), '{"task":"action_units","label":["AU1","AU12"],"reasons":["x"]}'),
            (units(), '{"task":"action_units","label":["AU2"],"reasons":["x"]}'),
            (units(), '{"task":"action_units","label":["AU2","AU2"],"reasons":["x"]}'),
        ],
        "AU1", "AU2", "AU4", "AU6",
    )  # fmt: skip
    assert found["json_read"] == share_interval(3, 4)
    assert found["same"] == share_interval(2, 4)
    assert found["same_entries"]["value"] == (1 + 1 + 0.75 + 0) / 4
    assert found["same_entries"]["low"] < found["same_entries"]["high"]


def test_one_attribute_is_json_of_the_task_but_not_the_list_that_was_asked_for() -> None:
    every = dict.fromkeys(NAMES, False)
    found = compared(
        "attributes", [(every, '{"task":"attributes","label":{"smiling":false},"reasons":["x"]}')]
    )
    assert found["json_read"]["value"] == 1
    assert found["same"]["value"] == found["same_entries"]["value"] == 0


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


@pytest.fixture(scope="module")
def records(face: Face) -> list[FaceRecord]:
    photos = [face_record(face, f"rafdb-{place}", {}) for place in range(3)]
    return [*photos, face_record(face, "rafdb-clip", {}, frames=2)]


class Scripted:
    """Answers with the question, and remembers what it was asked about."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.asked: list[tuple[bool, str]] = []

    def ask_many(
        self, faces: Sequence[Any], questions: Sequence[str], *, probabilities: bool
    ) -> list[Answer]:
        assert not probabilities
        self.asked += [(isinstance(item, list), question)
                       for item, question in zip(faces, questions, strict=True)]  # fmt: skip
        return [Answer(question, f"said: {question}", self.face) for question in questions]


def test_every_face_is_asked_once_in_its_own_wording(
    face: Face, records: list[FaceRecord], tmp_path: Path
) -> None:
    path = tmp_path / "extras" / "in_json.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append([Reply("rafdb-1", "kept"), Reply("rafdb-9", "of another sample")])
    model: Any = Scripted(face)
    asked = {record.face_id: json_question(FACES, record.face_id) for record in records}
    said = {name: f"said: {question}" for name, question in asked.items()} | {"rafdb-1": "kept"}
    for _ in range(2):
        assert ask_in_json(FACES, records, model, path, HEAD) == said
    assert model.asked == [(name == "rafdb-clip", question)
                           for name, question in asked.items() if name != "rafdb-1"]  # fmt: skip
    assert all("json" in question.lower() for question in asked.values())
    assert len({json_question(FACES, f"f{place}") for place in range(40)}) > 20
    with pytest.raises(FacellavaError, match=r"another run \(faces differ\)"):
        ask_in_json(FACES, records, model, path, {"faces": "other"})


def test_nano_is_asked_for_json(records: list[FaceRecord], tmp_path: Path) -> None:
    nano = FaceLlava.load()
    found = ask_in_json(FACES, records[:1], nano, tmp_path / "a.jsonl", HEAD)
    verdict = parse_json(found["rafdb-0"])
    assert verdict.task == "expression"
    items = [Item("rafdb-0", None, verdict.label)]
    assert compare_forms(FACES, items, found, words)["same"] == share_interval(1, 1)
