"""What a run will take, from its settings alone: parameters, memory, tokens, hours.

Models are built on torch's meta device, without weights. Counted in FLOPs (a multiply-add is two):

- forward: 2 a parameter and token, plus 4 L d a layer and token for attention over L tokens
  (half of it, since it is causal);
- backward: the same again for the gradients of activations wherever something behind them learns,
  and the same again for the gradients of the weights that learn;
- gradient checkpointing: the language model's forward once more;
- the vision tower: its forward only, since it never learns.

Of a base from scratch only the two stages are counted, and not the encoder's pre-training before
them: stage "regions" sees the stored features of faces there, and no language model.

Memory is of one GPU that holds everything (no sharding); activations are a rough figure after
Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from facellava.config import FaceLlavaConfig
from facellava.corpus import read_manifest
from facellava.errors import BadCheckpoint, BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from train.encoder import encoder_config
from train.quantise import NF4_BYTES, quantised_layers
from train.run_checks import GIB, base_folder, learned_count
from train.run_config import RunConfig, Stage
from train.scratch import base_config
from train.tokenizer import VOCABULARY
from train.trainable import own_parameters, part_of

FLOAT32, BFLOAT16 = 4, 2
MOMENTS: Final = {"adamw": 2, "adam": 2, "rmsprop": 1, "sgd": 1}
# Bytes of activations a token, layer and unit of width: all kept in 16 bits (attention matrices are
# not, as fused kernels recompute them), or the layer's input alone.
KEPT, CHECKPOINTED = 34, 2


@dataclass(frozen=True)
class Assumed:
    """What settings do not say.

    Attributes:
        samples: of one epoch.
        text_tokens: of one sample, question and answer.
        clip_share: of the samples that show a clip.
        peak_tflops: of one GPU in the type it computes in; an H100 has 989 in bfloat16.
        utilisation: how much of that is reached.
        gpus: that share the samples.
    """

    samples: int = 1_000_000
    text_tokens: int = 200
    clip_share: float = 0.0
    peak_tflops: float = 989.0
    utilisation: float = 0.35
    gpus: int = 1


@dataclass(frozen=True)
class StageEstimate:
    """One stage. Memory is in GiB of one GPU; FLOPs and tokens are of the whole stage."""

    stage: Stage
    parameters: int
    trainable: int
    steps: int
    tokens: int
    flops: float
    hours: float
    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    activations_gib: float

    @property
    def memory_gib(self) -> float:
        """All of it."""
        return self.weights_gib + self.gradients_gib + self.optimizer_gib + self.activations_gib

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"memory_gib": self.memory_gib}


def estimate(config: RunConfig, assumed: Assumed) -> list[StageEstimate]:
    """Every stage of a run, in order.

    Raises:
        BadSettings: neither a base nor its backbone's values are there, or they do not fit.
    """
    model = meta_model(config)
    return [_of_stage(config, stage, model, assumed) for stage in config.stages]


def samples_of(config: RunConfig) -> int | None:
    """Samples of the corpus's training split; None where there is no corpus yet."""
    if not (config.corpus / "manifest.json").is_file():
        return None
    tasks: Mapping[str, Mapping[str, int]] = read_manifest(config.corpus)["counts"]["samples"]
    return sum(splits.get("train", 0) for splits in tasks.values())


