"""Merging a LoRA adapter: the new weights answer like the old ones with it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from facellava import checkpoint
from facellava.adapter import NOTE_FILE, clip_settings, weights_digest
from facellava.errors import BadCheckpoint
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import FaceLlava, embedded_weights
from train.merge import merge_adapter

# All kinds of parts: the language model, the face encoder, and a layer that is trained as a whole.
TARGETS = r"language_model\.model\.layers\.\d+\.(self_attn\.q_proj|mlp\.up_proj)|.*mm_projector\.0"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano in float32, so that nothing is rounded."""
    model, processor = checkpoint.load(embedded_weights())
    folder = tmp_path_factory.mktemp("merge") / "base"
    return checkpoint.save(model, processor, folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter with weights that make a difference."""
    torch.manual_seed(3)
    model, _ = checkpoint.load(base)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, modules_to_save=["mm_projector.2"]
    )
    adapted = get_peft_model(model, settings)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * (0.2 if "lora" in name else 0.05))
    folder = base.parent / "adapter"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(model: FaceLlavaForConditionalGeneration | torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    landmarks = np.linspace(0.1, 0.9, 136, dtype=np.float32).reshape(1, 68, 2)
    tokens = [6] * 36 + [100, 200, 300]
    found: torch.Tensor = model(
        input_ids=torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        pixel_values=torch.randn(1, 3, 96, 96, generator=generator),
        landmarks=torch.from_numpy(landmarks),
    ).logits
    return found


def test_merged_weights_answer_like_the_adapted_model(base: Path, adapter: Path) -> None:
    from peft import PeftModel

    plain, _ = checkpoint.load(base)
    before = logits(plain)
    wanted = logits(PeftModel.from_pretrained(plain, adapter).eval())
    merged, _ = checkpoint.load(merge_adapter(base, adapter, base.parent / "merged"))
    assert (wanted - before).abs().max() > 0.1
    torch.testing.assert_close(logits(merged), wanted, atol=2e-4, rtol=1e-4)


def test_weights_keep_the_bases_type_and_files(adapter: Path, tmp_path: Path) -> None:
    merged = merge_adapter(embedded_weights(), adapter, tmp_path / "merged")
    with safe_open(merged / "model.safetensors", framework="pt") as opened:
        types = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118
        names = set(opened.keys())
    # Batch normalisation counts its batches in integers.
    assert types == {"F16", "I64"}
    with safe_open(embedded_weights() / "model.safetensors", framework="pt") as opened:
        assert names == set(opened.keys())


def test_what_is_no_adapter_of_these_weights(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="holds no adapter_model.safetensors"):
        merge_adapter(base, tmp_path, tmp_path / "out")
    broken = tmp_path / "broken"
    broken.mkdir()
    settings = (adapter / "adapter_config.json").read_text()
    (broken / "adapter_config.json").write_text(settings)
    weights = load_file(adapter / "adapter_model.safetensors")
    fewer = dict(list(weights.items())[:-1])
    save_file(fewer, broken / "adapter_model.safetensors")
    with pytest.raises(BadCheckpoint, match="not those that its adapter_config.json describes"):
        merge_adapter(base, broken, tmp_path / "out")
    foreign = settings.replace("mm_projector", "no_such_layer").replace("q_proj", "other_proj")
    (broken / "adapter_config.json").write_text(foreign.replace("up_proj", "another_proj"))
    with pytest.raises(BadCheckpoint, match="no PEFT adapter of"):
        merge_adapter(base, broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_predictor_asks_with_an_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    asked = FaceLlava.load(base, adapter).model
    merged = checkpoint.load(merge_adapter(base, adapter, tmp_path / "merged"))[0]
    assert torch.allclose(logits(asked), logits(merged), atol=1e-4)
    assert not torch.allclose(logits(asked), logits(checkpoint.load(base)[0]), atol=1e-2)
    with pytest.raises(BadCheckpoint, match="holds no adapter_model.safetensors"):
        FaceLlava.load(base, tmp_path)


def test_an_adapter_for_other_clips_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    model, processor = checkpoint.load(base)
    checkpoint.set_clips(model, processor, frames=8, pool=2)
    short = checkpoint.save(model, processor, tmp_path / "short", dtype=torch.float32)
    assert weights_digest(short) == weights_digest(base)
    noted = shutil.copytree(adapter, tmp_path / "adapter")
    note = {"base_sha256": weights_digest(short), "clips": clip_settings(short)}
    (noted / NOTE_FILE).write_text(json.dumps(note))
    with pytest.raises(BadCheckpoint, match="for clips of other tokens"):
        merge_adapter(base, noted, tmp_path / "out")
    merged, its_processor = checkpoint.load(merge_adapter(short, noted, tmp_path / "out"))
    assert (merged.config.clip_pool, its_processor.clip_frames) == (2, 8)
    # One that was trained before clips could be shortened goes with both.
    (noted / NOTE_FILE).write_text(json.dumps({"base_sha256": weights_digest(base)}))
    assert merge_adapter(base, noted, tmp_path / "old") == tmp_path / "old"
    (noted / NOTE_FILE).write_text('{"base')
    with pytest.raises(BadCheckpoint, match=f"{NOTE_FILE} cannot be read as JSON; copy it anew"):
        merge_adapter(base, noted, tmp_path / "damaged")
