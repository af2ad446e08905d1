"""Packed rows teach what the same samples teach alone, each once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from facellava import checkpoint
from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from train.dataset import Collator, CorpusTables, Encoded, Reader, TrainingRows, scan
from train.packed_attention import PACKED_SDPA, attend_by_sample
from train.packed_rows import PackedRows, PackingCollator
from train.packing import PackingPlan, best_fit
from train.plain_loss import PlainLoss, learned_places
from train.run import train_run
from train.run_checks import check_apart
from train.run_config import RunConfig, load_config
from train.run_report import StageReport
from train.run_trainer import RunTrainer, answer_loss

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
Batch = dict[str, torch.Tensor]


@pytest.fixture
def rows(run_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]) -> TrainingRows:
    reader = Reader(CorpusTables(run_corpus, "train", tmp_path), new_parts()[1], 1024, 8)
    return TrainingRows(reader, scan(reader, skip=False))


@pytest.fixture
def mixed(rows: TrainingRows) -> list[Encoded]:
    """Photos and a clip, first and second turns, faces with other units that nobody coded."""
    clip = int(np.flatnonzero(rows.usable.frames == 3)[0])
    samples = [rows[place] for place in (0, 2, clip, 7, clip + 3, 5)]
    assert [len(sample.item) if isinstance(sample.item, list) else 1 for sample in samples] == [
        1, 1, 3, 1, 3, 1,
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    return [replace(s, uncoded=rng.random(len(s.uncoded)) < 0.5) for s in samples]


def loss_and_gradients(
    model: FaceLlavaForConditionalGeneration, loss: Any, batches: Sequence[Batch]
) -> tuple[float, dict[str, torch.Tensor]]:
    """As the trainer computes them, summed over batches."""
    model.zero_grad()
    total = torch.zeros(())
    for batch in batches:
        labels, uncoded = batch.pop("labels"), batch.pop("uncoded")
        keep = learned_places(labels)
        logits = model(**batch, use_cache=False, logits_to_keep=keep).logits
        uncoded = uncoded[:, keep] if uncoded.ndim == 3 else uncoded
        total = total + loss.summed(logits, labels[:, keep], uncoded)
    total.backward()
    return float(total.detach()), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("wanted", ["plain", "verdict"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", PACKED_SDPA])
def test_packed_loss_and_gradients_are_those_of_the_samples_alone(
    mixed: list[Encoded], new_parts: Callable[[], Parts], wanted: str, attention: str
) -> None:
    model, processor = new_parts()
    if attention == PACKED_SDPA:
        attend_by_sample(model.language_model)
    else:
        model.language_model.set_attn_implementation(attention)
    assert model.language_model.config._attn_implementation == attention
    model.language_model.train()
    loss = answer_loss(processor.tokenizer, wanted)
    assert isinstance(loss, PlainLoss) == (wanted == "plain")
    collate = PackingCollator(processor)
    packed = collate([mixed])
    weight = loss.weight_of(packed["labels"])
    assert packed["input_ids"].shape == (1, sum(len(s.text.input_ids) for s in mixed))
    found, gradients = loss_and_gradients(model, loss, [packed])
    alone = [collate([sample]) for sample in mixed]
    assert all(torch.equal(one["labels"], Collator(processor)([s])["labels"])
               for one, s in zip(alone, mixed, strict=True))  # fmt: skip
    assert weight == sum(loss.weight_of(one["labels"]) for one in alone)
    for other in (alone, [collate(mixed)]):
        wanted_loss, wanted_gradients = loss_and_gradients(model, loss, other)
        assert found == pytest.approx(wanted_loss, rel=1e-6)
        assert gradients.keys() == wanted_gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-4, atol=5e-5)


def test_what_teaches_nothing_has_no_logits() -> None:
    no = IGNORED_LABEL
    labels = torch.tensor([[5, no, 7, 8, no, no, no, 9], [no, no, no, 6, no, no, no, no]])
    keep = learned_places(labels)
    assert keep.tolist() == [1, 2, 3, 6, 7]
    # The same pairs of a token and a learned one behind it.
    assert labels[:, keep][0].tolist() == [no, 7, 8, no, 9]


def test_a_language_model_that_would_mix_samples_is_refused(
    new_parts: Callable[[], Parts],
) -> None:
    model, _ = new_parts()
    check_apart(model)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    small = {"vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    for kind in ("gpt2", "bloom", "mamba"):
        config = AutoConfig.for_model(kind, **small, **ends)
        model.language_model = AutoModelForCausalLM.from_config(config).eval()
        model.config.text_config = config
        if kind in ("bloom", "mamba"):
            with pytest.raises(BadSettings, match=f"of type {kind} packed samples would see"):
                check_apart(model)
        else:
            check_apart(model)


def test_rows_are_full_and_hold_every_sample_once_an_epoch() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 400, 2000).astype(np.int32)
    told: list[int] = []
    plan = PackingPlan(lengths, 512, processes=8, seed=3, on_epoch=told.append)
    first = list(plan)
    assert sorted(place for row in first for place in row) == list(range(2000))
    assert max(lengths[list(row)].sum() for row in first) <= 512
    assert len(first) == len(plan)
    assert len(plan) % 8 == 0
    # 5% above what no plan could go below.
    assert len(plan) * 512 < lengths.sum() * 1.05
    assert list(PackingPlan(lengths, 512, processes=8, seed=3)) == first
    plan.set_epoch(1)
    assert told == [1]
    second = list(plan)
    assert len(second) == len(first)
    assert sorted(place for row in second for place in row) == list(range(2000))
    # Long samples have few others of their length.
    assert len(set(first) & set(second)) < len(first) / 10
    assert [] not in best_fit(lengths, 512, 0)
    few = PackingPlan(np.array([5, 6, 7], np.int32), 100, processes=2, seed=0)
    assert sorted(len(row) for row in few) == [1, 2]


def test_a_row_that_cannot_hold_the_longest_sample_is_refused() -> None:
    values = ("base=a", "corpus=b", "out=c", "packing=true", "max_length=512")
    assert load_config("nano-lora", values).row_length == 512
    with pytest.raises(BadSettings, match="packed_length is 300 and max_length 512; make it"):
        load_config("nano-lora", (*values, "packed_length=300"))


def test_clips_cannot_be_weighed_in_packed_rows() -> None:
    values = ("base=a", "corpus=b", "out=c", "packing=true", "clip_frame_augment=skip")
    assert load_config("nano-lora", values).packing
    with pytest.raises(BadSettings, match="clip_noise_weights weighs whole rows, and a packed row"):
        load_config("nano-lora", (*values, "clip_noise_weights=true"))


@pytest.fixture
def configured(
    run_corpus: Path, tmp_path: Path, new_parts: Callable[[], Parts]
) -> Callable[..., RunConfig]:
    """Settings of a short packed run; the keywords are those that differ."""
    base = checkpoint.save(*new_parts(), tmp_path / "base")

    def make(**settings: Any) -> RunConfig:
        common: dict[str, Any] = {
            "base": str(base),
            "corpus": run_corpus,
            "instruct": {"max_steps": 6, "accumulation": 2, "learning_rate": 3e-3},
            "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
            "packing": True,
            "max_length": 512,
            "save_steps": 1,
            "log_steps": 1,
            "workers": 0,
        }
        return RunConfig.model_validate(common | settings)

    return make


def losses(folder: Path) -> list[float]:
    return StageReport.read(folder / "instruct", "instruct").curve("loss")[1]  # type: ignore[arg-type]


def test_an_epoch_of_rows_is_a_batch_of_all_samples(
    configured: Callable[..., RunConfig], rows: TrainingRows, tmp_path: Path
) -> None:
    count = len(PackingPlan(rows.usable.lengths, 512, 1, 0))
    assert 1 < count < 16
    curves = []
    for packing in (True, False):
        steps = {
            "max_steps": 3,
            "optim": "sgd",
            "learning_rate": 0.05,
            "warmup": 0.0,
            "batch": 32,
            "accumulation": count if packing else 1,
        }
        config = configured(
            packing=packing,
            instruct=steps,
            out=tmp_path / str(packing),
            lora={"r": 4, "alpha": 8, "dropout": 0.0},
        )
        train_run(config)
        curves.append(losses(config.out))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert curves[0][0] > curves[0][-1]


def test_a_stopped_packed_run_goes_on_to_the_same_curve(
    configured: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(PackedRows, "__getitem__", _noting(PackedRows.__getitem__, seen))
    held_out = {"eval_steps": 3, "eval_samples": 0}
    whole = configured(out=tmp_path / "whole", **held_out)
    train_run(whole)
    assert len(set(seen[:32])) == 32
    config = configured(out=tmp_path / "stopped", **held_out)
    real = RunTrainer._save_checkpoint

    def save_then_stop(self: RunTrainer, *arguments: Any) -> None:
        real(self, *arguments)
        if self.state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunTrainer, "_save_checkpoint", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            train_run(config)
    train_run(configured(out=tmp_path / "stopped", workers=2, **held_out))
    assert len(losses(config.out)) == 6
    assert losses(config.out) == losses(whole.out)
    file = "adapter/adapter_model.safetensors"
    assert (config.out / file).read_bytes() == (whole.out / file).read_bytes()


def _noting(real: Any, seen: list[str]) -> Any:
    def read(self: PackedRows, places: tuple[int, ...]) -> list[Encoded]:
        samples: list[Encoded] = real(self, places)
        seen.extend(sample.sample_id for sample in samples)
        return samples

    return read
