"""`facellava eval`: benchmarks to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from facellava.cli.arguments import ModelOption
from facellava.errors import FacellavaError

app = typer.Typer(help="Measure a model on a benchmark.", no_args_is_help=True)


@app.command("run")
def eval_run(
    benchmark: Annotated[str, typer.Option(help="fer2013, utkface, celeba or deepfake.")],
    data: Annotated[Path, typer.Option(help="The dataset's folder, or one Parquet file of it.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")],
    out: Annotated[Path, typer.Option("--json", dir_okay=False, help="Where the report goes.")],
    limit: Annotated[int, typer.Option(min=0, help="Faces at most; 0 for all.")] = 0,
    explanations: Annotated[
        bool, typer.Option(help="Check the claims of the answers too.")
    ] = False,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option(help="Which faces --limit takes.")] = 0,
) -> None:
    """Ask about every face of a benchmark and score the answers.

    facellava eval run --benchmark fer2013 --data FILE.parquet --split validation --json out.json
    """
    from data_builders.build import face_records
    from eval.benchmarks import find_benchmark
    from eval.run import evaluate, write_report
    from facellava.predictor import FaceLlava

    try:
        protocol = find_benchmark(benchmark)
    except FacellavaError as error:
        raise typer.BadParameter(str(error), param_hint="--benchmark") from error
    loaded = FaceLlava.load(model)
    records, count = face_records(
        protocol.source, data, split=split, limit=limit or None, seed=seed
    )
    found, _ = evaluate(protocol, records, loaded, count=count, explanations=explanations)
    found = {"benchmark": benchmark, "split": split, **found}
    write_report(found, out)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    typer.echo(f"The report is in {out}", err=True)


@app.command("questions")
def eval_questions(
    out: Annotated[Path, typer.Option("--json", help="Where the report goes.")],
    model: ModelOption = None,
) -> None:
    """How many freely worded questions are answered under the right lead."""
    from eval.routing import evaluate_routing, read_questions
    from eval.run import write_report
    from facellava.faces import find_faces, read_photo
    from facellava.gallery import sample_photo
    from facellava.predictor import FaceLlava

    loaded = FaceLlava.load(model)
    face = find_faces(read_photo(sample_photo()))[0]
    found = evaluate_routing(loaded, face, read_questions())
    write_report(found, out)
    typer.echo(json.dumps({k: v for k, v in found.items() if k != "astray"}, indent=2))
    typer.echo(f"The report, with the questions that went astray, is in {out}", err=True)
