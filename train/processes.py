"""The processes of one run: one per GPU, started by `accelerate launch` or `torchrun`; or just one.

The first process writes every file; the others wait where they need one. An error ends the process
that met it, and the launcher then ends the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import Trainer
from transformers.utils import is_flash_attn_2_available

from facellava.model import FaceLlavaForConditionalGeneration
from train.device import training_device
from train.run_config import RunConfig

# The first process may read a whole corpus while the others wait.
PATIENCE = timedelta(hours=6)


def join() -> PartialState:
    """This process's place among the others; the first call makes the connection."""
    # Spread weights are accelerate's offer to accelerators only, and it has to find one itself.
    alone = sharding() is None and not torch.cuda.is_available()
    return PartialState(cpu=alone, timeout=PATIENCE)


def sharding() -> str | None:
    """What spreads weights over the processes, as `accelerate launch` says it."""
    for name in ("DeepSpeed", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() == "true":
            return name
    return None


def attention_for(dtype: torch.dtype) -> str | None:
    """The implementation to ask for: FlashAttention 2 where it can run, else PyTorch's own."""
    usable = training_device().type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    return "flash_attention_2" if usable and is_flash_attn_2_available() else None


def whole_state(trainer: Trainer) -> Mapping[str, Tensor] | None:
    """All weights on the first process's CPU where they are spread; None where each has them all.

    Every process must call it.
    """
    if sharding() is None:
        return None
    state: Mapping[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


def what_was_chosen(
    config: RunConfig, model: FaceLlavaForConditionalGeneration, processes: PartialState
) -> dict[str, Any]:
    """What was chosen by what the machine has."""
    return {
        "device": processes.device.type,
        "processes": processes.num_processes,
        "sharding": sharding() or "none",
        "attention": model.language_model.config._attn_implementation,
        "computes in": "bfloat16" if config.bf16 else "float32",
        "language model in": config.quantise if config.quantise != "none" else str(model.dtype),
        "gradient checkpointing": config.gradient_checkpointing,
    }
