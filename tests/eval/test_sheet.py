"""A sheet of faces: which ones are drawn, and what a reader sees of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from skimage import data

from eval.answers import Reply
from eval.items import Item
from eval.protocols import Kind
from eval.run_folder import RunFolder
from eval.sheet import draw_sheet, mean_rightness, rightness
from eval.sheet_page import write_sheet
from facellava.errors import FacellavaError
from facellava.faces import Face, find_faces
from tests.eval.answered import protocol_of
from tests.eval.page_words import text_of
from tests.eval.written_results import ATTACK
from tests.eval.written_run import ENGINE, face_record, write_run

AGES, ADULTS, FACES, SWAPS = (
    "utkface/all-ages", "utkface/21-60", "rafdb/test", "faceforensics/c40",
)  # fmt: skip
UNITS = "ict_facekit/test"


@pytest.fixture(scope="module")
def face() -> Face:
    return find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))[0]


@pytest.fixture(scope="module")
def run(face: Face, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Sixteen ages (of adults, so that two protocols ask the same), three emotions, two swaps."""
    ages = [
        (
            face_record(face, f"utkface-{age}", {"age": age}),
            Reply(f"utkface-{age}", "Age: 30 years. The mouth is closed.",
                  calibrated={"24": 0.1, "25": 0.2, "30": 0.4, "35": 0.1, "36": 0.2}),
        )
        for age in range(21, 37)
    ]  # fmt: skip
    emotions = [
        (face_record(face, f"rafdb-{place}", {"expression": "happiness"}),
         Reply(f"rafdb-{place}", text, table={"happiness": 0.75, "anger": 0.25}))
        for place, text in enumerate(
            ["Expression: happiness. The lips are parted.", "Expression: anger.", ATTACK]
        )
    ]  # fmt: skip
    clips = [
        (face_record(face, "ff-real", {"deepfake": "real"}, frames=4),
         Reply("ff-real", "Deepfake: real. The mouth is closed.")),
        (face_record(face, "ff-fake", {"deepfake": "fake"}), Reply("ff-fake", "", "refused")),
    ]  # fmt: skip
    units = {"action_units": ["AU4", "AU6"], "action_units_coded": ["AU4", "AU6", "AU12"]}
    coded = [
        (face_record(face, "ict-1", units),
         Reply("ict-1", "Action units: AU6, AU12.", table={"AU4": 0.25, "AU12": 0.625}))
    ]  # fmt: skip
    return write_run(
        tmp_path_factory.mktemp("runs") / "run",
        {AGES: ages, ADULTS: ages, FACES: emotions, SWAPS: clips, UNITS: coded},
    )


def drawn(run: RunFolder, faces: int, seed: int = 0) -> dict[str, list[str]]:
    return {
        part.protocol.key: [item.face_id for item, _ in part.drawn]
        for part in draw_sheet(run, faces, seed)
    }


def test_protocols_give_as_many_and_those_that_have_few_give_all(run: RunFolder) -> None:
    assert {key: len(ids) for key, ids in drawn(run, 5).items()} == {
        AGES: 1, ADULTS: 1, FACES: 1, SWAPS: 1, UNITS: 1,
    }  # fmt: skip
    found = drawn(run, 15)
    assert {key: len(found[key]) for key in (FACES, SWAPS, UNITS)} == {FACES: 3, SWAPS: 2, UNITS: 1}
    assert sum(map(len, found.values())) == 15
    # Asked for more than there are, every face comes once: the adults were asked one question.
    everybody = drawn(run, 100)
    ages = everybody[AGES] + everybody[ADULTS]
    assert sorted(ages) == [f"utkface-{age}" for age in range(21, 37)]
    assert sum(map(len, everybody.values())) == 22


