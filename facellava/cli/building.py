"""`facellava build`: raw datasets to an instruction corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from facellava.cli.arguments import named_folders

app = typer.Typer(help="Build, check and show an instruction corpus.", no_args_is_help=True)


@app.command("run")
def build_run(
    source: Annotated[list[str], typer.Argument(help="NAME=FOLDER of each dataset.")],
    out: Annotated[Path, typer.Option(help="The corpus folder.")],
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one a core.")] = 0,
    limit: Annotated[int, typer.Option(help="Faces a source and split at most; 0 for all.")] = 0,
) -> None:
    """Build a corpus: faces, questions, answers with measured reasons, ratings.

    facellava build run fer2013=data/fer2013 utkface=data/utkface --out corpus
    """
    from data_builders.build import BuildOptions, build

    build(
        named_folders(source),
        out,
        BuildOptions(seed=seed, limit=limit or None),
        workers=workers or None,
    )


@app.command("validate")
def build_validate(corpus: Path) -> None:
    """Check a corpus: schemas, checksums, ids, splits."""
    from facellava.corpus import validate

    typer.echo(json.dumps(validate(corpus), indent=2))


@app.command("report")
def build_report(corpus: Path) -> None:
    """Counts by source, split and label, what was dropped and why, the ratings' histogram."""
    from data_builders.build import summary

    typer.echo(summary(corpus))


@app.command("blends")
def build_blends(
    source: Annotated[list[str], typer.Argument(help="NAME=FOLDER of each dataset of real faces.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    seed: int = 20261123,
) -> None:
    """Write the frozen self-blended test set: real faces and fakes at each blend ratio."""
    from data_builders.build import write_blend_pack

    write_blend_pack(named_folders(source), out, seed=seed)
