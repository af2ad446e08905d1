"""`facellava eval verify | faithfulness | forms | landmarks | judge`: how good answers are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from facellava.cli.arguments import ModelOption
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
from facellava.cli.reporting import RunArgument
from facellava.errors import FacellavaError

if TYPE_CHECKING:
    from eval.items import Item
    from eval.protocols import Protocol
    from eval.run_folder import RunFolder
    from facellava.faces import Face
    from facellava.records import FaceRecord

OnlyOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--protocol", help="Only these protocols of the run; repeatable."),
]
SampleOption = Annotated[int, typer.Option(min=0, help="Answers of each protocol; 0 for all.")]


def sampled(
    run: RunFolder, only: list[str] | None, limit: int
) -> Iterator[tuple[Protocol, list[Item], dict[str, FaceRecord]]]:
    """Each protocol with answers drawn evenly from it, and their faces."""
    from eval.run import items_of

    found = run.protocols()
    for key in only or ():
        if key not in found:
            raise FacellavaError(f"'{run.path}' holds no {key}; it holds {', '.join(found)}.")
    for key, (protocol, table) in found.items():
        if only and key not in only:
            continue
        items = items_of(protocol, table, run.answers(protocol))
        if limit and limit < len(items):
            places = sorted(random.Random(0).sample(range(len(items)), limit))
            items = [items[place] for place in places]
        wanted = {item.face_id for item in items}
        faces = {
            record.face_id: record for record in table.records(protocol) if record.face_id in wanted
        }
        yield protocol, items, faces


def verify(
    run: RunArgument,
    only: OnlyOption = None,
    sample: SampleOption = 0,
) -> None:
    """Measure every claim of the answers again, on the own face and on another."""
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json
    from eval.verification import verify_items

    folder = RunFolder(run)
    for protocol, items, faces in sampled(folder, only, sample):
        found = verify_items(items, _face_of(faces))
        write_json(folder.extra(protocol, "claims"), clean(found))
    show(folder, lambda block: block["claims"], _claims_rows)


def _face_of(records: Mapping[str, FaceRecord]) -> Callable[[str], Face]:
    from facellava.answer import measured_face

    return lambda face_id: measured_face(records[face_id].faces())


def faithfulness(
    run: RunArgument,
    method: Annotated[
        Literal["occlude", "move"],
        typer.Option(help="Blur the cited regions away, or move their landmarks."),
    ] = "occlude",
    model: ModelOption = None,
    only: OnlyOption = None,
    sample: SampleOption = 100,
) -> None:
    """Change the regions that the reasons cite: does the answer rest on them, more than others?"""
    from eval.faithfulness import faithfulness as measured
    from eval.faithfulness import model_score
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json
    from facellava.predictor import FaceLlava
    from facellava.tasks.closed_question import question_in

    folder = RunFolder(run)
    prompt = folder.facts()["engine"]["prompt"]
    loaded = FaceLlava.load(answering_checkpoint(folder, model, "faithfulness"))
    for protocol, items, faces in sampled(folder, only, sample):
        question = question_in(prompt, protocol.task, protocol.labels)
        found = measured(items, faces, model_score(loaded, question), method=method)
        write_json(folder.extra(protocol, f"faithfulness-{method}"), clean(found))
    show(folder, lambda block: (block["faithfulness"] or {}).get(method), _faithfulness_rows)


def landmarks(
    run: RunArgument,
    model: ModelOption = None,
    only: OnlyOption = None,
    sample: Annotated[int, typer.Option(min=0, help="Faces of each protocol; 0 for all.")] = 300,
) -> None:
    """Ask again with the landmarks of another face, and without FRGCA: what are they worth?"""
    from eval.engines import ModelEngine
    from eval.landmarks import landmarks_worth
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json
    from facellava.tasks.closed_question import question_in

    folder = RunFolder(run)
    prompt = folder.facts()["engine"]["prompt"]
    engine = ModelEngine(answering_checkpoint(folder, model, "landmarks"), label_only=True)
    for protocol, items, faces in sampled(folder, only, sample):
        question = question_in(prompt, protocol.task, protocol.labels)
        records = [faces[item.face_id] for item in items]
        found = landmarks_worth(protocol, records, engine, question)
        write_json(folder.extra(protocol, "landmarks"), clean(found))
    show(folder, lambda block: block["landmarks"], _landmarks_rows)


def answering_checkpoint(run: RunFolder, checkpoint: Path | None, study: str) -> Path:
    """The folder of the model that gave the run's answers."""
    from eval.engines import weights_sha256
    from facellava.predictor import embedded_weights

    engine, folder = run.facts()["engine"], checkpoint or embedded_weights()
    if engine["kind"] != "model":
        raise FacellavaError(
            f"The answers of '{run.path}' came from {engine['name']} ({engine['kind']}), which "
            f"cannot be asked here; {study} needs a run of a checkpoint in this process."
        )
    if weights_sha256(folder) != engine["weights_sha256"]:
        raise FacellavaError(
            f"'{folder}' has other weights than the model whose answers '{run.path}' holds "
            f"({engine['name']}); give that checkpoint with --model."
        )
    return folder


