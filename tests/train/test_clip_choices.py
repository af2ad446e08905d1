"""Clips in a training run: where their label stands, what weighs them, and runs that go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from facellava import checkpoint
from facellava.corpus import read_faces, sha256, write_shard
from facellava.errors import BadSample
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.clip_choices import WEIGHTED_TASKS, ClipChoices, ClipWeigher, label_weights
from train.clip_weights import RunningMean, noise_weights
from train.dataset import Collator, CorpusTables, Reader, TrainingRows, scan
from train.plain_loss import learned_places
from train.run import train_run
from train.run_config import RunConfig
from train.run_report import StageReport
from train.run_trainer import RunTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture(scope="module")
def clip_corpus(run_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus with a clip of all its training pictures in place of each one but the last."""
    folder = tmp_path_factory.mktemp("clips") / "corpus"
    shutil.copytree(run_corpus, folder)
    path = folder / "faces" / "train-mini-00000.parquet"
    faces = list(read_faces(run_corpus, "train"))
    frames = tuple(face.frames[0] for face in faces)
    landmarks = np.concatenate([face.landmarks[:1] for face in faces])
    clips = [replace(face, media="clip", frames=frames, landmarks=landmarks) for face in faces[:-1]]
    write_shard(path, [*clips, faces[-1]], "faces")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["faces/train-mini-00000.parquet"]["sha256"] = sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def reader(clip_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]) -> Reader:
    return Reader(CorpusTables(clip_corpus, "train", tmp_path), new_parts()[1], 2048, 4)


def test_the_label_of_a_clip_is_found_in_prose_json_and_later_turns(reader: Reader) -> None:
    tokenizer = reader.processor.tokenizer
    choices = ClipChoices(tokenizer, {("expression", "happiness"): 0.5})
    found = 0
    for row in range(len(reader.tables.ids())):
        sample = reader.tables.sample(row)
        encoded = reader.read(row, choices=choices)
        choice = encoded.choice
        if sample.task not in WEIGHTED_TASKS or not isinstance(encoded.item, list):
            assert choice is None
            continue
        assert choice is not None
        assert len(choice.tokens) == len(set(choice.tokens)) > 1
        assert encoded.text.input_ids[choice.place] == choice.tokens[choice.own]
        said = tokenizer.decode(encoded.text.input_ids[: choice.place])
        ending = {"prose": f"{sample.task.title()}:", "json": '"label":"'}[sample.form]
        assert said.endswith(ending)
        assert said.count(ending) == 1 + len(sample.history)
        assert choice.class_weight == (0.5 if sample.label == "happiness" else 1.0)
        found += 1
    assert found == 9


def test_an_answer_that_does_not_say_its_label_is_a_bad_sample(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = ClipChoices(reader.processor.tokenizer, {})
    sample = replace(reader.tables.sample(0), label="fear")
    monkeypatch.setattr(CorpusTables, "sample", lambda self, row: sample)
    with pytest.raises(BadSample, match="does not say the label 'fear', which clip_noise_weights"):
        reader.read(0, choices=choices)


def test_rows_of_a_batch_are_weighed_by_what_the_model_says(reader: Reader) -> None:
    rows = TrainingRows(
        reader, scan(reader, skip=False), choices=ClipChoices(reader.processor.tokenizer, {})
    )
    chosen = [n for n in range(len(rows)) if rows[n].choice][:3]
    without = next(n for n in range(len(rows)) if rows[n].choice is None)
    batch = Collator(reader.processor)([rows[n] for n in (*chosen, without)])
    clips = {name: value for name, value in batch.items() if name.startswith("clip_")}
    assert clips["clip_places"].tolist()[-1] == -1
    torch.manual_seed(0)
    logits = torch.randn(4, batch["labels"].shape[1], len(reader.processor.tokenizer))
    weigher = ClipWeigher()
    weigher.mean = RunningMean(0.4, 1)
    accelerator: Any = SimpleNamespace(reduce=lambda tensor, how: tensor)
    places = learned_places(batch["labels"])
    assert len(places) < logits.shape[1]
    found = weigher.rows(logits[:, places], places, clips, 0.5, accelerator)
    wanted = []
    for n, row in enumerate(chosen):
        choice = rows[row].choice
        assert choice is not None
        shares = logits[n, choice.place - 1, list(choice.tokens)].softmax(dim=0)
        wanted.append(float(noise_weights(shares[None], torch.tensor([choice.own]), 0.5)))
    np.testing.assert_allclose(found.numpy(), [*(np.array(wanted) / 0.4), 1], rtol=1e-5)
    assert weigher.mean.mean == pytest.approx((0.4 + np.mean(wanted)) / 2)
    photos = {k: v for k, v in Collator(reader.processor)([rows[without]]).items() if "clip" in k}
    assert photos == {}
    assert weigher.rows(logits[:2], places, {}, 0.5, accelerator).tolist() == [1, 1]


def test_rare_labels_of_a_task_count_more() -> None:
    labels = [("expression", "happiness")] * 30 + [("expression", "fear")] * 2 + [("age", 34)] * 9
    weights = label_weights(labels)
    assert set(weights) == {("expression", "happiness"), ("expression", "fear")}
    assert weights["expression", "fear"] > 10 * weights["expression", "happiness"]
    total = 30 * weights["expression", "happiness"] + 2 * weights["expression", "fear"]
    assert total == pytest.approx(32)


def test_a_stopped_run_draws_and_weighs_on_as_if_it_had_not(
    clip_corpus: Path,
    tmp_path: Path,
    new_parts: Callable[[], Parts],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint.save(*new_parts(), tmp_path / "tiny")

    def settings(name: str, **changes: Any) -> RunConfig:
        quick = {"max_steps": 12, "batch": 4, "learning_rate": 3e-3, "warmup": 0.0}
        common: dict[str, Any] = {
            "base": str(tmp_path / "tiny"),
            "corpus": clip_corpus,
            "out": tmp_path / name,
            "instruct": quick,
            "lora": {"r": 4, "alpha": 8},
            "clip_frames": 2,
            "clip_frame_augment": "skip_erase",
            "clip_noise_weights": True,
            "save_steps": 1,
            "log_steps": 1,
            "workers": 0,
        }
        return RunConfig.model_validate(common | changes)

    def losses(config: RunConfig) -> list[float]:
        train_run(config)
        curve: Any = StageReport.read(config.out / "instruct", "instruct").curve("loss")[1]
        return list(curve)

    whole = losses(settings("whole"))
    real = RunTrainer.training_step

    def stop(self: RunTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
        # In the second epoch, so that its frames are drawn again.
        if self.state.global_step == 10:
            raise KeyboardInterrupt
        return real(self, *arguments, **more)

    monkeypatch.setattr(RunTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings("stopped"))
    monkeypatch.setattr(RunTrainer, "training_step", real)
    stored = RunningMean.read(tmp_path / "stopped/instruct/checkpoint-10/clip_weights.json")
    assert stored.batches > 0
    assert losses(settings("stopped")) == whole
    assert losses(settings("unweighed", clip_noise_weights=False)) != whole
    assert losses(settings("even", clip_frame_augment="none")) != whole
