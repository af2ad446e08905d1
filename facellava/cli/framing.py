"""`facellava eval framing`: the same faces on photos of any framing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facellava.cli.arguments import JsonFileOption, ModelOption
from facellava.cli.dataset_folders import DatasetFolders, RootsOption
from facellava.cli.explaining import OnlyOption, answering_checkpoint, sampled, show
from facellava.cli.reporting import RunArgument

if TYPE_CHECKING:
    from eval.altered import Photo
    from eval.faces_table import FacesTable
    from eval.protocols import Protocol


def framing(
    run: RunArgument,
    root: RootsOption = None,
    model: ModelOption = None,
    only: OnlyOption = None,
    sample: Annotated[int, typer.Option(min=0, help="Faces of each protocol; 0 for all.")] = 200,
    out: JsonFileOption = None,
) -> None:
    """Show the faces' own pictures in other ways: are they found, is the same said of them?

    Far away, off centre, turned, magnified, grey, as poor JPEG, blurred, dark, bright, in warm
    light. What was asked is kept, so a command that was stopped goes on where it was.

    facellava eval framing runs/packs --root data
    """
    from eval.altered import VERSION
    from eval.engines import ModelEngine
    from eval.framing import ask_in_other_ways, compare_ways
    from eval.results import clean
    from eval.run_folder import RunFolder, write_json
    from facellava.tasks.closed_question import question_in

    folders, folder = DatasetFolders.read(root or []), RunFolder(run)
    facts, tables = folder.facts(), folder.protocols()
    checkpoint = answering_checkpoint(folder, model, "framing")
    settings = facts["settings"]
    pictures = {
        key: partial(_pictures, protocol, _data(protocol, table, folders, settings))
        for key, (protocol, table) in tables.items()
        if not only or key in only
    }
    engine, found = ModelEngine(checkpoint, label_only=True), {}
    for protocol, items, records in sampled(folder, only, sample):
        head = {
            "faces": protocol.table,
            "question": question_in(facts["engine"]["prompt"], protocol.task, protocol.labels),
            "data_sha256": tables[protocol.key][1].data_sha256,
            "engine": facts["engine"],
            "ways": VERSION,
            "seed": 0,
        }
        path = folder.framing_answers(protocol)
        replies = ask_in_other_ways(protocol, records, pictures[protocol.key], engine, path, head)
        found[protocol.key] = clean(compare_ways(protocol, items, records, replies))
        write_json(folder.extra(protocol, "framing"), found[protocol.key])
    if out is not None:
        write_json(out, {"protocols": found})
    show(folder, lambda block: block["framing"], _rows)


def _data(
    protocol: Protocol, table: FacesTable, folders: DatasetFolders, settings: dict[str, Any]
) -> Path:
    """The folder of the protocol's dataset, or the file of blends that the run made."""
    from data_builders.faces_table import blend_pack

    if protocol.made_from is not None:
        return blend_pack(table.folder, limit=settings["limit"], seed=settings["seed"])
    return folders.of(protocol.source)


def _pictures(
    protocol: Protocol, data: Path, face_ids: Collection[str]
) -> Iterator[tuple[str, Photo]]:
    from data_builders.originals import original_pictures

    return original_pictures(protocol.source, data, face_ids)


def _rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    from eval.report_tables import NONE, change, spread, words

    figures = found["as_it_is"]["figures"]
    yield {
        "faces": f"{found['n']:,}",
        "way": "as it is",
        "found": NONE,
        "same verdict": NONE,
        "figures, then their changes": ", ".join(
            f"{words(name)} {spread(name, figure)}" for name, figure in figures.items()
        ),
    }
    for way, seen in found["ways"].items():
        yield {
            "faces": f"{found['n']:,}",
            "way": words(way),
            "found": spread("found", seen["found"]),
            "same verdict": spread("same", seen["same"]),
            "figures, then their changes": ", ".join(
                f"{words(name)} {change(name, row)}" for name, row in seen["figures"].items()
            ),
        }
