"""What can be said about a run before an hour is spent on it."""

from __future__ import annotations

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor

from facellava import checkpoint
from facellava.adapter import check_belongs
from facellava.errors import BadSettings, MissingBackend
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.predictor import embedded_weights
from train.device import training_device
from train.processes import sharding
from train.quantise import check_nf4
from train.run_config import EMBEDDED, RunConfig, Stage
from train.trainable import learns, lora_layers, own_parameters

GIB = 2**30
# Of what learns: itself and two moments in float32.
CHECKPOINT_BYTES = 12
# The newest checkpoint is written before the one before it goes, and the result beside them.
CHECKPOINTS = 2
REPORTERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


def check_machine(config: RunConfig) -> None:
    """Refuse what this machine cannot do.

    Raises:
        MissingBackend: the package that curves are reported to is not installed.
        BadSettings: several GPUs and one process, no 4-bit kernels, or a launcher's config that
            does not go with the run.
    """
    packages = REPORTERS.get(config.report_to, ())
    if packages and not any(find_spec(package) for package in packages):
        raise MissingBackend(
            f'report_to is "{config.report_to}" and {packages[0]} is not installed: '
            f"pip install {packages[0]}"
        )
    if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
        raise BadSettings(
            f"There are {torch.cuda.device_count()} GPUs: start the command with `accelerate "
            "launch -m facellava train run ...`, or choose one with CUDA_VISIBLE_DEVICES=0."
        )
    spread = sharding()
    if spread == "DeepSpeed" and len(config.stages) > 1:
        raise BadSettings(
            "Under DeepSpeed a command trains one stage: give --set stage=regions, and then "
            "--set stage=instruct --set start=OUT/adapter in another out folder."
        )
    if config.quantise == "nf4":
        if spread is not None:
            raise BadSettings(
                f'quantise = "nf4" keeps the whole model on each GPU: leave out the {spread} '
                "config, or quantise."
            )
        check_nf4(training_device())


def check_one_process() -> None:
    """Refuse a launcher where one process does everything.

    Raises:
        BadSettings: there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadSettings(
            "A base from scratch is trained in one process: start the command without a launcher."
        )


def base_folder(config: RunConfig) -> Path:
    """The folder of the base checkpoint."""
    return embedded_weights() if config.base == EMBEDDED else Path(config.base)


def check_start(config: RunConfig, base: Path) -> None:
    """Refuse an adapter that the run cannot start from.

    Raises:
        BadCheckpoint: it cannot be read, or is another base's.
        BadSettings: it is no adapter, or its LoRA would be lost.
    """
    start = config.start
    if start is None:
        return
    if (start / "config.json").is_file():
        raise BadSettings(
            f"'{start}' is a whole model and no adapter: give it as base, and leave start out."
        )
    check_belongs(base, start)
    described = checkpoint.read_json(start / "adapter_config.json")
    if config.tune == "lora" and described.get("target_modules") != DUMMY_TARGET_MODULES:
        raise BadSettings(
            f"'{start}' holds LoRA, which the adapter of this run would not hold: merge it into "
            "its base first (facellava train merge), or start from an adapter of stage regions."
        )


def learned_count(model: FaceLlavaForConditionalGeneration, config: RunConfig, stage: Stage) -> int:
    """How many numbers learn in a stage; the model may be without weights.

    Raises:
        BadSettings: the language model has no layer that LoRA should change.
    """
    count = sum(p.numel() for name, p in own_parameters(model) if learns(name, config, stage))
    if stage == "instruct" and config.tune == "lora":
        chosen = lora_layers(model, config.lora)
        count += sum(
            config.lora.r * (layer.in_features + layer.out_features)
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and re.fullmatch(chosen, name)
        )
    return count


def check_space(config: RunConfig, model: FaceLlavaForConditionalGeneration) -> None:
    """Refuse a run whose tables and checkpoints would not fit on the disk.

    Raises:
        BadSettings: too little is free, or `out` lies in no folder that can be reached.
    """
    most = max(learned_count(model, config, stage) for stage in config.stages)
    needed = CHECKPOINTS * CHECKPOINT_BYTES * most
    tables = sum(file.stat().st_size for file in config.corpus.glob("*/*.parquet"))
    needed += 0 if (config.out / "tables").exists() else tables
    check_free(config.out, needed)


def check_free(out: Path, needed: int) -> None:
    """Refuse a folder whose disk has less than so many bytes left.

    Raises:
        BadSettings: it has.
    """
    above = out.resolve()
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free
    if free < needed:
        raise BadSettings(
            f"The run needs about {needed / GIB:.1f} GiB in '{out}' and {free / GIB:.1f} "
            "GiB are free; free some, or give another out folder."
        )


def check_apart(model: FaceLlavaForConditionalGeneration) -> None:
    """Refuse a language model in which a packed sample sees the one before it.

    Raises:
        BadSettings: it is one.
    """
    language = model.language_model
    made_up = torch.randn(3, 4, model.config.hidden_size)
    first, other, second = made_up.to(language.device, language.dtype)
    positions = torch.arange(4, device=language.device).repeat(2)[None]

    def last_logits(before: Tensor) -> Tensor:
        row = torch.cat([before, second])[None]
        found: Tensor = language(
            inputs_embeds=row, position_ids=positions, use_cache=False, logits_to_keep=4
        ).logits
        return found

    try:
        with torch.inference_mode():
            apart = torch.equal(last_logits(first), last_logits(other))
    except (TypeError, ValueError):
        # It takes no position ids, or no embeddings.
        apart = False
    if not apart:
        raise BadSettings(
            f"In a language model of type {model.config.text_config.model_type} packed samples "
            "would see each other: set packing to false."
        )
