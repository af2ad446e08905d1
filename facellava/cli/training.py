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

from facellava.cli.arguments import JsonFlag, ModelOption, hush_unused_kernels
from facellava.cli.optimiser_study import optimisers

if TYPE_CHECKING:
    from train.estimate import StageEstimate
    from train.trainable import PartRow

app = typer.Typer(no_args_is_help=True)
app.command()(optimisers)


@app.callback()
def quiet() -> None:
    """Train a model or an adapter, say beforehand what that takes, merge adapters."""
    hush_unused_kernels()


ConfigArgument = Annotated[
    str, typer.Argument(help="A TOML or YAML file, or a preset's name.", show_default=False)
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--set", help="KEY=VALUE with dotted keys, such as instruct.batch=8; repeatable."),
]


@app.command()
def run(
    config: ConfigArgument,
    changes: SetOption = None,
    optim: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of every stage: adamw, adam, rmsprop or sgd."),
    ] = None,
) -> None:
    """Train from a corpus: FRLP and FRGCA, the projector, LoRA or all of the language model.

    Run it again after a stop and it goes on, with the same result. Presets: nano, which makes the
    embedded model from nothing, nano-lora, 0.5b, 7b-paper, 8b; they need corpus, out and, but for
    the first two, base: facellava train run nano-lora --set corpus=corpus --set out=runs/first

    --set quantise=nf4 is QLoRA. On several GPUs: accelerate launch --config_file CONFIG
    -m facellava train run ..., with ddp, fsdp, zero2 or zero3.yaml of the folder train/accelerate.
    """
    from train.run import train_run
    from train.run_config import STAGES, load_config

    logging.getLogger("train").setLevel(logging.INFO)
    everywhere = [f"{stage}.optim={optim}" for stage in STAGES] if optim else []
    result = train_run(load_config(config, [*everywhere, *(changes or ())]), _show_trainable)
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
        typer.Option(min=1, help="Samples of an epoch; by default the corpus's, or a million."),
    ] = None,
    text_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a question with answer.")
    ] = 200,
    clip_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the samples with a clip.")
    ] = 0.0,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the samples.")] = 1,
    peak_tflops: Annotated[
        float, typer.Option(min=1e-3, help="Of one GPU; an H100 has 989 in bfloat16.")
    ] = 989.0,
    utilisation: Annotated[
        float, typer.Option(min=1e-3, max=1, help="How much of that is reached.")
    ] = 0.35,
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
    typer.echo(
        f"For {assumed.samples:,} samples an epoch, {text_tokens} text tokens each, "
        f"{clip_share:.0%} clips, on {gpus} GPU(s) of {peak_tflops:g} TFLOPS used to "
        f"{utilisation:.0%}."
    )
    if settings.scratch is not None:
        typer.echo("Not counted: the encoder's own training before, and rows added to the samples.")


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


@app.command()
def base(
    out: Annotated[Path, typer.Argument(help="The new checkpoint folder.", show_default=False)],
    vision: Annotated[Path, typer.Option(help="Folder of a vision encoder (CLIP, SigLIP ...).")],
    text: Annotated[Path, typer.Option(help="Folder of a causal language model.")],
    preset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The preset that it is for: refuses other sizes."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the new parts' weights.")] = 0,
) -> None:
    """Join a vision encoder and a language model to a base that `train run` can teach."""
    from train.new_base import make_base
    from train.run_config import load_config

    folders = [f"{name}=-" for name in ("base", "corpus", "out")]
    wanted = load_config(preset, defaults=folders).backbone if preset else None
    typer.echo(f"The base is in {make_base(vision, text, out, wanted, seed)}")


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


@app.command("clips")
def set_clips_command(
    out: Annotated[Path, typer.Option(help="The new checkpoint folder.")],
    model: ModelOption = None,
    frames: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Frames that every clip is sampled to; by default as before."),
    ] = None,
    pool: Annotated[
        int, typer.Option(min=1, help="Side of the squares of patches that become one token.")
    ] = 1,
    merge: Annotated[int, typer.Option(min=1, help="Consecutive frames that become one.")] = 1,
) -> None:
    """Copy a checkpoint whose clips take fewer tokens; train it on clips afterwards.

    --pool 2 leaves a quarter; --frames 64 --pool 2 --merge 2 takes 64 frames for the tokens of 8.
    """
    from facellava import checkpoint
    from facellava.predictor import embedded_weights

    loaded, processor = checkpoint.load(model or embedded_weights())
    checkpoint.set_clips(loaded, processor, frames=frames, pool=pool, merge=merge)
    checkpoint.save(loaded, processor, out)
    tokens = processor.clip_tokens(frames) if frames else processor.tokens_per_clip_frame
    typer.echo(
        f"The checkpoint is in {out}; {frames or merge} frame(s) of a clip take {tokens} tokens"
    )
