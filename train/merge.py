"""A LoRA adapter merged into the weights that it was trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from facellava import checkpoint
from facellava.adapter import adapted_model
from facellava.errors import BadCheckpoint


def merge_adapter(base: Path, adapter: Path, out: Path) -> Path:
    """Write the checkpoint that answers like the base with its adapter.

    Args:
        base: the checkpoint folder that the adapter was trained on.
        adapter: the folder of a PEFT adapter in safetensors, for any parts of the model.
        out: the new checkpoint folder, not the base; its parent must exist.

    Returns:
        The folder. Weights are stored in the base's type.

    Raises:
        BadCheckpoint: a folder that cannot be read or written, or an adapter of another model.
    """
    if out.resolve() == base.resolve():
        raise BadCheckpoint(f"{out} is the checkpoint that the adapter needs; choose another path.")
    model, processor = checkpoint.load(base)
    adapted = adapted_model(model, base, adapter)
    merged = adapted.merge_and_unload(safe_merge=True)
    return checkpoint.save(merged, processor, out, dtype=_stored_type(base))


def _stored_type(base: Path) -> torch.dtype:
    """The type in which the floating-point weights are stored."""
    file = sorted(base.glob("*.safetensors"))[0]
    with safe_open(file, framework="pt") as opened:
        tensors = (opened.get_tensor(name) for name in opened.keys())  # noqa: SIM118
        found: torch.dtype = next(t.dtype for t in tensors if t.is_floating_point())
    return found
