"""PEFT adapters: put around the model that they were trained on, or refused."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Final

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from facellava import checkpoint
from facellava.corpus import sha256
from facellava.errors import BadCheckpoint
from facellava.model import FaceLlavaForConditionalGeneration

WEIGHTS_FILE: Final = "adapter_model.safetensors"
# What our own training writes beside PEFT's files.
NOTE_FILE: Final = "trained_on.json"


def adapted_model(model: FaceLlavaForConditionalGeneration, base: Path, adapter: Path) -> PeftModel:
    """The model with an adapter around it, after a check that the two belong together.

    Args:
        model: of the base.
        base: the checkpoint folder that it was loaded from.
        adapter: the folder of a PEFT adapter in safetensors.

    Raises:
        BadCheckpoint: the folder cannot be read, or is an adapter of another model.
    """
    names = check_belongs(base, adapter)
    try:
        with warnings.catch_warnings():
            # Missing weights are found below; PEFT only warns of them.
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{adapter} is no PEFT adapter of {base}; give the folder that training wrote, and the "
            "weights that it started from."
        ) from error
    if names != set(get_peft_model_state_dict(adapted)):
        raise BadCheckpoint(
            f"The weights in {adapter} are not those that its adapter_config.json describes; copy "
            "the folder anew."
        )
    return adapted


def check_belongs(base: Path, adapter: Path) -> set[str]:
    """Refuse another base's adapter by what training noted in it; the names of its tensors.

    Raises:
        BadCheckpoint: the folder cannot be read, or is an adapter of another model.
    """
    names = _tensor_names(adapter)
    note = adapter / NOTE_FILE
    if note.is_file():
        trained_on = checkpoint.read_json(note)
        if trained_on.get("base_sha256") != weights_digest(base):
            raise BadCheckpoint(
                f"{adapter} was trained on other weights than those in {base}; give the base that "
                "its adapter_config.json names."
            )
        # Adapters from before clips could be shortened say nothing of them.
        if trained_on.get("clips", clip_settings(base)) != clip_settings(base):
            raise BadCheckpoint(
                f"{adapter} was trained for clips of other tokens than {base} reads (clip_frames, "
                "clip_pool or clip_merge of its config); give the base that it was trained on."
            )
    return names


def clip_settings(folder: Path) -> dict[str, int | None]:
    """What a checkpoint's config says of the tokens of clips, which its weights do not tell."""
    config = checkpoint.read_json(folder / "config.json")
    defaults = {"clip_frames": None, "clip_pool": 1, "clip_merge": 1}
    return {name: config.get(name, default) for name, default in defaults.items()}


def weights_digest(folder: Path) -> str:
    """One checksum of all weights of a checkpoint folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _tensor_names(adapter: Path) -> set[str]:
    if not (adapter / WEIGHTS_FILE).is_file():
        raise BadCheckpoint(
            f"{adapter} holds no {WEIGHTS_FILE}; give the folder of a PEFT adapter saved in "
            "safetensors."
        )
    try:
        with safe_open(adapter / WEIGHTS_FILE, framework="pt") as opened:
            return set(opened.keys())
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{adapter / WEIGHTS_FILE} is damaged; copy it anew.") from error
