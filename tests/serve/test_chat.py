"""The page in a browser: a photo, its faces, questions, answers with evidence, and bad input."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from facellava.errors import FacellavaError
from facellava.tasks import TASKS
from serve.chat import EXAMPLES, build_page, open_page
from serve.chat_server import listen

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000  # milliseconds; the machine may be busy
AGE = TASKS["age"].canonical_question
EXPRESSION = TASKS["expression"].canonical_question

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(reciter: Callable[..., Any]) -> Iterator[str]:
    with open_page(reciter(pause=0.01)) as address:
        yield address


@pytest.fixture
def new_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Called: a page of its own context, opened, that may speak to this address alone."""
    pages: list[Page] = []
    strangers: list[str] = []

    def open_one(width: int = 1280, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: strangers.append(request.url))
        page.goto(address)
        expect(page.locator("#fl-chat")).to_be_visible()
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.context.close()
    assert [url for url in strangers if not url.startswith((address, "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def photos(
    tmp_path_factory: pytest.TempPathFactory,
    portrait: NDArray[np.uint8],
    couple: NDArray[np.uint8],
    landscape: NDArray[np.uint8],
) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, pixels in (("one", portrait), ("two", couple), ("none", landscape)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "text.jpg").write_text("This is no photo.")
    (folder / "huge.jpg").write_bytes(bytes(33 * 2**20))
    return folder


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#fl-photo input[type=file]", photo)


def ask(page: Page, question: str) -> None:
    page.locator("#fl-message").get_by_role("textbox").fill(question)
    page.keyboard.press("Enter")


@pytest.mark.browser
def test_photo_question_answer_evidence(new_page: Callable[..., Page], photos: Path) -> None:
    page = new_page()
    upload(page, photos / "one.png")
    expect(page.locator("#fl-status")).to_contain_text("One face found.")
    expect(page.locator("#fl-overlay img")).to_be_visible()
    page.get_by_role("button", name=EXPRESSION).click()
    expect(page.locator("#fl-chat")).to_contain_text("The lip corners are raised")
    findings = page.locator("#fl-findings")
    expect(findings.get_by_role("heading", name="Expression: happiness")).to_be_visible()
    expect(findings.locator(".fl-bars li").first).to_contain_text("happiness")
    expect(findings.get_by_role("row")).to_have_count(4)
    expect(findings.get_by_text("contradicted", exact=False).last).to_be_visible()
    page.get_by_role("button", name="Answer as JSON").click()
    expect(page.locator("#fl-json")).to_contain_text('"expression"')


@pytest.mark.browser
def test_a_follow_up_knows_what_was_said(new_page: Callable[..., Page], photos: Path) -> None:
    page = new_page()
    upload(page, photos / "one.png")
    expect(page.locator("#fl-status")).to_contain_text("One face")
    ask(page, AGE)
    expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")
    ask(page, "Why?")
    expect(page.locator("#fl-chat")).to_contain_text("(1 earlier)")
    ask(page, "Sing a song")
    expect(page.locator("#fl-chat")).to_contain_text("This answer could not be read")
    ask(page, "Why?")  # what could not be read is no part of the history
    expect(page.get_by_text("(1 earlier)")).to_have_count(2)


@pytest.mark.browser
def test_each_face_has_its_own_conversation(new_page: Callable[..., Page], photos: Path) -> None:
    page = new_page()
    upload(page, photos / "two.png")
    expect(page.locator("#fl-status")).to_contain_text("2 faces found")
    ask(page, AGE)
    expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")
    thumbnails = page.locator("#fl-faces").get_by_role("button", name="Thumbnail")
    expect(thumbnails).to_have_count(2)
    thumbnails.nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#fl-chat")).not_to_contain_text("34")
    ask(page, EXPRESSION)
    expect(page.locator("#fl-findings h2")).to_have_text("Expression: happiness")
    page.get_by_role("button", name="Answer as JSON").click()
    expect(page.locator("#fl-json")).to_contain_text(": 1")
    thumbnails.nth(0).click()
    expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")
    expect(page.locator("#fl-chat")).to_contain_text("34 years")


@pytest.mark.browser
def test_two_people_at_once_do_not_mix(new_page: Callable[..., Page], photos: Path) -> None:
    first, second = new_page(), new_page(390, 844)
    for page in (first, second):
        upload(page, photos / "one.png")
    for page, question in ((first, AGE), (second, EXPRESSION)):
        expect(page.locator("#fl-status")).to_contain_text("One face")
        ask(page, question)
    expect(first.locator("#fl-findings h2")).to_have_text("Age: 34 years")
    expect(second.locator("#fl-findings h2")).to_have_text("Expression: happiness")
    for page in (first, second):
        ask(page, "Why?")
        expect(page.locator("#fl-chat")).to_contain_text("(1 earlier)")
    expect(first.locator("#fl-chat")).not_to_contain_text("happiness")
    expect(second.locator("#fl-chat")).not_to_contain_text("34")
    assert second.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
@pytest.mark.parametrize(
    ("photo", "sentence"),
    [
        ("none.png", "No face was found"),
        ("text.jpg", "The picture is not a photo that can be read"),
    ],
)
def test_a_useless_photo_gets_one_sentence(
    new_page: Callable[..., Page], photos: Path, photo: str, sentence: str
) -> None:
    page = new_page()
    upload(page, photos / photo)
    expect(page.get_by_role("alert").filter(has_text=sentence)).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("Traceback")
    ask(page, AGE)
    expect(page.get_by_role("alert").filter(has_text="Add a photo first")).to_be_visible()


@pytest.mark.browser
def test_a_huge_file_is_refused_before_it_is_sent(
    new_page: Callable[..., Page], photos: Path
) -> None:
    page = new_page()
    expect(page.locator("#fl-too-large[data-watching]")).to_be_attached()
    upload(page, photos / "huge.jpg")
    expect(page.get_by_role("alert").filter(has_text="more than 32 MiB")).to_be_visible()
    upload(page, photos / "one.png")
    expect(page.locator("#fl-status")).to_contain_text("One face")
    expect(page.locator("#fl-too-large")).to_be_hidden()


@pytest.mark.browser
def test_a_camera_picture_is_looked_at(new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_role("button", name="Click to Access Webcam").click()
    # The button is there before the camera's first frame is, and then takes no picture.
    page.wait_for_function("document.querySelector('video')?.currentTime > 0.2")
    page.get_by_role("button", name="capture photo").click()
    expect(page.get_by_role("alert").filter(has_text="No face was found")).to_be_visible()


@pytest.mark.browser
def test_stop_ends_an_answer(browser: Browser, reciter: Callable[..., Any], photos: Path) -> None:
    with open_page(reciter(pause=1.0)) as address:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        upload(page, photos / "one.png")
        expect(page.locator("#fl-status")).to_contain_text("One face")
        ask(page, EXPRESSION)
        expect(page.locator("#fl-chat")).to_contain_text("Expression:")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#fl-chat")).to_contain_text("Stopped.")
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        expect(page.locator("#fl-chat")).not_to_contain_text("teeth")
        page.close()


@pytest.mark.browser
def test_a_failure_is_a_sentence_and_the_next_question_works(
    new_page: Callable[..., Page], photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = new_page()
    upload(page, photos / "one.png")
    expect(page.locator("#fl-status")).to_contain_text("One face")
    ask(page, "Break down")
    expect(page.locator("#fl-chat")).to_contain_text("The answer failed inside facellava")
    expect(page.locator("body")).not_to_contain_text("secret detail")
    assert "secret detail" in caplog.text
    ask(page, AGE)
    expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")


def test_photos_go_when_the_page_ends(reciter: Callable[..., Any]) -> None:
    before = os.environ.get("GRADIO_TEMP_DIR")
    with open_page(reciter()):
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    assert os.environ.get("GRADIO_TEMP_DIR") == before


def test_a_taken_port_is_said_in_one_sentence(reciter: Callable[..., Any]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(FacellavaError, match=f"Port {port} is taken"),
            open_page(reciter(), port=port),
        ):
            pass


def test_a_foreign_host_is_refused() -> None:
    with pytest.raises(FacellavaError, match=r"cannot be served at 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_without_a_port_two_pages_get_two() -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_examples_cover_every_task(reciter: Callable[..., Any]) -> None:
    asked = {task.canonical_question for task in TASKS.values() if task.scored_words}
    assert asked <= set(EXAMPLES)
    names = {block.elem_id for block in build_page(reciter()).blocks.values()}
    assert {"fl-photo", "fl-faces", "fl-chat", "fl-findings", "fl-overlay", "fl-json"} <= names
