"""Supervised pre-training of a small vision encoder on every label that the faces carry.

The heads are thrown away afterwards; what stays is an encoder whose 36 tokens hold expression,
age, attributes, signs of blending and the measured quantities of the face. The language model
reads those tokens later.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel, ResNetConfig

from facellava.errors import BadCheckpoint
from facellava.whole_files import open_to_others
from train.augment import to_pictures
from train.damage import undamaged
from train.device import training_device
from train.face_arrays import FaceArrays
from train.face_batches import BatchSettings, FaceBatches, to_pixel_values
from train.heads import FaceHeads, distillation, figures, losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderSettings(BatchSettings):
    """What a run of the encoder's pre-training is made of."""

    pictures: int = 420_000
    """Pictures seen in all; the learning rate follows one cycle over them."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    average_decay: float = 0.998
    """Of the running average of the weights, a step; the average is what is kept."""
    round_pictures: int = 15_000
    """Pictures between two checkpoints."""
    widths: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (2, 4, 2)
    """Of the residual stages; the last width is the tokens'."""
    teaching: float = 1.0
    """Weight of the distance to a teacher's heads, where there is a teacher."""


def encoder_config(widths: tuple[int, ...], depths: tuple[int, ...]) -> ResNetConfig:
    """96x96 pixels to 6x6 tokens of the last width."""
    return ResNetConfig(
        num_channels=3,
        embedding_size=widths[0],
        hidden_sizes=list(widths),
        depths=list(depths),
        layer_type="basic",
        downsample_in_first_stage=False,
    )


class SupervisedEncoder(nn.Module):
    """The encoder under the heads that teach it."""

    def __init__(self, config: ResNetConfig, measured: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_config(config)
        self.heads = FaceHeads(self.encoder.config.hidden_sizes[-1], measured)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """pixel_values (B, 3, S, S) in [-1, 1] to the logits of every head, (B, .)."""
        tokens: Tensor = self.encoder(pixel_values).last_hidden_state
        outputs: dict[str, Tensor] = self.heads(tokens.flatten(2).transpose(1, 2))
        return outputs


@torch.inference_mode()
def evaluate(model: nn.Module, arrays: FaceArrays, batch: int = 256) -> dict[str, float]:
    """The averaged model's figures on faces set aside."""
    model.eval()
    device = next(model.parameters()).device
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(arrays), batch):
        pictures = to_pictures(arrays.pixels[start : start + batch]).to(device)
        parts.append(model(to_pixel_values(pictures)))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return figures({name: value.cpu().numpy() for name, value in joined.items()}, arrays)


def load_teacher(folder: Path) -> SupervisedEncoder:
    """The averaged encoder with its heads of a finished or unfinished run.

    Raises:
        BadCheckpoint: there is none, or it is damaged.
    """
    path = folder / "state.safetensors"
    if not path.is_file():
        raise BadCheckpoint(f"'{folder}' holds no encoder to learn from; train one there first.")
    _, settings, stored = _stored(path)
    tensors = _part(stored, "average.")
    config = encoder_config(tuple(settings["widths"]), tuple(settings["depths"]))
    teacher = SupervisedEncoder(config, len(tensors["heads.measured.weight"]))
    teacher.load_state_dict(tensors)
    return teacher.eval().requires_grad_(False)


def train_encoder(
    train: FaceArrays,
    held_out: FaceArrays,
    out: Path,
    settings: EncoderSettings,
    teacher: Path | None = None,
) -> dict[str, float]:
    """Train, checkpoint every round, go on from the last whole checkpoint if there is one.

    Args:
        out: folder of the run; `encoder/` in it is a Hugging Face checkpoint of the averaged
            encoder, `state.safetensors` what resuming needs, `log.jsonl` one line a round.
        teacher: folder of another run of this function, whose heads are learned from too.

    Raises:
        BadCheckpoint: the folder holds a run with other settings, or a damaged one.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    device = training_device()
    config = encoder_config(settings.widths, settings.depths)
    model = SupervisedEncoder(config, train.measured.shape[1]).to(device)
    # The signature of Module.to in torch's type hints lacks memory_format.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    taught = None if teacher is None else load_teacher(teacher).to(device)
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
    workers = max(1, (os.cpu_count() or 2) - 1)
    source = FaceBatches(train, settings, device, workers).stream(done)
    for step in range(done, steps):
        # Dropout depends on the step's number only, so a resumed run repeats the whole one.
        torch.manual_seed(settings.seed * steps + step)
        rate = _one_cycle(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        batch = next(source)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            outputs = model(batch["pixel_values"])
        loss = losses(outputs, batch, settings.label_smoothing)
        if taught is not None:
            with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
                wanted = taught(batch["pixel_values"])
            loss = loss + settings.teaching * distillation(outputs, wanted)
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
    open_to_others(folder)
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    metadata = {"step": str(step), "settings": json.dumps(asdict(settings))}
    partial = out / "state.partial"
    save_file({k: v.clone() for k, v in tensors.items()}, partial, metadata=metadata)
    open_to_others(partial)
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
    step, before, tensors = _stored(path)
    if before != json.loads(json.dumps(asdict(settings))):
        raise BadCheckpoint(
            f"'{out}' holds a run with other settings; give another --out or the same settings."
        )
    try:
        model.load_state_dict(_part(tensors, "model."))
        average.module.load_state_dict(_part(tensors, "average."))
    except RuntimeError as error:
        raise BadCheckpoint(
            f"'{out}' holds an encoder that learned other labels or measurements; "
            "give another --out."
        ) from error
    average.n_averaged.fill_(step)
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = value
    full = optimizer.state_dict()
    optimizer.load_state_dict({"state": states, "param_groups": full["param_groups"]})
    return step


def _stored(path: Path) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """The step, the settings and the tensors of a state."""
    with undamaged(path, "remove it, and the same command trains that encoder from the start."):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        return int(metadata["step"]), json.loads(metadata["settings"]), load_file(path)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
