"""Checkpoint folders: new, saved in one move, loaded with one clear sentence where they are bad.

A folder holds config.json, generation_config.json, model*.safetensors, the tokenizer's files,
chat_template.jinja and processor_config.json: what `save_pretrained` of transformers writes, and
what `AutoModelForImageTextToText` and `AutoProcessor` read once this module is imported. Weights
are safetensors and nothing else: other formats can run code when they are read.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.errors import BadCheckpoint, BadModelInput, FacellavaError
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.whole_files import open_to_others

PICKLE_SUFFIXES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
INDEX_FILE: Final = "model.safetensors.index.json"
TRAINING_FILE: Final = "training_data.json"
"""What the weights were trained on: training writes it, evaluation reads it."""
REQUIRED_FILES: Final = ("config.json", "processor_config.json", "tokenizer_config.json")
# What transformers raises on files that are well-formed and whose contents make no sense to it.
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def register_auto_classes() -> None:
    """Make transformers' Auto classes know Face-LLaVA; may be called any number of times."""
    AutoConfig.register(FaceLlavaConfig.model_type, FaceLlavaConfig, exist_ok=True)
    AutoModelForImageTextToText.register(
        FaceLlavaConfig, FaceLlavaForConditionalGeneration, exist_ok=True
    )
    # Both backends: with torchvision or without it, the pixels must be the same.
    AutoImageProcessor.register(
        FaceLlavaConfig,
        image_processor_classes={
            "pil": FaceLlavaImageProcessor,
            "torchvision": FaceLlavaImageProcessor,
        },
        exist_ok=True,
    )
    AutoProcessor.register(FaceLlavaConfig, FaceLlavaProcessor, exist_ok=True)


