"""Stage 2 at the size of the published model on one GPU: tokens/s and model FLOPs utilisation.

    python -m benchmarks.training_gpu                  # 7B, a GPU with 80 GB
    python -m benchmarks.training_gpu --shape tiny     # the same code on a CPU

Preset 7b-paper with LoRA (r 64), bfloat16 and gradient checkpointing, random weights made on the
GPU, no data from disk: a photo is 257 image tokens, a clip 8 times as many, the text of each 120 to
280 tokens, of which the second half is learned. The same samples in the same process, twice: padded
to the longest of a batch, in random order, with logits for every token, as the plain loop has it;
and packed, with logits only where something is learned. Prints a line of JSON each.

FLOPs of a sample of L tokens, of which I are image tokens and K have a logit (a multiply-add is
two; padding counts for nothing):

    language model   forward 2 P L + 2 L^2 d layers (causal attention); the same again for the
                     gradients of activations; none for weights, which are frozen
    its head         2 V d K, twice
    LoRA             2 P L, three times
    projector, FRGCA 2 P I, three times
    vision tower     2 P I, once

"mfu" is their sum a second over the peak. "hfu" adds the language model's forward once more, which
gradient checkpointing computes again. The peak is an H100's or H200's in bfloat16, dense.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import torch
import typer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from facellava.config import FaceLlavaConfig
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, EncodedText
from facellava.regions import N_LANDMARKS
from train.packed_attention import attend_by_sample
from train.packing import PackingPlan, packed_text
from train.plain_loss import PlainLoss, learned_places
from train.run_config import RunConfig, load_config
from train.trainable import make_trainable, own_parameters, part_of

PEAK_FLOPS: Final = 989e12
CLIP_FRAMES: Final = 8
COMMON: Final = ("base=none", "corpus=none", "out=none", "stage=instruct", "tune=lora")
SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "7b": (),
    "tiny": (
        "backbone.vision.hidden_size=32",
        "backbone.vision.intermediate_size=64",
        "backbone.vision.num_hidden_layers=2",
        "backbone.vision.num_attention_heads=2",
        "backbone.text.hidden_size=64",
        "backbone.text.intermediate_size=128",
        "backbone.text.num_hidden_layers=2",
        "backbone.text.num_attention_heads=4",
        "backbone.text.num_key_value_heads=4",
        "backbone.text.vocab_size=512",
    ),
}

Batch = dict[str, Tensor]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class MadeUpSample:
    """Token ids and labels, and how many frames are shown."""

    text: EncodedText
    frames: int


def made_up_samples(config: FaceLlavaConfig, count: int) -> list[MadeUpSample]:
    """Three photos and a clip, again and again, in random order."""
    rng = torch.Generator().manual_seed(0)
    samples = []
    for number in torch.randperm(count, generator=rng).tolist():
        frames = CLIP_FRAMES if number % 4 == 0 else 1
        words = int(torch.randint(120, 281, (), generator=rng))
        placeholder = config.video_token_id if frames > 1 else config.image_token_id
        shown = [placeholder] * (frames * config.tokens_per_frame)
        said = torch.randint(2, config.text_config.vocab_size, (words,), generator=rng).tolist()
        answer = said[words // 2 :]
        labels = [IGNORED_LABEL] * (len(shown) + words - len(answer)) + answer
        samples.append(MadeUpSample(EncodedText(shown + said, labels), frames))
    return samples


def new_model(run: RunConfig, device: str) -> tuple[FaceLlavaForConditionalGeneration, nn.Module]:
    """The model with random weights in bfloat16, and what PEFT makes of it; both learn nothing else
    than a run of stage "instruct" would."""
    backbone = run.backbone
    if backbone is None:
        raise typer.BadParameter("the preset has no backbone")
    values = FaceLlavaConfig(
        vision_config=dict(backbone.vision), text_config=dict(backbone.text), **backbone.face
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            base = FaceLlavaForConditionalGeneration(values)
    finally:
        torch.set_default_dtype(before)
    base.to(torch.bfloat16)
    attend_by_sample(base.language_model)
    with torch.device(device):
        prepared = make_trainable(base, run, "instruct").to(device)
    prepared.gradient_checkpointing_enable({"use_reentrant": False})
    return base, prepared.train()


def with_frames(batch: Batch, frames: int, config: FaceLlavaConfig) -> Batch:
    """The batch with random pictures and landmarks."""
    height, width = config.image_size
    pixels = torch.randn(frames, 3, height, width, dtype=torch.bfloat16)
    return {**batch, "pixel_values": pixels, "landmarks": torch.rand(frames, N_LANDMARKS, 2)}


def padded_batches(
    samples: Sequence[MadeUpSample], size: int, config: FaceLlavaConfig
) -> list[Batch]:
    """Batches in the order of the samples, padded to the longest."""
    batches = []
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        ids, labels = (
            pad_sequence([torch.tensor(row) for row in rows], True, filler)
            for rows, filler in (
                ([sample.text.input_ids for sample in part], config.text_config.vocab_size - 1),
                ([sample.text.labels for sample in part], IGNORED_LABEL),
            )
        )
        lengths = torch.tensor([len(sample.text.input_ids) for sample in part])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        batches.append(with_frames(batch, sum(sample.frames for sample in part), config))
    return batches


def packed_batches(
    samples: Sequence[MadeUpSample], length: int, config: FaceLlavaConfig
) -> list[Batch]:
    """One packed row each."""
    lengths = torch.tensor([len(sample.text.input_ids) for sample in samples]).numpy()
    batches = []
    for places in PackingPlan(lengths, length, processes=1, seed=0):
        row = [samples[place] for place in places]
        batch = packed_text([sample.text for sample in row])
        batches.append(with_frames(batch, sum(sample.frames for sample in row), config))
    return batches


def stepper(
    model: nn.Module, device: str, *, learned_only: bool
) -> Callable[[Sequence[Batch], float], None]:
    """One optimiser's step over some forward passes; their losses are divided by a number."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    loss = PlainLoss()

    def step(batches: Sequence[Batch], learned: float) -> None:
        for given in batches:
            batch = {name: value.to(device, non_blocking=True) for name, value in given.items()}
            labels = batch.pop("labels")
            keep = (
                learned_places(labels)
                if learned_only
                else torch.arange(labels.shape[1], device=device)
            )
            with torch.autocast(device, torch.bfloat16):
                logits = model(**batch, use_cache=False, logits_to_keep=keep).logits
            total = loss.summed(logits, labels[:, keep], labels) / learned
            total.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def sample_flops(
    base: FaceLlavaForConditionalGeneration, samples: Sequence[MadeUpSample]
) -> tuple[float, float]:
    """FLOPs of all samples by the formula above, and those computed again on top."""
    config = base.config
    counts = {"LoRA": 0, "projector": 0, "FRGCA": 0, "vision tower": 0, "language model": 0}
    for name, parameter in own_parameters(base):
        counts[part_of(name)] = counts.get(part_of(name), 0) + parameter.numel()
    text = config.text_config
    head = text.vocab_size * text.hidden_size
    blocks = counts["language model"] - 2 * head
    faces = counts["projector"] + counts["FRGCA"]
    needed = again = 0.0
    for sample in samples:
        length = len(sample.text.input_ids)
        images = sample.frames * config.tokens_per_frame
        learned = sum(label != IGNORED_LABEL for label in sample.text.labels or ())
        forward = 2 * blocks * length + 2 * length**2 * text.hidden_size * text.num_hidden_layers
        needed += 2 * forward + 4 * head * learned + 6 * counts["LoRA"] * length
        needed += (6 * faces + 2 * counts["vision tower"]) * images
        again += forward
    return needed, again


