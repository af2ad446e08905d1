"""Protocols: which faces have part, what is right, and how a verdict is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_builders.sources import SOURCES
from eval.protocols import AGE_GROUPS, PROTOCOLS, SUITES, age_group, find_protocols
from facellava.errors import FacellavaError
from facellava.records import FaceRecord
from facellava.tasks import TASKS


def record(labels: dict[str, Any], **more: Any) -> FaceRecord:
    return FaceRecord(
        face_id="x", source="x", split="test", frames=(b"",),
        landmarks=np.zeros((1, 68, 2), np.float32), box=(0, 0, 1, 1), score=1.0, face_source="x",
        native_size=192, labels=labels, licence="x", origin="x", **more,
    )  # fmt: skip


def test_each_has_a_source_a_task_and_a_part_of_the_data() -> None:
    for key, protocol in PROTOCOLS.items():
        assert protocol.key == key
        assert protocol.source in SOURCES
        assert protocol.question == TASKS[protocol.task].canonical_question
        assert (protocol.split is None) == (protocol.folds > 0)
        assert protocol.folds in (0, SOURCES[protocol.source].folds)
        assert set(protocol.labels) <= {*TASKS[protocol.task].labels, *AGE_GROUPS}


def test_tables_are_shared_by_the_same_faces_only() -> None:
    tables: dict[str, set[tuple[Any, ...]]] = {}
    for protocol in PROTOCOLS.values():
        faces = (protocol.source, protocol.split, protocol.made_from)
        tables.setdefault(protocol.table, set()).add(faces)
    assert all(len(faces) == 1 for faces in tables.values())
    assert PROTOCOLS["utkface/21-60"].table == PROTOCOLS["utkface/all-ages"].table
    assert PROTOCOLS["self_blended/test"].table != PROTOCOLS["real_fake_faces/test"].table


@pytest.mark.parametrize(
    ("key", "labels", "truth"),
    [
        ("rafdb/test", {"expression": "fear"}, "fear"),
        ("rafdb/test", {"expression": "contempt"}, None),
        ("affectnet/8-validation", {"expression": "contempt"}, "contempt"),
        ("affectnet/7-validation", {"expression": "contempt"}, None),
        ("utkface/all-ages", {"age": 3}, 3),
        ("utkface/21-60", {"age": 20}, None),
        ("utkface/21-60", {"age": 60}, 60),
        ("disfa/3-folds", {"age": 3}, None),
        ("disfa/3-folds", {"action_units": ["AU6"], "action_units_coded": ["AU4", "AU6", "AU7"]},
         {"AU4": False, "AU6": True}),
        ("bp4d/3-folds", {"action_units": [], "action_units_coded": []}, None),
        ("faceforensics/c40", {"deepfake": "fake"}, "fake"),
        ("lfw/all-real", {}, "real"),
        ("real_fake_faces/test", {"deepfake": "real", "origin": "ffhq"}, "real"),
        ("real_fake_faces/test", {"deepfake": "fake"}, "fake"),
        ("real_fake_faces/test", {"deepfake": "fake", "origin": "dfdc_sample"}, None),
        ("real_fake_faces/dfdc", {"deepfake": "fake", "origin": "dfdc_sample"}, "fake"),
        ("real_fake_faces/dfdc", {"deepfake": "real", "origin": "ffhq"}, None),
        ("self_blended/test", {"deepfake": "fake", "origin": "celeba"}, "fake"),
    ],
)  # fmt: skip
def test_truth(key: str, labels: dict[str, Any], truth: object) -> None:
    assert PROTOCOLS[key].truth(record(labels)) == truth


def test_age_groups_come_from_the_person_and_from_the_answer() -> None:
    fairface = PROTOCOLS["fairface/age-groups"]
    assert fairface.truth(record({}, demographics={"age_group": "30-39"})) == "30-39"
    assert [age_group(years) for years in (0, 2, 3, 9, 10, 69, 70, 116)] == [
        "0-2", "0-2", "3-9", "3-9", "10-19", "60-69", "70+", "70+",
    ]  # fmt: skip
    assert fairface.given(34) == "30-39"


def test_verdicts_take_the_form_of_the_truth() -> None:
    disfa = PROTOCOLS["disfa/3-folds"].given(("AU6", "AU10"))
    assert [unit for unit, named in disfa.items() if named] == ["AU6"]
    assert list(disfa) == list(PROTOCOLS["disfa/3-folds"].labels)
    celeba = PROTOCOLS["celeba/test"]
    assert celeba.given({"bald": True}) is None
    whole = dict.fromkeys(celeba.labels, False)
    assert celeba.given(whole) == whole
    assert PROTOCOLS["utkface/all-ages"].given(7) == 7


def test_what_was_parted_is_asked_the_same_about_the_same_table() -> None:
    parted = [protocol for protocol in PROTOCOLS.values() if protocol.parted_from]
    assert [protocol.key for protocol in parted] == ["real_fake_faces/dfdc"]
    for protocol in parted:
        whole = PROTOCOLS[str(protocol.parted_from)]
        assert (protocol.table, protocol.question) == (whole.table, whole.question)


def test_suites_and_names_are_found_once_in_the_order_given() -> None:
    found = find_protocols(["rafdb/test", "packs", "celeba/test", "rafdb/test"])
    assert [protocol.key for protocol in found] == ["rafdb/test", *SUITES["packs"]]
    assert len(SUITES["paper"]) == 9
    with pytest.raises(FacellavaError, match="no protocol or suite 'rafdb'; choose among"):
        find_protocols(["rafdb"])
