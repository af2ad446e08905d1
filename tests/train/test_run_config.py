"""Settings of a run: files, presets, overrides, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from facellava.errors import BadSettings
from train.run_config import load_config, preset_names

HERE = ["base=b", "corpus=c", "out=o"]


def test_presets_are_whole_but_for_the_users_folders() -> None:
    assert preset_names() == ["0.5b", "7b-paper", "8b", "nano", "nano-fast", "nano-lora"]
    for name in preset_names():
        folders = HERE[1:] if name in {"nano", "nano-fast"} else HERE
        assert load_config(name, folders).out == Path("o")
    with pytest.raises(BadSettings, match="'nano-lora' says no corpus; add it, or give --set"):
        load_config("nano-lora")


def test_the_papers_settings() -> None:
    paper = load_config("7b-paper", HERE)
    assert paper.stages == ("regions", "instruct")
    assert (paper.regions.learning_rate, paper.instruct.learning_rate) == (1e-4, 2e-5)
    assert (paper.regions.batch, paper.instruct.batch) == (24, 16)
    for stage in (paper.regions, paper.instruct):
        assert (stage.epochs, stage.schedule, stage.warmup) == (1, "cosine", 0.03)
        assert stage.weight_decay == 0
    assert (paper.lora.r, paper.lora.alpha, paper.lora.dropout) == (64, 16, 0.05)
    assert (paper.tune, paper.max_length, paper.save_steps) == ("full", 3072, 5000)
    assert paper.clip_frames == 8
    assert paper.bf16
    assert paper.gradient_checkpointing


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.toml", 'preset = "nano-lora"\ncorpus = "c"\nout = "o"\n[instruct]\nbatch = 3\n'),
        ("run.yaml", "preset: nano-lora\ncorpus: c\nout: o\ninstruct: {batch: 3}\n"),
    ],
)
def test_a_file_says_only_what_differs_from_its_preset(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name, ["instruct.max_steps=7", "lora.targets=['q_proj']"])
    assert (config.base, config.corpus, config.out) == ("nano", Path("c"), Path("o"))
    assert (config.instruct.batch, config.instruct.max_steps) == (3, 7)
    assert config.instruct.learning_rate == 1e-3
    assert config.lora.targets == ("q_proj",)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lerning_rate=1", "no setting lerning_rate; did you mean instruct.learning_rate?"),
        ("qqq=1", "There is no setting qqq; known are base, corpus"),
        ("eval_step=1", "There is no setting eval_step; did you mean eval_steps?"),
        (
            "instruct.lerning_rate=1",
            "There is no setting instruct.lerning_rate; did you mean instruct.learning_rate?",
        ),
        ("lora.rank=1", "There is no setting lora.rank"),
        ("instruct.batch=0", "The setting instruct.batch is 0: input should be greater"),
        ("instruct.batch=9999999999", "The setting instruct.batch is 9999999999: input should be"),
        ("instruct.epochs=inf", "The setting instruct.epochs is inf: input should be a finite"),
        ("instruct.learning_rate=inf", "instruct.learning_rate is inf: input should be a finite"),
        ("seed=4294967295", "The setting seed is 4294967295: input should be less than or equal"),
        ("lora.targets=[]", '^lora.targets is \\[\\]; give "all", or names such as'),
        ("lora.targets=['']", "^lora.targets is \\[''\\]; give"),
        ("lora.targets=5", "^lora.targets is 5; give"),
        ("tune=half", "The setting tune is 'half': input should be 'lora' or 'full'."),
        ("save_steps=7", "^save_steps is 7; make it a multiple of log_steps \\(10\\)"),
        ("early_stopping=2", "^early_stopping keeps the best checkpoint: give eval_steps"),
        ("stage", "--set 'stage' is not KEY=VALUE"),
    ],
)
def test_what_is_refused(override: str, sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        load_config("nano-lora", [*HERE, override])


def test_one_layer_by_its_name() -> None:
    assert load_config("nano-lora", [*HERE, "lora.targets=q_proj"]).lora.targets == ("q_proj",)
    assert load_config("nano-lora", [*HERE, "lora.targets=all"]).lora.targets == "all"


def test_lora_alone_cannot_hold_what_it_starts_from() -> None:
    with pytest.raises(BadSettings, match="start is an adapter of FRLP and FRGCA, which one with"):
        load_config("nano-lora", [*HERE, "lora_only=true", "start=runs/regions/adapter"])


def test_lora_alone_needs_stage_instruct() -> None:
    with pytest.raises(BadSettings, match="lora_only leaves FRLP and FRGCA as they are"):
        load_config("nano-lora", [*HERE, "lora_only=true", "stage=all"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("base=b", 'base = "scratch" and a section scratch go together.'),
        ("tune=lora", 'goes with stage = "all" and tune = "full"'),
        ("eval_steps=10", 'base = "scratch" has no use for eval_steps; leave it out.'),
        ("scratch.encoder.picture=1", "did you mean scratch.encoder.pictures?"),
        ("scratch.encoder.pictures=0", "scratch.encoder.pictures must be at least 1."),
        ("scratch.encoder.seed=1", "A run has one seed: give seed"),
        ("scratch.width=255", "make it an even multiple of scratch.heads"),
        ("scratch.depth=3", "There is no setting scratch.depth; did you mean"),
    ],
)
def test_what_a_base_from_scratch_refuses(override: str, sentence: str) -> None:
    with pytest.raises(BadSettings) as raised:
        load_config("nano", [*HERE[1:], override])
    assert sentence in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="'big' is neither a file nor a preset; the presets are"):
        load_config("big", HERE)
    broken = tmp_path / "broken.toml"
    broken.write_text("stage = ")
    with pytest.raises(BadSettings, match="cannot be read: Invalid value"):
        load_config(broken, HERE)
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(BadSettings, match="holds no table"):
        load_config(tmp_path / "list.yaml", HERE)
    broken.write_text('preset = "huge"')
    with pytest.raises(BadSettings, match="no preset 'huge'; use one of 0.5b"):
        load_config(broken, HERE)