def measure(
    step: Callable[[Sequence[Batch], float], None], batches: Sequence[Batch], per_step: int
) -> dict[str, float]:
    """Seconds for all batches after a warm-up, and the most memory in GiB."""
    on_gpu = torch.cuda.is_available()
    learned = [float((batch["labels"] != IGNORED_LABEL).sum()) for batch in batches]
    # The longest, so that memory is not asked for within the clock.
    longest = max(batches, key=lambda batch: batch["input_ids"].numel())
    step([longest], 100.0)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for first in range(0, len(batches), per_step):
        step(batches[first : first + per_step], sum(learned[first : first + per_step]))
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    memory = {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {}
    return {"seconds": seconds, "passes": len(batches), **memory}


@app.command()
def run(
    shape: Annotated[str, typer.Option(help="7b or tiny.")] = "7b",
    count: Annotated[int, typer.Option("--samples", min=4, help="A quarter are clips.")] = 48,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a padded batch.")] = 4,
    length: Annotated[int, typer.Option(min=2400, help="Most tokens of a packed row.")] = 4096,
) -> None:
    """Measure both ways."""
    settings = load_config("7b-paper", (*COMMON, *SHAPES[shape]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    start = time.perf_counter()
    base, model = new_model(settings, device)
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    counts: dict[str, Any] = {
        "parameters": sum(p.numel() for _, p in own_parameters(model)),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    _line({"shape": shape, "device": machine, "torch": torch.__version__, **counts,
           "build_seconds": time.perf_counter() - start})  # fmt: skip
    samples = made_up_samples(base.config, count)
    tokens = sum(len(sample.text.input_ids) for sample in samples)
    needed, again = sample_flops(base, samples)
    ways = {
        "padded": (padded_batches(samples, batch, base.config), False),
        "packed": (packed_batches(samples, length, base.config), True),
    }
    rates = {}
    for way, (batches, learned_only) in ways.items():
        found = measure(stepper(model, device, learned_only=learned_only), batches, per_step=4)
        rates[way] = tokens / found["seconds"]
        places = sum(one["input_ids"].numel() for one in batches)
        _line({"way": way, **found, "samples": count, "tokens": tokens,
               "tokens_per_second": rates[way], "padding": 1 - tokens / places,
               "model_flops": needed, "mfu": needed / found["seconds"] / PEAK_FLOPS,
               "hfu": (needed + again) / found["seconds"] / PEAK_FLOPS,
               "times_as_fast": rates[way] / rates["padded"]})  # fmt: skip


def _line(facts: dict[str, Any]) -> None:
    typer.echo(json.dumps({
        key: round(value, 4) if isinstance(value, float) else value for key, value in facts.items()
    }))  # fmt: skip


if __name__ == "__main__":
    app()
