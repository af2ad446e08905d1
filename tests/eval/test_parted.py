"""DFDC's crops were once scored with the other real and fake faces; now they have their own row."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from eval.answers import Reply
from eval.report import readme_table, report_markdown
from eval.report_page import write_report_page
from eval.results import score_run
from eval.run_folder import RunFolder
from facellava.faces import Face, find_faces
from tests.eval.written_run import face_record, write_run

WHOLE, DFDC = "real_fake_faces/test", "real_fake_faces/dfdc"
CROPS = {"faceswap": "fake", "actor": "real", "swap": "fake"}


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


def run_of(face: Face, path: Path, answers: int) -> RunFolder:
    """Two of FFHQ and a StyleGAN2 sample, answered rightly; `answers` of three DFDC crops, called
    real."""
    rest = [
        (f"{label}-{number}", label, origin)
        for number, (label, origin) in enumerate([("real", "ffhq")] * 2 + [("fake", "gan")])
    ]
    crops = [(name, label, "dfdc_sample") for name, label in CROPS.items()]
    pairs = [
        (
            face_record(face, f"x-{name}", {"deepfake": label, "origin": origin}),
            Reply(f"x-{name if place < 3 + answers else 'nobody'}",
                  f"Deepfake: {'real' if origin == 'dfdc_sample' else label}."),
        )
        for place, (name, label, origin) in enumerate(rest + crops)
    ]  # fmt: skip
    return write_run(path, {WHOLE: pairs})


def test_a_run_of_then_has_both_rows_without_asking(face: Face, tmp_path: Path) -> None:
    blocks = score_run(run_of(face, tmp_path, 3))["protocols"]
    assert {key: block["n"] for key, block in blocks.items()} == {WHOLE: 3, DFDC: 3}
    accuracies = [block["figures"]["accuracy"]["value"] for block in blocks.values()]
    assert accuracies == [1, 0.3333]


def test_a_run_that_asked_about_some_crops_only_has_no_row_of_them(
    face: Face, tmp_path: Path
) -> None:
    for answers in (0, 2):
        run = run_of(face, tmp_path / str(answers), answers)
        assert list(run.protocols()) == [WHOLE]


def test_a_table_without_crops_has_no_row_of_them(face: Face, tmp_path: Path) -> None:
    record = face_record(face, "x-1", {"deepfake": "real"})
    run = write_run(tmp_path, {WHOLE: [(record, Reply("x-1", "Deepfake: real."))]})
    assert list(run.protocols()) == [WHOLE]


def test_reports_call_the_crops_an_anecdote(face: Face, tmp_path: Path) -> None:
    results = score_run(run_of(face, tmp_path, 3))
    write_report_page(results, tmp_path / "page.html", lambda *_: None)
    report, page = report_markdown(results), (tmp_path / "page.html").read_text()
    assert "\n| Crops of DFDC, an anecdote | 3 | accuracy 0.333" in readme_table(results)
    assert "\n| Crops of DFDC, an anecdote<br>real_fake_faces/dfdc | 3 | accuracy" in report
    assert "\n## Crops of DFDC, an anecdote\n" in report
    assert "- Note: an anecdote: so few crops" in report
    assert page.count("Crops of DFDC, an anecdote") >= 2


def test_what_was_found_out_about_more_faces_is_left_out(
    face: Face, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(face, tmp_path, 3)
    found = {"supported": 1, "contradicted": 0, "unmeasurable": 0, "on_other_faces": None}
    extra = run.extra(run.protocols()[WHOLE][0], "claims")
    extra.parent.mkdir()
    for answers, told in ((3, False), (6, True)):
        extra.write_text(json.dumps(found | {"n_answers": answers}))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            claims = score_run(run)["protocols"][WHOLE]["claims"]
        assert (claims is None) == told
        assert ("tells of 6 answers where real_fake_faces/test has 3" in caplog.text) == told
