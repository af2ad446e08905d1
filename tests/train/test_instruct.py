"""Stage 2: what is learned, in which order, and how a stopped run goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, get_cosine_schedule_with_warmup

from facellava.checkpoint import set_clips
from facellava.corpus import read_samples
from facellava.errors import BadSample
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from train.face_arrays import UNITS
from train.features import FeatureCache
from train.instruct import (
    CachedCollator,
    InstructionRows,
    encode_rows,
    switching_rows,
)
from train.run_config import load_config
from train.run_trainer import new_trainer
from train.stage_trainer import StageTrainer, last_whole_checkpoint
from train.trainable import make_trainable
from train.verdict_loss import VerdictLoss

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
# How the weights in the package were taught; the preset says the same in its own words.
RATE, BETAS, DECAY, WARMUP, NORM = 2e-3, (0.9, 0.98), 0.05, 0.03, 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": ""}, "its answer is empty"),
        ({"answer": "Happy I think"}, "its answer does not name its task"),
        ({"label": None}, "its label is null, and the task expression has labels"),
    ],
)
def test_a_sample_that_teaches_nothing_is_named(
    mini_corpus: Path, new_parts: Callable[[], Parts], change: dict[str, Any], sentence: str
) -> None:
    sample = replace(next(read_samples(mini_corpus)), **change)
    with pytest.raises(BadSample, match=f"Sample mini-0-0 cannot be used: {sentence}"):
        encode_rows([sample], {sample.face_id: 0}, new_parts()[1])


def teach(
    parts: Parts, rows: InstructionRows, folder: Path, **settings: Any
) -> list[dict[str, float]]:
    """Stage 2 of the preset in that folder, in place; returns the log of the steps."""
    model, processor = parts
    given = {"epochs": 2, "batch": 6} | settings
    changes = [f"instruct.{name}={value}" for name, value in given.items()]
    folders = [f"corpus={folder}", f"out={folder}"]
    small = ["workers=0", "log_steps=1", "save_steps=3", "bf16=false"]
    config = load_config("nano", [*folders, *small, *changes])
    make_trainable(model, config, "instruct")
    trainer = new_trainer(
        model, model, config, "instruct", folder, CachedCollator(processor), rows, None, None
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    history: list[dict[str, float]] = trainer.state.log_history
    return history


@pytest.fixture
def parts(new_parts: Callable[[], Parts]) -> Parts:
    return new_parts()


@pytest.fixture
def rows(parts: Parts, mini_corpus: Path, mini_arrays) -> InstructionRows:
    """Short answers about the first faces, two variants of random features."""
    index = {f"mini-{number}": number for number in range(6)}
    samples = [s for s in read_samples(mini_corpus) if s.task != "attributes"]
    features = np.random.default_rng(0).normal(size=(2, 6, 36, 16)).astype(np.float16)
    marks = np.stack([mini_arrays.landmarks[:6]] * 2)
    return InstructionRows(
        encode_rows(samples, index, parts[1]),
        FeatureCache(features=features, landmarks=marks),
        mini_arrays.units[:6],
    )


def test_rows_are_of_known_faces_and_learn_every_answer(parts: Parts, mini_corpus: Path) -> None:
    tokenizer = parts[1].tokenizer
    encoded = encode_rows(read_samples(mini_corpus), {"mini-1": 7}, parts[1])
    assert {row.face for row in encoded} == {7}
    assert len(encoded) == 4
    for row, sample in zip(
        encoded, (s for s in read_samples(mini_corpus) if s.face_id == "mini-1"), strict=True
    ):
        learned = [token for token in row.text.labels or () if token != IGNORED_LABEL]
        spoken = [answered for _, answered in sample.history] + [sample.answer]
        assert tokenizer.decode(learned) == "".join(f"{answer}</s>" for answer in spoken)


@pytest.mark.parametrize(
    ("settings", "lengths"), [({"merge": 2}, {1, 2, 4}), ({"frames": 8, "pool": 2}, {1, 8})]
)
def test_clips_are_as_long_as_the_model_reads_them(
    parts: Parts, mini_corpus: Path, settings: dict[str, int], lengths: set[int]
) -> None:
    model, processor = parts
    set_clips(model, processor, **settings)
    samples = list(read_samples(mini_corpus)) * 20
    encoded = encode_rows(samples, {s.face_id: 0 for s in samples}, processor)
    assert {row.frames for row in encoded} == lengths
    for row in encoded:
        ids = torch.tensor([row.text.input_ids])
        assert model.frames_in_clips(ids).tolist() == [row.frames > 1] * row.frames


def test_only_faces_with_coded_units_have_unknown_ones() -> None:
    units = np.full((3, len(UNITS)), -1, np.int8)
    units[1, :2], units[2] = (0, 1), 0
    cache = FeatureCache(np.zeros((1, 3, 1, 1), np.float16), np.zeros((1, 3, 68, 2), np.float32))
    uncoded = InstructionRows([], cache, units).uncoded
    assert uncoded.sum(axis=1).tolist() == [0, len(UNITS) - 2, 0]


def test_a_row_with_another_face_teaches_the_name_of_its_task_alone(
    parts: Parts, mini_corpus: Path, rows: InstructionRows
) -> None:
    tokenizer = parts[1].tokenizer
    swapped = InstructionRows(rows.rows, rows.cache, np.full((6, len(UNITS)), -1, np.int8), 1.0)
    known = {f"mini-{number}" for number in range(6)}
    samples = [s for s in read_samples(mini_corpus) if s.task != "attributes"]
    samples = [s for s in samples if s.face_id in known]
    torch.manual_seed(0)
    for number, (row, sample) in enumerate(zip(rows.rows, samples, strict=True)):
        shown = swapped[number][0]["text"]
        assert shown.input_ids == row.text.input_ids
        taught = tokenizer.decode([token for token in shown.labels if token != IGNORED_LABEL])
        assert sample.answer.startswith(taught)
        assert taught.lower().removeprefix('{"task":"').startswith(sample.task[:3])
        assert taught.endswith((":", '"label'))
    alone = InstructionRows(rows.rows, rows.cache, np.full((6, len(UNITS)), -1, np.int8), 0.0)
    assert alone[0][0]["text"] == rows.rows[0].text


def test_conversations_that_turn_to_another_task_teach_its_name(
    parts: Parts, mini_corpus: Path
) -> None:
    processor = parts[1]
    samples = [s for s in read_samples(mini_corpus) if s.task in {"age", "expression"}]
    index = {sample.face_id: number for number, sample in enumerate(samples)}
    turned = switching_rows(samples, index, processor, 20)
    assert len(turned) == 20
    bare = 0
    for row in turned:
        text = processor.tokenizer.decode(row.text.input_ids)
        [before] = set(re.findall(r"(Age|Expression): ", text.split("<|user|>")[1])) or {"JSON"}
        kept = [token for token in row.text.labels or () if token != IGNORED_LABEL]
        taught = processor.tokenizer.decode(kept)
        assert taught.endswith((":", '"label'))
        assert not taught.startswith(before)
        assert text.count("<|user|>") == 2
        first = text.split("<|user|>")[1]
        bare += bool(re.search(r"(Age: \d+ years|Expression: \w+)\.\s*(<|$)", first))
    assert 0 < bare < 15
    assert turned == switching_rows(samples, index, processor, 20)
    refusal = "Cannot answer: I do not identify people. What I can estimate is an age."
    refused = replace(samples[0], task="unanswerable", label=None, answer=refusal)
    for row in switching_rows([refused, samples[0]], index, processor, 20):
        assert "Cannot answer: I do not" in processor.tokenizer.decode(row.text.input_ids)
    ages = [sample for sample in samples if sample.task == "age"]
    assert switching_rows(ages, index, processor, 5) == []


def test_what_grouping_needs_of_the_rows(rows: InstructionRows, parts: Parts) -> None:
    usable = rows.usable
    assert usable.rows.tolist() == list(range(len(rows)))
    assert usable.lengths.tolist() == [len(row.text.input_ids) for row in rows.rows]
    assert usable.frames.tolist() == [row.frames for row in rows.rows]
    labels = CachedCollator(parts[1])([rows[0], rows[1]])["labels"]
    assert usable.learned[:2].tolist() == (labels[:, 1:] != IGNORED_LABEL).sum(dim=1).tolist()


def test_the_curve_is_that_of_a_plain_loop(
    new_parts: Callable[[], Parts], rows: InstructionRows, tmp_path: Path
) -> None:
    one_variant = FeatureCache(rows.cache.features[:1], rows.cache.landmarks[:1])
    whole = InstructionRows(rows.rows, one_variant, np.full((6, len(UNITS)), -1, np.int8))
    steps = 6
    history = teach(new_parts(), whole, tmp_path / "run", epochs=steps, batch=len(whole))
    curve = [entry["loss"] for entry in history if "loss" in entry]

    model, processor = new_parts()
    model.train().face_encoder.vision_tower.requires_grad_(False).eval()
    loss = VerdictLoss(processor.tokenizer)
    decayed = Trainer.get_decay_parameter_names(None, model)
    learned = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in learned if (n in decayed) == decays], "weight_decay": decay}
        for decays, decay in ((True, DECAY), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP * steps), steps)
    batch = CachedCollator(processor)([whole[number] for number in range(len(whole))])
    labels, uncoded = batch.pop("labels"), batch.pop("uncoded")
    wanted = []
    for _ in range(steps):
        value = loss(model(**batch).logits, labels, uncoded)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        wanted.append(value.item())
    assert curve == pytest.approx(wanted, rel=1e-3)
    assert curve[-1] < curve[0]


def test_it_learns_its_answers(
    parts: Parts,
    rows: InstructionRows,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model, processor = parts
    loss = VerdictLoss(processor.tokenizer)

    def mean_loss() -> float:
        text = processor.pad([row.text for row in rows.rows], side="right")
        labels = text.pop("labels")
        items = [rows[number][0] for number in range(len(rows))]
        with torch.no_grad():
            logits = model(
                **text,
                image_features=torch.cat([item["image_features"] for item in items]),
                landmarks=torch.cat([item["landmarks"] for item in items]),
            ).logits
        return loss(logits, labels, torch.stack([item["uncoded"] for item in items])).item()

    before = mean_loss()
    teach(parts, rows, tmp_path / "run", epochs=8, learning_rate=5e-3)
    assert mean_loss() < 0.7 * before
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Warning" not in captured.err
    assert "missing keys" not in captured.err


class Watched(InstructionRows):
    """Writes down which rows were read."""

    def __init__(self, rows: InstructionRows) -> None:
        super().__init__(rows.rows, rows.cache, np.full((6, len(UNITS)), -1, np.int8))
        self.read: list[int] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read.append(index)
        return super().__getitem__(index)


class Stopped(Exception):
    """What a stop looks like from inside."""


def test_a_stopped_run_goes_on_with_the_rows_that_are_left(
    new_parts: Callable[[], Parts],
    rows: InstructionRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps_an_epoch = -(-len(rows) // 6)
    whole = Watched(rows)
    teach(new_parts(), whole, tmp_path / "whole")
    assert sorted(whole.read) == sorted([*range(len(rows))] * 2)

    save = StageTrainer._save_checkpoint

    def save_and_stop(self: StageTrainer, *arguments: Any, **more: Any) -> None:
        save(self, *arguments, **more)
        if self.state.global_step == 6:
            raise Stopped

    monkeypatch.setattr(StageTrainer, "_save_checkpoint", save_and_stop)
    with pytest.raises(Stopped):
        teach(new_parts(), rows, tmp_path / "stopped")
    monkeypatch.setattr(StageTrainer, "_save_checkpoint", save)
    caplog.clear()
    left = Watched(rows)
    fresh = new_parts()
    teach(fresh, left, tmp_path / "stopped")
    assert steps_an_epoch < 6 < 2 * steps_an_epoch
    assert left.read == whole.read[len(rows) + (6 - steps_an_epoch) * 6 :]
    assert "missing keys" not in caplog.text
    # The embedding and the output are still one matrix.
    language_model = fresh[0].language_model
    assert language_model.lm_head.weight is language_model.get_input_embeddings().weight
    # What was learned after the stop is in the last checkpoint too.
    last = sorted((tmp_path / "stopped").iterdir())
    assert [path.name for path in last] == [f"checkpoint-{2 * steps_an_epoch}"]


def test_clips_are_learned_with_one_feature_block_a_frame(
    parts: Parts, mini_corpus: Path, rows: InstructionRows
) -> None:
    frames = {row.frames for row in rows.rows}
    assert 1 in frames
    assert max(frames) > 1
    for number, row in enumerate(rows.rows):
        item = rows[number][0]
        assert item["image_features"].shape == (row.frames, 36, 16)
        assert item["landmarks"].shape == (row.frames, 68, 2)
        placeholders = parts[0].placeholder_mask(torch.tensor([row.text.input_ids])).sum()
        assert placeholders == 36 * row.frames
