"""`facellava build`: raw datasets to an instruction corpus."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from facellava.cli.arguments import JsonFlag, ModelOption, named_folders
from facellava.cli.endpoint_options import (
    CacheOption,
    ConcurrencyOption,
    DryRunFlag,
    KeyVariableOption,
    MaxCostOption,
    PatienceOption,
    PerMinuteOption,
    PricesOption,
    endpoint_settings,
    price_table,
)
from facellava.errors import FacellavaError

app = typer.Typer(help="Build, check, show and change an instruction corpus.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option(help="The new corpus folder.")]


@app.command("run")
def build_run(
    source: Annotated[
        list[str],
        typer.Argument(help="NAME with --root, or NAME=FOLDER of each, or a mixture file (.toml)."),
    ],
    out: OutOption,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the one source."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of questions, words and blends.")] = 0,
    fold: Annotated[
        int, typer.Option(help="Which fold is the test, where there are folds.", min=1)
    ] = 1,
    frames: Annotated[int, typer.Option(help="Frames kept of a clip.", min=1)] = 8,
    sampling: Annotated[
        Literal["uniform", "expressive"], typer.Option(help="Which frames of a clip.")
    ] = "uniform",
    limit: Annotated[
        int, typer.Option(help="Rows a source and split at most; 0 for all.", min=0)
    ] = 0,
    annotator: Annotated[
        Literal["measured", "none"],
        typer.Option(help="Who writes; with none, `build annotate` has an endpoint write later."),
    ] = "measured",
    least_label: Annotated[
        int,
        typer.Option(
            help="Lowest rating of a label (1 to 10) with which a sample is kept; 1 keeps labels "
            "that voters denied.",
            min=1,
            max=10,
        ),
    ] = 3,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one a core.", min=0)] = 0,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or Ray Data.")
    ] = "local",
) -> None:
    """Build a corpus: faces, questions, answers with measured reasons, ratings.

    facellava build run dfew --root data/DFEW --out corpus

    facellava build run fer2013=data/fer2013 utkface=data/utkface --out corpus
    """
    from data_builders.build import BuildOptions, build
    from data_builders.media import Look
    from data_builders.rate import Threshold

    entries = _entries(source, root)
    _check_sources(entries, fold)
    build(
        entries,
        out,
        BuildOptions(
            seed=seed,
            limit=limit or None,
            fold=fold,
            threshold=Threshold(label=least_label),
            look=Look(frames, sampling),
            measured=annotator == "measured",
        ),
        workers=workers or None,
        executor=executor,
    )


def _entries(source: list[str], root: Path | None) -> list[Any]:
    """What --root, NAME=FOLDER and mixture files say, as `data_builders.mixture.MixtureEntry`."""
    from data_builders.mixture import MixtureEntry, read_mixture

    is_mixture = len(source) == 1 and source[0].endswith(".toml")
    if root is not None:
        if len(source) != 1 or is_mixture or "=" in source[0]:
            raise typer.BadParameter("--root goes with the name of one source.")
        return [MixtureEntry(name=source[0], root=root)]
    if is_mixture:
        return read_mixture(Path(source[0]))
    return [MixtureEntry(name=name, root=folder) for name, folder in named_folders(source)]


def _check_sources(entries: list[Any], fold: int) -> None:
    """Names and a fold that cannot be are wrong usage."""
    from data_builders.sources import find_source

    names = [entry.name for entry in entries]
    for name in names:
        try:
            source = find_source(name)
        except FacellavaError as error:
            raise typer.BadParameter(str(error)) from error
        if names.count(name) > 1:
            raise typer.BadParameter(f"The source {name!r} is given twice; give each source once.")
        if source.folds and fold > source.folds:
            raise typer.BadParameter(
                f"{source.title} has the folds 1 to {source.folds}, and no fold {fold}."
            )


@app.command("sources")
def build_sources(as_json: JsonFlag = False) -> None:
    """The datasets that can be built from: what the folder must hold, terms, consent."""
    from data_builders.sources import SOURCES

    if as_json:
        facts = {
            name: {
                "title": source.title,
                "layout": source.layout,
                "licence": source.licence,
                "consent": source.consent,
                "folds": source.folds,
            }
            for name, source in SOURCES.items()
        }
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, source in SOURCES.items():
        folds = f"; {source.folds} folds" if source.folds else ""
        typer.echo(f"{name}: {source.title}{folds}")
        typer.echo(f"  needs    {source.layout}")
        typer.echo(f"  terms    {source.licence}")
        typer.echo(f"  people   {source.consent}")


@app.command("annotate")
def build_annotate(
    corpus: Annotated[Path, typer.Argument(help="A corpus built with --annotator none.")],
    endpoint: Annotated[str, typer.Option(help="Address of an OpenAI-compatible API.")],
    model: Annotated[str, typer.Option(help="The model that writes.")],
    rater: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model that rates; without, nothing is rated."),
    ] = None,
    rater_endpoint: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Its address, where it is another one."),
    ] = None,
    rule: Annotated[
        Literal["each", "mean"],
        typer.Option(help="Each rating reaches its threshold, or their mean does."),
    ] = "each",
    prices: PricesOption = None,
    max_cost: MaxCostOption = None,
    dry_run: DryRunFlag = False,
    api_key_env: KeyVariableOption = "OPENAI_API_KEY",
    concurrency: ConcurrencyOption = 8,
    per_minute: PerMinuteOption = 0,
    patience: PatienceOption = 2.0,
    frames: Annotated[int, typer.Option(min=1, help="Pictures of a clip that are shown.")] = 4,
    cache: CacheOption = None,
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
) -> None:
    """Have a hosted model, or one served by vLLM, write and rate the answers of a corpus of faces.

    Every reply is kept before it is used, so that nothing is paid for twice.

    facellava build annotate corpus --endpoint https://api.openai.com/v1 --model gpt-4o-mini
    --prices prices.toml --max-cost 20 --dry-run
    """
    from data_builders.endpoint_stage import AnnotateOptions, annotate_corpus, estimate_corpus

    settings = partial(
        endpoint_settings,
        api_key_env=api_key_env,
        concurrency=concurrency,
        per_minute=per_minute,
        patience=patience,
    )

    options = AnnotateOptions(
        annotator=settings(endpoint, model),
        rater=settings(rater_endpoint or endpoint, rater) if rater else None,
        prices=price_table(prices),
        max_cost=max_cost,
        cache=cache,
        seed=seed,
        frames=frames,
        rule=rule,
    )
    if dry_run:
        typer.echo(estimate_corpus(corpus, options))
    else:
        annotate_corpus(corpus, options)


@app.command("validate")
def build_validate(corpus: Path) -> None:
    """Check a corpus: schemas, checksums, ids, splits."""
    from facellava.corpus import validate

    typer.echo(json.dumps(validate(corpus), indent=2))


@app.command("report")
def build_report(
    corpus: Path,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The page; by default report.html in the corpus."),
    ] = None,
    page: Annotated[bool, typer.Option(help="Write the page with pictures and leaks too.")] = True,
) -> None:
    """Counts by source, split and label, drops, ratings; and a page with samples and leaks."""
    from data_builders.manifests import whole_manifest
    from data_builders.report import report_text
    from data_builders.report_page import write_report

    typer.echo(report_text(whole_manifest(corpus)))
    if page:
        typer.echo(f"The page is {write_report(corpus, out)}", err=True)


@app.command("remove")
def build_remove(
    corpus: Path,
    source: Annotated[list[str], typer.Option(help="A source, repeatable.")] = [],  # noqa: B006
    subject: Annotated[list[str], typer.Option(help="SOURCE:PERSON, repeatable.")] = [],  # noqa: B006
) -> None:
    """Withdraw sources or single persons, with all that was made from them."""
    from data_builders.endpoint_stage import replies_of
    from data_builders.remove import remove

    if not source and not subject:
        raise typer.BadParameter("Name a --source or a --subject.")
    typer.echo(json.dumps(remove(corpus, sources=source, subjects=subject), indent=2))
    replies = replies_of(corpus)
    if replies.is_file():
        typer.echo(
            f"'{replies}' still holds an endpoint's replies about the withdrawn people, which "
            "cannot be picked out of it: delete that file.",
            err=True,
        )


@app.command("export")
def build_export(
    corpus: Path,
    out: Annotated[Path, typer.Option(help="The new folder.")],
    form: Annotated[
        Literal["llava", "sharegpt", "messages"],
        typer.Option(help="LLaVA JSON as FaceInstruct-1M, ShareGPT, or messages JSONL."),
    ],
    split: Annotated[
        Optional[Literal["train", "validation", "test"]],  # noqa: UP045
        typer.Option(help="One split; all by default."),
    ] = None,
) -> None:
    """Write a corpus in another tool's form, with its media."""
    from data_builders.exports import export

    typer.echo(f"{export(corpus, out, form, split=split)} records are in {out}")


