"""Tasks for lmms-eval: found, loadable offline, and with our own figures where we are not there."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from eval import lmms_functions
from eval.answers import Reply
from eval.faces_table import FacesTable
from eval.figures import Scorer
from eval.lmms_export import export_lmms_tasks, task_name
from eval.protocols import PROTOCOLS, Kind, Protocol
from eval.run import item_of
from facellava.corpus import write_shard
from facellava.errors import BadCorpus, FacellavaError
from facellava.faces import Face
from facellava.faces.face_png import CHUNK, from_png
from facellava.records import FaceRecord, record_of
from facellava.tasks import TASKS
from facellava.tasks.attribute_table import NAMES
from facellava.tasks.closed_question import question_in

ATTRIBUTES = {name: number % 3 == 0 for number, name in enumerate(NAMES)}
TRUTHS: dict[str, list[dict[str, Any]]] = {
    "rafdb/test": [{"expression": word} for word in ("happiness", "fear", "fear", "anger")],
    "utkface/all-ages": [{"age": age} for age in (30, 41, 8, 70)],
    "ict_facekit/test": [
        {"action_units": units} for units in (["AU6", "AU12"], [], ["AU12"], ["AU1"])
    ],
    "celeba/test": [{"attributes": ATTRIBUTES}] * 3 + [{"attributes": dict.fromkeys(NAMES, True)}],
    "real_fake_faces/test": [{"deepfake": word} for word in ("real", "fake", "fake", "real")],
}
ANSWERS = {
    "rafdb/test": [
        "Expression: happiness. The lip corners are raised.",
        "**Expression:** She looks sad.",
        "Age: 30 years.",
        '{"task":"expression","label":"anger","reasons":["brows lowered"]}',
    ],
    "utkface/all-ages": [
        "Age: 34 years.",
        "He is about 47 years old.",
        "I cannot say.",
        "[LMMS_EVAL_REQUEST_FAILED after 5 retries] the age is 70",
    ],
    "ict_facekit/test": [
        "Action units: AU6, AU25.",
        "Action units: none.",
        "AU12 is active, AU1 is not.",
        "Action units: AU12, AU6.",
    ],
    "celeba/test": [
        TASKS["attributes"].lead(ATTRIBUTES),
        TASKS["attributes"].lead(dict.fromkeys(NAMES, False)),
        "Attributes: bald yes.",
        "",
    ],
    "real_fake_faces/test": [
        "Deepfake: real. Even colours.",
        "This face is manipulated.",
        "Deepfake: real.",
        "It is real or fake.",
    ],
}
OFFERED = list(TRUTHS)


def record(number: int, labels: Mapping[str, Any], frames: int = 1, **more: Any) -> FaceRecord:
    random = np.random.default_rng(number)
    face = Face(
        crop=random.integers(0, 256, (192, 192, 3)).astype(np.uint8),
        landmarks=random.random((68, 2)).astype(np.float32),
        box=(1.0, 2.0, 90.0, 91.0),
        index=0,
        score=1.5,
        source="dlib_hog",
        crop_to_photo=np.array([[0.5, 0.0, 3.0], [0.0, 0.5, 4.0]]),
    )
    facts: dict[str, Any] = {"source": "test", "split": "test", "licence": "free", "origin": "-"}
    facts |= more
    return record_of([face] * frames, face_id=f"face-{number}", labels=labels, **facts)


def table_of(folder: Path, records: Sequence[FaceRecord]) -> FacesTable:
    write_shard(folder / "faces" / "test-test-00000.parquet", records, "faces")
    (folder / "manifest.json").write_text("{}")
    return FacesTable(folder)


@pytest.fixture(scope="module")
def records() -> dict[str, list[FaceRecord]]:
    return {
        key: [record(number, labels) for number, labels in enumerate(rows)]
        for key, rows in TRUTHS.items()
    }


@pytest.fixture(scope="module")
def exported(
    records: dict[str, list[FaceRecord]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The task folder of each protocol."""
    root = tmp_path_factory.mktemp("lmms")
    tables = [
        (PROTOCOLS[key], table_of(root / task_name(PROTOCOLS[key]), records[key]))
        for key in OFFERED
    ]
    folders = export_lmms_tasks(tables, root / "tasks")
    return dict(zip(OFFERED, folders, strict=True))


