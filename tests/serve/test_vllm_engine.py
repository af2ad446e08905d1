"""The engine says, token by token, what the library says: photos, clips, caches and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    CLIPVisionConfig,
    MistralConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
    SiglipVisionConfig,
)

from facellava.checkpoint import load, new_model, save, set_clips
from facellava.config import FaceLlavaConfig
from facellava.conversation import FaceItem
from facellava.faces import Face
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import embedded_weights
from facellava.processor import FaceLlavaProcessor
from tests.serve.vllm_rig import (
    QUESTIONS,
    EngineProcess,
    Library,
    engine,
    faces,
    moved,
    nano,
    needs_vllm,
    portrait,
)
from train.merge import merge_adapter

__all__ = ["engine", "faces", "nano", "portrait"]
pytestmark = needs_vllm


def same_as_the_library(
    engine: EngineProcess,
    library: Library,
    asked: Sequence[tuple[Sequence[FaceItem], str]],
    name: str = "nano",
) -> dict[str, Any]:
    """Ask the engine all at once, and again from its caches; the library one by one."""
    prompts = [library.prompt(items, question) for items, question in asked]
    expected = [library.ids(items, question) for items, question in asked]
    first = engine.call("generate", name=name, prompts=prompts)
    again = engine.call("generate", name=name, prompts=prompts)
    assert first["ids"] == expected
    assert again["ids"] == expected
    return {"first": first, "again": again}


def test_chunk_of_32_photos(engine: EngineProcess, nano: Library, faces: list[Face]) -> None:
    asked = [
        ([moved(faces[n % 6], 0.001 + 0.002 * (n // 6))], QUESTIONS[(n + n // 6) % 6])
        for n in range(32)
    ]
    runs = same_as_the_library(engine, nano, asked)
    # As many faces at a time as fit a step, not one by one; and none when all is remembered.
    assert sum(runs["first"]["encoded"]) == 32
    assert len(runs["first"]["encoded"]) <= 4
    assert runs["again"]["encoded"] == []
    assert min(runs["again"]["cached"]) >= 32


def test_several_photos_in_one_prompt(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    pair, other_way = [faces[1], faces[2]], [faces[2], faces[1]]
    same_as_the_library(
        engine,
        nano,
        [(pair, QUESTIONS[1]), (other_way, QUESTIONS[1]), (faces[:4], QUESTIONS[0])],
    )


def test_clips(engine: EngineProcess, nano: Library, faces: list[Face]) -> None:
    clips = [[faces[0]], faces[:3], faces[:4], faces[1:5]]
    asked = [([clip], question) for clip in clips for question in QUESTIONS[:2]]
    runs = same_as_the_library(engine, nano, [*asked, ([faces[0], faces[2:4]], QUESTIONS[1])])
    assert runs["again"]["encoded"] == []


def test_clips_of_fewer_tokens(engine: EngineProcess, faces: list[Face], tmp_path: Path) -> None:
    """64 frames in the tokens of 8, a clip whose frames make no whole pairs, and photos beside."""
    model, processor = load(embedded_weights())
    set_clips(model, processor, pool=2, merge=2)
    folder = save(model, processor, tmp_path / "short")
    engine.call("start", name="short", folder=str(folder), max_model_len=512)
    long = [moved(faces[n % 6], 0.0005 * n) for n in range(64)]
    asked: list[tuple[list[FaceItem], str]] = [([long], QUESTIONS[1]), ([faces[:3]], QUESTIONS[0])]
    asked += [([faces[2], faces[2:6]], QUESTIONS[1]), ([faces[0]], QUESTIONS[0])]
    runs = same_as_the_library(engine, Library(folder), asked, name="short")
    assert sum(runs["first"]["encoded"]) == 64 + 4 + 5 + 1


def test_one_crop_with_other_landmarks_never_shares_a_cache(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    one, other = moved(faces[5], 0.015), moved(faces[5], -0.02)
    asked = [([one, other], QUESTIONS[1]), ([other, one], QUESTIONS[1])]
    asked += [([face], question) for face in (one, other, one) for question in QUESTIONS[:2]]
    asked += [([[one, other]], QUESTIONS[1]), ([[other, one]], QUESTIONS[1])]
    same_as_the_library(engine, nano, asked)


def test_moving_a_landmark_changes_the_scores(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    prompts = [
        nano.prompt([moved(faces[0], by, slice(54, 55))], QUESTIONS[1]) for by in (0.0, 0.02, 0.0)
    ]
    for prompt in prompts:
        prompt["prompt"] += "Expression:"
    tokens = nano.processor.tokenizer(" happiness sadness anger neutral")["input_ids"]
    logs = engine.call(
        "generate", name="nano", prompts=prompts, max_tokens=1, logprob_token_ids=tokens
    )["logs"]
    plain, changed, plain_again = (
        np.array([logs_of[0][token] for token in tokens]) for logs_of in logs
    )
    assert np.abs(plain - changed).max() > 1e-3
    assert np.abs(plain - plain_again).max() < 1e-4


def test_a_client_cannot_name_the_content(
    engine: EngineProcess, nano: Library, faces: list[Face]
) -> None:
    """The same uuid for another face: the answer is about the face that was sent."""
    for face in (faces[2], moved(faces[2], 0.02), faces[3]):
        prompt = {**nano.prompt([face], QUESTIONS[1]), "multi_modal_uuids": {"image": ["mine"]}}
        assert engine.call("generate", name="nano", prompts=[prompt])["ids"] == [
            nano.ids([face], QUESTIONS[1])
        ]


def random_adapter(folder: Path, base: Path, seed: int) -> PeftModel:
    """A LoRA adapter of the language model that changes answers, stored and around its model."""
    layers = r"language_model\.model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.\w+_proj)"
    torch.manual_seed(seed)
    adapted = get_peft_model(load(base)[0], LoraConfig(r=8, target_modules=layers))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.25)
    adapted.save_pretrained(folder)
    return adapted


def test_adapters_on_the_language_model_are_swapped_by_name(
    engine: EngineProcess, nano: Library, faces: list[Face], tmp_path: Path
) -> None:
    asked = [([faces[n]], QUESTIONS[n % 2]) for n in range(4)]
    prompts = [nano.prompt(items, question) for items, question in asked]
    base = [nano.ids(items, question) for items, question in asked]
    answers = {}
    for name, seed in (("first", 1), ("second", 2)):
        adapted = random_adapter(tmp_path / name, nano.folder, seed)
        expected = [nano.ids(items, question, model=adapted) for items, question in asked]
        assert expected != base
        answers[name] = expected
    assert answers["first"] != answers["second"]
    for name in ("first", "second", "first"):
        found = engine.call("generate", name="nano", prompts=prompts, adapter=str(tmp_path / name))
        assert found["ids"] == answers[name]
    assert engine.call("generate", name="nano", prompts=prompts)["ids"] == base


def test_merged_unmerged_and_served_answers_agree(
    engine: EngineProcess, nano: Library, faces: list[Face], tmp_path: Path
) -> None:
    # In float32, so that merging rounds nothing away.
    base = save(nano.model, nano.processor, tmp_path / "base", dtype=torch.float32)
    unmerged = random_adapter(tmp_path / "adapter", base, seed=3)
    merged = merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    library = Library(merged)
    asked = [([faces[n]], QUESTIONS[n % 3]) for n in range(6)]
    prompts = [nano.prompt(items, question) for items, question in asked]
    expected = [nano.ids(items, question, model=unmerged) for items, question in asked]
    assert expected != [nano.ids(items, question) for items, question in asked]
    assert [library.ids(items, question) for items, question in asked] == expected
    served = engine.call(
        "generate", name="nano", prompts=prompts, adapter=str(tmp_path / "adapter")
    )
    assert served["ids"] == expected
    engine.call("start", name="merged", folder=str(merged), max_model_len=1024)
    assert engine.call("generate", name="merged", prompts=prompts)["ids"] == expected


def other_config(kind: str, tokenizer: PreTrainedTokenizerBase) -> FaceLlavaConfig:
    """Small backbones of other makers: grouped heads, head norms, a CLS token, untied heads."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # Wide enough that random weights give clearly different logits.
        "initializer_range": 0.2,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 12,
    }
    placeholders = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<{name}>")
        for name in ("image", "video")
    }
    if kind == "qwen3":
        return FaceLlavaConfig(
            vision_config=SiglipVisionConfig(**vision),
            text_config=Qwen3Config(**sizes, head_dim=32, tie_word_embeddings=True),
            region_variant="released",
            region_heads=4,
            vision_feature_layer=-2,
            **placeholders,
        )
    return FaceLlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=MistralConfig(
            **sizes, head_dim=32, sliding_window=None, tie_word_embeddings=False
        ),
        region_heads=4,
        vision_feature_select="full",
        **placeholders,
    )


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_other_backbones(
    engine: EngineProcess, nano: Library, faces: list[Face], tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(3)
    folder = tmp_path / kind
    parts: tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor] = new_model(
        other_config(kind, nano.processor.tokenizer), nano.processor.tokenizer
    )
    save(*parts, folder, dtype=torch.float16)
    library = Library(folder)
    engine.call("start", name=kind, folder=str(folder), max_model_len=512)
    asked = [([faces[0]], QUESTIONS[0]), ([faces[1], faces[2]], QUESTIONS[1])]
    asked += [([faces[:3]], QUESTIONS[1]), ([moved(faces[0], 0.5)], QUESTIONS[0])]
    prompts = [library.prompt(items, question) for items, question in asked]
    expected = [library.ids(items, question, 16) for items, question in asked]
    assert engine.call("generate", name=kind, prompts=prompts, max_tokens=16)["ids"] == expected
    assert expected[0] != expected[3]
