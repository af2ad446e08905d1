"""`facellava convert`: the published checkpoint to one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Folder of the published Face-LLaVA-7B: config.json, tokenizer.model, "
            "*.safetensors.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The new checkpoint folder.", show_default=False)],
    branch_scale: Annotated[
        float,
        typer.Option(
            help="Factor of the landmark branch, which the weights do not record: 0.1 in the "
            "newest published code, 0.001 in older."
        ),
    ] = 0.1,
) -> None:
    """Convert the published Face-LLaVA-7B weights, so that `ask --model` takes them."""
    from facellava.convert import convert as convert_checkpoint

    folder = convert_checkpoint(checkpoint, out, branch_scale=branch_scale)
    typer.echo(f"The checkpoint is in {folder}")
