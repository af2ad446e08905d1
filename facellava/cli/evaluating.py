"""`facellava eval`: benchmarks to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from facellava.cli.arguments import ApiKeyOption, ModelOption, named_folders
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
    api: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Ask a server instead, for instance http://127.0.0.1:8000/v1."),
    ] = None,
    api_key: ApiKeyOption = None,
    seed: Annotated[int, typer.Option(help="Which faces --limit takes.")] = 0,
) -> None:
    """Ask about every face of a benchmark and score the answers.

    facellava eval run --benchmark fer2013 --data FILE.parquet --split validation --json out.json
    """
    from data_builders.build import face_records
    from eval.benchmarks import find_benchmark
    from eval.run import evaluate, write_report
    from eval.served import ServedModel
    from facellava.predictor import FaceLlava

    if api is not None and model is not None:
        raise typer.BadParameter("Give --model or --api, not both.")
    try:
        protocol = find_benchmark(benchmark)
    except FacellavaError as error:
        raise typer.BadParameter(str(error), param_hint="--benchmark") from error
    asked = FaceLlava.load(model) if api is None else ServedModel(api, api_key)
    records, count = face_records(
        protocol.source, data, split=split, limit=limit or None, seed=seed
    )
    found, _ = evaluate(protocol, records, asked, count=count, explanations=explanations)
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


@app.command()
def parity(
    source: Annotated[list[str], typer.Argument(help="BENCHMARK=FOLDER of each, or FILE.")],
    api: Annotated[str, typer.Option(help="The server, http://127.0.0.1:8000/v1.")],
    out: Annotated[Path, typer.Option("--json", dir_okay=False, help="Where the report goes.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int, typer.Option(min=1, help="Faces of each benchmark.")] = 50,
    api_key: ApiKeyOption = None,
    model: ModelOption = None,
) -> None:
    """Ask the same faces in this process and through a server, and compare.

    facellava eval parity fer2013=FOLDER utkface=FOLDER --api http://127.0.0.1:8000/v1 --json p.json
    """
    from data_builders.build import face_records
    from eval.benchmarks import find_benchmark
    from eval.parity import compare
    from eval.run import write_report
    from eval.served import ServedModel
    from facellava.predictor import FaceLlava

    served, loaded = ServedModel(api, api_key), FaceLlava.load(model)
    found = []
    for name, folder in named_folders(source):
        protocol = find_benchmark(name)
        records, _ = face_records(protocol.source, folder, split=split, limit=limit, seed=0)
        found.append(compare(protocol, records, loaded, served))
    report = {"split": split, "benchmarks": found}
    write_report(report, out)
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    if any(part["same_label"] != part["n"] for part in found):
        typer.echo("Some verdicts differ between the two ways.", err=True)
        raise typer.Exit(1)
