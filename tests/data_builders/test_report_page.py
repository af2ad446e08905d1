import base64
import errno
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest

from data_builders.report_page import write_report
from facellava.corpus import read_manifest, validate
from facellava.errors import BadCorpus
from tests.data_builders.written_corpus import record, sample, usual_corpus, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return usual_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def page(corpus) -> str:
    return write_report(corpus).read_text()


def text_of(page: str) -> str:
    """The words of the page, tags and styles taken away."""
    bare = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", bare)


def test_it_says_what_the_corpus_holds(page):
    text = text_of(page)
    for words in (
        "celeba 2 1 1 4",  # faces by split
        "age 3 1 1 5",  # kept samples
        "research unknown",  # licence and consent
        "celeba no face found 2 a, b",
        "age: fewer than two measured claims 3",
        "none found",
        "The face contradicts it.",
        "Label is right",
    ):
        assert words in text, words


def test_it_is_one_file_without_scripts_or_network(page):
    assert "<script" not in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {address.split(":")[0] for address in addresses if address[0] != "#"} == {"data"}
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_every_picture_can_be_read_and_has_words(page):
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(pictures) == page.count("<img")
    for data, words in pictures:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (192, 192, 3)
        assert words.startswith("Face ")
    assert "Face dfew-1, frame 3" in {words for _, words in pictures}


def test_samples_are_shown_with_turns_landmarks_and_ratings(page):
    cards = re.findall(r'<article class="card".*?</article>', page, flags=re.DOTALL)
    [low] = [card for card in cards if "celeba-0/é#1" in card]
    assert "not kept" in low
    assert "label is right 2, text agrees with face 3, text agrees with label 4" in text_of(low)
    assert low.count("<polyline") + low.count("<polygon") == 9
    [turns] = [card for card in cards if 'aria-label="Sample celeba-0/é#2"' in card]
    assert "What is &lt;image&gt; here?" in turns
    assert "Age: 30 years. &lt;video&gt; it is." in turns


def test_what_comes_from_outside_is_escaped(tmp_path):
    attack = "<img src=x onerror=alert(1)>"
    shown = replace(record(0), face_id=f'"{attack}', subject=attack)
    rows = [sample(shown, question=attack, answer=attack, label=attack, annotator=attack)]
    write_corpus(tmp_path, [shown], rows)
    page = write_report(tmp_path, leaks=False).read_text()
    assert attack not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "were not looked for" in page


def test_leaks_are_shown_by_picture(tmp_path):
    first = record(0)
    twin = replace(first, face_id="twin", source="dfew", split="test", subject=None)
    page = write_report(write_corpus(tmp_path / "corpus", [first, twin], [])).read_text()
    assert "Same picture dfew, test celeba, train 1 crosses splits" in text_of(page)
    assert page.count("<img") == 2


def test_it_is_the_same_again_and_another_seed_shows_others(tmp_path):
    faces = [record(number) for number in range(12)]
    corpus = write_corpus(tmp_path / "corpus", faces, [sample(face) for face in faces])
    pages = [
        write_report(corpus, tmp_path / f"{number}.html", seed=seed, leaks=False).read_text()
        for number, seed in enumerate((0, 0, 1))
    ]
    assert pages[0] == pages[1] != pages[2]
    assert pages[0].count('<article class="card"') == 3


def test_the_number_of_samples_is_capped(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("data_builders.report_page.MOST_SAMPLES", 1)
    page = write_report(corpus, tmp_path / "page.html", leaks=False).read_text()
    assert page.count('<article class="card"') == 4  # one of each source and task


def test_a_corpus_with_a_page_is_still_one(corpus, page, tmp_path):
    assert (corpus / "report.html").read_text() == page
    assert validate(corpus) == {"faces": 7, "samples": 9}
    for table, count in (("faces", 5), ("samples", 7)):
        loaded = datasets.load_dataset(
            str(corpus), table, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(loaded) == count


def test_a_label_is_shown_as_it_is(tmp_path):
    shown = record(0)
    label = {"5 o'clock shadow": False, "café": [1, 2]}
    write_corpus(tmp_path, [shown], [sample(shown, task="attributes", label=label)])
    page = write_report(tmp_path, leaks=False).read_text()
    assert html.unescape(re.search("Label: (.*)</p>", page)[1]) == (
        """{"5 o'clock shadow": false, "café": [1, 2]}"""
    )
    assert "\\u0027" not in page


def test_where_a_page_cannot_be_is_told(corpus, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadCorpus, match=r"file' cannot be written \("):
        write_report(corpus, tmp_path / "file" / "page.html")
    with pytest.raises(BadCorpus, match="is a folder; name a file"):
        write_report(corpus, tmp_path)
    page = write_report(corpus, tmp_path / "new" / "page.html", leaks=False)
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_full_disk_is_told(corpus, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("data_builders.report_page.write_text", full)
    with pytest.raises(BadCorpus, match="disk of .* is full"):
        write_report(corpus, tmp_path / "page.html", leaks=False)


def test_a_corpus_that_lost_a_file_has_no_page(tmp_path):
    write_corpus(tmp_path, [record(0)], [])
    (tmp_path / "faces" / "train-celeba-00000.parquet").unlink()
    with pytest.raises(BadCorpus, match="lost 1 of the 1 files"):
        write_report(tmp_path)


def test_withdrawals_and_an_empty_corpus_of_samples_are_told(tmp_path):
    write_corpus(tmp_path, [record(0)], [])
    manifest = read_manifest(tmp_path) | {
        "removed": [{"source": "celeba", "subject": "p9", "faces": 1, "samples": 2}]
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    text = text_of(write_report(tmp_path, leaks=False).read_text())
    assert "person p9 of celeba: 1 faces, 2 samples" in text
    assert "No sample is rated." in text


def test_an_unfinished_corpus_has_no_page(tmp_path):
    with pytest.raises(BadCorpus, match="did not finish"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
