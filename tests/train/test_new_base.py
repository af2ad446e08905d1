"""A base from two backbones: what it keeps of them, and which ones it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from typer.testing import CliRunner

from facellava import checkpoint
from facellava.cli import training
from facellava.corpus import read_faces
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.predictor import FaceLlava
from train.base_settings import Backbone
from train.new_base import make_base

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def text_folder(folder: Path, tokenizer: PreTrainedTokenizerFast, width: int = 48) -> Path:
    """A language model that knows the tokenizer's words but for our own marks."""
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="!", pad_token="<pad>"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer) - 6,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    plain.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones") / "siglip"
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(folder)
    pixels = {"image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


@pytest.fixture(scope="module")
def llama(
    tmp_path_factory: pytest.TempPathFactory, mini_tokenizer: PreTrainedTokenizerFast
) -> Path:
    return text_folder(tmp_path_factory.mktemp("backbones") / "llama", mini_tokenizer)


def test_the_command_joins_two_backbones(
    siglip: Path, llama: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "base"
    words = ["base", str(out), "--vision", str(siglip), "--text", str(llama)]
    outcome = CliRunner().invoke(training.app, words)
    assert outcome.exit_code == 0, outcome.output
    assert (outcome.stdout, outcome.stderr) == (f"The base is in {out}\n", "")
    model, processor = checkpoint.load(out)
    tower = SiglipVisionModel.from_pretrained(siglip).state_dict()
    kept = model.face_encoder.vision_tower.state_dict()
    assert kept.keys() == tower.keys()
    # Stored as the language model was.
    assert all(torch.equal(kept[name], value.bfloat16().float()) for name, value in tower.items())
    words_of = LlamaForCausalLM.from_pretrained(llama).float().model.embed_tokens.weight
    table = model.get_input_embeddings().weight
    assert torch.equal(table[: len(words_of)], words_of)
    assert len(table) >= len(processor.tokenizer)
    assert processor.image_processor.image_mean == MEAN
    face = next(read_faces(mini_corpus)).faces()[0]
    [answer] = FaceLlava(model, processor).ask_many([face], ["How old?"], max_new_tokens=3)
    assert answer.unreadable
    again = checkpoint.load(make_base(siglip, llama, tmp_path / "again"))[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_the_tower_of_a_model_that_has_one(siglip: Path, llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    text = CLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4,
    )  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**VISION)))
    clip.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_bytes(
        (siglip / "preprocessor_config.json").read_bytes()
    )
    face = {"region_variant": "released", "vision_feature_layer": -2, "region_heads": 4}
    wanted = Backbone(vision={"hidden_size": 32}, text={"hidden_size": 48}, face=face)
    model, _ = checkpoint.load(make_base(folder, llama, tmp_path / "base", wanted))
    assert model.config.region_variant == "released"
    first = model.face_encoder.vision_tower.state_dict()
    theirs = clip.vision_model.state_dict()
    name = "encoder.layers.0.self_attn.q_proj.weight"
    [ours] = [value for key, value in first.items() if key.endswith(name)]
    assert torch.equal(ours, theirs[name].bfloat16().float())


def test_what_is_refused(
    siglip: Path, llama: Path, tmp_path: Path, mini_tokenizer: PreTrainedTokenizerFast
) -> None:
    out = tmp_path / "base"
    with pytest.raises(BadCheckpoint, match="has the hidden_size 48, and the preset is for 896"):
        make_base(siglip, llama, out, Backbone(vision={}, text={"hidden_size": 896}))
    with pytest.raises(BadCheckpoint, match="is no folder with a config.json"):
        make_base(tmp_path / "none", llama, out)
    with pytest.raises(BadCheckpoint, match="is no folder with a config.json"):
        make_base(siglip, tmp_path / "none", out)
    with pytest.raises(BadCheckpoint, match="holds no preprocessor_config.json"):
        make_base(llama, llama, out)
    with pytest.raises(BadCheckpoint, match="holds no tokenizer that can be read"):
        make_base(siglip, siglip, out)
    narrow = text_folder(tmp_path / "narrow", mini_tokenizer, width=36)
    with pytest.raises(BadModelInput, match="does not divide the language model's width of 36"):
        make_base(siglip, narrow, out)
    assert not out.exists()
