"""A miniature corpus: one portrait in other light, turn and mouth, with every kind of label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from facellava.corpus import CORPUS_VERSION, FaceRecord, Sample, record_of, sha256, write_shard
from facellava.faces import Face, canonical_face, find_faces
from facellava.tasks import TASKS, Label
from train.augment import recolour

FACES = 36
KINDS = ("expression", "age", "attributes", "deepfake")
ATTRIBUTES = TASKS["attributes"].labels
REASONS = (
    "The lip corners are raised and the eyes are narrowed.",
    "The mouth is closed. The forehead is smooth.",
    "The inner ends of the brows are raised, and the mouth stands open.",
)


@pytest.fixture(scope="session")
def portrait() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """scikit-image's public-domain portrait and its 68 points in pixels."""
    photo = data.astronaut()
    return photo, find_faces(photo)[0].photo_landmarks


@pytest.fixture(scope="session")
def mini_corpus(
    tmp_path_factory: pytest.TempPathFactory,
    portrait: tuple[NDArray[np.uint8], NDArray[np.float64]],
) -> Path:
    """A corpus folder of 36 faces and their questions, all of split "train"."""
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    records = [face_record(number, *portrait) for number in range(FACES)]
    samples = [sample for number, record in enumerate(records) for sample in asked(number, record)]
    files = {}
    for table, rows in (("faces", records), ("samples", samples)):
        path = folder / table / "train-mini-00000.parquet"
        files[f"{table}/{path.name}"] = {"rows": write_shard(path, rows, table)}
        files[f"{table}/{path.name}"]["sha256"] = sha256(path)
    manifest = {"version": CORPUS_VERSION, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def face_record(
    number: int, photo: NDArray[np.uint8], landmarks: NDArray[np.float64]
) -> FaceRecord:
    """Face number so-and-so of the corpus; its kind of label goes round."""
    rng = np.random.default_rng(number)
    labels = labels_of(number)
    return record_of(
        [varied(photo, landmarks, rng)],
        face_id=f"mini-{number}",
        source="mini",
        split="train",
        labels=labels,
        licence="public domain",
        origin="astronaut",
    )


def varied(
    photo: NDArray[np.uint8], landmarks: NDArray[np.float64], rng: np.random.Generator
) -> Face:
    """The portrait in other light, its points a little off, so that crops differ too."""
    points = landmarks + rng.normal(0, 1.5, size=2) + rng.normal(0, 0.4, size=landmarks.shape)
    return canonical_face(recolour(photo, rng), points)


def labels_of(number: int) -> dict[str, object]:
    kind, turn = KINDS[number % len(KINDS)], number // len(KINDS)
    if kind == "expression":
        return {
            "expression": ("happiness", "sadness")[turn % 2],
            "expression_votes": {"neutral": 1},
        }
    if kind == "age":
        return {"age": (9, 34, 61)[turn % 3]}
    if kind == "attributes":
        return {"attributes": {name: (turn + n) % 3 == 0 for n, name in enumerate(ATTRIBUTES)}}
    return {"deepfake": ("real", "fake")[turn % 2]}


def asked(number: int, record: FaceRecord) -> list[Sample]:
    """The face's own question in prose and JSON, a follow-up, and action units."""
    kind = KINDS[number % len(KINDS)]
    reasons = REASONS[number % len(REASONS)]
    given = record.labels[kind]
    units: Label = ("AU6", "AU12") if number % 2 else ()
    prose = f"{TASKS[kind].lead(given)} {reasons}"
    question = TASKS[kind].canonical_question
    answers = [
        (kind, question, prose, (), "prose"),
        (kind, f"{question} Answer in JSON.", TASKS[kind].write_json(given, [reasons]), (), "json"),
        (kind, "Why?", prose, ((question, prose),), "prose"),
        (
            "action_units",
            TASKS["action_units"].canonical_question,
            f"{TASKS['action_units'].lead(units)} {reasons}",
            (),
            "prose",
        ),
    ]
    return [
        Sample(
            sample_id=f"{record.face_id}-{place}",
            face_id=record.face_id,
            task=task,
            question=asked_question,
            answer=answer,
            label=given if task == kind else list(units),
            history=history,
            form=form,
        )
        for place, (task, asked_question, answer, history, form) in enumerate(answers)
    ]
