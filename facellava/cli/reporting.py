"""The report files of an evaluation run, and `facellava eval sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eval.run_folder import RunFolder

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]


def sheet(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The page, one HTML file.")],
    faces: Annotated[int, typer.Option(min=1, help="How many, over all protocols.")] = 60,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
) -> None:
    """Some faces with their answers, right and wrong as chance has it, as a page to look at."""
    from eval.run_folder import RunFolder
    from eval.sheet import draw_sheet
    from eval.sheet_page import write_sheet

    folder = RunFolder(run)
    write_sheet(folder.facts(), draw_sheet(folder, faces, seed), seed, out)
    typer.echo(out)


def write_reports(run: RunFolder) -> str:
    """Write report.md and report.html of a scored run; returns the table for a README."""
    from eval.report import readme_table, report_markdown
    from eval.report_page import write_report_page
    from eval.run_folder import write_text

    results = run.results()
    write_text(run.path / "report.md", report_markdown(results))
    worst = {
        key: {mistake["face_id"] for mistake in block["worst"]}
        for key, block in results["protocols"].items()
    }
    pictures = {
        (key, record.face_id): record.frames[0]
        for key, (protocol, table) in run.protocols().items()
        for record in table.records(protocol)
        if record.face_id in worst[key]
    }
    write_report_page(
        results, run.path / "report.html", lambda key, face_id: pictures.get((key, face_id))
    )
    return readme_table(results)
