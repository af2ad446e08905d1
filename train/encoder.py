"""Supervised pre-training of a small vision encoder on every label that the faces carry.

The heads are thrown away afterwards; what stays is an encoder whose 36 tokens hold expression,
age, attributes, signs of blending and the measured quantities of the face. The language model
reads those tokens later.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel, ResNetConfig

from facellava.errors import BadCheckpoint
from facellava.image_processor import FaceLlavaImageProcessor
from train.augment import erase, move, recolour, roughen
from train.face_arrays import FaceArrays
from train.heads import FaceHeads, figures, losses, measured_scale

logger = logging.getLogger(__name__)

IMAGE_PROCESSOR = FaceLlavaImageProcessor()


@dataclass(frozen=True)
class EncoderSettings:
    """What a run of the encoder's pre-training is made of."""

    pictures: int = 420_000
    """Pictures seen in all; the learning rate follows one cycle over them."""
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    average_decay: float = 0.998
    """Of the running average of the weights, a step; the average is what is kept."""
    round_pictures: int = 15_000
    """Pictures between two checkpoints."""
    shares: tuple[float, float, float, float, float] = (0.46, 0.22, 0.16, 0.16, 0.08)
    """Of a batch, in proportion: faces with an expression, an age, attributes, a real-or-fake
    label, action units. What the corpus lacks is shared out among the rest."""
    seed: int = 0


def nano_encoder_config() -> ResNetConfig:
    """96x96 pixels to 6x6 tokens of width 256, 3.4 million parameters."""
    return ResNetConfig(
        num_channels=3,
        embedding_size=64,
        hidden_sizes=[64, 128, 256],
        depths=[2, 4, 2],
        layer_type="basic",
        downsample_in_first_stage=False,
    )


