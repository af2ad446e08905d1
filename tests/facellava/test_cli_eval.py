"""`facellava eval run | score | compare | sheet | protocols` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.facellava.command_line import Facellava
from tests.facellava.endpoint_rig import fake_endpoint, reply
from tests.facellava.eval_command import KEY, asked


def test_a_run_leaves_answers_figures_and_reports(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = facellava(*asked(packs, run, "--model", reciting_checkpoint))
    assert done.code == 0, done.err
    # The model always says happiness, and so does the majority.
    assert "WAR 0.750" in done.out
    results = json.loads((run / "results.json").read_text())
    block = results["protocols"][KEY]
    assert (block["n"], block["unreadable"]["count"]) == (4, 0)
    values = {name: figure["value"] for name, figure in block["figures"].items()}
    assert values == block["baselines"]["majority"]["figures"] == {"WAR": 0.75, "UAR": 0.5}
    assert block["trained_on"] == "unknown"
    assert results["engine"]["kind"] == "model"
    assert len(results["engine"]["weights_sha256"]) == 64
    assert KEY in (run / "report.md").read_text()
    page = (run / "report.html").read_text()
    # The one mistake is shown with its picture and its words.
    assert "data:image/jpeg;base64," in page
    assert "happiness" in page


def test_scoring_again_needs_no_model_and_gives_the_same(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    before = (run / "results.json").read_bytes()
    answers = next((run / "answers").iterdir()).read_bytes()
    done = facellava("eval", "score", run)
    assert done.code == 0, done.err
    assert (run / "results.json").read_bytes() == before
    # Going on with a finished run asks nothing.
    again = facellava(*asked(packs, run, "--model", reciting_checkpoint))
    assert again.code == 0, again.err
    assert next((run / "answers").iterdir()).read_bytes() == answers


def test_two_runs_are_compared_on_the_same_faces(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    one, two, fewer = (tmp_path / name for name in ("one", "two", "fewer"))
    facellava(*asked(packs, one, "--model", reciting_checkpoint))
    facellava(*asked(packs, two, "--model", reciting_checkpoint, "--label-only"))
    done = facellava("eval", "compare", one, two, "--json", tmp_path / "found.json")
    assert done.code == 0, done.err
    assert "WAR" in done.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["protocols"][KEY]["figures"]["WAR"]["difference"] == 0
    facellava(*asked(packs, fewer, "--model", reciting_checkpoint, "--limit", 2))
    refused = facellava("eval", "compare", one, fewer)
    assert (refused.code, refused.out) == (1, "")
    assert "are not the same" in refused.trouble[-1]


def test_a_report_without_a_place_is_refused_before_the_work(
    facellava: Facellava, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("no folder")
    for words in (("questions",), ("compare", tmp_path / "no", tmp_path / "no")):
        refused = facellava("eval", *words, "--json", taken / "found.json")
        assert (refused.code, refused.out) == (2, "")
        words_alone = refused.err.replace("│", " ").split()
        assert "is no folder that can be written to." in " ".join(words_alone)


def test_a_sheet_shows_faces_of_a_run(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run, page = tmp_path / "run", tmp_path / "sheet.html"
    refused = facellava("eval", "sheet", run, "--out", page)
    assert (refused.code, refused.out) == (1, "")
    assert "is not there or is damaged" in refused.trouble[-1]
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    done = facellava("eval", "sheet", run, "--out", page, "--faces", 3, "--seed", 5)
    assert done.code == 0, done.err
    assert str(page) in done.out
    text = page.read_text()
    assert text.count('<article class="card"') == 3
    assert "3 of 4 answers, by chance alone, with seed 5" in text
    again = tmp_path / "again.html"
    facellava("eval", "sheet", run, "--out", again, "--faces", 3, "--seed", 5)
    assert again.read_bytes() == page.read_bytes()


def test_protocols_are_listed(facellava: Facellava) -> None:
    told = facellava("eval", "protocols").out
    assert "morph2/random-80-20" in told
    facts = json.loads(facellava("eval", "protocols", "--json").out)
    assert facts["disfa/3-folds"]["folds"] == 3
    assert "paper" in facts["disfa/3-folds"]["suites"]


def test_a_part_of_which_there_are_no_faces_is_left_out_of_a_run_of_the_whole(
    facellava: Facellava, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    for label in ("real", "fake"):
        folder = tmp_path / "packs" / "real_fake_faces" / label
        folder.mkdir(parents=True)
        for number in range(12):  # the path decides the split
            Image.fromarray(astronaut[60 + number : 190, 100:230]).save(folder / f"{number}.png")
    words = ["--root", tmp_path / "packs", "--workers", 1, "--name", "m"]
    part = "real_fake_faces/dfdc"
    with fake_endpoint(lambda *_: reply("Deepfake: real.")) as server:
        words += ["--endpoint", server.url, "--out"]
        done = facellava("eval", "run", "real_fake_faces/test", part, *words, tmp_path / "run")
        assert done.code == 0, done.err
        refused = facellava("eval", "run", part, *words, tmp_path / "alone")
    assert f"Left out: {part}, of which these faces hold none." in done.err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["wanted"] == list(facts["protocols"]) == ["real_fake_faces/test"]
    assert (refused.code, refused.out) == (1, "")
    assert f"has part in {part}; give the dataset of Crops of DFDC" in refused.trouble[-1]
