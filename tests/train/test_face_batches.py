"""What a batch of the encoder's pre-training holds, and that its number decides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from train.face_arrays import UNITS, FaceArrays
from train.face_batches import BatchSettings, FaceBatches, fresh_blends

CPU = torch.device("cpu")
SETTINGS = BatchSettings(batch=16, mixup=0.5)


def batches(
    arrays: FaceArrays, settings: BatchSettings, first: int, count: int
) -> list[dict[str, torch.Tensor]]:
    stream: Iterator[dict[str, torch.Tensor]] = FaceBatches(arrays, settings, CPU).stream(first)
    return [next(stream) for _ in range(count)]


def test_a_batch_depends_on_its_number_only(mini_arrays: FaceArrays) -> None:
    first = batches(mini_arrays, SETTINGS, 0, 4)
    [fourth] = batches(mini_arrays, SETTINGS, 3, 1)
    for name, value in first[3].items():
        assert torch.equal(value.nan_to_num(), fourth[name].nan_to_num()), name
    assert not torch.equal(first[0]["pixel_values"], first[1]["pixel_values"])


def test_a_batch_is_shared_out_by_label(mini_arrays: FaceArrays) -> None:
    units = np.full((len(mini_arrays), len(UNITS)), -1, np.int8)
    units[np.flatnonzero(mini_arrays.fake >= 0), 3] = 1
    coded = replace(mini_arrays, units=units, fake=np.full(len(mini_arrays), -1, np.int8))
    settings = replace(SETTINGS, batch=20, shares=(0.4, 0.3, 0.2, 0.9, 0.1), mixup=0.0)
    [batch] = batches(coded, settings, 0, 1)
    assert (batch["expression"][:, 0] >= 0).sum() == 8
    assert (batch["age"] >= 0).sum() == 6
    assert (batch["attributes"][:, 0] >= 0).sum() == 4
    # Nobody is real or fake here, so the others share that part.
    assert (batch["fake"] >= 0).sum() == 0
    assert (batch["units"][:, 3] == 1).sum() == 2
    # Measured quantities are standardised; a mirrored face is not as it was measured.
    assert batch["measured"].nan_to_num().abs().max() <= 4
    lost = batch["measured"].isnan().all(dim=1)
    assert 0 < lost.sum() < len(lost)


def test_a_label_that_no_face_has_takes_no_share(mini_arrays: FaceArrays) -> None:
    ageless = replace(mini_arrays, age=np.full(len(mini_arrays), -1))
    [batch] = batches(ageless, SETTINGS, 0, 1)
    assert len(batch["age"]) == SETTINGS.batch
    assert (batch["age"] == -1).all()


def test_fresh_fakes_stand_beside_the_face_that_they_are_of(mini_arrays: FaceArrays) -> None:
    settings = replace(SETTINGS, batch=12, shares=(0.0, 0.0, 0.0, 1.0, 0.0), fresh_blends=1.0)
    [batch] = batches(mini_arrays, settings, 0, 1)
    assert batch["fake"].tolist() == [0] * 6 + [1] * 6
    assert batch["measured"].isnan().all()


def test_blends_change_the_inside_of_the_face(mini_arrays: FaceArrays) -> None:
    rows = np.flatnonzero(mini_arrays.fake == 0)[:4]
    native = np.full(len(rows), 96, np.float32)
    real, fake = fresh_blends(mini_arrays.pixels[rows], mini_arrays.landmarks[rows], native, 7)
    change = np.abs(real.astype(int) - fake).sum(axis=3)
    assert (change.reshape(len(rows), -1).max(axis=1) > 0).all()
    # The picture's corners lie outside every mask.
    assert change[:, :4, :4].max() == 0
    again = fresh_blends(mini_arrays.pixels[rows], mini_arrays.landmarks[rows], native, 7)
    assert np.array_equal(again, [real, fake])


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_mixing_keeps_shares_whole(mini_arrays: FaceArrays, mixup: float) -> None:
    settings = replace(SETTINGS, shares=(1.0, 0.0, 0.0, 0.0, 0.0), mixup=mixup)
    drawn = batches(mini_arrays, settings, 0, 3)
    targets = torch.cat([batch["expression"] for batch in drawn])
    assert targets.sum(dim=1) == pytest.approx(1.0)
    mixed = (targets.max(dim=1).values < 1).any()
    assert bool(mixed) == (mixup == 1.0)


def test_a_small_set_of_fakes_is_seen_beside_a_large_one(mini_arrays: FaceArrays) -> None:
    rows = np.zeros(1000, int)
    many = replace(
        mini_arrays,
        **{
            name: getattr(mini_arrays, name)[rows]
            for name in ("pixels", "landmarks", "expression", "votes", "age", "attributes")
        },
        **{name: getattr(mini_arrays, name)[rows] for name in ("units", "measured", "native")},
        fake=np.ones(1000, np.int8),
        source=np.array(["large"] * 990 + ["small"] * 10),
    )
    settings = BatchSettings(batch=200, shares=(0, 0, 0, 1, 0), fresh_blends=0.0)
    made = FaceBatches(many, settings, CPU)
    chance = made.chances[3]
    assert chance is not None
    # Root of 99 to 1: a tenth instead of a hundredth.
    assert chance[990:].sum() == pytest.approx(1 / (1 + np.sqrt(99)), rel=1e-6)
