"""Which LoRA adapters vLLM can switch, and which must be merged first."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from skimage import data

from facellava import checkpoint
from facellava.config import FaceLlavaConfig
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.faces import find_faces
from facellava.faces.face_png import data_url, to_png
from facellava.predictor import FaceLlava, embedded_weights
from serve.adapters import adapter_options, check_adapter

QUESTION = "How old is this person, and how can you tell?"
LANGUAGE = r"language_model\.model\.layers\.\d+\.self_attn\.[qv]_proj"


@pytest.fixture(scope="session")
def config() -> FaceLlavaConfig:
    return FaceLlavaConfig.from_pretrained(embedded_weights(), local_files_only=True)


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Called with PEFT's settings: the folder of such an adapter of nano."""

    def build(name: str = "adapter", **settings: Any) -> Path:
        model, _ = checkpoint.load(embedded_weights())
        asked = LoraConfig(**{"r": 8, "target_modules": LANGUAGE, **settings})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            get_peft_model(model, asked).save_pretrained(tmp_path / name)
        return tmp_path / name

    return build


def change(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_adapters_of_the_language_model_are_switched(
    adapter: Callable[..., Path], config: FaceLlavaConfig
) -> None:
    small = adapter("small", r=3)
    large = adapter("large", r=16, target_modules=LANGUAGE.replace("[qv]", "[qkvo]"))
    check_adapter(small, config)
    assert adapter_options({}, config) == []
    assert adapter_options({"kind": small}, config) == [
        *("--enable-lora", "--max-lora-rank", "8", "--max-loras", "1"),
        *("--lora-modules", f"kind={small}"),
    ]
    options = adapter_options({"kind": small, "strict": large}, config)
    assert options[options.index("--max-lora-rank") + 1] == "16"
    assert options[-2:] == [f"kind={small}", f"strict={large}"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"target_modules": r".*mm_projector\.0"}, "face_encoder.mm_projector.0"),
        ({"target_modules": r".*vision_tower.*convolution"}, "face_encoder.vision_tower"),
        ({"target_modules": rf"{LANGUAGE}|.*region_attention.*q_proj"}, "region_attention"),
        ({"target_modules": r"language_model\.model\.embed_tokens"}, "embed_tokens"),
        ({"modules_to_save": ["mm_projector"]}, "modules_to_save"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
    ],
)
def test_others_must_be_merged(
    adapter: Callable[..., Path],
    config: FaceLlavaConfig,
    settings: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(BadModelInput, match="facellava train merge") as raised:
        check_adapter(adapter(**settings), config)
    assert named in str(raised.value)


def test_not_lora_must_be_merged(adapter: Callable[..., Path], config: FaceLlavaConfig) -> None:
    folder = adapter()
    change(folder, peft_type="IA3")
    with pytest.raises(BadModelInput, match="IA3 adapter.*facellava train merge"):
        check_adapter(folder, config)


def test_rank_above_what_vllm_takes(adapter: Callable[..., Path], config: FaceLlavaConfig) -> None:
    with pytest.raises(BadModelInput, match="has rank 600; vLLM takes up to 512"):
        check_adapter(adapter(r=600, target_modules=LANGUAGE.replace(r"\d+", "0")), config)


def test_another_models_adapter(adapter: Callable[..., Path], config: FaceLlavaConfig) -> None:
    folder = adapter()
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(iter(weights))
    narrow = {**weights, key: weights[key][:, :100].contiguous()}
    save_file(narrow, folder / "adapter_model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"has 100 channels .* which has 256"):
        check_adapter(folder, config)
    deep = {key.replace("layers.0", "layers.77"): tensor for key, tensor in weights.items()}
    save_file(deep, folder / "adapter_model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"layers\.77.* does not have"):
        check_adapter(folder, config)


def test_broken_folders(
    adapter: Callable[..., Path], config: FaceLlavaConfig, tmp_path: Path
) -> None:
    with pytest.raises(BadCheckpoint, match="holds no adapter_model.safetensors"):
        check_adapter(tmp_path / "nowhere", config)
    folder = adapter()
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(BadCheckpoint, match="damaged"):
        check_adapter(folder, config)
    save_file({}, weights)
    with pytest.raises(BadCheckpoint, match="empty"):
        check_adapter(folder, config)
    weights.write_bytes(whole)
    (folder / "adapter_config.json").write_text("[1")
    with pytest.raises(BadCheckpoint, match="adapter_config.json"):
        check_adapter(folder, config)
    # A pickle beside nothing is not opened.
    weights.unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(BadCheckpoint, match="safetensors"):
        check_adapter(folder, config)


def test_names_that_cannot_be_models(adapter: Callable[..., Path], config: FaceLlavaConfig) -> None:
    with pytest.raises(BadModelInput, match="cannot name an adapter"):
        adapter_options({"a=b": adapter()}, config)


def test_adapter_answers_under_its_name(api: str, twin: Path) -> None:
    """As the library does with the adapter merged; and the model without it as ever."""
    [face, *_] = find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))
    plain = FaceLlava.load()
    expected = {"nano": plain.ask_many([face], [QUESTION])[0].text}
    adapted = PeftModel.from_pretrained(plain.model, twin).merge_and_unload()
    expected["twin"] = FaceLlava(adapted, plain.processor).ask_many([face], [QUESTION])[0].text
    assert expected["nano"] != expected["twin"]
    picture = {"type": "image_url", "image_url": {"url": data_url(to_png(face), clip=False)}}
    content = [picture, {"type": "text", "text": QUESTION}]
    for name, text in expected.items():
        body = {"model": name, "messages": [{"role": "user", "content": content}]}
        reply = httpx.post(f"{api}/v1/chat/completions", json=body, timeout=60)
        assert reply.json()["choices"][0]["message"]["content"] == text
