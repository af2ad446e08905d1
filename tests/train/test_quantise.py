"""QLoRA: what becomes 4 bits, what does not, and that an adapter learns on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors import safe_open

from facellava import checkpoint
from facellava.conversation import face_conversation
from facellava.corpus import read_faces
from facellava.errors import BadSettings, MissingBackend
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train import quantise
from train.merge import adapted_model, merge_adapter
from train.run import train_run
from train.run_config import RunConfig
from train.run_report import StageReport
from train.trainable import make_trainable, trainable_table

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture
def base(new_parts: Callable[[], Parts], tmp_path: Path) -> Path:
    return checkpoint.save(*new_parts(), tmp_path / "base")


@pytest.fixture
def config(base: Path, run_corpus: Path, tmp_path: Path) -> RunConfig:
    steps = {"max_steps": 12, "batch": 16, "learning_rate": 1e-2, "warmup": 0.0}
    return RunConfig.model_validate(
        {
            "base": str(base),
            "corpus": run_corpus,
            "out": tmp_path / "run",
            "quantise": "nf4",
            "bf16": True,
            "instruct": steps,
            "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
            "save_steps": 4,
            "log_steps": 1,
            "workers": 0,
        }
    )


def loaded(base: Path) -> FaceLlavaForConditionalGeneration:
    return quantise.load_nf4(base, torch.bfloat16, torch.device("cpu"))[0]


def test_only_the_language_models_layers_become_four_bits(
    base: Path, new_parts: Callable[[], Parts], config: RunConfig
) -> None:
    model, plain = loaded(base), new_parts()[0]
    names = [
        name for name, layer in model.named_modules() if type(layer) is bitsandbytes.nn.Linear4bit
    ]
    assert names == [name for name, _ in quantise.quantised_layers(plain)]
    assert len(names) == 7
    assert all(name.startswith("language_model.model.layers.0.") for name in names)
    for name, parameter in model.named_parameters():
        packed = name.removesuffix(".weight") in names
        assert parameter.dtype == (torch.uint8 if packed else torch.bfloat16)
    state = model.language_model.model.layers[0].mlp.up_proj.weight.quant_state
    assert (state.quant_type, state.nested, state.blocksize) == ("nf4", True, 64)
    # The table counts weights and not bytes.
    wanted, found = (
        trainable_table(make_trainable(each, config, "instruct")) for each in (plain, model)
    )
    assert found == wanted


def test_an_adapter_learns_and_is_merged_into_the_plain_base(
    config: RunConfig, base: Path, run_corpus: Path
) -> None:
    again = config.model_copy(update={"eval_steps": 2, "eval_samples": 2, "eval_tokens": 4})
    result = train_run(again)
    curve = StageReport.read(config.out / "instruct", "instruct").curve("loss")[1]
    # Random weights with a frozen head cannot learn much.
    assert curve[-1] < curve[0] - 0.1
    with safe_open(result / "adapter_model.safetensors", framework="pt") as opened:
        types = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    assert types == {"F32"}
    merged = merge_adapter(base, result, config.out / "merged")
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    model, processor = checkpoint.load(merged)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    face = next(iter(read_faces(run_corpus, "validation"))).faces()[0]
    question = face_conversation("image", "Which expression does this face show?")
    batch = processor.encode([question], [face])
    with torch.inference_mode():
        plain = checkpoint.load(base)[0](**batch).logits[0, -1]
        alone = adapted_model(checkpoint.load(base)[0], base, result).eval()(**batch).logits[0, -1]
        learned = model(**batch).logits[0, -1]
        on_nf4 = adapted_model(loaded(base), base, result).eval()(**batch).logits[0, -1]
        assert model.generate(**batch, max_new_tokens=3).shape[1] > batch["input_ids"].shape[1]
    torch.testing.assert_close(learned, alone, atol=1e-4, rtol=1e-4)
    # It was learned on the rounded layers, and means the same on those that are not.
    assert (learned - on_nf4).norm() < 0.2 * (learned - plain).norm()


def test_measuring_does_not_change_what_is_learned(config: RunConfig) -> None:
    """bitsandbytes packs a layer anew when it answers on some CPUs; then it has no gradients."""
    curves = []
    for name, more in (("alone", {}), ("measured", {"eval_steps": 1, "eval_samples": 1})):
        folder = config.out / name
        few = config.instruct.model_copy(update={"max_steps": 4, "batch": 8})
        train_run(config.model_copy(update={"out": folder, "instruct": few, **more}))
        curves.append(StageReport.read(folder / "instruct", "instruct").curve("loss")[1])
    assert curves[0] == curves[1]


def test_where_it_is_refused(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='quantise = "nf4" freezes the language model in 4 bits'):
        RunConfig.model_validate(config.model_dump() | {"tune": "full"})

    def without(weight: torch.Tensor, **settings: Any) -> None:
        raise RuntimeError("no native library")

    with monkeypatch.context() as patch:
        patch.setattr(bitsandbytes.functional, "quantize_nf4", without)
        with pytest.raises(BadSettings, match="cannot quantise to NF4 on this machine's cpu"):
            train_run(config)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "bitsandbytes.functional", None)
        with pytest.raises(MissingBackend, match="bitsandbytes cannot be imported: pip install"):
            train_run(config)
    assert not config.out.exists()