def test_chance_alone_draws_and_the_seed_decides(run: RunFolder) -> None:
    assert drawn(run, 9, seed=4) == drawn(run, 9, seed=4)
    seen = {tuple(drawn(run, 5, seed)[AGES]) for seed in range(12)}
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("kind", "truth", "given", "right"),
    [
        ("classes", "fear", "fear", 1), ("classes", "fear", "anger", 0), ("classes", "x", None, 0),
        ("years", 30, 35, 1), ("years", 30, 36, 0), ("years", 30, None, 0),
        ("units", {"AU1": True, "AU2": False}, {"AU1": True, "AU2": True, "AU4": True}, 0.5),
        ("attributes", dict.fromkeys("abcd", True), {**dict.fromkeys("abc", True), "d": False},
         0.75),
        ("deepfake", "fake", "fake", 1),
    ],
)  # fmt: skip
def test_how_right_an_answer_is(kind: Kind, truth: object, given: object, right: float) -> None:
    protocol = protocol_of(kind)
    assert rightness(protocol, Item("f", truth, given)) == right
    assert mean_rightness(protocol, [Item("f", truth, given)] * 2) == right
    assert mean_rightness(protocol, []) is None


@pytest.fixture(scope="module")
def page_file(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    write_sheet(run.facts(), draw_sheet(run, 100), 0, path)
    return path


@pytest.fixture(scope="module")
def page(page_file: Path) -> str:
    return page_file.read_text()


def card(page: str, face_id: str) -> str:
    """The words of one face's card."""
    return text_of(page.split(f'<article class="card" aria-label="Face {face_id}">')[1].split(
        "</article>")[0])  # fmt: skip


def test_shares_stand_beside_those_of_the_run(page: str, run: RunFolder) -> None:
    text = text_of(page)
    assert "Drawn 22 of 38 answers, by chance alone, with seed 0" in text
    assert "RAF-DB basic, test 3 33.3% 33.3% the very class" in text
    assert "FaceForensics++ c40, official test pairs 2 50.0% 50.0% real or fake" in text
    # Eleven of the sixteen ages lie within five years of 30.
    [few] = [part for part in draw_sheet(run, 5) if part.protocol.key == AGES]
    assert few.right_of_all == 11 / 16
    assert few.right_here in (0, 1)


def test_terms_of_each_dataset_are_said(page: str) -> None:
    text = text_of(page)
    assert "do not publish this page" in text
    for source in ("utkface", "rafdb", "ff", "ict"):
        assert f"{source} terms of {source}" in text


def test_blends_are_under_the_terms_of_the_faces_that_they_are_made_from(
    face: Face, tmp_path: Path
) -> None:
    made = face_record(face, "real_fake_faces-celeba-1", {"deepfake": "fake"})
    blend = replace(made, source="real_fake_faces", licence="terms of celeba")
    others = face_record(face, "real_fake_faces-1", {"deepfake": "real"})
    run = write_run(
        tmp_path / "run",
        {key: [(record, Reply(record.face_id, "Deepfake: real."))]
         for key, record in (("real_fake_faces/test", others), ("self_blended/test", blend))},
    )  # fmt: skip
    write_sheet(run.facts(), draw_sheet(run, 9), 0, tmp_path / "sheet.html")
    text = text_of((tmp_path / "sheet.html").read_text())
    assert "real_fake_faces terms of real_fake_faces celeba terms of celeba" in text


def test_cards_say_truth_answer_probability_and_outcome(page: str) -> None:
    old, near, right, wrong, odd, units = (
        card(page, name)
        for name in ("utkface-36", "utkface-29", "rafdb-0", "rafdb-1", "rafdb-2", "ict-1")
    )
    assert "✗ 6 years too young" in old
    assert "✓ 1 year too old" in near
    # Ages from 25 to 35 of those with a probability.
    assert "Truth 36 years Answered 30 years Probability, within 5 years 70.0%" in old
    assert "✓ right" in right
    assert "Asked What is the expression of this face? Truth happiness Answered happiness" in right
    assert "✗ wrong Asked What is the expression of this face? Truth happiness Answered anger "\
        "Probability 25.0%" in wrong  # fmt: skip
    assert "? unreadable: The prose" in odd
    assert "Answered" not in odd
    assert "✗ 2 of 3 wrong" in units
    assert "Missed AU4 (25.0%) Wrongly said AU12 (62.5%)" in units


def test_reasons_are_measured_on_the_face(page: str) -> None:
    # The portrait smiles with parted lips.
    parted, closed, none = (card(page, name) for name in ("rafdb-0", "utkface-30", "rafdb-1"))
    assert re.search(r"✓ The lips are parted: supported 0\.\d+ eye distances, wanted over", parted)
    assert re.search(r"✗ The mouth is closed: not supported 0\.\d+ eye distances, wanted", closed)
    assert "No reason that can be measured." in none
    assert "17 not supported" in text_of(page)


def test_a_clip_shows_the_frame_that_was_measured_and_a_refusal_its_reason(page: str) -> None:
    assert "A clip of 4 frames; the one that was measured is shown." in card(page, "ff-real")
    assert "? unreadable: refused" in card(page, "ff-fake")


def test_it_is_one_file_without_scripts_and_every_picture_has_words(page: str) -> None:
    assert "<script" not in page
    assert ATTACK not in page
    addresses = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert {address.partition(":")[0] for address in addresses} == {"data"}
    images = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="(Face [^"]+)"', page)
    assert len(images) == page.count("<img") == 22
    assert page.count("<circle") == 22 * 68


