"""LoRA adapters that vLLM can switch by model name: those that touch the language model only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from facellava.config import FaceLlavaConfig
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.model import FaceLlavaForConditionalGeneration

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank."""
MAX_AT_ONCE: Final = 8  # adapters that one batch may mix; each takes memory

# "base_model.model." is PEFT's; then follows the layer's name in the model.
_WEIGHT = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
_LANGUAGE_MODEL = "language_model."
# PEFT's features that change what an adapter means, and that vLLM does not know.
_UNKNOWN_TO_VLLM = (
    *("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication"),
    *("use_bdlora", "use_qalora", "modules_to_save", "trainable_token_indices"),
)
MERGE: Final = "merge it into the weights with `facellava train merge` and serve the result"


def adapter_options(adapters: Mapping[str, Path], config: FaceLlavaConfig) -> list[str]:
    """vLLM's options for these adapters; none where there are none.

    Args:
        adapters: name and folder of each.
        config: of the model that they belong to.

    Raises:
        BadModelInput: a name that cannot be one, or an adapter that must be merged.
        BadCheckpoint: a folder that is no PEFT adapter.
    """
    if not adapters:
        return []
    ranks = []
    for name, folder in adapters.items():
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise BadModelInput(
                f"'{name}' cannot name an adapter; use letters, digits, '.', '_' and '-'."
            )
        check_adapter(folder, config)
        ranks.append(_rank(folder))
    modules = [f"{name}={folder.resolve()}" for name, folder in adapters.items()]
    largest = next(rank for rank in RANKS if rank >= max(ranks))
    at_once = min(len(adapters), MAX_AT_ONCE)
    return [
        *("--enable-lora", "--max-lora-rank", str(largest), "--max-loras", str(at_once)),
        *("--lora-modules", *modules),
    ]


def check_adapter(folder: Path, config: FaceLlavaConfig) -> None:
    """Whether vLLM can switch this PEFT adapter on and off: it touches the language model only.

    Raises:
        BadCheckpoint: the folder is no PEFT adapter in safetensors, or another model's.
        BadModelInput: it touches other parts or uses what vLLM does not know: merge it.
    """
    settings = _read_settings(folder)
    if settings.get("peft_type") != "LORA":
        raise BadModelInput(
            f"{folder} is a {settings.get('peft_type')} adapter; vLLM switches LORA only: {MERGE}."
        )
    used = [name for name in _UNKNOWN_TO_VLLM if settings.get(name)]
    used += ["bias"] if settings.get("bias", "none") != "none" else []
    if used:
        raise BadModelInput(f"{folder} uses {used[0]}, which vLLM cannot switch: {MERGE}.")
    shapes = _read_shapes(folder)
    layers = _language_layers(config)
    for key, shape in shapes.items():
        found = _WEIGHT.fullmatch(key)
        layer = found["layer"] if found else key.removeprefix("base_model.model.")
        if not found or not layer.startswith(f"{_LANGUAGE_MODEL}model.layers."):
            raise BadModelInput(
                f"{folder} changes {layer}, not only the language model's layers: {MERGE}."
            )
        if layer not in layers:
            raise BadCheckpoint(
                f"{folder} changes {layer}, which this model does not have: it was trained for "
                "another one."
            )
        inputs, outputs = layers[layer]
        # A is (rank, inputs), B is (outputs, rank).
        given, wanted = (shape[1], inputs) if found["half"] == "A" else (shape[0], outputs)
        if given != wanted:
            raise BadCheckpoint(
                f"{folder} has {given} channels for {layer}, which has {wanted}: it was trained "
                "for another model."
            )
    if _rank(folder) > RANKS[-1]:
        raise BadModelInput(
            f"{folder} has rank {_rank(folder)}; vLLM takes up to {RANKS[-1]}: {MERGE}."
        )


def _read_settings(folder: Path) -> dict[str, Any]:
    if not (folder / WEIGHTS_FILE).is_file():
        raise BadCheckpoint(
            f"{folder} holds no {WEIGHTS_FILE}; give the folder of a PEFT adapter saved in "
            "safetensors."
        )
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(
            f"{folder} holds no {CONFIG_FILE} that can be read; give the folder of a PEFT adapter."
        ) from error
    if not isinstance(settings, dict):
        raise BadCheckpoint(f"{folder / CONFIG_FILE} holds no JSON object; save the adapter anew.")
    return settings


def _read_shapes(folder: Path) -> dict[str, Sequence[int]]:
    """Name and shape of each tensor; the weights themselves are not read."""
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as opened:
            shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{folder / WEIGHTS_FILE} is damaged or no safetensors; copy it anew."
        ) from error
    if not shapes:
        raise BadCheckpoint(f"{folder / WEIGHTS_FILE} is empty; save the adapter anew.")
    return shapes


def _rank(folder: Path) -> int:
    shapes = _read_shapes(folder)
    return max(shape[0] for key, shape in shapes.items() if key.endswith("lora_A.weight"))


def _language_layers(config: FaceLlavaConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer of the language model, without its weights."""
    with torch.device("meta"):
        model = FaceLlavaForConditionalGeneration(config)
    return {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(_LANGUAGE_MODEL)
    }
