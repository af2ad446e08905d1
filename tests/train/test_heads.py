"""Losses count known labels only; figures are the field's."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from train.face_arrays import ATTRIBUTES, EXPRESSIONS, UNITS, VOTES, FaceArrays
from train.heads import (
    AGES,
    FaceHeads,
    age_loss,
    distillation,
    expression_targets,
    figures,
    losses,
    measured_scale,
)


def labels(n: int, **known: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch in which only these labels are known."""
    absent = {
        "expression": torch.full((n, len(EXPRESSIONS)), -1.0),
        "votes": torch.full((n, len(VOTES)), -1.0),
        "age": torch.full((n,), -1),
        "attributes": torch.full((n, len(ATTRIBUTES)), -1, dtype=torch.int8),
        "units": torch.full((n, len(UNITS)), -1, dtype=torch.int8),
        "fake": torch.full((n,), -1, dtype=torch.int8),
        "measured": torch.full((n, 3), float("nan")),
    }
    return absent | known


@pytest.fixture
def outputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return FaceHeads(8, measured=3).eval()(torch.randn(4, 36, 8))


def test_heads_pool_all_tokens(outputs: dict[str, torch.Tensor]) -> None:
    widths = {name: value.shape[1] for name, value in outputs.items()}
    assert widths == {
        "expression": len(EXPRESSIONS),
        "votes": len(VOTES),
        "age": AGES,
        "attributes": len(ATTRIBUTES),
        "units": len(UNITS),
        "fake": 1,
        "measured": 3,
    }


def test_unknown_labels_cost_nothing(outputs: dict[str, torch.Tensor]) -> None:
    assert losses(outputs, labels(4), smoothing=0).item() == 0
    one = labels(4, expression=expression_targets(torch.tensor([-1, 2, -1, -1])))
    expected = -outputs["expression"][1].log_softmax(dim=0)[2]
    assert losses(outputs, one, smoothing=0).item() == pytest.approx(expected.item())
    coded = torch.full((4, len(UNITS)), -1, dtype=torch.int8)
    coded[2, 5] = 1
    expected = -2 * outputs["units"][2, 5].sigmoid().log()
    found = losses(outputs, labels(4, units=coded), smoothing=0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    partly = torch.full((4, 3), float("nan"))
    partly[0, 1] = outputs["measured"][0, 1].item() + 3
    # Smooth L1 beyond 1: distance less a half.
    found = losses(outputs, labels(4, measured=partly), smoothing=0)
    assert found.item() == pytest.approx(2.5, abs=1e-5)


def test_all_heads_learn_together(outputs: dict[str, torch.Tensor]) -> None:
    whole = labels(
        4,
        expression=expression_targets(torch.tensor([0, 1, 2, 3])),
        votes=torch.full((4, len(VOTES)), 1 / len(VOTES)),
        age=torch.tensor([0, 30, 60, 116]),
        attributes=torch.ones(4, len(ATTRIBUTES), dtype=torch.int8),
        units=torch.ones(4, len(UNITS), dtype=torch.int8),
        fake=torch.tensor([0, 1, 0, 1], dtype=torch.int8),
        measured=torch.zeros(4, 3),
    )
    for value in outputs.values():
        value.retain_grad()
    losses(outputs, whole, smoothing=0.1).backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in outputs.values())


def test_a_student_like_its_teacher_costs_least(outputs: dict[str, torch.Tensor]) -> None:
    taught = {name: value.detach() for name, value in outputs.items()}
    own = distillation(taught, taught)
    torch.manual_seed(1)
    for name in taught:
        other = taught | {name: taught[name] + torch.randn_like(taught[name])}
        assert distillation(other, taught) > own, name


def test_a_near_age_costs_less_than_a_far_one() -> None:
    def surely(years: int) -> torch.Tensor:
        logits = torch.zeros(1, AGES)
        logits[0, years] = 12.0
        return logits

    truth = torch.tensor([34])
    costs = [age_loss(surely(years), truth).item() for years in (34, 36, 50, 90)]
    assert costs == sorted(costs)
    assert costs[0] < costs[1] < costs[2]


def arrays(n: int, **known: np.ndarray) -> FaceArrays:
    batch = {name: value.numpy() for name, value in labels(n).items()}
    batch["expression"] = np.full(n, -1)
    blank = {
        "pixels": np.zeros((n, 4, 4, 3), np.uint8),
        "landmarks": np.zeros((n, 68, 2)),
        "native": np.full(n, 96.0),
        "source": np.array(["set"] * n),
    }
    table = batch | blank | known
    return FaceArrays(**{field.name: table[field.name] for field in fields(FaceArrays)})


def test_scale_leaves_out_what_was_not_measured() -> None:
    measured = np.array([[1, np.nan, np.nan], [3, 5, np.nan]], np.float32)
    mean, deviation = measured_scale(arrays(2, measured=measured))
    assert mean.tolist() == [2, 5, 0]
    assert deviation == pytest.approx([1, 0, 0], abs=1e-5)


def test_figures_by_hand() -> None:
    truth = arrays(
        4,
        expression=np.array([0, 0, 1, -1]),
        age=np.array([20, -1, -1, 40]),
        units=np.array([[1] + [-1] * 14, [0] + [-1] * 14, [-1] * 15, [1] + [-1] * 14], np.int8),
        fake=np.array([0, 1, 1, 0], np.int8),
    )
    given = {
        "expression": np.eye(7, dtype=np.float32)[[0, 1, 1, 0]],
        "age": 100 * np.eye(AGES, dtype=np.float32)[[22, 0, 0, 44]],
        "attributes": np.zeros((4, 40), np.float32),
        "units": np.array([[1.0], [1.0], [0.0], [-1.0]], np.float32) * np.ones((1, 15), np.float32),
        "fake": np.array([[0.1], [0.2], [0.9], [0.3]], np.float32),
        "measured": np.zeros((4, 3), np.float32),
    }
    found = figures(given, truth)
    # Of the one unit that was coded: one hit, one false alarm, one miss.
    assert found == pytest.approx(
        {"expression_WAR": 2 / 3, "age_MAE": 3.0, "units_F1": 0.5, "fake_AUC": 0.75}
    )
    # Fakes alone have no AUC.
    assert "fake_AUC" not in figures(given, arrays(4, fake=np.ones(4, np.int8)))
