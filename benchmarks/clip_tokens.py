"""Accuracy against visual tokens a clip: the same model, clips and steps under each way.

    python -m benchmarks.expression_ramps rendered --pack data/ict_facekit --out ramps.npz
    python -m benchmarks.expression_ramps photos --corpus corpus --out photos.npz
    python -m benchmarks.clip_tokens ramps.npz --out clips
    python -m benchmarks.clip_tokens photos.npz --out clips --way full-8 --way pool2-8

A ramp becomes clips of LONGEST frames in which the expression rises, stays and falls again, in a
glimpse or over most of the clip; a way sees so many of these frames, spread evenly. The
model is then tuned for each way (all but its vision tower) to name the expression, with the same
clips in the same order. One JSON line a way: accuracy on people who were not trained on, and what
it loses to the first way, with 95% intervals by bootstrap over these people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from benchmarks.expression_ramps import Ramps
from facellava.checkpoint import load, set_clips
from facellava.config import FaceLlavaConfig
from facellava.conversation import face_conversation
from facellava.face_encoder import FaceEncoder
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import embedded_weights
from facellava.processor import FaceLlavaProcessor
from facellava.tasks import TASKS
from facellava.tasks.expression import BASIC
from train.device import training_device
from train.face_batches import to_pixel_values

LONGEST: Final = 64
GLIMPSE: Final = 4  # frames of the shortest expression, onset and offset included
CLIPS_A_RAMP: Final = 2
"""Of people who are tested; ramps of one level give one clip."""
LEARNING_RATE: Final = 5e-4
WARMUP: Final = 0.1
RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Way:
    """Frames of a clip and what is left of their tokens."""

    frames: int
    pool: int = 1
    merge: int = 1

    def tokens(self, config: FaceLlavaConfig) -> int:
        """Visual tokens of a clip."""
        return self.frames // self.merge * (config.n_patches // self.pool**2)


WAYS: Final = {
    "full-8": Way(8),
    "pool2-8": Way(8, pool=2),
    "pool3-8": Way(8, pool=3),
    "pool2-merge2-8": Way(8, pool=2, merge=2),
    "pool2-32": Way(32, pool=2),
    "pool2-merge2-64": Way(64, pool=2, merge=2),
    "pool2-merge8-64": Way(64, pool=2, merge=8),
}


@dataclass(frozen=True, eq=False)
class Seen:
    """What the frozen tower gives for all ramps.

    Attributes:
        features: (N, L, V, tokens, width) float16.
        landmarks: (N, L, V, 68, 2).
        ramps: the ramps.
    """

    features: Tensor
    landmarks: Tensor
    ramps: Ramps


def seen_by(encoder: FaceEncoder, ramps: Ramps, device: torch.device, kept: Path) -> Seen:
    """Every crop through the tower; once, then from `kept`."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.partial")
        save_file(_looked_at(encoder, ramps, device), partial)
        partial.replace(kept)
    found = load_file(kept, device=str(device))
    return Seen(found["features"], found["landmarks"], ramps)


@torch.inference_mode()
def _looked_at(encoder: FaceEncoder, ramps: Ramps, device: torch.device) -> dict[str, Tensor]:
    crops = torch.from_numpy(ramps.crops).flatten(0, 2).permute(0, 3, 1, 2)
    with torch.autocast(device.type, torch.bfloat16):
        found = [
            encoder.encode_pixels(to_pixel_values(part.to(device).float())).half()
            for part in tqdm(crops.split(64), disable=None)
        ]
    return {
        "features": torch.cat(found).unflatten(0, ramps.landmarks.shape[:3]),
        "landmarks": torch.from_numpy(ramps.landmarks),
    }


