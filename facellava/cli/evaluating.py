"""`facellava eval`: benchmarks to figures."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from facellava.cli.arguments import (
    ApiKeyOption,
    FreeReasonsFlag,
    JsonFileOption,
    JsonFlag,
    ModelOption,
)
from facellava.cli.dataset_folders import RootsOption
from facellava.cli.endpoint_options import (
    CacheOption,
    ConcurrencyOption,
    DryRunFlag,
    KeyVariableOption,
    MaxCostOption,
    PatienceOption,
    PerMinuteOption,
    PricesOption,
    paid_endpoint,
)
from facellava.cli.explaining import faithfulness, forms, judge, landmarks, verify
from facellava.cli.framing import framing
from facellava.cli.reporting import RunArgument, sheet
from facellava.errors import FacellavaError

if TYPE_CHECKING:
    from eval.engines import Engine, PaidEndpoint
    from eval.faces_table import FacesTable
    from eval.protocols import Protocol

app = typer.Typer(help="Measure a model on benchmarks.", no_args_is_help=True)
app.command()(verify)
app.command()(faithfulness)
app.command()(forms)
app.command()(landmarks)
app.command()(framing)
app.command()(judge)
app.command()(sheet)

ProtocolsArgument = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Argument(help="Protocols, such as rafdb/test; see `facellava eval protocols`."),
]
SuiteOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A named list of them: packs, paper or all."),
]
LimitOption = Annotated[int, typer.Option(min=0, help="Faces of each part at most; 0 for all.")]
SeedOption = Annotated[int, typer.Option(help="Which faces --limit takes.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that look for faces; 0: one a core.")]


@app.command()
def protocols(as_json: JsonFlag = False) -> None:
    """What can be measured: every protocol with its dataset, part and figures."""
    from eval.protocols import PROTOCOLS, SUITES

    if as_json:
        facts = {
            key: {
                "title": protocol.title,
                "source": protocol.source,
                "task": protocol.task,
                "figures": list(protocol.figures),
                "labels": list(protocol.labels),
                "folds": protocol.folds,
                "note": protocol.note,
                "suites": [name for name, keys in SUITES.items() if key in keys],
            }
            for key, protocol in PROTOCOLS.items()
        }
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for key, protocol in PROTOCOLS.items():
        typer.echo(f"{key}: {protocol.title}; {', '.join(protocol.figures)}")
        if protocol.note:
            typer.echo(f"  {protocol.note}")
    for name in ("packs", "paper"):
        typer.echo(f"suite {name}: {' '.join(SUITES[name])}")


@app.command("run")
def eval_run(
    names: ProtocolsArgument = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run, new or to go on with.")],
    suite: SuiteOption = None,
    root: RootsOption = None,
    limit: LimitOption = 0,
    seed: SeedOption = 0,
    fold: Annotated[int, typer.Option(min=0, help="Only this fold; 0 for all.")] = 0,
    label_only: Annotated[
        bool, typer.Option("--label-only", help="End each answer with its verdict: faster.")
    ] = False,
    free_reasons: FreeReasonsFlag = False,
    prompt: Annotated[
        Literal["question", "closed"],
        typer.Option(help="The bare question, or with its labels for models of other making."),
    ] = "question",
    model: ModelOption = None,
    api: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Ask a facellava server instead, such as http://127.0.0.1:8000/v1."),
    ] = None,
    api_key: ApiKeyOption = None,
    endpoint: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Ask any OpenAI-compatible API instead, such as a hosted model's."),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The endpoint's model."),
    ] = None,
    prices: PricesOption = None,
    max_cost: MaxCostOption = None,
    dry_run: DryRunFlag = False,
    api_key_env: KeyVariableOption = "OPENAI_API_KEY",
    concurrency: ConcurrencyOption = 8,
    per_minute: PerMinuteOption = 0,
    patience: PatienceOption = 2.0,
    cache: CacheOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Ask about every face of the protocols, score the answers, write the report.

    A run that was stopped goes on where it was: answers are kept one by one.

    facellava eval run --suite packs --root data --out runs/packs

    facellava eval run rafdb/test --root rafdb=data/RAF-DB --out runs/gpt --prompt closed
    --endpoint https://api.openai.com/v1 --name gpt-4o-mini --prices prices.toml --max-cost 5
    """
    from eval.engines import estimate
    from eval.results import score_run
    from eval.run import ask_all
    from eval.run_folder import RunFolder
    from facellava.cli.dataset_folders import DatasetFolders, faces_table
    from facellava.cli.reporting import write_reports

    wanted = _wanted(names or [], suite)
    for protocol in wanted if fold else ():
        if fold > protocol.folds:
            raise typer.BadParameter(f"{protocol.key} has {protocol.folds} folds, and no {fold}.")
    if sum(each is not None for each in (model, api, endpoint)) > 1:
        raise typer.BadParameter("Give one of --model, --api and --endpoint.")
    if label_only and (api or endpoint):
        raise typer.BadParameter("--label-only goes with a model in this process.")
    if free_reasons and (api or endpoint):
        raise typer.BadParameter(
            "--free-reasons goes with a model in this process; a server decides it for itself."
        )
    if free_reasons and label_only:
        raise typer.BadParameter("With --label-only no reasons are written; leave one of them out.")
    if (endpoint is None) != (name is None) or (dry_run and endpoint is None):
        raise typer.BadParameter("--endpoint and --name go together, and --dry-run with them.")
    folders = DatasetFolders.read(root or [])
    for protocol in wanted:
        folders.of(protocol.made_from or protocol.source)  # refused before any work is done

    def table_of(protocol: Protocol) -> FacesTable:
        return faces_table(
            protocol,
            folders,
            out / "faces",
            limit=limit or None,
            seed=seed,
            fold=fold or None,
            workers=workers or None,
        )

    paid = None
    if endpoint is not None and name is not None:
        paid = paid_endpoint(
            out,
            cache,
            prices,
            max_cost,
            address=endpoint,
            model=name,
            api_key_env=api_key_env,
            concurrency=concurrency,
            per_minute=per_minute,
            patience=patience,
        )
        if dry_run:
            tables = _without_empty_parts([(protocol, table_of(protocol)) for protocol in wanted])
            typer.echo(estimate(tables, paid, prompt))
            return
    run = RunFolder(out)
    with _opened(paid, api, api_key, model, label_only, free_reasons) as asked:
        settings = {"limit": limit or None, "seed": seed, "fold": fold or None}
        facts = {**asked.describe(), "prompt": prompt}
        run.check(facts, settings)
        # A dataset that cannot be read is told before the folder is this run's.
        faces = _without_empty_parts([(protocol, table_of(protocol)) for protocol in wanted])
        run.begin(facts, settings)
        run.note(wanted=[protocol.key for protocol, _ in faces])
        for protocol, table in faces:
            ask_all(protocol, table, asked, run.answers(protocol), prompt=prompt)
            run.add(protocol, table)
        run.note(**asked.facts())
    score_run(run)
    typer.echo(write_reports(run))
    typer.echo(f"The report is in {out / 'report.html'}", err=True)