class SupervisedEncoder(nn.Module):
    """The encoder under the heads that teach it."""

    def __init__(self, measured: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_config(nano_encoder_config())
        self.heads = FaceHeads(self.encoder.config.hidden_sizes[-1], measured)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """pixel_values (B, 3, S, S) in [-1, 1] to the logits of every head, (B, .)."""
        tokens: Tensor = self.encoder(pixel_values).last_hidden_state
        outputs: dict[str, Tensor] = self.heads(tokens.flatten(2).transpose(1, 2))
        return outputs


def to_pixel_values(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 by the image processor that answers use too."""
    values = torch.from_numpy(IMAGE_PROCESSOR.normalise(pixels))
    return values.contiguous(memory_format=torch.channels_last)


def batches(
    arrays: FaceArrays, settings: EncoderSettings, *, first: int, scale: NDArray[np.float32]
) -> Generator[dict[str, Tensor], None, None]:
    """Endless augmented batches from batch number `first` on; a batch depends on its number only.

    Args:
        scale: (2, M) mean and deviation of the measured quantities.
    """
    groups = [
        np.flatnonzero(arrays.expression >= 0),
        np.flatnonzero(arrays.age >= 0),
        np.flatnonzero(arrays.attributes[:, 0] >= 0),
        np.flatnonzero(arrays.fake >= 0),
        np.flatnonzero((arrays.units >= 0).any(axis=1)),
    ]
    shares = np.array(
        [share if len(group) else 0.0 for share, group in zip(settings.shares, groups, strict=True)]
    )
    counts = np.floor(shares / shares.sum() * settings.batch).astype(int)
    counts[int(np.argmax(counts))] += settings.batch - counts.sum()

    def make(number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((settings.seed, number))
        rows = np.concatenate(
            [rng.choice(group, count) for group, count in zip(groups, counts, strict=True) if count]
        )
        pictures = []
        for row in rows:
            pixels, _ = move(arrays.pixels[row], arrays.landmarks[row], rng)
            pixels = recolour(pixels, rng)
            # Blending leaves faint traces; coarse grain would wipe them out of both classes.
            if arrays.fake[row] < 0:
                pixels = erase(roughen(pixels, rng), rng)
            pictures.append(pixels)
        measured = (arrays.measured[rows] - scale[0]) / scale[1]
        return {
            "pixel_values": to_pixel_values(np.stack(pictures)),
            "expression": torch.from_numpy(arrays.expression[rows]),
            "votes": torch.from_numpy(arrays.votes[rows]),
            "age": torch.from_numpy(arrays.age[rows]),
            "attributes": torch.from_numpy(arrays.attributes[rows]),
            "units": torch.from_numpy(arrays.units[rows]),
            "fake": torch.from_numpy(arrays.fake[rows]),
            "measured": torch.from_numpy(measured.clip(-4, 4)),
        }

    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = [pool.submit(make, first + step) for step in range(3)]
        number = first + 3
        while True:
            pending.append(pool.submit(make, number))
            number += 1
            yield pending.pop(0).result()


@torch.inference_mode()
def evaluate(model: nn.Module, arrays: FaceArrays, batch: int = 256) -> dict[str, float]:
    """The averaged model's figures on faces set aside."""
    model.eval()
    parts: list[dict[str, Tensor]] = [
        model(to_pixel_values(arrays.pixels[start : start + batch]))
        for start in range(0, len(arrays), batch)
    ]
    return figures({name: torch.cat([p[name] for p in parts]).numpy() for name in parts[0]}, arrays)


def train_encoder(
    train: FaceArrays, held_out: FaceArrays, out: Path, settings: EncoderSettings
) -> dict[str, float]:
    """Train, checkpoint every round, go on from the last whole checkpoint if there is one.

    Args:
        out: folder of the run; `encoder/` in it is a Hugging Face checkpoint of the averaged
            encoder, `state/` holds what resuming needs, `log.jsonl` one line a round.

    Raises:
        BadCheckpoint: the folder holds a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = SupervisedEncoder(train.measured.shape[1])
    # The signature of Module.to in torch's type hints lacks memory_format.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.average_decay),
        use_buffers=True,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = math.ceil(settings.pictures / settings.batch)
    round_steps = max(1, settings.round_pictures // settings.batch)
    done = _resume(out, settings, model, average, optimizer)
    if done == steps:
        return evaluate(average.module, held_out)
    found: dict[str, float] = {}
    bar = tqdm(total=steps, initial=done, unit="step", desc="encoder")
    began = time.monotonic()
    running = 0.0
    source = batches(train, settings, first=done, scale=measured_scale(train))
    for step in range(done, steps):
        # Dropout depends on the step's number only, so a resumed run repeats the whole one.
        torch.manual_seed(settings.seed * steps + step)
        rate = _one_cycle(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        batch = next(source)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(batch["pixel_values"])
        loss = losses(outputs, batch, settings.label_smoothing)
        if not torch.isfinite(loss):
            raise BadCheckpoint(
                f"The loss is {loss.item()} at step {step}; lower the learning rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(model)
        running = loss.item() if running == 0 else 0.98 * running + 0.02 * loss.item()
        bar.update()
        bar.set_postfix(loss=f"{running:.3f}")
        if (step + 1) % round_steps == 0 or step + 1 == steps:
            found = evaluate(average.module, held_out)
            _save(out, settings, step + 1, model, average, optimizer)
            line = {"step": step + 1, "pictures": (step + 1) * settings.batch, "loss": running}
            line |= {"seconds": round(time.monotonic() - began, 1)} | found
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            logger.info("%s", json.dumps(line))
    source.close()
    bar.close()
    return found


def _one_cycle(progress: float) -> float:
    """Up over the first tenth, then a cosine down to a thousandth."""
    if progress < 0.1:
        return 0.1 + 0.9 * progress / 0.1
    return 0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def _save(
    out: Path,
    settings: EncoderSettings,
    step: int,
    model: nn.Module,
    average: torch.optim.swa_utils.AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> None:
    """The averaged encoder, then the whole state in one file that appears at once.

    In this order a stop in between costs a round, and never leaves an encoder that is behind.
    """
    folder = out / "encoder"
    encoder: Any = average.module.encoder
    encoder.config.save_pretrained(folder)
    weights = {k: v.contiguous() for k, v in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    metadata = {"step": str(step), "settings": json.dumps(asdict(settings))}
    partial = out / "state.partial"
    save_file({k: v.clone() for k, v in tensors.items()}, partial, metadata=metadata)
    partial.replace(out / "state.safetensors")


def _resume(
    out: Path,
    settings: EncoderSettings,
    model: nn.Module,
    average: torch.optim.swa_utils.AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> int:
    """The number of steps done before, with every tensor put back; 0 for a new run."""
    path = out / "state.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["settings"]) != json.loads(json.dumps(asdict(settings))):
        raise BadCheckpoint(
            f"'{out}' holds a run with other settings; give another --out or the same settings."
        )
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        model.load_state_dict(part("model."))
        average.module.load_state_dict(part("average."))
    except RuntimeError as error:
        raise BadCheckpoint(
            f"'{out}' holds an encoder that learned other labels or measurements; "
            "give another --out."
        ) from error
    average.n_averaged.fill_(int(metadata["step"]))
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    full = optimizer.state_dict()
    optimizer.load_state_dict({"state": states, "param_groups": full["param_groups"]})
    return int(metadata["step"])
