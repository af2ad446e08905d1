"""Where this process trains."""

from __future__ import annotations

import os

import torch


def training_device() -> torch.device:
    """The GPU where there is one; of several, the one that the launcher gave to this process."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