def meta_model(config: RunConfig) -> FaceLlavaForConditionalGeneration:
    """The model without weights: of the base, or of what the settings say that it will be.

    Raises:
        BadSettings: neither is there, or the values do not fit each other.
    """
    folder = base_folder(config)
    if (
        config.scratch is None
        and config.backbone is None
        and not (folder / "config.json").is_file()
    ):
        raise BadSettings(
            f"There is no base '{folder}' and no [backbone] in the settings; give one of them."
        )
    try:
        if config.scratch is not None:
            encoder = config.scratch.encoder
            vision = encoder_config(encoder.widths, encoder.depths).to_dict()
            values = base_config(config.scratch, vision, VOCABULARY)
        elif (folder / "config.json").is_file():
            values = FaceLlavaConfig.from_pretrained(folder, local_files_only=True)
        else:
            backbone = config.backbone
            assert backbone is not None
            values = FaceLlavaConfig(
                vision_config=dict(backbone.vision),
                text_config=dict(backbone.text),
                **backbone.face,
            )
        with torch.device("meta"):
            return FaceLlavaForConditionalGeneration(values)
    except (BadCheckpoint, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadSettings(f"The base's values do not make a model: {error}") from error


@dataclass(frozen=True)
class _Shape:
    """A sample in tokens: the average one for work, the longest one for memory."""

    image: float
    text: float

    @property
    def length(self) -> float:
        return self.image + self.text


def _of_stage(
    config: RunConfig, stage: Stage, model: FaceLlavaForConditionalGeneration, assumed: Assumed
) -> StageEstimate:
    settings = config.of_stage(stage)
    counts = part_counts(model)
    learned = learned_count(model, config, stage)
    added = _added(config, stage, counts, learned)
    whole = sum(counts.values()) + added
    values = model.config
    photo, steps = values.tokens_per_frame, (values.clip_frames or config.clip_frames)
    clip = -(-steps // values.clip_merge) * values.tokens_per_clip_frame
    share = assumed.clip_share
    average = _Shape((1 - share) * photo + share * clip, assumed.text_tokens)
    longest = _Shape(max(photo, clip) if share else photo, assumed.text_tokens)
    # A packed row is as full as whole samples make it; the average is taken as its measure.
    packed = max(1.0, config.row_length / average.length)
    of_pass = packed if config.packing else settings.batch
    batch = of_pass * settings.accumulation * assumed.gpus
    seen = settings.max_steps * batch if settings.max_steps else assumed.samples * settings.epochs
    flops = seen * sample_flops(config, stage, model, average.image, average.text)
    speed = assumed.peak_tflops * 1e12 * assumed.utilisation * assumed.gpus
    kept_in = BFLOAT16 if config.bf16 and config.tune == "lora" else FLOAT32
    frozen: float = (whole - learned) * kept_in
    if config.quantise == "nf4":
        frozen -= sum(layer.weight.numel() for _, layer in quantised_layers(model)) * (
            kept_in - NF4_BYTES
        )
    return StageEstimate(
        stage=stage,
        parameters=whole,
        trainable=learned,
        steps=max(1, round(seen / batch)),
        tokens=round(seen * average.length),
        flops=flops,
        hours=flops / speed / 3600,
        weights_gib=(frozen + learned * FLOAT32) / GIB,
        gradients_gib=learned * FLOAT32 / GIB,
        optimizer_gib=learned * FLOAT32 * MOMENTS[settings.optim] / GIB,
        activations_gib=_activations(config, model, of_pass, average if config.packing else longest)
        / GIB,
    )


def part_counts(model: FaceLlavaForConditionalGeneration) -> dict[str, int]:
    """Parameters of each part of a model without adapter."""
    counts = {"vision tower": 0, "projector": 0, "FRLP": 0, "FRGCA": 0, "language model": 0}
    for name, parameter in own_parameters(model):
        counts[part_of(name)] += parameter.numel()
    return counts


def _added(config: RunConfig, stage: Stage, counts: Mapping[str, int], learned: int) -> int:
    """Parameters that LoRA adds."""
    if stage == "regions" or config.tune == "full":
        return 0
    faces = 0 if config.lora_only else counts["projector"] + counts["FRLP"] + counts["FRGCA"]
    return learned - faces


def sample_flops(
    config: RunConfig,
    stage: Stage,
    model: FaceLlavaForConditionalGeneration,
    image_tokens: float,
    text_tokens: float,
) -> float:
    """FLOPs of one sample, forward and backward; FRLP is too small to count.

    A convolutional tower is counted as if each of its weights met each token, which is too little.
    """
    text = model.config.text_config
    counts = part_counts(model)
    length = image_tokens + text_tokens
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    # Looking an embedding up is no multiplication; a tied one is still the output's matrix.
    tied = text.tie_word_embeddings
    looked_up = 0 if tied else text.vocab_size * text.hidden_size
    attention = 2 * length * text.num_attention_heads * head * text.num_hidden_layers
    language = (2 * (counts["language model"] - looked_up) + attention) * length
    stored = config.scratch is not None
    if stored and stage == "regions":
        language = 0.0
    faces = 2 * (counts["projector"] + counts["FRGCA"]) * image_tokens
    looks = 0 if stored else 2 if model.config.mirror_average else 1
    forward = 2 * looks * counts["vision tower"] * image_tokens + faces + language
    # Gradients pass through the language model to what learns before it, frozen or not.
    backward = language + (0.0 if config.lora_only else faces)
    if stage == "instruct":
        learned = learned_count(model, config, stage)
        changed = _added(config, stage, counts, learned)
        changed += counts["language model"] - looked_up if config.tune == "full" else 0
        backward += 2 * changed * length
    if not config.lora_only:
        taught = counts["FRGCA"] + (counts["projector"] if stored or stage == "instruct" else 0)
        backward += 2 * taught * image_tokens
    return forward + backward + (language if config.gradient_checkpointing else 0.0)


def _activations(
    config: RunConfig, model: FaceLlavaForConditionalGeneration, batch: float, shape: _Shape
) -> float:
    """Bytes: of every layer, and of the logits in float32 with their gradient."""
    text = model.config.text_config
    scale = 1 if config.bf16 else 2
    layer = batch * min(shape.length, config.max_length) * text.hidden_size * scale
    if config.gradient_checkpointing:
        # The layer that is being recomputed is whole.
        kept = layer * (text.num_hidden_layers * CHECKPOINTED + KEPT)
    else:
        kept = layer * text.num_hidden_layers * KEPT
    # Image tokens have no logits: see train.run_trainer.
    return kept + batch * shape.text * text.vocab_size * 2 * FLOAT32
