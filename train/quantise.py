"""QLoRA (Dettmers et al., 2023): the language model in 4-bit NF4 while an adapter learns on it.

bitsandbytes does it. Every linear layer of the language model but its head becomes NF4 with double
quantisation; the vision tower, projector, FRLP and FRGCA stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from facellava import checkpoint
from facellava.config import FaceLlavaConfig
from facellava.errors import BadSettings, MissingBackend
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor

# Half a byte, a scale of one byte for 64 weights, and one of four bytes for 256 such scales.
NF4_BYTES: Final = 0.5 + 1 / 64 + 4 / (64 * 256)


def check_nf4(device: torch.device) -> None:
    """Refuse where bitsandbytes cannot quantise on the device that would train.

    Raises:
        MissingBackend: bitsandbytes cannot be imported.
        BadSettings: it has no 4-bit kernels for the device.
    """
    try:
        functional = import_module("bitsandbytes.functional")
    except ImportError as error:
        raise MissingBackend(
            'quantise is "nf4" and bitsandbytes cannot be imported: pip install bitsandbytes, or '
            "leave quantise out."
        ) from error
    try:
        weight = torch.ones(64, 64, dtype=torch.bfloat16, device=device)
        functional.dequantize_4bit(*functional.quantize_nf4(weight, compress_statistics=True))
    except (RuntimeError, NotImplementedError, AttributeError, OSError) as error:
        raise BadSettings(
            f"bitsandbytes cannot quantise to NF4 on this machine's {device.type}; leave quantise "
            "out, or train where it can (CUDA, or a CPU for which it has a library)."
        ) from error


def nf4(config: FaceLlavaConfig, compute: torch.dtype) -> BitsAndBytesConfig:
    """What `from_pretrained` quantises while it reads, tensor by tensor.

    Args:
        config: of the checkpoint that will be read.
        compute: the type in which the layers multiply.
    """
    with torch.device("meta"):
        model = FaceLlavaForConditionalGeneration(config)
    inside = {id(layer) for _, layer in quantised_layers(model)}
    whole = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) not in inside
    ]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=whole,
    )


def quantised_layers(
    model: FaceLlavaForConditionalGeneration,
) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers that become NF4, by name."""
    head = model.get_output_embeddings()
    for name, layer in model.language_model.named_modules(prefix="language_model"):
        if isinstance(layer, nn.Linear) and layer is not head:
            yield name, layer


def load_nf4(
    folder: Path, dtype: torch.dtype, device: torch.device, attention: str | None = None
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """A checkpoint whose language model is quantised layer by layer, as it is read.

    Args:
        folder: of an unquantised checkpoint.
        dtype: of everything else, and in which the layers multiply.
        device: where it goes.
        attention: as in :func:`facellava.checkpoint.load`.

    Raises:
        BadCheckpoint: as :func:`facellava.checkpoint.load` does.
    """
    model, processor = checkpoint.load(
        folder,
        dtype=dtype,
        device=device,
        attention=attention,
        quantise=partial(nf4, compute=dtype),
    )
    for _, layer in quantised_layers(model):
        # On some CPUs bitsandbytes packs a layer anew when it first answers. That layout has no
        # gradients, and nothing unpacks it when training goes on.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model, processor


def size_of(parameter: nn.Parameter) -> int:
    """How many numbers a parameter holds; NF4 packs two of them into a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
