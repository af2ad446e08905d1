"""Pre-training of the encoder: what a batch holds, resuming, what is left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from facellava.errors import BadCheckpoint
from facellava.image_processor import FaceLlavaImageProcessor
from train import encoder as module
from train.augment import to_pictures
from train.encoder import (
    EncoderSettings,
    SupervisedEncoder,
    encoder_config,
    load_teacher,
    to_pixel_values,
    train_encoder,
)
from train.face_arrays import FaceArrays
from train.face_batches import FaceBatches
from train.heads import losses

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = EncoderSettings(
    pictures=32, batch=8, round_pictures=8, widths=(8, 16, 24), depths=(1, 1, 1), mixup=0.5
)


def test_encoder_gives_36_tokens_of_its_width() -> None:
    config = encoder_config((8, 16, 24), (1, 1, 1))
    with torch.no_grad():
        tokens = AutoModel.from_config(config)(torch.zeros(1, 3, 96, 96)).last_hidden_state
    assert tokens.shape == (1, 24, 6, 6)


def test_pixels_are_scaled_as_in_answering(mini_arrays: FaceArrays) -> None:
    processor = FaceLlavaImageProcessor(
        size=(96, 96), image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)
    )
    wanted = processor([mini_arrays.pixels[0]], return_tensors="pt")["pixel_values"]
    found = to_pixel_values(to_pictures(mini_arrays.pixels[:1]))
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_stopped_run_ends_like_a_whole_one(
    mini_arrays: FaceArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    figures = train_encoder(mini_arrays, mini_arrays, whole, SETTINGS)
    save, saved = module._save, []

    def save_twice_then_stop(*arguments, **settings):
        save(*arguments, **settings)
        saved.append(arguments)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", save_twice_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(mini_arrays, mini_arrays, stopped, SETTINGS)
    monkeypatch.setattr(module, "_save", save)
    again = train_encoder(mini_arrays, mini_arrays, stopped, SETTINGS)
    assert again == pytest.approx(figures)
    wanted, found = (load_file(out / "state.safetensors") for out in (whole, stopped))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name
    # The second line of the stopped run was never written: it stopped in between.
    steps = [json.loads(line)["step"] for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 3, 4]
    # A finished run is not trained again, and says its figures again.
    assert train_encoder(mini_arrays, mini_arrays, stopped, SETTINGS) == pytest.approx(figures)
    encoder = AutoModel.from_pretrained(stopped / "encoder")
    average = {
        k.removeprefix("average.encoder."): v for k, v in found.items() if "average.enc" in k
    }
    assert all(torch.equal(v, average[k]) for k, v in encoder.state_dict().items())


def test_a_run_with_other_settings_is_refused(mini_arrays: FaceArrays, tmp_path: Path) -> None:
    one = replace(SETTINGS, pictures=8)
    train_encoder(mini_arrays, mini_arrays, tmp_path, one)
    with pytest.raises(BadCheckpoint, match="other settings"):
        train_encoder(mini_arrays, mini_arrays, tmp_path, replace(one, learning_rate=1.0))
    fewer = replace(mini_arrays, measured=mini_arrays.measured[:, :5])
    with pytest.raises(BadCheckpoint, match="other labels or measurements"):
        train_encoder(fewer, fewer, tmp_path, one)


def test_a_student_learns_from_its_teacher(mini_arrays: FaceArrays, tmp_path: Path) -> None:
    train_encoder(mini_arrays, mini_arrays, tmp_path / "teacher", SETTINGS)
    teacher = load_teacher(tmp_path / "teacher")
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    narrow = replace(SETTINGS, widths=(8, 8, 16), pictures=8)
    for name, weight in (("alone", 0.0), ("taught", 50.0)):
        train_encoder(
            mini_arrays,
            mini_arrays,
            tmp_path / name,
            replace(narrow, teaching=weight),
            tmp_path / "teacher",
        )
    alone, taught = (
        load_file(tmp_path / name / "encoder/model.safetensors") for name in ("alone", "taught")
    )
    assert any(not torch.equal(alone[name], taught[name]) for name in alone)
    with pytest.raises(BadCheckpoint, match="no encoder to learn from"):
        load_teacher(tmp_path / "nowhere")


def test_the_loss_falls(mini_arrays: FaceArrays) -> None:
    """A few steps on one batch, without augmentation's noise between them."""
    torch.manual_seed(0)
    config = encoder_config(SETTINGS.widths, SETTINGS.depths)
    model = SupervisedEncoder(config, mini_arrays.measured.shape[1])
    stream = FaceBatches(mini_arrays, SETTINGS, torch.device("cpu")).stream(0)
    batch = next(stream)
    stream.close()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    costs = []
    for _ in range(8):
        loss = losses(model(batch["pixel_values"]), batch, smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    assert costs[-1] < 0.9 * costs[0]


def test_a_loss_that_is_no_number_stops_the_run(mini_arrays: FaceArrays, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="lower the learning rate"):
        train_encoder(
            mini_arrays,
            mini_arrays,
            tmp_path,
            replace(SETTINGS, round_pictures=32, learning_rate=float("inf")),
        )
    assert not (tmp_path / "state.safetensors").exists()
