"""What learns in which stage, by name, and the PEFT adapter that holds all of it.

Stage "regions": FRLP and FRGCA. Stage "instruct": those, the projector, and the language model, as
LoRA or as a whole. The vision tower never learns (the paper, section 5).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from train.quantise import size_of
from train.run_config import LoraSettings, RunConfig, Stage

REGION_MODULE: Final = "region_attention"
PROJECTOR_MODULE: Final = "mm_projector"
# The second is of clips, where the base has one.
TOWERS: Final = ("face_encoder.vision_tower.", "face_encoder.video_tower.")
# In the released layout it is stored and used by nobody: see facellava.region_attention.
UNUSED: Final = "landmarks_cross_attn.ln."

PARTS: Final = ("vision tower", "projector", "FRLP", "FRGCA", "language model", "LoRA")
_KINDS: Final = (
    (".lora_", "LoRA"),
    ("landmarks_projector.", "FRLP"),
    ("landmarks_cross_attn.", "FRGCA"),
    (f"{PROJECTOR_MODULE}.", "projector"),
    ("vision_tower.", "vision tower"),
    ("video_tower.", "vision tower"),
    ("language_model.", "language model"),
)


@dataclass(frozen=True)
class PartRow:
    """One part of the model: how many numbers it has, and how many of them learn."""

    part: str
    parameters: int
    trainable: int

    @property
    def share(self) -> float:
        """Of its own numbers, how many learn."""
        return self.trainable / self.parameters if self.parameters else 0.0


def make_trainable(
    model: FaceLlavaForConditionalGeneration, config: RunConfig, stage: Stage
) -> FaceLlavaForConditionalGeneration | PeftModel:
    """The model with exactly the stage's parameters learning, those in float32.

    Returns:
        A PEFT model around it; where all of the language model is tuned, the model itself.

    Raises:
        BadSettings: the language model has no layer of a name that LoRA should change.
    """
    if stage == "instruct" and config.tune == "full":
        prepared: FaceLlavaForConditionalGeneration | PeftModel = model
    else:
        with warnings.catch_warnings():
            # PEFT warns of tied embeddings, which no adapter here changes.
            warnings.simplefilter("ignore")
            prepared = get_peft_model(model, adapter_config(model, config, stage))
    for name, parameter in prepared.named_parameters():
        parameter.requires_grad_(learns(name, config, stage))
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return prepared


def adapter_config(
    model: FaceLlavaForConditionalGeneration, config: RunConfig, stage: Stage
) -> LoraConfig:
    """PEFT's own description of what the stage's adapter holds.

    Raises:
        BadSettings: the language model has no layer of a name that LoRA should change.
    """
    if stage == "regions":
        # PEFT's name for an adapter without low-rank layers.
        return LoraConfig(r=1, target_modules=DUMMY_TARGET_MODULES, modules_to_save=[REGION_MODULE])
    lora = config.lora
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_layers(model, lora),
        modules_to_save=None if config.lora_only else [PROJECTOR_MODULE, REGION_MODULE],
    )


def lora_layers(model: FaceLlavaForConditionalGeneration, lora: LoraSettings) -> str:
    """A pattern of the language model's layers that LoRA changes; its head is none of them.

    Raises:
        BadSettings: there is no layer of one of the names.
    """
    found = [
        match[1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (match := re.fullmatch(r"language_model\..*layers\.\d+\.(.+)", name))
    ]
    kinds = sorted(set(found))
    wanted = kinds if lora.targets == "all" else list(lora.targets)
    ends = {kind: [name for name in wanted if f".{kind}".endswith(f".{name}")] for kind in kinds}
    unknown = set(wanted) - {name for names in ends.values() for name in names}
    if unknown or not kinds:
        raise BadSettings(
            f"The language model has no linear layer named {', '.join(sorted(unknown)) or 'so'}; "
            f"its blocks have {', '.join(kinds) or 'none'}."
        )
    chosen = "|".join(re.escape(kind) for kind, names in ends.items() if names)
    return rf"language_model\..*layers\.\d+\.({chosen})"


def learns(name: str, config: RunConfig, stage: Stage) -> bool:
    """Whether the parameter of this name (of the plain or of the PEFT model) learns."""
    if any(mark in name for mark in ("original_module.", ".base_layer.", UNUSED, *TOWERS)):
        return False
    part = part_of(name)
    if part == "LoRA":
        return True
    if part in ("FRLP", "FRGCA"):
        return not config.lora_only
    if stage == "regions":
        return False
    return not config.lora_only if part == "projector" else config.tune == "full"


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to.

    Raises:
        ValueError: none of them; the model has a part that nobody thought of.
    """
    for mark, part in _KINDS:
        if mark in name:
            return part
    raise ValueError(f"parameter {name} belongs to no part of the model")


def own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once, without the frozen copies that PEFT keeps of modules it trains."""
    return ((n, p) for n, p in model.named_parameters() if "original_module." not in n)


def trainable_names(model: nn.Module) -> list[str]:
    """Names of the parameters that learn."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def trainable_table(model: nn.Module) -> list[PartRow]:
    """What learns, part by part, and in all."""
    totals = {part: [0, 0] for part in PARTS}
    for name, parameter in own_parameters(model):
        row = totals[part_of(name)]
        row[0] += size_of(parameter)
        row[1] += size_of(parameter) * parameter.requires_grad
    rows = [PartRow(part, *counts) for part, counts in totals.items() if counts[0]]
    whole = PartRow("all", sum(r.parameters for r in rows), sum(r.trainable for r in rows))
    return [*rows, whole]