def read_task(path: Path) -> dict[str, Any]:
    """A task's YAML as lmms-eval reads it, its functions as their names."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task: dict[str, Any] = yaml.load(path.read_text("utf-8"), Loader)
    return task


def load_rows(folder: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(
        "parquet",
        data_files={"test": str(folder / "test.parquet")},
        split="test",
        cache_dir=str(cache),
    )


@pytest.mark.parametrize("key", OFFERED)
def test_the_task_names_its_data_question_and_figures(key: str, exported: dict[str, Path]) -> None:
    folder, kind = exported[key], PROTOCOLS[key].kind
    asked = {folder.name: "question", f"{folder.name}_closed": "closed_question"}
    assert {path.stem for path in folder.glob("*.yaml")} == set(asked)
    for name, column in asked.items():
        task = read_task(folder / f"{name}.yaml")
        assert (task["task"], task["doc_to_text"], task["doc_to_target"]) == (
            name,
            column,
            "target",
        )
        assert task["dataset_path"] == "parquet"
        assert (folder / task["dataset_kwargs"]["data_files"]["test"]).is_file()
        assert task["doc_to_visual"] == "task_functions.doc_to_visual"
        assert task["process_results"] == "task_functions.process_results"
        figures = {
            row["metric"]: row["aggregation"].removeprefix("task_functions.")
            for row in task["metric_list"]
        }
        assert figures == {n: f.__name__ for n, f in lmms_functions.FIGURES[kind].items()}
        lower = [row["metric"] for row in task["metric_list"] if not row["higher_is_better"]]
        assert lower == (["MAE"] if kind == "years" else []) + ["unreadable", "not_our_grammar"]


def test_only_the_area_under_the_curve_is_missing() -> None:
    missing = {
        (kind, figure)
        for key in OFFERED
        for kind in [PROTOCOLS[key].kind]
        for figure in PROTOCOLS[key].figures
        if figure not in lmms_functions.FIGURES[kind]
    }
    assert missing == {("deepfake", "AUC")}


def test_the_data_load_offline(
    exported: dict[str, Path], records: dict[str, list[FaceRecord]], tmp_path: Path
) -> None:
    rows = load_rows(exported["rafdb/test"], tmp_path)
    protocol = PROTOCOLS["rafdb/test"]
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows["face_id"][:] == [f"face-{number}" for number in range(4)]
    first = rows[1]
    assert (first["question"], first["target"]) == (protocol.question, '"fear"')
    assert first["closed_question"] == question_in("closed", "expression", protocol.labels)
    assert (first["task"], first["kind"]) == ("expression", "classes")
    assert tuple(first["labels"]) == protocol.labels


def test_the_landmarks_survive_another_encoding(
    exported: dict[str, Path], records: dict[str, list[FaceRecord]], tmp_path: Path
) -> None:
    assert lmms_functions.FACE_CHUNK == CHUNK
    row = load_rows(exported["rafdb/test"], tmp_path)[2]
    [picture] = lmms_functions.doc_to_visual(row)
    sent = io.BytesIO()
    picture.save(sent, format="PNG")
    found = from_png(sent.getvalue())
    assert found is not None
    [wanted] = records["rafdb/test"][2].faces()
    np.testing.assert_array_equal(found.faces[0].landmarks, wanted.landmarks)
    np.testing.assert_array_equal(found.faces[0].crop, wanted.crop)


def test_a_picture_of_another_table_goes_as_it_is() -> None:
    picture = Image.new("RGB", (4, 4))
    assert lmms_functions.doc_to_visual({"image": picture}) == [picture]
    assert not getattr(picture, "encoderinfo", {})


ELSEWHERE = """
import importlib.util, json, sys
from pathlib import Path
sys.modules["facellava"] = sys.modules["eval"] = None  # an import of either would fail
found = {}
for folder, docs, texts in json.load(sys.stdin):
    path = Path(folder, "task_functions.py")
    spec = importlib.util.spec_from_file_location("task_functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [module.process_results(doc, [text]) for doc, text in zip(docs, texts)]
    found[folder] = {
        name: getattr(module, function.__name__)([row[name] for row in rows])
        for name, function in module.FIGURES[docs[0]["kind"]].items()
    }
print(json.dumps(found))
"""


def test_figures_are_ours_in_an_environment_without_us(
    exported: dict[str, Path], records: dict[str, list[FaceRecord]], tmp_path: Path
) -> None:
    asked = []
    for key, folder in exported.items():
        rows = load_rows(folder, tmp_path).remove_columns("image")
        asked.append([str(folder), list(rows), ANSWERS[key]])
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key, folder in exported.items():
        items = [
            item_of(PROTOCOLS[key], face, _reply(face, text))
            for face, text in zip(records[key], ANSWERS[key], strict=True)
        ]
        figures = {
            name: value
            for name, value in Scorer(PROTOCOLS[key], items).figures().items()
            if name != "AUC"
        }
        figures["unreadable"] = np.mean([item.given is None for item in items])
        figures["not_our_grammar"] = np.mean([not item.strict for item in items])
        assert found[str(folder)] == pytest.approx(figures, abs=1e-12), key
    # 34 for 30 and 47 for 41; the refusal and the failed request are outside the five years.
    years = found[str(exported["utkface/all-ages"])]
    assert years == {"MAE": 5.0, "CS5": 0.25, "unreadable": 0.5, "not_our_grammar": 0.75}


def _reply(face: FaceRecord, text: str) -> Reply:
    if text.startswith("[LMMS_EVAL"):
        return Reply(face.face_id, "", problem="failed")
    return Reply(face.face_id, text)


@pytest.mark.parametrize("key", sorted(PROTOCOLS))
def test_every_text_is_read_as_by_the_suite(key: str) -> None:
    protocol = PROTOCOLS[key]
    texts = [text for answers in ANSWERS.values() for text in answers]
    texts += [f"Age: {years} years." for years in (0, 2, 3, 69, 70, 116)]
    texts += [f"Expression: {label}." for label in TASKS["expression"].labels]
    doc = {"task": protocol.task, "kind": protocol.kind, "labels": list(protocol.labels)}
    face = record(0, {})
    for text in texts:
        if text.startswith("[LMMS_EVAL"):
            continue
        item = item_of(replace(protocol, truth=lambda _: "x"), face, Reply("x", text))
        assert lmms_functions.read(doc, text) == (item.given, item.strict), text


def hostile(kind: Kind = "classes", **more: Any) -> Protocol:
    return replace(
        PROTOCOLS["rafdb/test"],
        key='../x\'y: {a}\n# "é" !function os.system',
        title='Title: "quoted"\n- {{ 7 * 7 }} # é \U0001f600 \x85',
        labels=("a: b", "'", '"\n', "{{ x }}"),
        truth=lambda _: "a: b",
        **more,
    )


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    table = table_of(tmp_path / "faces", [record(0, {}, licence="free # \n- {{ 7 * 7 }}")])
    [folder] = export_lmms_tasks([(hostile(), table)], tmp_path / "out")
    assert folder == tmp_path / "out" / "facellava_x_y_a_function_os_system"
    task = read_task(folder / f"{folder.name}.yaml")
    assert task["metadata"] == {"version": 1, "protocol": hostile().key, "title": hostile().title}
    row = load_rows(folder, tmp_path / "cache")[0]
    assert tuple(row["labels"]) == hostile().labels
    assert json.loads(row["target"]) == "a: b"
    assert "- free # - {{ 7 * 7 }}" in (folder / "README.md").read_text("utf-8").splitlines()


def test_nothing_is_overwritten(exported: dict[str, Path], tmp_path: Path) -> None:
    table = table_of(tmp_path / "faces", [record(0, {"expression": "fear"})])
    folder = exported["rafdb/test"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FacellavaError, match=f"'{folder}' would be overwritten"):
        export_lmms_tasks([(PROTOCOLS["rafdb/test"], table)], folder.parent)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_two_keys_of_one_name_are_refused_before_any_is_written(tmp_path: Path) -> None:
    table = table_of(tmp_path / "faces", [record(0, {"expression": "fear"})])
    twice = [(replace(PROTOCOLS["rafdb/test"], key=key), table) for key in ("a/b", "a-b")]
    with pytest.raises(FacellavaError, match="facellava_a_b' would be overwritten"):
        export_lmms_tasks(twice, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("face", "error", "words"),
    [
        (record(0, {"age": 3}), BadCorpus, "No face was found for rafdb/test"),
        (
            record(0, {"expression": "fear"}, frames=2),
            FacellavaError,
            "rafdb/test asks about clips",
        ),
    ],
)
def test_a_table_that_cannot_be_exported_leaves_nothing(
    face: FaceRecord, error: type[Exception], words: str, tmp_path: Path
) -> None:
    table = table_of(tmp_path / "faces", [face])
    with pytest.raises(error, match=words):
        export_lmms_tasks([(PROTOCOLS["rafdb/test"], table)], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_limit_takes_the_same_faces_whatever_their_order(tmp_path: Path) -> None:
    faces = [record(number, {"expression": "fear"}) for number in range(12)]
    drawn = []
    for name, ordered in (("one", faces), ("two", faces[::-1])):
        table = table_of(tmp_path / name, ordered)
        [folder] = export_lmms_tasks(
            [(PROTOCOLS["rafdb/test"], table)], tmp_path / f"out-{name}", limit=5
        )
        drawn.append(set(load_rows(folder, tmp_path / "cache")["face_id"][:]))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 5
