"""One small network trained on one imbalanced split by one optimiser, on the CPU or a GPU.

The pictures lie on the device from the start and are moved about there, so that a training takes
seconds. First weights, order and augmentation depend on the seed only: two optimisers with one seed
see the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    get_cosine_schedule_with_warmup,
)

from train.fairness_split import Part
from train.optimisers import OPTIMISERS

SHIFT: Final = 3
"""Pixels of the largest shift, each way."""
WARMUP: Final = 0.1
WEIGHT_DECAY: Final = {"adamw": 0.05, "adam": 1e-4, "rmsprop": 1e-4, "sgd": 1e-4}
"""AdamW's is apart from the gradient, the others' is added to it: the numbers do not compare."""


@dataclass(frozen=True)
class TrainingSettings:
    """What all trainings of a study share.

    Attributes:
        epochs: passes over the training part.
        batch: faces of a step.
    """

    epochs: int = 12
    batch: int = 64


@dataclass(frozen=True)
class DevicePart:
    """A part's pictures (N, 3, S, S) uint8 and answers (N,) int64 on a device."""

    pictures: Tensor
    labels: Tensor

    @classmethod
    def of(cls, part: Part, device: torch.device) -> DevicePart:
        """Put a part on the device."""
        pictures = torch.from_numpy(part.pixels).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(part.labels.astype("int64"))
        return cls(pictures.to(device), labels.to(device))


def small_network() -> nn.Module:
    """A residual network of 0.3 million parameters from S x S pixels to two logits."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 1, 1],
            layer_type="basic",
            downsample_in_first_stage=False,
            num_labels=2,
        )
    )


def train_network(
    part: DevicePart, optimiser: str, learning_rate: float, seed: int, settings: TrainingSettings
) -> nn.Module:
    """The network after all epochs; nothing is chosen by what it answers meanwhile.

    A training that diverges is not stopped: its answers tell.
    """
    torch.manual_seed(seed)
    model = small_network().to(part.labels.device).train()
    kind, options = OPTIMISERS[optimiser]
    decay = WEIGHT_DECAY[optimiser]
    rates: dict[str, Any] = {"lr": learning_rate, "weight_decay": decay, **options}
    rule = kind(model.parameters(), **rates)
    steps = settings.epochs * _batches_an_epoch(part, settings)
    schedule = get_cosine_schedule_with_warmup(rule, int(WARMUP * steps), steps)
    for pictures, labels in _batches(part, seed, settings):
        loss = functional.cross_entropy(model(normalised(pictures)).logits, labels)
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def answers(model: nn.Module, part: DevicePart, batch: int = 1024) -> Tensor:
    """(N,) bool on the CPU: where the network says yes."""
    said = []
    for pictures in part.pictures.split(batch):
        logits = model(normalised(pictures)).logits
        said.append(logits[:, 1] > logits[:, 0])
    return torch.cat(said).cpu()


def normalised(pictures: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1], as the image processor of the whole model does."""
    return pictures.float() / 127.5 - 1


def _batches(
    part: DevicePart, seed: int, settings: TrainingSettings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every epoch whole batches in a new order, faces mirrored half of the time and shifted."""
    # Drawn on the CPU, so that the order is the same on every device.
    draws = torch.Generator().manual_seed(seed)
    count, device = len(part.labels), part.labels.device
    for _ in range(settings.epochs):
        order = torch.randperm(count, generator=draws).to(device)
        mirrored = (torch.rand(count, generator=draws) < 0.5).to(device)
        shifts = torch.randint(-SHIFT, SHIFT + 1, (count, 2), generator=draws).to(device)
        for number in range(_batches_an_epoch(part, settings)):
            here = slice(number * settings.batch, (number + 1) * settings.batch)
            rows = order[here]
            yield moved(part.pictures[rows], mirrored[here], shifts[here]), part.labels[rows]


def _batches_an_epoch(part: DevicePart, settings: TrainingSettings) -> int:
    return max(1, len(part.labels) // settings.batch)


def moved(pictures: Tensor, mirrored: Tensor, shifts: Tensor) -> Tensor:
    """Mirror and shift pictures; what comes in at an edge repeats the edge.

    Args:
        pictures: (B, 3, S, S).
        mirrored: (B,) bool, which are mirrored first.
        shifts: (B, 2) whole pixels down and to the right.
    """
    size = pictures.shape[-1]
    line = torch.arange(size, device=pictures.device)
    rows = (line - shifts[:, :1]).clamp(0, size - 1)
    columns = (line - shifts[:, 1:]).clamp(0, size - 1)
    columns = torch.where(mirrored[:, None], size - 1 - columns, columns)
    batch = torch.arange(len(pictures), device=pictures.device)[:, None, None, None]
    channel = torch.arange(pictures.shape[1], device=pictures.device)[None, :, None, None]
    return pictures[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
