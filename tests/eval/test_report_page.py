import base64
import re
from html.parser import HTMLParser
from itertools import pairwise

import cv2
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from eval.report_page import LONGEST_ANSWER, write_report_page
from facellava.errors import FacellavaError
from tests.eval.page_words import text_of
from tests.eval.written_results import ATTACK, results_of, usual_results, written_block

UNDRAWN = {"details": {}, "confusion": None, "calibration": None, "fairness": {}}


def jpeg(shade: int = 128) -> bytes:
    _, data = cv2.imencode(".jpg", np.full((16, 16, 3), shade, np.uint8))
    return bytes(data)


@pytest.fixture(scope="module")
def results():
    return usual_results()


@pytest.fixture(scope="module")
def page_file(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report_page(results, path, lambda key, _: jpeg() if key == "dfew/5-folds" else None)
    return path


@pytest.fixture(scope="module")
def page(page_file) -> str:
    return page_file.read_text()


def written(tmp_path, block, pictures=lambda key, face_id: None) -> str:
    path = tmp_path / "page.html"
    write_report_page(results_of({"dfew/5-folds": block}), path, pictures)
    return path.read_text()


def test_it_is_one_file_without_scripts_or_network(page):
    assert "<script" not in page
    addresses = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert {address.split(":")[0] for address in addresses if address[0] != "#"} == {"data"}
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_tags_close_and_ids_and_links_match(page):
    class Walk(HTMLParser):
        """Elements that are open, and ids and links as they come."""

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.ids: list[str] = []
            self.links: list[str] = []
            self.levels: list[int] = []

        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "img", "br", "source"}:
                self.open.append(tag)
            self.ids += [value for name, value in attrs if name == "id"]
            self.links += [value[1:] for name, value in attrs if name == "href"]
            self.levels += [int(tag[1])] if re.fullmatch(r"h\d", tag) else []

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    walk = Walk()
    walk.feed(page)
    assert walk.open == []
    assert len(set(walk.ids)) == len(walk.ids) == len(walk.links)
    assert set(walk.links) == set(walk.ids)
    assert all(after - before <= 1 for before, after in pairwise(walk.levels))


def test_it_says_what_was_measured_and_shouts_what_is_worthless(page):
    text = text_of(page)
    for words in (
        "Evaluation of nano",
        "INVALID: CelebA, test (celeba/test): training saw these very faces",
        "Face-LLaVA zero-shot 0.564 0.469 published: Face-LLaVA paper",
        "were not measured here",
        "Claims in 240 answers, measured again",
        "VideoLLaMA 3 5.14 5.27 4.90",
    ):
        assert words in text, words
    assert page.count('class="warning"') == 2  # on top, and in the section


def test_figures_are_those_of_the_results(tmp_path):
    text = text_of(written(tmp_path, written_block()))
    for words in (
        "DFEW, five folds dfew/5-folds 1,200 WAR 0.500 [0.450, 0.550] UAR 0.400 [0.350, 0.450] "
        "0.300 0.143 0.200 0.143 2.0% zero-shot",
        "WAR 0.500 [0.450, 0.550] 0.300 0.200 0.510",
        "Truth sadness Answered happiness Probability 98.1% Expression: happiness. dfew-1",
    ):
        assert words in text, words


def test_every_picture_has_words_and_plots_come_light_and_dark(page, results):
    images = re.findall(r'<img src="data:([^;]+);base64,([^"]+)" alt="([^"]+)"', page)
    assert len(images) == page.count("<img")
    faces = [(data, words) for kind, data, words in images if kind == "image/jpeg"]
    assert len(faces) == len(results["protocols"]["dfew/5-folds"]["worst"])
    assert all(words.startswith("Face dfew-") for _, words in faces)
    plots = [data for kind, data, _ in images if kind == "image/svg+xml"]
    dark = re.findall(r'dark\)" srcset="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(plots) == len(dark) == page.count("<figure>")
    for grounds, drawings in (("#ffffff", plots), ("#14171b", dark)):
        assert all(grounds.encode() in base64.b64decode(drawing) for drawing in drawings)


def test_the_picture_of_each_mistake_is_asked_for(tmp_path):
    asked = []
    block = written_block() | UNDRAWN
    page = written(tmp_path, block, lambda *which: asked.append(which) or jpeg(7))
    assert asked == [("dfew/5-folds", "dfew-1")]
    assert base64.b64encode(jpeg(7)).decode() in page
    page = written(tmp_path, block)
    assert page.count('<article class="card"') == 1
    assert "<img" not in page


def test_of_many_yes_or_no_answers_only_the_wrong_ones_are_shown(tmp_path):
    wrong = {
        "face_id": "celeba-1", "probability": None, "text": "Attributes: smiling.",
        "truth": {"bald": True, "smiling": True, "young": False},
        "given": {"bald": False, "smiling": True},
    }  # fmt: skip
    text = text_of(written(tmp_path, written_block() | UNDRAWN | {"worst": [wrong]}))
    assert "Truth bald: yes, young: no Answered bald: no, young: not said Attributes:" in text


def test_what_comes_from_outside_is_escaped_and_cut(page):
    assert ATTACK not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in page
    [answer] = re.findall(r'<p class="answer"[^>]*><bdi>(&lt;img.*?)</bdi>', page, flags=re.DOTALL)
    assert answer.endswith("…")
    assert len(answer) < 3 * LONGEST_ANSWER


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FacellavaError, match="cannot be written"):
        write_report_page(results_of({}), tmp_path / "file" / "page.html", lambda *_: None)


@pytest.mark.browser
def test_no_screen_is_too_narrow_and_nothing_runs(page_file, chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab, troubles = browser.new_page(), list[str]()
        tab.on("dialog", lambda dialog: troubles.append(dialog.message))
        tab.on("console", lambda message: troubles.append(message.text))
        for width in (390, 1280):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.goto(page_file.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert tab.evaluate("document.documentElement.scrollWidth") == width
            assert tab.evaluate("[...document.images].every(each => each.naturalWidth > 0)")
        assert troubles == []
        browser.close()