def forms(
    run: RunArgument,
    model: ModelOption = None,
    only: OnlyOption = None,
    sample: SampleOption = 100,
) -> None:
    """Ask the same faces again in JSON: do both forms of an answer say the same?

    What was asked is kept, so a command that was stopped goes on where it was.
    """
    from eval.forms import ask_in_json, compare_forms
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json
    from facellava.predictor import FaceLlava

    folder = RunFolder(run)
    engine = folder.facts()["engine"]
    loaded = FaceLlava.load(answering_checkpoint(folder, model, "forms"))
    tokenizer, tables = loaded.processor.tokenizer, folder.protocols()
    for protocol, items, faces in sampled(folder, only, sample):
        head = {
            "faces": protocol.table,
            "question": f"{protocol.question} In JSON.",
            "data_sha256": tables[protocol.key][1].data_sha256,
            "engine": engine,
        }
        path = folder.json_answers(protocol)
        texts = ask_in_json(protocol, list(faces.values()), loaded, path, head)
        found = compare_forms(protocol, items, texts, lambda text: len(tokenizer.tokenize(text)))
        write_json(folder.extra(protocol, "forms"), clean(found))
    show(folder, lambda block: block["forms"], _forms_rows)


def _forms_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import NONE, spread

    def share(name: str) -> str:
        return spread(name, found[name]) if name in found else NONE

    yield {
        "answers": f"{found['n']:,}",
        "same verdict": share("same"),
        "within a year": share("within_one"),
        "same entries": share("same_entries"),
        "JSON read": share("json_read"),
        "JSON cut": share("json_cut"),
        "prose cut": share("prose_cut"),
    }


def judge(
    run: RunArgument,
    endpoint: Annotated[str, typer.Option(help="Address of an OpenAI-compatible API.")],
    name: Annotated[str, typer.Option(help="The judge's model there.")],
    prices: PricesOption = None,
    max_cost: MaxCostOption = None,
    dry_run: DryRunFlag = False,
    api_key_env: KeyVariableOption = "OPENAI_API_KEY",
    concurrency: ConcurrencyOption = 8,
    per_minute: PerMinuteOption = 0,
    patience: PatienceOption = 2.0,
    cache: CacheOption = None,
    only: OnlyOption = None,
    sample: SampleOption = 100,
) -> None:
    """Have a model rate the reasons as the paper does, each answer in two orders.

    facellava eval judge runs/packs --endpoint https://api.openai.com/v1 --name gpt-4o
    --prices prices.toml --max-cost 5 --dry-run
    """
    from eval.judge import estimate_judging, judge_parts
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json

    folder = RunFolder(run)
    parts = sampled(folder, only, sample)
    paid = paid_endpoint(
        run,
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
        typer.echo(estimate_judging(parts, paid))
        return
    dollars = judge_parts(
        parts,
        paid,
        lambda protocol, found: write_json(folder.extra(protocol, "judged"), clean(found)),
        lambda protocol: folder.extra(protocol, "judgements").with_suffix(".jsonl"),
    )
    if prices is not None:
        typer.echo(f"All runs on {paid.cache} have cost ${dollars:.4f}.", err=True)
    show(folder, lambda block: block["judged"], _judged_rows)


def _judged_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import number, percent

    def mean(name: str) -> str:
        rated = found["ratings"][name]
        spread = f"{number('mean', rated['low'])}, {number('mean', rated['high'])}"
        within = percent(found["agreement"][name]["within_one"])
        return f"{number('mean', rated['mean'])} [{spread}], orders agree {within}"

    yield {
        "judge": found["judge"],
        "answers": f"{found['n']:,}",
        "unjudged": f"{sum(found['unjudged'].values()):,}",
        **{name.replace("_", "-"): mean(name) for name in found["ratings"]},
    }


def show(
    run: RunFolder,
    extra: Callable[[dict[str, Any]], dict[str, Any] | None],
    rows_of: Callable[[dict[str, Any]], Iterator[dict[str, str]]],
) -> None:
    """Score the run with what was found out, write its reports, print rows of each protocol."""
    from eval.results import score_run
    from facellava.cli.reporting import write_reports

    protocols = score_run(run)["protocols"]
    write_reports(run)
    rows = [
        {"protocol": key} | row
        for key, block in protocols.items()
        if (found := extra(block)) is not None
        for row in rows_of(found)
    ]
    cells = [*(list(each) for each in rows[:1]), *(list(each.values()) for each in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _claims_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import percent
    from eval.verification import VERDICTS

    def shares(counts: Mapping[str, int] | None) -> list[str]:
        known = counts or dict.fromkeys(VERDICTS, 0)
        total = sum(known[name] for name in VERDICTS)
        return [percent(known[name] / total if total else None) for name in VERDICTS]

    yield {
        "answers": f"{found['n_answers']:,}",
        "without claims": f"{found['without_claims']:,}",
        **dict(zip(VERDICTS, shares(found), strict=True)),
        "supported on others": shares(found["on_other_faces"])[0],
    }


def _faithfulness_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import percent, spread

    falls = ("cited_fall", "control_fall", "difference")
    yield {
        "method": found["method"],
        "answers": f"{found['n']:,}",
        "no control": f"{found['no_control']:,}",
        **{name.replace("_", " "): spread(name, found[name]) for name in falls},
        "cited weigh more": percent(found["share_larger"]),
    }


def _landmarks_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import change, spread, words

    for name, figure in found["as_they_are"]["figures"].items():
        yield {
            "faces": f"{found['n']:,}",
            "figure": words(name),
            "as they are": spread(name, figure),
            "another's landmarks": change(name, found["shuffled"]["change"][name]),
            "without FRGCA": change(name, found["removed"]["change"][name]),
        }
