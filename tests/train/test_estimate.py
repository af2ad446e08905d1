"""Estimates against numbers that are known: published sizes, and arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from facellava import checkpoint
from facellava.cli import training
from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.estimate import Assumed, estimate, meta_model, part_counts, sample_flops, samples_of
from train.run_checks import learned_count
from train.run_config import RunConfig, load_config
from train.trainable import make_trainable, trainable_table

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


def preset(name: str, *more: str) -> RunConfig:
    return load_config(name, ["base=none", "corpus=none", "out=none", *more])


# Of the language models' own cards, in billions; of the towers', in millions.
@pytest.mark.parametrize(
    ("name", "language", "tower", "tokens"),
    [("0.5b", 0.494, 92.9, 196), ("7b-paper", 6.738, 303.5, 257), ("8b", 8.19, 428.2, 729)],
)
def test_presets_have_the_published_sizes(
    name: str, language: float, tower: float, tokens: int
) -> None:
    model = meta_model(preset(name))
    counts = part_counts(model)
    assert counts["language model"] / 1e9 == pytest.approx(language, rel=0.002)
    assert counts["vision tower"] / 1e6 == pytest.approx(tower, rel=0.01)
    assert model.config.tokens_per_frame == tokens
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_packed_pass_is_a_row_of_samples() -> None:
    packing = preset("7b-paper", "packing=true", "packed_length=4570", "instruct.accumulation=2")
    _, instruct = estimate(packing, Assumed(samples=40_000, text_tokens=200))
    # Ten samples of 457 tokens a row, two rows a step.
    assert instruct.steps == 2000
    padded = preset("7b-paper", "instruct.batch=10", "instruct.accumulation=2")
    _, alike = estimate(padded, Assumed(samples=40_000, text_tokens=200))
    assert instruct.activations_gib == pytest.approx(alike.activations_gib)
    assert instruct.flops == pytest.approx(alike.flops)


def test_the_papers_run_by_hand() -> None:
    config = preset("7b-paper")
    regions, instruct = estimate(config, Assumed(samples=168_000, gpus=7, text_tokens=243))
    assert (regions.steps, instruct.steps) == (1000, 1500)
    assert regions.tokens == 168_000 * 500
    counts = part_counts(meta_model(config))
    unused = 2 * 4096  # the published layout's second LayerNorm
    assert regions.trainable == counts["FRLP"] + counts["FRGCA"] - unused
    assert instruct.trainable == sum(counts.values()) - counts["vision tower"] - unused
    # Full tuning with Adam: sixteen bytes a parameter in float32.
    kept = instruct.weights_gib + instruct.gradients_gib + instruct.optimizer_gib
    towers = counts["vision tower"] + unused
    wanted = (16 * instruct.trainable + 4 * towers) / 2**30
    assert kept == pytest.approx(wanted, rel=1e-6)
    # About eight FLOPs a parameter and token: two forward, two again, four backward.
    language = counts["language model"] - 32000 * 4096
    assert instruct.flops / instruct.tokens / language == pytest.approx(8.0, rel=0.12)
    # A frozen language model has no gradients of its weights.
    assert regions.flops / regions.tokens / language == pytest.approx(6.0, rel=0.12)
    assert instruct.hours == pytest.approx(instruct.flops / (989e12 * 0.35 * 7) / 3600)
    assert 1.4 * regions.hours > instruct.hours > 1.2 * regions.hours


def test_flops_of_lora_are_between_frozen_and_full() -> None:
    frozen, lora, full = (
        sample_flops(config, stage, meta_model(config), 196, 200)  # type: ignore[arg-type]
        for config, stage in (
            (preset("0.5b"), "regions"),
            (preset("0.5b"), "instruct"),
            (preset("0.5b", "tune=full"), "instruct"),
        )
    )
    assert frozen < lora < full


def test_clips_cost_their_frames_and_checkpointing_saves_memory() -> None:
    [photo] = estimate(preset("0.5b", "stage=instruct"), Assumed(text_tokens=204))
    [clip] = estimate(preset("0.5b", "stage=instruct"), Assumed(text_tokens=204, clip_share=1.0))
    assert photo.tokens == 400 * 1_000_000
    assert clip.tokens == (8 * 196 + 204) * 1_000_000
    assert clip.activations_gib > 1.3 * photo.activations_gib
    off = preset("0.5b", "stage=instruct", "gradient_checkpointing=false")
    [kept] = estimate(off, Assumed(text_tokens=204))
    assert kept.activations_gib > photo.activations_gib
    assert kept.flops < photo.flops
    assert kept.memory_gib - photo.memory_gib == pytest.approx(
        kept.activations_gib - photo.activations_gib
    )


def test_four_bits_a_weight_of_the_frozen_layers() -> None:
    settings = ("stage=instruct", "tune=lora")
    [plain] = estimate(preset("7b-paper", *settings), Assumed())
    [packed] = estimate(preset("7b-paper", *settings, "quantise=nf4"), Assumed())
    # Vicuna-7B's blocks: 32 x (4 x 4096 x 4096 + 3 x 4096 x 11008); the QLoRA paper's 4.127 bits.
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    saved = layers * (2 - 4.127 / 8) / 2**30
    assert plain.weights_gib - packed.weights_gib == pytest.approx(saved, rel=1e-3)
    assert (packed.trainable, packed.parameters) == (plain.trainable, plain.parameters)


def test_counts_are_those_of_the_run(
    new_parts: Callable[[], Parts], tmp_path: Path, run_corpus: Path
) -> None:
    model, processor = new_parts()
    base = checkpoint.save(model, processor, tmp_path / "base")
    more = [f"base={base}", f"corpus={run_corpus}", "lora.r=4"]
    for stage in ("regions", "instruct"):
        config = preset("nano-lora", *more, f"stage={stage}")
        [found] = estimate(config, Assumed())
        adapted = make_trainable(new_parts()[0], config, config.stages[0])
        table = {row.part: row for row in trainable_table(adapted)}
        assert (found.parameters, found.trainable) == (
            table["all"].parameters,
            table["all"].trainable,
        )
    assert samples_of(config) == 32
    assert samples_of(preset("0.5b")) is None
    alone = preset("nano-lora", *more, "lora_only=true")
    assert learned_count(meta_model(alone), alone, "instruct") == table["LoRA"].parameters


def test_without_base_and_backbone() -> None:
    with pytest.raises(BadSettings, match=r"There is no base 'none' and no \[backbone\]"):
        meta_model(preset("nano-lora", "base=none"))
    with pytest.raises(BadSettings, match="The base's values do not make a model: region_heads"):
        meta_model(preset("0.5b", "backbone.face.region_heads=5"))


def test_the_command(run_corpus: Path) -> None:
    def told(*words: str) -> str:
        outcome = CliRunner().invoke(training.app, ["estimate", *words])
        assert outcome.exit_code == 0, outcome.output
        return outcome.stdout

    text = told("7b-paper", "--gpus", "7")
    assert "stage regions" in text
    assert "6,844,465,152 (95.76%)" in text
    assert "Not counted" not in text
    assert "Not counted: the encoder's own training before" in told("nano")
    assert json.loads(told("nano-lora", "--json"))["assumed"]["samples"] == 1_000_000
    body = json.loads(told("nano-lora", "--set", f"corpus={run_corpus}", "--json"))
    assert body["assumed"]["samples"] == 32
    assert body["stages"][0]["steps"] == 2


def test_a_base_from_scratch_runs_no_language_model_in_its_first_stage() -> None:
    config = load_config("nano", ["corpus=-", "out=-"])
    regions, instruct = estimate(config, Assumed(samples=1000))
    assert regions.parameters == instruct.parameters == 8_018_368
    assert regions.trainable < instruct.trainable < instruct.parameters
    assert regions.flops / regions.tokens < instruct.flops / instruct.tokens / 10


@pytest.mark.parametrize(
    "option",
    ["--gpus=0", "--samples=0", "--text-tokens=-9", "--clip-share=2", "--utilisation=0"],
)
def test_what_nobody_can_assume(option: str) -> None:
    outcome = CliRunner().invoke(training.app, ["estimate", "nano-lora", option])
    assert outcome.exit_code == 2
    assert option.partition("=")[0] in outcome.output


def test_a_backbone_that_transformers_refuses() -> None:
    with pytest.raises(BadSettings, match="do not make a model: embed_dim must be divisible"):
        meta_model(preset("0.5b", "backbone.vision.hidden_size=7"))
