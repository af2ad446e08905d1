"""Stage 1: landmarks carry what the pixels do not, the tower stays, stdout stays silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facellava.face_encoder import FaceEncoder
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.face_arrays import FaceArrays
from train.features import FeatureCache
from train.heads import measured_scale
from train.region_stage import FaceRows, RegionStage, train_regions
from train.run_config import load_config
from train.shape_head import ShapeHead

FACES = 64
Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture
def rows(mini_arrays: FaceArrays) -> FaceRows:
    """Faces whose label is in their landmarks alone: every picture has the same features."""
    rng = np.random.default_rng(0)
    smiling = np.arange(FACES) % 2
    landmarks = np.repeat(mini_arrays.landmarks[:1], FACES, axis=0)
    landmarks[:, 48:] += (smiling[:, None, None] * 0.12).astype(np.float32)
    picks = np.zeros(FACES, int)
    measured = mini_arrays.measured[picks]
    measured[:, 0] = smiling
    arrays = replace(
        mini_arrays,
        pixels=mini_arrays.pixels[picks],
        landmarks=landmarks,
        expression=smiling.astype(np.int64),
        votes=np.full((FACES, 8), -1, np.float32),
        age=np.full(FACES, -1),
        attributes=np.full((FACES, 40), -1, np.int8),
        units=np.full((FACES, 15), -1, np.int8),
        fake=np.full(FACES, -1, np.int8),
        measured=measured,
    )
    features = np.repeat(rng.normal(size=(1, 1, 36, 16)), FACES, axis=1).astype(np.float16)
    cache = FeatureCache(features=features, landmarks=landmarks[None])
    return FaceRows(cache, arrays, measured_scale(arrays), vary=True)


@pytest.fixture
def face_encoder(new_parts: Callable[[], Parts]) -> FaceEncoder:
    return new_parts()[0].face_encoder


@torch.no_grad()
def away(face_encoder: FaceEncoder, head: ShapeHead, rows: FaceRows) -> float:
    landmarks = torch.stack([rows[number]["landmarks"] for number in range(len(rows))])
    features = torch.stack([rows[number]["image_features"] for number in range(len(rows))])
    return float(head(face_encoder(features, landmarks).tokens, landmarks))


def test_stage_one_reads_the_landmarks(
    face_encoder: FaceEncoder, rows: FaceRows, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {k: v.clone() for k, v in face_encoder.state_dict().items()}
    quick = ["regions.epochs=40", "regions.batch=32", "regions.learning_rate=3e-3"]
    config = load_config("nano", ["corpus=c", f"out={tmp_path}", *quick])
    shape = ShapeHead(face_encoder.config)
    history, told = train_regions(face_encoder, shape, rows, rows, tmp_path / "run", config)
    found = history[-1]
    assert found["eval_expression_WAR"] > 0.95
    # The first measurement is 0 or 1, as the faces smile.
    assert told.off[0] < 0.22
    assert np.abs(told.read[:, 0] - rows.arrays.measured[:, 0]).mean() < 0.22
    read, blank = (
        away(face_encoder, head, rows) for head in (shape, ShapeHead(face_encoder.config))
    )
    assert read < 0.3 * blank
    after = face_encoder.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert not any(name.startswith("vision_tower") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"mm_projector", "region_attention"}
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert "Warning" not in captured.err
    # A finished run is read, not trained: a blank encoder comes to the same figures.
    for parameter in face_encoder.parameters():
        torch.nn.init.zeros_(parameter)
    history, _ = train_regions(face_encoder, shape, rows, rows, tmp_path / "run", config)
    again = history[-1]
    assert again["eval_loss"] == pytest.approx(found["eval_loss"], abs=1e-4)


def test_the_stage_needs_no_label_in_particular(face_encoder: FaceEncoder, rows: FaceRows) -> None:
    stage = RegionStage(face_encoder, ShapeHead(face_encoder.config), rows.arrays.measured.shape[1])
    row = {name: value[None] for name, value in rows[0].items()}
    outputs = stage(**row)
    assert outputs["loss"].isfinite()
    assert set(outputs["logits"]) == {
        "expression", "votes", "age", "attributes", "units", "fake", "measured",
    }  # fmt: skip