def timing(rng: np.random.Generator, levels: int) -> NDArray[np.int64]:
    """(LONGEST,) level of each frame: none, onset, apex, offset, none."""
    length = np.exp(rng.uniform(np.log(GLIMPSE), np.log(LONGEST)))
    start = rng.uniform(0, LONGEST - length)
    place = (np.arange(LONGEST) - start) / length
    rise, fall = rng.uniform(0.2, 0.4, 2)
    share = np.clip(np.minimum(place / rise, (1 - place) / fall), 0, 1)
    return np.rint(share * (levels - 1)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Clips:
    """C clips: the ramp of each (C,), and level and view of each of its frames (C, LONGEST)."""

    ramp: NDArray[np.int64]
    levels: NDArray[np.int64]
    views: NDArray[np.int64]

    @classmethod
    def drawn(cls, ramps: NDArray[np.integer], seen: Seen, rng: np.random.Generator) -> Clips:
        n_levels, n_views = seen.features.shape[1:3]
        levels = np.stack([timing(rng, n_levels) for _ in ramps])
        return cls(np.asarray(ramps), levels, rng.integers(n_views, size=levels.shape))

    def inputs(self, seen: Seen, frames: int, rows: slice) -> dict[str, Tensor]:
        """Features and landmarks of some of the clips, as a way with so many frames sees them."""
        shown = np.linspace(0, LONGEST - 1, frames).round().astype(int)
        places = (self.ramp[rows, None], self.levels[rows][:, shown], self.views[rows][:, shown])
        chosen = tuple(torch.from_numpy(np.ascontiguousarray(each)) for each in places)
        return {
            "image_features": seen.features[chosen].flatten(0, 1).float(),
            "landmarks": seen.landmarks[chosen].flatten(0, 1),
        }


def asked(
    processor: FaceLlavaProcessor, frames: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The question with the start of its answer (L,), and the words that can follow (7,)."""
    question = TASKS["expression"].canonical_question
    rows = [
        processor.encode_text(
            face_conversation("video", question, (), f"Expression: {name}."),
            [frames],
            training=True,
        )
        for name in BASIC
    ]
    words = processor.pad(rows, side="right")["input_ids"].to(device)
    place = int((words != words[0]).any(dim=0).nonzero()[0])
    return words[0, :place], words[:, place]


def next_word(
    model: FaceLlavaForConditionalGeneration, prompt: Tensor, faces: dict[str, Tensor], clips: int
) -> Tensor:
    """Logits of the word that comes next, (clips, vocabulary)."""
    with torch.autocast(model.device.type, torch.bfloat16):
        outputs = model(input_ids=prompt.expand(clips, -1), **faces, logits_to_keep=1)
    return outputs.logits[:, -1].float()


def tuned(
    base: Path, way: Way, seen: Seen, steps: int, batch: int, seed: int, device: torch.device
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """The base after so many steps on clips of the training people."""
    torch.manual_seed(seed)
    model, processor = load(base, device=device)
    set_clips(model, processor, frames=way.frames, pool=way.pool, merge=way.merge)
    model.train()
    model.face_encoder.vision_tower.requires_grad_(False)
    learned = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=max(steps, 2), pct_start=WARMUP
    )
    prompt, words = asked(processor, way.frames, device)
    for clips in tqdm(_batches(seen, steps, batch, seed), total=steps, disable=None):
        faces = clips.inputs(seen, way.frames, slice(None))
        labels = torch.from_numpy(seen.ramps.labels[clips.ramp]).to(device)
        loss = functional.cross_entropy(next_word(model, prompt, faces, batch), words[labels])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), processor


def _batches(seen: Seen, steps: int, batch: int, seed: int) -> Iterator[Clips]:
    rng = np.random.default_rng((1, seed))
    training = np.flatnonzero(~seen.ramps.test)
    for _ in range(steps):
        yield Clips.drawn(rng.choice(training, batch), seen, rng)


@torch.inference_mode()
def right(
    model: FaceLlavaForConditionalGeneration,
    processor: FaceLlavaProcessor,
    way: Way,
    seen: Seen,
    clips: Clips,
    batch: int,
) -> NDArray[np.bool_]:
    """(C,) whether the likeliest of the seven words is the right one."""
    prompt, words = asked(processor, way.frames, model.device)
    told = []
    for start in range(0, len(clips.ramp), batch):
        faces = clips.inputs(seen, way.frames, slice(start, start + batch))
        logits = next_word(model, prompt, faces, len(faces["landmarks"]) // way.frames)
        told.append(logits[:, words].argmax(dim=-1).cpu().numpy())
    found: NDArray[np.bool_] = np.concatenate(told) == seen.ramps.labels[clips.ramp]
    return found


def interval(values: NDArray[np.floating], people: NDArray[np.int64]) -> list[float]:
    """95% interval of the mean of values (C,) of clips, people drawn anew."""
    _, place = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [round(100 * float(end), 2) for end in np.quantile(means, [0.025, 0.975])]


def main(
    files: Annotated[list[Path], typer.Argument(help="What benchmarks.expression_ramps wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the tower's features and the results.")],
    way: Annotated[list[str], typer.Option(help="Ways to compare, the first with the others.")] = [  # noqa: B006
        *WAYS
    ],
    base: Annotated[Path | None, typer.Option(help="Checkpoint; else the embedded one.")] = None,
    steps: Annotated[int, typer.Option(min=0, help="Training steps of each way.")] = 250,
    batch: Annotated[int, typer.Option(min=1, help="Clips a step.")] = 48,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 1,
) -> None:
    """Tune the model for each way, print what it gets right; goes on after a stop."""
    device = training_device()
    base = base or embedded_weights()
    for file in files:
        encoder = load(base, device=device)[0].face_encoder
        seen = seen_by(encoder, Ramps.load(file), device, out / f"{file.stem}.safetensors")
        tested = np.flatnonzero(seen.ramps.test)
        repeats = CLIPS_A_RAMP if seen.features.shape[1] > 1 else 1
        clips = Clips.drawn(np.repeat(tested, repeats), seen, np.random.default_rng(0))
        people = seen.ramps.person[clips.ramp]
        first: NDArray[np.floating] | None = None
        for name in way:
            chosen = WAYS[name]
            scores = []
            for seed in range(seeds):
                kept = out / f"{file.stem}-{name}-{steps}x{batch}-{seed}.npy"
                if not kept.exists():
                    model, processor = tuned(base, chosen, seen, steps, batch, seed, device)
                    np.save(kept, right(model, processor, chosen, seen, clips, batch))
                scores.append(np.load(kept))
            mean = np.mean(scores, axis=0)
            first = mean if first is None else first
            line = {
                "file": file.name,
                "way": name,
                "frames": chosen.frames,
                "tokens": chosen.tokens(encoder.config),
                "clips": len(mean),
                "people": len(np.unique(people)),
                "accuracy": round(100 * float(mean.mean()), 2),
                "interval": interval(mean, people),
                "lost": round(100 * float((first - mean).mean()), 2),
                "lost_interval": interval(first - mean, people),
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            }
            typer.echo(json.dumps(line))


if __name__ == "__main__":
    typer.run(main)