@app.command("import")
def build_import(
    folder: Annotated[Path, typer.Argument(help="What `build export` wrote.")], out: OutOption
) -> None:
    """Read an exported corpus back, without loss."""
    from data_builders.imports import import_corpus

    import_corpus(folder, out)
    typer.echo(f"The corpus is in {out}")


@app.command("analyze")
def build_analyze(
    corpus: Annotated[list[Path], typer.Argument(help="Corpora, or one with several sources.")],
    out: Annotated[Path, typer.Option(help="The folder for tables and plot.")],
    by: Annotated[
        Literal["source", "split"], typer.Option(help="What is compared with one another.")
    ] = "source",
    limit: Annotated[int, typer.Option(help="Faces of each set.")] = 2000,
    asked: Annotated[
        int, typer.Option(help="Faces of each set whose age and gender is asked.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Which faces those are.")] = 0,
    model: ModelOption = None,
) -> None:
    """How hard sets are, how general, and how alike: local, global and paired similarity."""
    from data_builders.analysis.analyze import analyze

    analyze(corpus, out, by=by, limit=limit, asked=asked, seed=seed, model=model)
    typer.echo((out / "analysis.md").read_text("utf-8"))


@app.command("blends")
def build_blends(
    source: Annotated[list[str], typer.Argument(help="NAME=FOLDER of each dataset of real faces.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    seed: int = 20261123,
) -> None:
    """Write the frozen self-blended test set: real faces and fakes at each blend ratio."""
    from data_builders.build import write_blend_pack

    write_blend_pack(named_folders(source), out, seed=seed)
