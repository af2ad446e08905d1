"""Two runs face by face: differences, how sure they are, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.answers import AnswerFile, Reply
from eval.comparison import compare, compare_runs, markdown
from eval.protocols import PROTOCOLS
from eval.run import FacesTable
from eval.run_folder import RunFolder
from facellava.corpus import sha256, write_shard
from facellava.errors import FacellavaError
from facellava.records import FaceRecord
from tests.eval.answered import answered, protocol_of

FAKES = protocol_of("deepfake")
TRUTH = ["fake"] * 20
# Of twenty both get twelve, the first alone one, the second alone five, neither two.
FIRST = answered(TRUTH, ["fake"] * 13 + ["real"] * 7)
SECOND = answered(TRUTH, ["fake"] * 12 + ["real"] + ["fake"] * 5 + ["real", None])


def test_right_and_wrong() -> None:
    found = compare(FAKES, FIRST, SECOND)
    accuracy = found["figures"]["accuracy"]
    assert (accuracy["first"], accuracy["second"]) == (0.65, 0.85)
    assert accuracy["difference"] == pytest.approx(0.2)
    # Six of twenty differ: the standard error is the root of (6/20 - 0.2 squared) / 20, or 0.114,
    # and resamples go in steps of 0.05. A normal difference of that size has p 0.08.
    assert accuracy["low"] == pytest.approx(0.2 - 1.96 * 0.114, abs=0.05)
    assert accuracy["high"] == pytest.approx(0.2 + 1.96 * 0.114, abs=0.05)
    assert accuracy["p"] == pytest.approx(0.08, abs=0.05)
    # Six faces that one run alone gets: (1 + 6) / 64, on both sides.
    assert found["test"] == {
        "name": "McNemar, exact", "p": pytest.approx(14 / 64), "n": 6,
        "first_only": 1, "second_only": 5,
    }  # fmt: skip
    assert (found["n"], found["n_subjects"]) == (20, None)
    assert np.isnan(found["figures"]["AUC"]["p"])


def test_a_run_is_no_better_than_itself() -> None:
    found = compare(FAKES, FIRST, FIRST)
    assert found["figures"]["accuracy"] == {
        "first": 0.65, "second": 0.65, "difference": 0, "low": 0, "high": 0, "p": 1,
    }  # fmt: skip
    assert found["test"]["p"] == 1


def test_years() -> None:
    truth = [30, 30, 30, 30, 30, 30, 30]
    # Errors 11 12 13 14 15 3 - against 10 10 10 10 10 3 1: nearer by 1 to 5, the same once.
    one = answered(truth, [41, 42, 43, 44, 45, 33, None])
    two = answered(truth, [40, 40, 40, 40, 40, 33, 31])
    found = compare(protocol_of("years"), one, two)
    # All five ranks on one side: 2 / 32.
    assert found["test"] == {
        "name": "Wilcoxon signed-rank", "p": pytest.approx(0.0625), "n": 5,
        "first_only": 0, "second_only": 5,
    }  # fmt: skip
    assert found["figures"]["MAE"]["difference"] == pytest.approx(54 / 7 - 68 / 6)


def test_units_have_no_right_and_wrong_face() -> None:
    units = protocol_of("units", "AU1")
    there, absent = [{"AU1": True}] * 4, [{"AU1": False}] * 4
    found = compare(units, answered(there, absent), answered(there, there))
    assert found["test"] is None
    assert found["figures"]["mean_F1"] == {
        "first": 0, "second": 1, "difference": 1, "low": 1, "high": 1,
        "p": pytest.approx(2 / 1001),
    }  # fmt: skip


def test_whole_subjects_are_drawn_for_both() -> None:
    # Eight faces of two people: for one the second run is right, for the other the first.
    subject = ["a"] * 4 + ["b"] * 4
    one = answered(["fake"] * 8, ["real"] * 4 + ["fake"] * 4, subject=subject)
    two = answered(["fake"] * 8, ["fake"] * 4 + ["real"] * 4, subject=subject)
    found = compare(FAKES, one, two)
    assert found["n_subjects"] == 2
    accuracy = found["figures"]["accuracy"]
    assert (accuracy["difference"], accuracy["low"], accuracy["high"]) == (0, -1, 1)


def test_faces_are_paired_by_their_names() -> None:
    found = compare(FAKES, FIRST[:15], SECOND[::-1][:18])
    assert (found["n"], found["only_first"], found["only_second"]) == (13, 2, 5)
    turned, straight = (compare(FAKES, FIRST, second) for second in (SECOND[::-1], SECOND))
    assert turned["test"] == straight["test"]
    assert turned["figures"]["accuracy"] == straight["figures"]["accuracy"]
    with pytest.raises(FacellavaError, match="share no face"):
        compare(FAKES, FIRST[:3], SECOND[5:])
    other = [replace(SECOND[0], truth="real"), *SECOND[1:]]
    with pytest.raises(FacellavaError, match="two truths"):
        compare(FAKES, FIRST, other)


def write_run(path: Path, key: str, faces: Sequence[str], said: Mapping[str, str]) -> RunFolder:
    """A run that asked about deepfakes of these names, all of them fake."""
    folder = path / "faces" / PROTOCOLS[key].table
    records = [
        FaceRecord(
            face_id=name, source="celeb_df", split="test", frames=(b"jpeg",),
            landmarks=np.zeros((1, 68, 2), np.float32), box=(0, 0, 1, 1), score=0.0,
            face_source="test", native_size=192.0, labels={"deepfake": "fake"}, licence="",
            origin="",
        )
        for name in faces
    ]  # fmt: skip
    run, table = RunFolder(path), FacesTable(folder)
    run.begin({"kind": "model", "name": "nano"}, {})
    path = folder / "faces" / "test-celeb_df-00000.parquet"
    write_shard(path, records, "faces")
    files = {"faces/test-celeb_df-00000.parquet": {"sha256": sha256(path), "rows": len(records)}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    run.add(PROTOCOLS[key], table)
    head: dict[str, Any] = {"faces": table.folder.name, "data_sha256": table.data_sha256}
    with AnswerFile(run.answers(PROTOCOLS[key]), head) as file:
        file.append(Reply(name, f"Deepfake: {said[name]}.") for name in faces)
    return run


def test_two_run_folders(tmp_path: Path) -> None:
    key, faces = "celeb_df/official-test", ["a", "b", "c", "d"]
    one = write_run(tmp_path / "old", key, faces, dict.fromkeys(faces, "real"))
    two = write_run(tmp_path / "new", key, faces, dict.fromkeys(faces, "fake"))
    found = compare_runs(one, two)
    assert found["runs"] == ["old", "new"]
    assert found["in_one_only"] == []
    assert found["protocols"][key]["figures"]["accuracy"]["difference"] == 1
    head, rule, row, *more = markdown(found).splitlines()
    assert head.startswith("| Protocol | Faces | Figure | old | new | new - old (95%) | p |")
    assert rule.count("|") == head.count("|") == row.count("|")
    assert row == (
        "| celeb_df/official-test | 4 | accuracy | 0.0000 | 1.0000 "
        "| +1.0000 (+1.0000 to +1.0000) | 0.002 "
        "| McNemar, exact: p 0.125; only old right on 0 faces, only new on 4 |"
    )
    assert [line.split(" | ")[2] for line in more] == ["balanced_accuracy", "AUC"]


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    key, faces = "celeb_df/official-test", ["a", "b"]
    one = write_run(tmp_path / "old", key, faces, dict.fromkeys(faces, "real"))
    fewer = write_run(tmp_path / "new", key, faces[:1], dict.fromkeys(faces, "real"))
    with pytest.raises(FacellavaError, match="not the same in"):
        compare_runs(one, fewer)
    lfw = write_run(tmp_path / "lfw", "lfw/all-real", faces, dict.fromkeys(faces, "real"))
    with pytest.raises(FacellavaError, match="share no protocol"):
        compare_runs(one, lfw)
