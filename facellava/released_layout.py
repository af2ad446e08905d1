"""The layout of the published Face-LLaVA-7B checkpoint: its names, its settings, its words.

Source: ihp-lab/Face-LLaVA (facellava/model/llava_arch.py, multimodal_projector/builder.py,
constants of its processors) and Video-LLaVA, from whose weights it was trained. What the
checkpoint's config.json does not say is read from the shapes of its tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import (
    AddedToken,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.errors import BadCheckpoint
from facellava.languagebind import LanguageBindVideoConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Of every tensor of a checkpoint, by its published name."""

# The first that fits counts: the language model has what the others leave.
PREFIXES: Final = (
    ("model.image_tower.image_tower.", "face_encoder.vision_tower."),
    ("model.video_tower.video_tower.", "face_encoder.video_tower."),
    ("model.mm_projector.", "face_encoder.mm_projector."),
    ("model.landmarks_projector.", "face_encoder.region_attention.landmarks_projector."),
    (
        "model.global_landmarks_projector.",
        "face_encoder.region_attention.global_landmarks_projector.",
    ),
    ("model.landmarks_cross_attn.", "face_encoder.region_attention.landmarks_cross_attn."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
# Old transformers stored what code computes; both are counted up anew by today's modules.
COMPUTED: Final = re.compile(r"\.(rotary_emb\.inv_freq|embeddings\.position_ids)$")

# The published code has 0.1 in its newest version, that with the training scripts (f4a88dc), and
# 0.001 in the two before (e0a8c6f, c2875ea); the checkpoint does not record which it was.
BRANCH_SCALE: Final = 0.1
REGION_HEADS: Final = 8
# All CLIP towers have heads of this width, and no tensor tells how many there are.
HEAD_WIDTH: Final = 64
# Of the pixels; the published processors name them OPENAI_DATASET_MEAN and _STD.
IMAGE_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD: Final = (0.26862954, 0.26130258, 0.27577711)
# Settings in config.json under which the weights mean what this module takes them for.
ONLY: Final = {
    "mm_projector_type": ("mlp2x_gelu", "linear"),
    "landmarks_projector_type": ("landmarks_region_projector",),
    "global_landmarks_projector_type": ("linear",),
    "cross_attn_type": ("simple",),
    "use_landmark_tokens": (False,),
    "mm_use_im_start_end": (False,),
    "mm_vision_select_feature": ("patch", "cls_patch"),
}
LANGUAGE_SETTINGS: Final = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range",
    "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias", "bos_token_id",
    "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip

# Vicuna's turns (FastChat's conversation vicuna_v1.1), and a line break after each placeholder, as
# in training.
VICUNA_TEMPLATE: Final = (
    "{%- macro said(message) -%}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] | replace('<image>', '<image>\\n') "
    "| replace('<video>', '<video>\\n') -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ['image', 'video'] -%}{{- '<' + part['type'] + '>\\n' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- set first = messages[0] -%}"
    "{{- bos_token -}}"
    "{%- if first['role'] == 'system' -%}{{- said(first) -}}"
    "{%- else -%}{{- 'A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.' -}}"
    "{%- endif -%}{{- ' ' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- 'USER: ' + said(message) + ' ' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- 'ASSISTANT: ' + said(message) + eos_token -}}"
    "{%- elif not loop.first or message['role'] != 'system' -%}"
    "{{- raise_exception('A ' + message['role'] + ' turn cannot stand here') -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)


def our_name(released: str) -> str | None:
    """The name of a published tensor in our checkpoints; None where none has that beginning."""
    for theirs, ours in PREFIXES:
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    return None


def released_name(ours: str) -> str:
    """The published name of one of our tensors."""
    theirs, prefix = next(pair for pair in PREFIXES if ours.startswith(pair[1]))
    return theirs + ours.removeprefix(prefix)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Vicuna's sentencepiece tokenizer with our two placeholders behind its own words.

    Raises:
        BadCheckpoint: there is no tokenizer.model, or it cannot be read.
    """
    file = folder / "tokenizer.model"
    if not file.is_file():
        raise BadCheckpoint(
            f"{folder} holds no tokenizer.model; copy it from there where the weights are from."
        )
    try:
        # legacy: text after a special token starts a word, as where the published code encodes
        # each piece of text around an image by itself.
        llama = LlamaTokenizer.from_pretrained(folder, local_files_only=True, legacy=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{file} cannot be read as a sentencepiece model.") from error
    # LlamaTokenizer forgets that it is a legacy one when it is saved.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=llama.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )
    placeholders = [
        AddedToken(token, special=True, normalized=False) for token in (IMAGE_TOKEN, VIDEO_TOKEN)
    ]
    tokenizer.add_tokens(placeholders, special_tokens=True)
    tokenizer.chat_template = VICUNA_TEMPLATE
    return tokenizer


def read_config(
    settings: Mapping[str, Any],
    shapes: Shapes,
    tokenizer: PreTrainedTokenizerBase,
    branch_scale: float,
) -> FaceLlavaConfig:
    """Our config of a published checkpoint.

    Args:
        settings: its config.json.
        shapes: of its tensors.
        tokenizer: from :func:`read_tokenizer`.
        branch_scale: factor of FRGCA's residual branch.

    Raises:
        BadCheckpoint: another layout, by its settings or by what tensors are there.
        BadModelInput: the shapes make no model.
    """
    for name, allowed in ONLY.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise BadCheckpoint(
                f"In config.json {name} is {settings[name]!r}; only checkpoints with "
                f"{' or '.join(map(repr, allowed))} can be converted."
            )
    rows = _shape(shapes, "model.embed_tokens.weight")[0]
    text = LlamaConfig(
        vocab_size=max(rows, len(tokenizer)),
        **{name: settings[name] for name in LANGUAGE_SETTINGS if settings.get(name) is not None},
    )
    video = "model.video_tower.video_tower."
    frames = _shape(shapes, f"{video}encoder.layers.0.temporal_embedding")[1]
    keeps_cls = settings.get("mm_vision_select_feature", "patch") == "cls_patch"
    return FaceLlavaConfig(
        vision_config=CLIPVisionConfig(**_tower(shapes, "model.image_tower.image_tower.")),
        video_config=LanguageBindVideoConfig(num_frames=frames, **_tower(shapes, video)),
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        vision_feature_layer=int(settings.get("mm_vision_select_layer", -2)),
        vision_feature_select="full" if keeps_cls else "default",
        # The video tower hands on all tokens, whatever the setting for photos.
        video_feature_select="full",
        projector_type=settings.get("mm_projector_type", "mlp2x_gelu"),
        region_variant="released",
        region_heads=REGION_HEADS,
        branch_scale=branch_scale,
    )


def _tower(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """A CLIP tower's settings, from its tensors."""
    layers = {
        int(name.removeprefix(f"{prefix}encoder.layers.").split(".")[0])
        for name in shapes
        if name.startswith(f"{prefix}encoder.layers.")
    }
    width, channels, _, patch = _shape(shapes, f"{prefix}embeddings.patch_embedding.weight")
    positions = _shape(shapes, f"{prefix}embeddings.position_embedding.weight")[0]
    return {
        "hidden_size": width,
        "intermediate_size": _shape(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "num_channels": channels,
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
        # LanguageBind's towers come from OpenCLIP, which has no quick_gelu.
        "hidden_act": "gelu",
    }


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise BadCheckpoint(f"The checkpoint lacks {name}, which Face-LLaVA-7B has.")
    return shapes[name]
