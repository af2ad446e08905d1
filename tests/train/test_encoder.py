"""Pre-training of the encoder: what a batch holds, resuming, what is left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from facellava.errors import BadCheckpoint
from facellava.image_processor import FaceLlavaImageProcessor
from train import encoder as module
from train.encoder import (
    EncoderSettings,
    SupervisedEncoder,
    batches,
    nano_encoder_config,
    to_pixel_values,
    train_encoder,
)
from train.face_arrays import UNITS, FaceArrays
from train.heads import losses, measured_scale

SETTINGS = EncoderSettings(pictures=32, batch=8, round_pictures=8)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_encoder_gives_36_tokens_of_its_width() -> None:
    config = nano_encoder_config()
    with torch.no_grad():
        tokens = AutoModel.from_config(config)(torch.zeros(1, 3, 96, 96)).last_hidden_state
    assert tokens.shape == (1, config.hidden_sizes[-1], 6, 6)


def test_pixels_are_scaled_as_in_answering(mini_arrays: FaceArrays) -> None:
    processor = FaceLlavaImageProcessor(
        size=(96, 96), image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)
    )
    wanted = processor([mini_arrays.pixels[0]], return_tensors="pt")["pixel_values"]
    found = to_pixel_values(mini_arrays.pixels[:1])
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_batch_depends_on_its_number_only(mini_arrays: FaceArrays) -> None:
    scale = measured_scale(mini_arrays)
    first = list(islice(batches(mini_arrays, SETTINGS, first=0, scale=scale), 4))
    [fourth] = islice(batches(mini_arrays, SETTINGS, first=3, scale=scale), 1)
    for name, value in first[3].items():
        assert torch.equal(value.nan_to_num(), fourth[name].nan_to_num())
    assert not torch.equal(first[0]["pixel_values"], first[1]["pixel_values"])


def test_a_batch_is_shared_out_by_label(mini_arrays: FaceArrays) -> None:
    units = np.full((len(mini_arrays), len(UNITS)), -1, np.int8)
    units[np.flatnonzero(mini_arrays.fake >= 0), 3] = 1
    coded = replace(mini_arrays, units=units, fake=np.full(len(mini_arrays), -1, np.int8))
    settings = replace(SETTINGS, batch=20, shares=(0.4, 0.3, 0.2, 0.9, 0.1))
    [batch] = islice(batches(coded, settings, first=0, scale=measured_scale(coded)), 1)
    assert (batch["expression"] >= 0).sum() == 8
    assert (batch["age"] >= 0).sum() == 6
    assert (batch["attributes"][:, 0] >= 0).sum() == 4
    # Nobody is real or fake here, so the others share that part.
    assert (batch["fake"] >= 0).sum() == 0
    assert (batch["units"][:, 3] == 1).sum() == 2
    # Measured quantities are standardised.
    assert batch["measured"].nan_to_num().abs().max() <= 4


def test_a_label_that_no_face_has_takes_no_share(mini_arrays: FaceArrays) -> None:
    ageless = replace(mini_arrays, age=np.full(len(mini_arrays), -1))
    [batch] = islice(batches(ageless, SETTINGS, first=0, scale=measured_scale(ageless)), 1)
    assert len(batch["age"]) == SETTINGS.batch
    assert (batch["age"] == -1).all()


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


def test_the_loss_falls(mini_arrays: FaceArrays) -> None:
    """A few steps on one batch, without augmentation's noise between them."""
    torch.manual_seed(0)
    model = SupervisedEncoder(mini_arrays.measured.shape[1])
    [batch] = islice(batches(mini_arrays, SETTINGS, first=0, scale=measured_scale(mini_arrays)), 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    costs = []
    for _ in range(6):
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
