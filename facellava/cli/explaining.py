"""`facellava eval verify | faithfulness | judge`: how good the reasons of a run's answers are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

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
    endpoint_settings,
    price_table,
)
from facellava.errors import FacellavaError

if TYPE_CHECKING:
    from eval.items import Item
    from eval.protocols import Protocol
    from eval.run_folder import RunFolder
    from facellava.records import FaceRecord

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
OnlyOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--protocol", help="Only these protocols of the run; repeatable."),
]
SampleOption = Annotated[int, typer.Option(min=0, help="Answers of each protocol; 0 for all.")]


def _sampled(
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
            record.face_id: record
            for record in table.records(protocol)
            if record.face_id in wanted
        }
        yield protocol, items, faces
