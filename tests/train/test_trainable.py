"""Exactly the parameters that should learn do, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.run_config import RunConfig
from train.trainable import PartRow, make_trainable, trainable_names, trainable_table

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]

REGIONS = [
    "region_attention.global_landmarks_projector.*",
    "region_attention.landmarks_cross_attn.*",
    "region_attention.landmarks_projector.*",
]
LORA = [
    "language_model.model.layers.*.mlp.down_proj",
    "language_model.model.layers.*.mlp.gate_proj",
    "language_model.model.layers.*.mlp.up_proj",
    "language_model.model.layers.*.self_attn.k_proj",
    "language_model.model.layers.*.self_attn.o_proj",
    "language_model.model.layers.*.self_attn.q_proj",
    "language_model.model.layers.*.self_attn.v_proj",
]


def config(**settings: Any) -> RunConfig:
    given = {"base": "nano", "corpus": Path("c"), "out": Path("o"), **settings}
    return RunConfig.model_validate(given)


def kinds(names: list[str]) -> list[str]:
    """Names without PEFT's words, numbers and what lies deep inside FRLP and FRGCA."""
    found = set()
    for name in names:
        assert name.startswith("base_model.model.")
        plain = name.removeprefix("base_model.model.").removeprefix("face_encoder.")
        plain = plain.replace("modules_to_save.default.", "")
        plain = re.sub(r"layers\.\d+\.", "layers.*.", plain)
        plain = re.sub(r"\.lora_[AB]\.default\.weight$", "", plain)
        found.add(re.sub(r"^((region_attention\.\w+|mm_projector)\.).*", r"\1*", plain))
    return sorted(found)


def test_stage_regions_teaches_frlp_and_frgca(new_parts: Callable[[], Parts]) -> None:
    model = new_parts()[0]
    inside = [name for name, _ in model.face_encoder.region_attention.named_parameters()]
    names = trainable_names(make_trainable(model, config(stage="regions"), "regions"))
    start = "base_model.model.face_encoder.region_attention.modules_to_save.default."
    assert sorted(names) == sorted(start + name for name in inside)


def test_stage_instruct_adds_projector_and_lora(new_parts: Callable[[], Parts]) -> None:
    adapted = make_trainable(new_parts()[0], config(), "instruct")
    assert kinds(trainable_names(adapted)) == sorted([*REGIONS, "mm_projector.*", *LORA])
    some = config(lora={"targets": ("q_proj", "v_proj")})
    adapted = make_trainable(new_parts()[0], some, "instruct")
    assert kinds(trainable_names(adapted)) == sorted(
        [*REGIONS, "mm_projector.*", *(name for name in LORA if name[-6:] in ("q_proj", "v_proj"))]
    )


def test_lora_alone_is_the_language_models(new_parts: Callable[[], Parts]) -> None:
    adapted = make_trainable(new_parts()[0], config(lora_only=True), "instruct")
    assert kinds(trainable_names(adapted)) == LORA
    assert isinstance(adapted, PeftModel)
    assert adapted.peft_config["default"].modules_to_save is None


def test_full_tuning_leaves_out_only_the_tower(new_parts: Callable[[], Parts]) -> None:
    model = make_trainable(new_parts()[0], config(tune="full"), "instruct")
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen
    assert {name.startswith("face_encoder.vision_tower.") for name in frozen} == {True}


def test_what_learns_is_kept_in_float32(new_parts: Callable[[], Parts]) -> None:
    adapted = make_trainable(new_parts()[0].to(torch.bfloat16), config(), "instruct")
    types = {(p.requires_grad, p.dtype) for p in adapted.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


def test_the_table_adds_up(new_parts: Callable[[], Parts]) -> None:
    model = new_parts()[0]
    before = sum(p.numel() for p in model.parameters())
    regions = sum(p.numel() for p in model.face_encoder.region_attention.parameters())
    rows = {row.part: row for row in trainable_table(make_trainable(model, config(), "instruct"))}
    lora = rows["LoRA"]
    assert lora.parameters == lora.trainable > 0
    assert rows["FRLP"].trainable + rows["FRGCA"].trainable == regions
    assert rows["projector"].share == 1
    assert rows["vision tower"].trainable == rows["language model"].trainable == 0
    learned = lora.trainable + regions + rows["projector"].parameters
    assert rows["all"] == PartRow("all", before + lora.parameters, learned)


def test_layers_that_are_not_there(new_parts: Callable[[], Parts]) -> None:
    wanted = config(lora={"targets": ("q_proj", "c_attn")})
    with pytest.raises(BadSettings, match="no linear layer named c_attn; its blocks have mlp"):
        make_trainable(new_parts()[0], wanted, "instruct")
