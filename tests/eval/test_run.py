"""From faces through an engine to items: nothing asked twice, words read as a user reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.answers import AnswerFile, Reply
from eval.faces_table import FacesTable
from eval.protocols import PROTOCOLS
from eval.run import ask_all, groups_of, head_of, item_of, items_of
from facellava.corpus import sha256, write_shard
from facellava.errors import BadCorpus, FacellavaError
from facellava.records import FaceRecord

RAFDB, AGES, ADULTS = (
    PROTOCOLS[key] for key in ("rafdb/test", "utkface/all-ages", "utkface/21-60")
)


def record(name: str, labels: dict[str, Any], **more: Any) -> FaceRecord:
    return FaceRecord(
        face_id=name, source="x", split="test", frames=(b"jpeg",),
        landmarks=np.zeros((1, 68, 2), np.float32), box=(0, 0, 1, 1), score=1.0, face_source="x",
        native_size=192, labels=labels, licence="x", origin="x", **more,
    )  # fmt: skip


def table_of(folder: Path, records: Sequence[FaceRecord]) -> FacesTable:
    path = folder / "faces" / "test-x-00000.parquet"
    write_shard(path, records, "faces")
    files = {"faces/test-x-00000.parquet": {"sha256": sha256(path), "rows": len(records)}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return FacesTable(folder)


class Scripted:
    """Says the same of everybody, and remembers about whom it was asked."""

    batch = 2

    def __init__(self, text: str = "Age: 30 years.", name: str = "a") -> None:
        self.text, self.name = text, name
        self.asked: list[str] = []
        self.question = ""

    def describe(self) -> dict[str, Any]:
        return {"kind": "scripted", "name": self.name}

    def facts(self) -> dict[str, Any]:
        return {}

    def ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        self.asked += [found.face_id for found in records]
        self.question = question
        return [Reply(found.face_id, self.text) for found in records]


@pytest.fixture
def aged(tmp_path: Path) -> FacesTable:
    faces = [record(f"f{age}", {"age": age}) for age in (5, 25, 30, 70)]
    return table_of(tmp_path / "faces", [*faces, record("unlabelled", {})])


def test_faces_without_the_label_are_not_asked_about(aged: FacesTable, tmp_path: Path) -> None:
    engine = Scripted()
    assert ask_all(AGES, aged, engine, tmp_path / "a.jsonl") == 4
    assert engine.asked == ["f5", "f25", "f30", "f70"]
    assert engine.question == "How old is this person?"
    items = items_of(AGES, aged, tmp_path / "a.jsonl")
    assert [(item.truth, item.given) for item in items] == [(5, 30), (25, 30), (30, 30), (70, 30)]


def test_what_was_answered_is_not_asked_again(aged: FacesTable, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with AnswerFile(path, head_of(AGES, aged, Scripted(), "question")) as file:
        file.append([Reply("f25", "Age: 26 years.")])
    engine = Scripted()
    assert ask_all(AGES, aged, engine, path) == 3
    assert engine.asked == ["f5", "f30", "f70"]
    assert [item.given for item in items_of(AGES, aged, path)] == [30, 26, 30, 30]
    # The other protocol asks the same question about some of the same faces.
    assert ask_all(ADULTS, aged, engine, path) == 0
    assert [item.given for item in items_of(ADULTS, aged, path)] == [26, 30]


def test_runs_do_not_mix(aged: FacesTable, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ask_all(AGES, aged, Scripted(), path)
    with pytest.raises(FacellavaError, match=r"another run \(engine differ\)"):
        ask_all(AGES, aged, Scripted(name="b"), path)
    with pytest.raises(FacellavaError, match=r"another run \(engine, question differ\)"):
        ask_all(AGES, aged, Scripted(), path, prompt="closed")
    with pytest.raises(FacellavaError, match="about other faces .utkface-test. than those of raf"):
        items_of(RAFDB, aged, path)
    manifest = json.loads((aged.folder / "manifest.json").read_text())
    (aged.folder / "manifest.json").write_text(json.dumps(manifest | {"built": "again"}))
    with pytest.raises(FacellavaError, match="about other faces"):
        items_of(AGES, aged, path)


@pytest.mark.parametrize("change", ["lost", "new", "changed"])
def test_faces_that_are_not_those_asked_about_are_never_scored(
    aged: FacesTable, tmp_path: Path, change: str
) -> None:
    ask_all(AGES, aged, Scripted(), tmp_path / "a.jsonl")
    shard = aged.folder / "faces" / "test-x-00000.parquet"
    if change == "lost":
        shard.unlink()
    else:
        other = shard if change == "changed" else shard.with_name("test-x-00001.parquet")
        write_shard(other, [record("f5", {"age": 50})], "faces")
    for attempt in (
        lambda: items_of(AGES, aged, tmp_path / "a.jsonl"),
        lambda: ask_all(AGES, aged, Scripted(), tmp_path / "a.jsonl"),
    ):
        with pytest.raises(BadCorpus, match="is not what was asked about: faces/test-x-0000"):
            attempt()


def test_a_run_that_is_not_whole_has_no_figures(aged: FacesTable, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with AnswerFile(path, head_of(AGES, aged, Scripted(), "question")) as file:
        file.append([Reply("f25", "Age: 26 years.")])
    with pytest.raises(FacellavaError, match="lacks answers about 3 faces"):
        items_of(AGES, aged, path)


def test_no_face_of_the_protocol_is_told_before_anything_is_asked(
    aged: FacesTable, tmp_path: Path
) -> None:
    with pytest.raises(BadCorpus, match="No face of .* has part in rafdb/test"):
        ask_all(RAFDB, aged, Scripted(), tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "given", "problem", "strict"),
    [
        ("Expression: fear. The mouth is open.", "fear", "", True),
        ('{"task":"expression","label":"fear","reasons":["x"]}', "fear", "", True),
        # Another model's words: one clear statement, or nothing.
        ("The person looks afraid.", "fear", "", False),
        ("It may be fear or anger.", None, "The prose", False),
        ("I'm sorry, I can't help with that.", None, "The prose", False),
        # The right word under another task's lead is no answer, nor is a word of a larger set
        # no answer: it is a wrong one.
        ("Age: 30 years. She shows fear.", None, "answered as age", True),
        ("Expression: contempt. The mouth is open.", "contempt", "", True),
        ("Cannot answer: no identity is read from faces.", None, "answered as unanswerable", True),
        ("", None, "The prose", False),
    ],
)
def test_texts_are_read(text: str, given: str | None, problem: str, strict: bool) -> None:
    found = item_of(RAFDB, record("f", {"expression": "fear"}), Reply("f", text, table={"fear": 1}))
    assert (found.truth, found.given, found.strict) == ("fear", given, strict)
    assert found.problem.startswith(problem)
    assert bool(found.problem) == (given is None)
    # Probabilities of something that is no answer count for nothing.
    assert found.table == ({"fear": 1} if given else {})


def test_a_refused_request_keeps_its_reason() -> None:
    found = item_of(RAFDB, record("f", {"expression": "fear"}), Reply("f", "", problem="refused"))
    assert (found.given, found.problem) == (None, "refused")


def test_groups_are_what_the_dataset_says() -> None:
    people = {"gender": "female", "race": "Black", "age_group": "70+"}
    assert groups_of(record("f", {"age": 3}, demographics=people)) == {
        "gender": "female", "race": "Black", "age": "70+",
    }  # fmt: skip
    assert groups_of(record("f", {"age": 3})) == {"age": "3-9"}
    attributes = {"male": True, "young": False}
    assert groups_of(record("f", {"attributes": attributes})) == {
        "gender": "male", "age": "not young",
    }  # fmt: skip
    made = {"deepfake": "fake", "method": "FaceSwap", "blend_ratio": 0.5}
    assert groups_of(record("f", made)) == {"method": "FaceSwap", "blend_ratio": "0.5"}