def _wanted(names: list[str], suite: str | None) -> list[Protocol]:
    from eval.protocols import find_protocols

    try:
        wanted = find_protocols([*([suite] if suite else []), *names])
    except FacellavaError as error:
        raise typer.BadParameter(str(error)) from error
    if not wanted:
        raise typer.BadParameter("Name protocols, or a --suite; see `facellava eval protocols`.")
    return wanted


def _without_empty_parts(
    faces: list[tuple[Protocol, FacesTable]],
) -> list[tuple[Protocol, FacesTable]]:
    """Few of a dataset's faces may be another protocol's too, and --limit may have drawn none."""
    keys, kept = {protocol.key for protocol, _ in faces}, []
    parted = {protocol.parted_from for protocol, _ in faces}
    for protocol, table in faces:
        is_part = protocol.parted_from in keys or protocol.key in parted
        if is_part and not any(table.records(protocol)):
            typer.echo(f"Left out: {protocol.key}, of which these faces hold none.", err=True)
        else:
            kept.append((protocol, table))
    return kept


def _opened(
    paid: PaidEndpoint | None,
    api: str | None,
    api_key: str | None,
    model: Path | None,
    label_only: bool,
    free_reasons: bool,
) -> AbstractContextManager[Engine]:
    from eval.engines import EndpointEngine, ModelEngine, ServedEngine
    from eval.served import ServedModel
    from facellava.predictor import embedded_weights

    if paid is not None:
        return EndpointEngine(paid)
    if api is not None:
        return nullcontext(ServedEngine(ServedModel(api, api_key)))
    return nullcontext(
        ModelEngine(model or embedded_weights(), label_only=label_only, free_reasons=free_reasons)
    )


