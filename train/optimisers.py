"""The optimisers that a training can be told to use, by name, with what they take besides rates."""

from __future__ import annotations

from typing import Any, Final

import torch

OPTIMISERS: Final[dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]]] = {
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    "adam": (torch.optim.Adam, {"betas": (0.9, 0.999)}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.99}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}
