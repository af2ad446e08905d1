"""The report files of an evaluation run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.run_folder import RunFolder


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
