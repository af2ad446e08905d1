"""`facellava train`: a corpus to weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from facellava.cli.arguments import ModelOption

app = typer.Typer(no_args_is_help=True)


@app.callback()
def quiet() -> None:
    """Train the embedded model, merge adapters."""
    # peft pulls it in, and it complains of a kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@app.command("nano")
def train_nano_command(
    corpus: Annotated[Path, typer.Option(help="A finished corpus.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the weights come to OUT/nano.")],
    pictures: Annotated[
        int, typer.Option(help="Pictures the encoder's pre-training sees.")
    ] = 420_000,
    epochs: Annotated[float, typer.Option(help="Epochs of stage 2.")] = 1.35,
) -> None:
    """Train the embedded model; run it again after a stop and it goes on."""
    from train.encoder import EncoderSettings
    from train.nano import NanoSettings, train_nano

    logging.getLogger("train").setLevel(logging.INFO)
    settings = NanoSettings(encoder=EncoderSettings(pictures=pictures), instruct_epochs=epochs)
    typer.echo(f"The weights are in {train_nano(corpus, out, settings)}")


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter.")],
    out: Annotated[Path, typer.Option(help="The new checkpoint folder.")],
    model: ModelOption = None,
) -> None:
    """Put a LoRA adapter into its checkpoint, so that it can be served whatever it touches."""
    from facellava.predictor import embedded_weights
    from train.merge import merge_adapter

    merged = merge_adapter(model or embedded_weights(), adapter, out)
    typer.echo(f"The merged checkpoint is in {merged}")
