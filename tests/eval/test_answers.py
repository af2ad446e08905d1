"""Answers on disk: nothing lost, nothing asked twice, nothing mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.answers import AnswerFile, Reply, read_answers
from facellava.errors import FacellavaError

HEAD = {"protocol": "rafdb/test", "engine": {"name": "nano"}, "fold": None}
REPLIES = [
    Reply("a", "Expression: fear.", table={"fear": 0.75}, calibrated={"fear": 0.5}),
    Reply("b", "line one\nline two \u2028 é", claims=({"claim": "x", "verdict": "supported"},)),
    Reply("c", "", problem="refused"),
]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append(REPLIES[:2])
        file.append(REPLIES[2:])
    head, found = read_answers(path)
    assert head == {"version": 1, **HEAD}
    assert list(found.values()) == REPLIES
    assert path.read_bytes().count(b"\n") == 4


def test_half_a_character_does_not_stop_a_run(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append([Reply("a", "smile \ud83d")])
    assert read_answers(path)[1]["a"].text == "smile ?"


@pytest.mark.parametrize("torn", [b'{"face_id": "b", "te', b"\xff\xfe", b""])
def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append(REPLIES[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with AnswerFile(path, HEAD) as file:
        assert list(file.replies) == ["a"]
        file.append(REPLIES[1:])
    assert list(read_answers(path)[1].values()) == REPLIES
    assert path.read_bytes().startswith(whole)


def test_a_run_killed_before_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"version": 1, "proto')
    with AnswerFile(path, HEAD) as file:
        file.append(REPLIES)
    assert read_answers(path)[0]["protocol"] == "rafdb/test"


def test_answers_to_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append(REPLIES)
    before = path.read_bytes()
    with pytest.raises(FacellavaError, match=r"another run \(engine, fold differ\); give another"):
        AnswerFile(path, {**HEAD, "engine": {"name": "other"}, "fold": 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[1]\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(FacellavaError, match="no file of answers that can be read"):
        read_answers(path)


def test_a_broken_line_is_named_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEAD) as file:
        file.append(REPLIES)
    head, first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + first + b"{broken\n" + third)
    with pytest.raises(FacellavaError, match="Line 3 of .* is no answer; delete that line"):
        read_answers(path)
    path.write_bytes(head + first + third)
    assert list(read_answers(path)[1]) == ["a", "c"]
    assert second


def test_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"version": 99}) + "\n")
    with pytest.raises(FacellavaError, match="form 99, and this facellava reads form 1"):
        read_answers(path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FacellavaError, match="give --out a folder that is writable"):
        AnswerFile(tmp_path / "file" / "answers.jsonl", HEAD)