def new_model(
    config: FaceLlavaConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_mean: Sequence[float] = (0.5, 0.5, 0.5),
    image_std: Sequence[float] = (0.5, 0.5, 0.5),
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """A model with random weights (seed torch first) and the processor that fits it.

    Args:
        config: its image_token_id and video_token_id must be the tokenizer's.
        tokenizer: holds `<image>` and `<video>` as special tokens.
        image_mean: per channel R, G, B, of pixels in [0, 1].
        image_std: likewise.

    Raises:
        BadModelInput: tokenizer and config do not fit each other.
    """
    for token, expected in (
        (IMAGE_TOKEN, config.image_token_id),
        (VIDEO_TOKEN, config.video_token_id),
    ):
        found = tokenizer.convert_tokens_to_ids(token)
        if found != expected:
            raise BadModelInput(
                f"The config says that {token} has the id {expected}; the tokenizer says {found}."
            )
    if len(tokenizer) > config.text_config.vocab_size:
        raise BadModelInput(
            f"The tokenizer has {len(tokenizer)} entries and the language model's vocab_size is "
            f"{config.text_config.vocab_size}; make it at least as large."
        )
    processor = FaceLlavaProcessor(
        FaceLlavaImageProcessor(config.image_size, image_mean, image_std),
        tokenizer,
        tokens_per_frame=config.tokens_per_frame,
        tokens_per_clip_frame=config.tokens_per_clip_frame,
        clip_frames=config.clip_frames,
        clip_merge=config.clip_merge,
    )
    model = FaceLlavaForConditionalGeneration(config).eval()
    generation = model.generation_config
    generation.eos_token_id = tokenizer.eos_token_id
    generation.pad_token_id = (
        tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    )
    # A placeholder without a face behind it means nothing: the model must never write one.
    generation.suppress_tokens = [config.image_token_id, config.video_token_id]
    return model, processor


def set_clips(
    model: FaceLlavaForConditionalGeneration,
    processor: FaceLlavaProcessor,
    *,
    frames: int | None = None,
    pool: int = 1,
    merge: int = 1,
) -> None:
    """Change in place how many tokens clips take; the weights should be trained for it afterwards.

    Args:
        model: of a checkpoint.
        processor: of the same checkpoint.
        frames: the config's `clip_frames`; None leaves it.
        pool: the config's `clip_pool`.
        merge: the config's `clip_merge`.

    Raises:
        BadModelInput: a value that does not fit the encoders; nothing is changed then.
    """
    config = model.config
    wanted = {"clip_frames": frames or config.clip_frames, "clip_pool": pool, "clip_merge": merge}
    tried = copy.deepcopy(config)
    for name, value in wanted.items():
        setattr(tried, name, value)
    tried.check_clips()
    for name, value in wanted.items():
        setattr(config, name, value)
    processor.tokens_per_clip_frame = config.tokens_per_clip_frame
    processor.clip_frames, processor.clip_merge = config.clip_frames, config.clip_merge


def save(
    model: FaceLlavaForConditionalGeneration,
    processor: FaceLlavaProcessor,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint folder whole or not at all; a folder that was there is replaced.

    Args:
        model: its weights and config.
        processor: its tokenizer, template and image settings.
        path: the folder; its parent must exist.
        dtype: how floating-point weights are stored, for instance torch.float16; None keeps theirs.
        state: the weights by name, where the model's own are spread over several processes.

    Raises:
        BadCheckpoint: a weight is not finite in that dtype, or the folder cannot be written.
    """
    stored = _stored_state(model.state_dict() if state is None else state, dtype)
    with whole_folder(path) as draft:
        with no_progress_bars():
            model.save_pretrained(draft, state_dict=stored)
        processor.save_pretrained(draft)
    return Path(path)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write a checkpoint into, which becomes `path` when the block ends well.

    Where it does not, nothing is left of it, and what was at `path` stays.

    Raises:
        BadCheckpoint: there is something else at `path`, or it cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise BadCheckpoint(f"{target.parent} is not a folder; make it first.")
    foreign = target.is_dir() and any(target.iterdir()) and not (target / "config.json").is_file()
    if foreign or target.is_file():
        raise BadCheckpoint(
            f"{target} exists and is not a checkpoint folder; choose another path or remove it."
        )
    unwritable = f"{target} cannot be written; free some space or choose another place."
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise BadCheckpoint(unwritable) from error
    try:
        yield draft
        open_to_others(draft)
        _replace_folder(draft, target)
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(unwritable) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace_folder(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / target.name
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        old.parent.rmdir()
        raise
    shutil.rmtree(old.parent)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' bars: a folder is read or written in one go, often inside a command."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _stored_state(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The state dict in the stored dtype; tied tensors stay one tensor, so they are stored once."""
    stored: dict[str, Tensor] = {}
    converted: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key not in converted:
            floating = dtype is not None and tensor.is_floating_point()
            converted[key] = tensor.detach().to(dtype) if floating else tensor.detach()
            if not torch.isfinite(converted[key]).all():
                raise BadCheckpoint(
                    f"The weight {name} is not finite in {converted[key].dtype}; "
                    "nothing was written."
                )
        stored[name] = converted[key]
    return stored


def load(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    attention: str | None = None,
    quantise: Callable[[FaceLlavaConfig], BitsAndBytesConfig] | None = None,
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """Model (in eval mode) and processor of a checkpoint folder; never from the network.

    Args:
        path: the folder.
        dtype: of the loaded weights, whatever they are stored in; float32 on a CPU.
        device: where the model goes.
        attention: transformers' name of an implementation; None takes PyTorch's own (SDPA) where a
            backbone has it.
        quantise: how some of its layers are quantised, each as it is read, so that the whole is
            never in memory unquantised.

    Raises:
        BadCheckpoint: no such folder, another model's, no safetensors, damaged or missing files.
    """
    folder = Path(path)
    _check_files(folder)
    try:
        config = FaceLlavaConfig.from_pretrained(folder, local_files_only=True)
        with no_progress_bars():
            model, report = FaceLlavaForConditionalGeneration.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                quantization_config=quantise(config) if quantise else None,
                device_map={"": device} if quantise else None,
                use_safetensors=True,
                local_files_only=True,
                # Reported below, in one sentence.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        processor = FaceLlavaProcessor.from_pretrained(folder, local_files_only=True)
    except FacellavaError as error:
        raise BadCheckpoint(f"{folder} does not hold a whole checkpoint: {error}") from error
    except _UNREADABLE as error:
        raise BadCheckpoint(
            f"{folder} cannot be read as a Face-LLaVA checkpoint: a file in it is damaged or "
            "missing; copy or save the folder anew."
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            name = sorted(str(key) for key in report[kind])[0]
            raise BadCheckpoint(
                f"The weights in {folder} do not fit its config.json: "
                f"{len(report[kind])} {kind.replace('_', ' ')}, for instance {name}."
            )
    for written, given in (
        (processor.tokens_per_frame, config.tokens_per_frame),
        (processor.tokens_per_clip_frame, config.tokens_per_clip_frame),
    ):
        if written != given:
            raise BadCheckpoint(
                f"In {folder} the processor writes {written} placeholders per frame and the model "
                f"gives {given} image tokens; save the folder anew."
            )
    if processor.clip_frames != config.clip_frames:
        raise BadCheckpoint(
            f"In {folder} the processor gives clips of {processor.clip_frames} frames and the "
            f"model reads {config.clip_frames}; save the folder anew."
        )
    if processor.clip_merge != config.clip_merge:
        raise BadCheckpoint(
            f"In {folder} the processor merges {processor.clip_merge} frame(s) of a clip and the "
            f"model {config.clip_merge}; save the folder anew."
        )
    return model.to(device).eval(), processor


def _check_files(folder: Path) -> None:
    """Everything that can be said about a folder before transformers opens it."""
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder; give the folder that holds config.json.")
    config = read_json(folder / "config.json")
    for file in sorted({folder / name for name in REQUIRED_FILES} | {*folder.glob("*.json")}):
        read_json(file)
    if config.get("model_type") != FaceLlavaConfig.model_type:
        raise BadCheckpoint(
            f"{folder} holds a {config.get('model_type')!r} model; "
            f"facellava loads {FaceLlavaConfig.model_type!r}."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
        found = f"only {pickles[0]}, a format that can run code" if pickles else "none"
        raise BadCheckpoint(f"{folder} needs weights as *.safetensors; it holds {found}.")
    if (folder / INDEX_FILE).is_file():
        shards = set(read_json(folder / INDEX_FILE).get("weight_map", {}).values())
        absent = sorted(shards - {file.name for file in weights})
        if absent:
            raise BadCheckpoint(
                f"{folder} lacks {absent[0]}, which {INDEX_FILE} names; copy it anew."
            )
    for file in weights:
        try:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise BadCheckpoint(
                f"{file} cannot be read: it is truncated or not safetensors; copy it anew."
            ) from error


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadCheckpoint(
            f"{file.parent} holds no {file.name}, so it is not a whole checkpoint folder."
        ) from error
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{file} cannot be read as JSON; copy it anew.") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{file} holds no JSON object; copy it anew.")
    return content


register_auto_classes()