@app.command()
def score(run: RunArgument) -> None:
    """Score a run's answers again and write its report; no model is needed."""
    from eval.results import score_run
    from eval.run_folder import RunFolder
    from facellava.cli.reporting import write_reports

    folder = RunFolder(run)
    score_run(folder)
    left = set(folder.facts().get("wanted", ())) - folder.protocols().keys()
    if left:
        typer.echo(f"Not finished, and left out: {', '.join(sorted(left))}.", err=True)
    typer.echo(write_reports(folder))


@app.command()
def compare(
    first: RunArgument,
    second: RunArgument,
    out: JsonFileOption = None,
) -> None:
    """Is the second run better than the first? Paired tests on the faces that both were asked."""
    from eval.comparison import compare_runs, markdown
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json

    found = compare_runs(RunFolder(first), RunFolder(second))
    if out is not None:
        write_json(out, clean(found))
    typer.echo(markdown(found))


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="New folder for the tasks.")],
    limit: LimitOption = 0,
) -> None:
    """The protocols of a run as tasks of lmms-eval, with their faces.

    lmms-eval --include_path OUT --tasks facellava_fer2013_public_test ...
    """
    from eval.lmms_export import export_lmms_tasks
    from eval.run_folder import RunFolder

    tables = list(RunFolder(run).protocols().values())
    for folder in export_lmms_tasks(tables, out, limit=limit or None):
        typer.echo(folder)


@app.command("questions")
def eval_questions(
    model: ModelOption = None,
    out: JsonFileOption = None,
) -> None:
    """How many freely worded questions are answered under the right lead; each that is not."""
    from eval.routing import evaluate_routing, read_questions
    from eval.run_folder import write_json
    from facellava.faces import find_faces, read_photo
    from facellava.gallery import sample_photo
    from facellava.predictor import FaceLlava

    loaded = FaceLlava.load(model)
    face = find_faces(read_photo(sample_photo()))[0]
    found = evaluate_routing(loaded, face, read_questions())
    if out is not None:
        write_json(out, found)
    typer.echo(json.dumps(found, indent=2))


@app.command()
def parity(
    names: ProtocolsArgument,
    api: Annotated[str, typer.Option(help="The server, http://127.0.0.1:8000/v1.")],
    out: Annotated[Path, typer.Option(help="Folder for the faces and the report.")],
    root: RootsOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Faces of each protocol.")] = 50,
    api_key: ApiKeyOption = None,
    model: ModelOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Ask the same faces in this process and through a server, and compare.

    facellava eval parity fer2013/public-test utkface/all-ages --root data --out parity
    --api http://127.0.0.1:8000/v1
    """
    from eval.engines import ModelEngine, ServedEngine
    from eval.parity import parity_of
    from eval.run_folder import write_json
    from eval.served import ServedModel
    from facellava.cli.dataset_folders import DatasetFolders, faces_table
    from facellava.predictor import embedded_weights

    wanted, folders = _wanted(names or [], None), DatasetFolders.read(root or [])
    served = ServedEngine(ServedModel(api, api_key))
    loaded = ModelEngine(model or embedded_weights())
    found = []
    for protocol in wanted:
        table = faces_table(
            protocol,
            folders,
            out / "faces",
            limit=limit,
            seed=0,
            fold=None,
            workers=workers or None,
        )
        found.append(parity_of(protocol, table.records(protocol), loaded, served))
    report = {"protocols": found}
    write_json(out / "parity.json", report)
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    if any(part["same_label"] != part["n"] for part in found):
        typer.echo("Some verdicts differ between the two ways.", err=True)
        raise typer.Exit(1)
