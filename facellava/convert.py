"""The published Face-LLaVA-7B checkpoint to a checkpoint folder of ours, shard by shard.

Every tensor must have its place and every place its tensor. Weights are read from safetensors
alone, one at a time, and written as they are stored; memory holds one new shard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from facellava import checkpoint
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.released_layout import (
    BRANCH_SCALE,
    COMPUTED,
    IMAGE_MEAN,
    IMAGE_STD,
    our_name,
    read_config,
    read_tokenizer,
    released_name,
)

SHARD_BYTES: Final = 2 * 2**30
DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Of the language model: a row a word, and so two more than the published ones have.
WORD_TABLES: Final = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
NAMES_TOLD: Final = 5


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies, and what of it can be said without reading it."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def convert(
    source: str | Path,
    out: str | Path,
    *,
    branch_scale: float = BRANCH_SCALE,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write the folder `out` whole or not at all; a checkpoint that was there is replaced.

    Args:
        source: folder of the published checkpoint, with config.json, tokenizer.model and
            *.safetensors.
        out: the new folder; its parent must exist.
        branch_scale: factor of FRGCA's residual branch, which the checkpoint does not record.
        shard_bytes: size of a new shard at most, unless one tensor is larger.

    Raises:
        BadCheckpoint: the folder is not the published layout, by the names of what is left over or
            missing; it is damaged; or there is no room for the new one.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder; give the folder that holds config.json.")
    stored = _list_tensors(folder)
    tokenizer = read_tokenizer(folder)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    try:
        config = read_config(
            checkpoint.read_json(folder / "config.json"), shapes, tokenizer, branch_scale
        )
        # Without weights: names, shapes and the settings of generation are wanted.
        with torch.device("meta"):
            model, processor = checkpoint.new_model(
                config, tokenizer, image_mean=IMAGE_MEAN, image_std=IMAGE_STD
            )
    except (BadModelInput, ValueError, TypeError) as error:
        raise BadCheckpoint(f"{folder} makes no Face-LLaVA model: {error}") from error
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    placed = _place(stored, wanted)
    _check_room(Path(out), placed, wanted)
    model.config.dtype = next(iter(placed.values())).dtype
    model.config.architectures = [type(model).__name__]
    with checkpoint.whole_folder(out) as draft:
        _write_weights(draft, placed, wanted, shard_bytes)
        model.config.save_pretrained(draft)
        model.generation_config.save_pretrained(draft)
        processor.save_pretrained(draft)
    return Path(out)


def _list_tensors(folder: Path) -> dict[str, Stored]:
    """What the safetensors of a folder hold, from their headers."""
    index = folder / checkpoint.INDEX_FILE
    if index.is_file():
        named = checkpoint.read_json(index).get("weight_map") or {}
        files = [folder / name for name in sorted(set(named.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        _refuse_pickles(folder)
    found: dict[str, Stored] = {}
    for file in files:
        if not file.is_file() or file.parent != folder:
            raise BadCheckpoint(f"{folder} lacks {file.name}, which {index.name} names.")
        for name, tensor in _read_header(file):
            if name in found:
                raise BadCheckpoint(f"{name} is in {found[name].file.name} and in {file.name}.")
            found[name] = tensor
    return found


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(
        file.name for file in folder.iterdir() if file.suffix in checkpoint.PICKLE_SUFFIXES
    )
    if pickles:
        raise BadCheckpoint(
            f"{folder} holds its weights as {pickles[0]}, a format that can run code; turn them "
            "into safetensors first, with huggingface.co/spaces/safetensors/convert."
        )
    raise BadCheckpoint(f"{folder} holds no *.safetensors; give the folder with the weights.")


def _read_header(file: Path) -> Iterator[tuple[str, Stored]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no dict)
                part = opened.get_slice(name)
                if COMPUTED.search(name):
                    continue
                if part.get_dtype() not in DTYPES:
                    raise BadCheckpoint(
                        f"{name} in {file.name} is stored as {part.get_dtype()}; allowed are "
                        f"{', '.join(DTYPES)}."
                    )
                yield name, Stored(file, tuple(part.get_shape()), DTYPES[part.get_dtype()])
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(
            f"{file} cannot be read: it is truncated or not safetensors; copy it anew."
        ) from error


def _place(
    stored: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, Stored]:
    """Our names and what is stored for them, with nothing left over on either side."""
    homeless = [name for name in stored if our_name(name) not in wanted]
    if homeless:
        raise BadCheckpoint(f"The checkpoint has {_told(homeless)} that Face-LLaVA has no use for.")
    placed = {str(our_name(name)): tensor for name, tensor in stored.items()}
    missing = [released_name(name) for name in wanted if name not in placed]
    if missing:
        raise BadCheckpoint(f"The checkpoint lacks {_told(missing)}.")
    for name, tensor in placed.items():
        grows = name in WORD_TABLES and tensor.shape[1:] == wanted[name][1:]
        if tensor.shape != wanted[name] and not (grows and tensor.shape[0] < wanted[name][0]):
            raise BadCheckpoint(
                f"{released_name(name)} has the shape {tensor.shape}, and by the rest of the "
                f"checkpoint it must be {wanted[name]}."
            )
    return placed


def _told(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMES_TOLD])
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return f"{shown}{more}"


def _check_room(
    out: Path, placed: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    if not out.parent.is_dir():
        raise BadCheckpoint(f"{out.parent} is not a folder; make it first.")
    needed = sum(_n_bytes(wanted[name], tensor.dtype) for name, tensor in placed.items())
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise BadCheckpoint(
            f"The new checkpoint takes {needed / 2**30:.1f} GiB and {out.parent} has "
            f"{free / 2**30:.1f} GiB left; free some space or choose another place."
        )


def _n_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return int(torch.Size(shape).numel() * dtype.itemsize)


def _write_weights(
    draft: Path,
    placed: Mapping[str, Stored],
    wanted: Mapping[str, tuple[int, ...]],
    shard_bytes: int,
) -> None:
    shards: list[list[str]] = [[]]
    size = total = 0
    # In the order in which they lie in the files.
    for name, tensor in placed.items():
        n_bytes = _n_bytes(wanted[name], tensor.dtype)
        if shards[-1] and size + n_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += n_bytes
        total += n_bytes
    weight_map: dict[str, str] = {}
    with tqdm(total=total, unit="B", unit_scale=True, desc="Weights", disable=None) as bar:
        for number, names in enumerate(shards, start=1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            tensors = {}
            for name in names:
                tensors[name] = _read(name, placed[name], wanted[name])
                bar.update(tensors[name].nbytes)
            save_file(tensors, draft / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (draft / checkpoint.INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _read(name: str, stored: Stored, shape: tuple[int, ...]) -> Tensor:
    """One tensor, with rows of zeros for words that the published tables do not have.

    They are the placeholders': an image token takes the row's place, and none is ever written.
    """
    with safe_open(stored.file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(released_name(name))
    if not torch.isfinite(tensor).all():
        raise BadCheckpoint(f"{released_name(name)} in {stored.file.name} is not finite.")
    if stored.shape == shape:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(shape[0] - stored.shape[0], *shape[1:])])
