"""`facellava train`: a corpus to weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer
from rich.console import Console
from rich.table import Table

from facellava.cli.arguments import JsonFlag, ModelOption

if TYPE_CHECKING:
    from train.estimate import StageEstimate
    from train.trainable import PartRow

app = typer.Typer(no_args_is_help=True)


@app.callback()
def quiet() -> None:
    """Train a model or an adapter, say beforehand what that takes, merge adapters."""
    # peft pulls it in, and it complains of a kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


ConfigArgument = Annotated[
    str, typer.Argument(help="A TOML or YAML file, or a preset's name.", show_default=False)
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--set", help="KEY=VALUE with dotted keys, such as instruct.batch=8; repeatable."),
]


@app.command()
def run(config: ConfigArgument, changes: SetOption = None) -> None:
    """Train from a corpus: FRLP and FRGCA, the projector, LoRA or all of the language model.

    Run it again after a stop and it goes on, with the same result. Presets: nano-lora, 0.5b,
    7b-paper, 8b; they need corpus, out and, but for nano-lora, base:
    facellava train run nano-lora --set corpus=corpus --set out=runs/first

    --set quantise=nf4 is QLoRA. On several GPUs: accelerate launch --config_file CONFIG
    -m facellava train run ..., with ddp, fsdp, zero2 or zero3.yaml of the folder train/accelerate.
    """
    from train.run import train_run
    from train.run_config import load_config

    logging.getLogger("train").setLevel(logging.INFO)
    result = train_run(load_config(config, changes or ()), _show_trainable)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"What was learned is in {result}, and a report beside it")


def _show_trainable(stage: str, rows: Sequence[PartRow]) -> None:
    table = Table(title=f"Stage {stage}")
    for column in ("part", "parameters", "learn", "share"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in rows:
        table.add_row(row.part, f"{row.parameters:,}", f"{row.trainable:,}", f"{row.share:.2%}")
    Console(stderr=True).print(table)


@app.command()
def estimate(
    config: ConfigArgument,
    changes: SetOption = None,
    samples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Samples of an epoch; by default the corpus's, or a million."),
    ] = None,
    text_tokens: Annotated[int, typer.Option(help="Tokens of a question with answer.")] = 200,
    clip_share: Annotated[float, typer.Option(help="Share of the samples with a clip.")] = 0.0,
    gpus: Annotated[int, typer.Option(help="GPUs that share the samples.")] = 1,
    peak_tflops: Annotated[
        float, typer.Option(help="Of one GPU; an H100 has 989 in bfloat16.")
    ] = 989.0,
    utilisation: Annotated[float, typer.Option(help="How much of that is reached.")] = 0.35,
    as_json: JsonFlag = False,
) -> None:
    """Parameters, memory of a GPU, tokens and hours of a run, before anyone rents a machine."""
    from train.estimate import Assumed, samples_of
    from train.estimate import estimate as estimate_run
    from train.run_config import load_config

    folders = [f"{name}=-" for name in ("base", "corpus", "out")]
    settings = load_config(config, changes or (), defaults=folders)
    assumed = Assumed(
        samples=samples or samples_of(settings) or Assumed.samples,
        text_tokens=text_tokens,
        clip_share=clip_share,
        peak_tflops=peak_tflops,
        utilisation=utilisation,
        gpus=gpus,
    )
    stages = estimate_run(settings, assumed)
    if as_json:
        body = {"assumed": asdict(assumed), "stages": [stage.to_dict() for stage in stages]}
        typer.echo(json.dumps(body, indent=1))
        return
    table = Table(box=None)
    table.add_column("")
    for stage in stages:
        table.add_column(f"stage {stage.stage}", justify="right")
    for name, write in ESTIMATE_ROWS:
        table.add_row(name, *(write(stage) for stage in stages))
    Console(highlight=False).print(table)


ESTIMATE_ROWS: Final[tuple[tuple[str, Callable[[StageEstimate], str]], ...]] = (
    ("parameters", lambda stage: f"{stage.parameters:,}"),
    ("learn", lambda stage: f"{stage.trainable:,} ({stage.trainable / stage.parameters:.2%})"),
    ("steps", lambda stage: f"{stage.steps:,}"),
    ("tokens", lambda stage: f"{stage.tokens:,}"),
    ("FLOPs", lambda stage: f"{stage.flops:.3g}"),
    ("hours", lambda stage: f"{stage.hours:,.1f}"),
    ("GiB of a GPU, without sharding", lambda stage: f"{stage.memory_gib:,.1f}"),
    ("  weights", lambda stage: f"{stage.weights_gib:,.1f}"),
    ("  gradients", lambda stage: f"{stage.gradients_gib:,.1f}"),
    ("  optimiser", lambda stage: f"{stage.optimizer_gib:,.1f}"),
    ("  activations, roughly", lambda stage: f"{stage.activations_gib:,.1f}"),
)


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
