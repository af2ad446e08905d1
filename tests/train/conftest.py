"""A miniature corpus: one portrait in other light, turn and mouth, with every kind of label."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from transformers import LlamaConfig, PreTrainedTokenizerFast, ResNetConfig, Trainer

from facellava import checkpoint
from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.corpus import (
    CORPUS_VERSION,
    FaceRecord,
    Sample,
    read_faces,
    read_samples,
    record_of,
    sha256,
    write_shard,
)
from facellava.faces import Face, canonical_face, find_faces
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.tasks import TASKS, Label
from train import encoder, features, scratch
from train.augment import recolour, to_pictures
from train.face_arrays import FaceArrays, face_arrays
from train.run import train_run
from train.run_config import RunConfig, load_config
from train.tokenizer import train_tokenizer

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
PartsMaker = Callable[[], Parts]
FACES = 36
KINDS = ("expression", "age", "attributes", "deepfake")
ATTRIBUTES = TASKS["attributes"].labels
REASONS = (
    "The lip corners are raised and the eyes are narrowed.",
    "The mouth is closed. The forehead is smooth.",
    "The inner ends of the brows are raised, and the mouth stands open.",
)


# The preset on two cores in seconds.
MINI = (
    "scratch.encoder.pictures=32",
    "scratch.encoder.batch=8",
    "scratch.encoder.round_pictures=8",
    "scratch.encoder.widths=[16, 32, 64]",
    "scratch.encoder.depths=[1, 1, 1]",
    "scratch.teacher.pictures=16",
    "scratch.teacher.batch=8",
    "scratch.teacher.round_pictures=8",
    "scratch.teacher.widths=[16, 32, 64]",
    "scratch.teacher.depths=[1, 1, 1]",
    "scratch.width=64",
    "scratch.layers=1",
    "scratch.heads=2",
    "aside_share=0.2",
    "regions.epochs=2",
    "regions.batch=128",
    "instruct.epochs=2",
    "instruct.batch=64",
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from several, and sums are always in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    tasks = Counter(sample.task for sample in samples)
    manifest = {
        "version": CORPUS_VERSION,
        "settings": {"annotator": "measured 1"},
        "sources": {
            "mini": {
                "title": "Miniature",
                "licence": "public domain",
                "consent": "public figures, not asked",
            }
        },
        "counts": {
            "faces": {"mini": {"train": FACES}},
            "samples": {task: {"train": count} for task, count in sorted(tasks.items())},
        },
        "files": files,
        "dropped": {},
    }
    (folder / "README.md").write_text("A miniature.")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def face_record(
    number: int, photo: NDArray[np.uint8], landmarks: NDArray[np.float64]
) -> FaceRecord:
    """Face number so-and-so of the corpus; its kind of label goes round."""
    rng = np.random.default_rng(number)
    return record_of(
        [varied(photo, landmarks, rng)],
        face_id=f"mini-{number}",
        source="mini",
        split="train",
        labels=labels_of(number),
        licence="public domain",
        origin="astronaut",
    )


def varied(
    photo: NDArray[np.uint8], landmarks: NDArray[np.float64], rng: np.random.Generator
) -> Face:
    """The portrait in other light, its points a little off, so that crops differ too."""
    points = landmarks + rng.normal(0, 1.5, size=2) + rng.normal(0, 0.4, size=landmarks.shape)
    other_light = recolour(to_pictures(photo[None]), rng)[0].permute(1, 2, 0)
    return canonical_face(other_light.round().numpy().astype(np.uint8), points)


def labels_of(number: int) -> dict[str, object]:
    kind, turn = KINDS[number % len(KINDS)], number // len(KINDS)
    if kind == "expression":
        word = ("happiness", "sadness")[turn % 2]
        return {"expression": word, "expression_votes": {word: 7, "neutral": 3, "unknown": 2}}
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


@pytest.fixture(scope="session")
def run_corpus(
    tmp_path_factory: pytest.TempPathFactory,
    portrait: tuple[NDArray[np.uint8], NDArray[np.float64]],
) -> Path:
    """A whole corpus that passes validation: 8 faces to train on, 4 to measure on, two clips."""
    folder = tmp_path_factory.mktemp("corpus") / "whole"
    files: dict[str, Any] = {}
    counts: dict[str, Any] = {"faces": {"mini": {}}, "samples": {}}
    for split, numbers in (("train", range(100, 108)), ("validation", range(200, 204))):
        records = [
            replace(clip_record(number, *portrait), split=split)
            if number in (105, 203)
            else replace(face_record(number, *portrait), split=split)
            for number in numbers
        ]
        samples = [s for number, r in zip(numbers, records, strict=True) for s in asked(number, r)]
        counts["faces"]["mini"][split] = len(records)
        for sample in samples:
            of_task = counts["samples"].setdefault(sample.task, {})
            of_task[split] = of_task.get(split, 0) + 1
        for table, rows in (("faces", records), ("samples", samples)):
            path = folder / table / f"{split}-mini-00000.parquet"
            written = {"rows": write_shard(path, rows, table), "sha256": sha256(path)}
            files[f"{table}/{path.name}"] = written
    manifest = {
        "version": CORPUS_VERSION,
        "settings": {},
        "sources": {"mini": {"title": "Miniature", "licence": "public domain"}},
        "counts": {table: dict(sorted(counts[table].items())) for table in counts},
        "files": files,
        "dropped": {},
    }
    (folder / "README.md").write_text("A miniature.")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def clip_record(
    number: int, photo: NDArray[np.uint8], landmarks: NDArray[np.float64]
) -> FaceRecord:
    """A clip of three frames under the labels of face number so-and-so."""
    rng = np.random.default_rng(number)
    return record_of(
        [varied(photo, landmarks, rng) for _ in range(3)],
        face_id=f"mini-{number}",
        source="mini",
        split="train",
        labels=labels_of(number),
        licence="public domain",
        origin="astronaut",
    )


@pytest.fixture(scope="session")
def mini_arrays(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceArrays:
    """All faces of the miniature corpus as arrays, mapped from disk."""
    folder = tmp_path_factory.mktemp("arrays") / "all"
    return face_arrays(read_faces(mini_corpus), folder, image_size=96, count=FACES)


@pytest.fixture(scope="session")
def mini_tokenizer(mini_corpus: Path) -> PreTrainedTokenizerFast:
    """Nano's tokenizer on the miniature corpus and on what a large one would teach it."""
    samples = list(read_samples(mini_corpus))
    often = [text for sample in samples for text in (sample.question, sample.answer)]
    return train_tokenizer([*often * 5, *(TASKS[task].canonical_question for task in KINDS)])