def test_faces_that_training_saw_are_not_held_aside(run: RunFolder, tmp_path: Path) -> None:
    seen = {"sources": {"rafdb": {"test": 3}}, "corpus_sha256": "x", "fold": None}
    kept = run.facts()
    run.note(training=seen)
    write_sheet(run.facts(), draw_sheet(run, 5), 0, tmp_path / "sheet.html")
    run.note(training=kept.get("training"))
    text = text_of((tmp_path / "sheet.html").read_text())
    assert text.count("These faces are not held aside: training saw them.") == 1


def test_an_endpoints_answers_need_no_probabilities(face: Face, tmp_path: Path) -> None:
    pairs = [(face_record(face, "rafdb-0", {"expression": "fear"}, frames=3),
              Reply("rafdb-0", "The person looks afraid, and the lips are parted."))]  # fmt: skip
    engine = {**ENGINE, "kind": "endpoint", "name": "gpt", "weights_sha256": None}
    run = write_run(tmp_path / "run", {FACES: pairs}, engine)
    write_sheet(run.facts(), draw_sheet(run, 60), 0, tmp_path / "sheet.html")
    text = text_of((tmp_path / "sheet.html").read_text())
    assert "Faces and answers of gpt" in text
    assert "✓ right" in text
    assert "Probability" not in text
    assert "✓ the lips are parted: supported" in text


def test_what_is_no_run_is_told(run: RunFolder, face: Face, tmp_path: Path) -> None:
    with pytest.raises(FacellavaError, match="is not there or is damaged"):
        draw_sheet(RunFolder(tmp_path / "absent"), 60)
    empty = RunFolder(tmp_path / "empty")
    empty.begin(ENGINE, {})
    with pytest.raises(FacellavaError, match="No protocol of the run"):
        draw_sheet(empty, 60)
    with pytest.raises(FacellavaError, match="cannot be written"):
        write_sheet(run.facts(), draw_sheet(run, 1), 0, tmp_path)


@pytest.mark.browser
def test_no_screen_is_too_narrow_and_the_landmarks_can_be_hidden(
    page_file: Path, chromium: str
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab, troubles = browser.new_page(), list[str]()
        tab.on("dialog", lambda dialog: troubles.append(dialog.message))
        tab.on("console", lambda message: troubles.append(message.text))
        for width in (390, 1280):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.goto(page_file.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") == width
            assert tab.evaluate("[...document.images].every(each => each.naturalWidth > 0)")
            points = tab.locator(".face svg").first
            assert points.is_visible()
            tab.get_by_label("Landmarks").uncheck()
            assert not points.is_visible()
        assert troubles == []
        browser.close()
