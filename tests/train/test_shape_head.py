"""Landmarks are read back from tokens, whatever the tokens' scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.shape_head import FARTHEST, ShapeHead

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture
def head(new_parts: Callable[[], Parts]) -> ShapeHead:
    torch.manual_seed(0)
    return ShapeHead(new_parts()[0].config)


def test_the_mean_face_is_where_nothing_is_said(head: ShapeHead) -> None:
    torch.nn.init.zeros_(head.points.bias)
    mean = torch.tensor(head.mean_shape) if head.mean_shape is not None else torch.zeros(68, 2)
    nothing = torch.zeros(2, 36, head.points.in_features)
    assert head(nothing, mean.expand(2, -1, -1)).item() == pytest.approx(0, abs=1e-6)
    # A face that was badly found costs no more than one at the edge.
    farthest, beyond = (
        head(nothing, mean.expand(2, -1, -1) + times * FARTHEST * head.landmark_std).item()
        for times in (1, 50)
    )
    assert farthest == pytest.approx(FARTHEST - 0.5, rel=1e-4)
    assert beyond == pytest.approx(farthest, rel=1e-4)


def test_the_scale_of_the_tokens_says_nothing(head: ShapeHead) -> None:
    tokens = torch.randn(3, 36, head.points.in_features, generator=torch.manual_seed(1))
    landmarks = torch.rand(3, 68, 2, generator=torch.manual_seed(2))
    assert torch.allclose(head(tokens, landmarks), head(tokens * 100, landmarks), rtol=1e-4)


def test_tokens_are_taught_by_a_head_that_does_not_learn(head: ShapeHead) -> None:
    head.requires_grad_(False)
    tokens = torch.randn(3, 36, head.points.in_features, requires_grad=True)
    head(tokens, torch.rand(3, 68, 2)).backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0
    assert head.points.weight.grad is None