@pytest.fixture
def new_parts(mini_tokenizer: PreTrainedTokenizerFast, mini_arrays: FaceArrays) -> PartsMaker:
    """Makes the same one-layer model on a narrow encoder of nano's kind each time."""

    def make() -> Parts:
        torch.manual_seed(0)
        config = FaceLlavaConfig(
            vision_config=ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], layer_type="basic"
            ),
            text_config=LlamaConfig(
                vocab_size=len(mini_tokenizer),
                hidden_size=48,
                intermediate_size=96,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=4,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=mini_tokenizer.eos_token_id,
                pad_token_id=mini_tokenizer.pad_token_id,
            ),
            image_token_id=mini_tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            video_token_id=mini_tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
            image_size=96,
            region_heads=4,
            region_hidden=64,
            landmark_mean=mini_arrays.landmarks[0].astype(float).round(4).tolist(),
            landmark_std=0.1,
        )
        return checkpoint.new_model(config, mini_tokenizer)

    return make


class Stopped(BaseException):
    """A stop at a bad moment, which nothing on the way may catch."""


@pytest.fixture(scope="session")
def resumed_run(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The preset's run, finished: stopped in the encoder and in both stages, then gone on with."""
    out = tmp_path_factory.mktemp("run") / "out"
    config = load_config("nano", [f"corpus={mini_corpus}", f"out={out}", *MINI])

    def stop_within(owner: object, name: str) -> None:
        """Start the run, and break it off when this has been called once."""
        real = getattr(owner, name)

        def once_then_stop(*arguments: Any, **settings: Any) -> None:
            real(*arguments, **settings)
            raise Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, once_then_stop)
            with pytest.raises(Stopped):
                train_run(config)

    stop_within(encoder, "_save")
    stop_within(features.np, "save")
    stop_within(scratch, "train_regions")
    stop_within(Trainer, "_save_checkpoint")
    stop_within(scratch, "fit_temperatures")
    train_run(config)
    return config
