"""A base to train: a vision encoder and a language model from their folders, joined by new parts.

Projector, FRLP and FRGCA start at random; stage "regions" and stage "instruct" teach them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from facellava import checkpoint
from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.conversation import CHAT_TEMPLATE_TOKENS
from facellava.errors import BadCheckpoint
from facellava.face_encoder import FaceEncoder
from train.base_settings import Backbone

# What transformers raises on a folder that it cannot make sense of.
UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
COMPARED: Final = ("model_type", "hidden_size", "num_hidden_layers")


def make_base(
    vision: Path, text: Path, out: Path, wanted: Backbone | None = None, seed: int = 0
) -> Path:
    """Write a Face-LLaVA checkpoint folder that nothing was taught yet; returns it.

    Args:
        vision: folder of a vision encoder, or of a model that has one (CLIP, SigLIP), with its
            preprocessor_config.json.
        text: folder of a causal language model with its tokenizer.
        out: the new folder; its parent must exist.
        wanted: a preset's backbone: sizes that both must have, and further values of the config.
        seed: of the new parts.

    Raises:
        BadCheckpoint: a folder that cannot be read, or that is another backbone than is wanted.
        BadModelInput: the two do not fit each other.
    """
    tower, pixels = _vision_tower(vision)
    language_model, tokenizer = _language_model(text)
    if wanted is not None:
        _compare(vision, tower.config, wanted.vision)
        _compare(text, language_model.config, wanted.text)
    torch.manual_seed(seed)
    _add_words(tokenizer, language_model)
    config = FaceLlavaConfig(
        vision_config=tower.config,
        text_config=language_model.config,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        **(wanted.face if wanted is not None else {}),
    )
    # A second copy of the backbones would be drawn at random for nothing.
    with torch.device("meta"):
        model, processor = checkpoint.new_model(
            config, tokenizer, image_mean=pixels["image_mean"], image_std=pixels["image_std"]
        )
    encoder = FaceEncoder(config)
    for part in (encoder.mm_projector, encoder.region_attention):
        part.apply(model._init_weights)
    encoder.vision_tower = tower
    model.face_encoder, model.language_model = encoder, language_model
    return checkpoint.save(model, processor, out, dtype=language_model.dtype)


def _vision_tower(folder: Path) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The encoder, and how its pixels are normalised."""
    _check_folder(folder)
    pixels = checkpoint.read_json(folder / "preprocessor_config.json")
    odd = [name for name in ("image_mean", "image_std") if len(pixels.get(name) or ()) != 3]
    if odd:
        raise BadCheckpoint(f"{folder / 'preprocessor_config.json'} says no {odd[0]} of R, G, B.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        config = getattr(config, "vision_config", config)
        kind = MODEL_MAPPING[type(config)]
    except UNREADABLE as error:
        raise BadCheckpoint(
            f"{folder} is no vision encoder that transformers knows; give a CLIP's or SigLIP's."
        ) from error
    return _weights(folder, kind, config=config), pixels


def _language_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    _check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise BadCheckpoint(
            f"{folder} holds no tokenizer that can be read; copy it anew."
        ) from error
    return _weights(folder, AutoModelForCausalLM), tokenizer


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise BadCheckpoint(f"{folder} is no folder with a config.json; download the model first.")


def _weights(folder: Path, kind: Any, **settings: Any) -> PreTrainedModel:
    """A model of safetensors alone, in the type in which it is stored."""
    try:
        with checkpoint.no_progress_bars():
            model, report = kind.from_pretrained(
                folder,
                dtype="auto",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **settings,
            )
    except UNREADABLE as error:
        raise BadCheckpoint(
            f"{folder} cannot be read as {kind.__name__} from safetensors; copy it anew, or give "
            "another model's folder."
        ) from error
    if report["missing_keys"]:
        raise BadCheckpoint(
            f"{folder} lacks {sorted(map(str, report['missing_keys']))[0]}; copy it anew."
        )
    loaded: PreTrainedModel = model
    return loaded


def _compare(folder: Path, config: PreTrainedConfig, wanted: Mapping[str, Any]) -> None:
    for name in COMPARED:
        found = getattr(config, name, None)
        if name in wanted and found != wanted[name]:
            raise BadCheckpoint(
                f"{folder} has the {name} {found}, and the preset is for {wanted[name]}; give "
                "that backbone, or no preset."
            )


def _add_words(tokenizer: PreTrainedTokenizerBase, language_model: PreTrainedModel) -> None:
    """The placeholders, and the marks of our template where the tokenizer has none of its own."""
    new = [IMAGE_TOKEN, VIDEO_TOKEN]
    if not tokenizer.chat_template:
        new += CHAT_TEMPLATE_TOKENS
        tokenizer.eos_token = CHAT_TEMPLATE_TOKENS[-1]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    if len(tokenizer) > language_model.config.vocab_size:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
