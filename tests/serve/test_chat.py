"""The page in a browser: a photo, its faces, questions, answers with evidence, and bad input."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, Request, Response, expect

from facellava.tasks import TASKS
from serve import chat
from serve.chat_api import ChatApi
from serve.chat_pages import open_page
from serve.chat_server import listen
from serve.chat_session import Session

FakeApi = Callable[..., Any]
AGE = TASKS["age"].canonical_question
EXPRESSION = TASKS["expression"].canonical_question


@pytest.fixture(scope="module")
def address(fake_api: FakeApi) -> Iterator[str]:
    with fake_api(pause=0.01) as (_, api), open_page(ChatApi(api)) as address:
        yield address


@pytest.fixture
def new_page(open_tab: Callable[..., Page], address: str) -> Callable[..., Page]:
    """Called with width and height: a tab of the page that all tests share."""
    return lambda *size: open_tab(address, *size)


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


def upload_clip(page: Page, clip: Path) -> None:
    page.get_by_role("tab", name="Clip").click()
    page.set_input_files("#fl-clip input[type=file]", clip)


def look_at(page: Page, photo: Path) -> None:
    """Upload a photo of one face, and wait until it is found."""
    upload(page, photo)
    expect(page.locator("#fl-status")).to_contain_text("One face")


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
    expect(page.locator("#fl-overlay img")).to_have_js_property("complete", True)
    assert page.locator("#fl-overlay img").evaluate("image => image.naturalWidth") > 0


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
    # What is no picture is not shown as a broken one.
    expect(page.locator("#fl-photo img")).to_have_count(0 if photo == "text.jpg" else 1)
    ask(page, AGE)
    expect(page.get_by_role("alert").filter(has_text="Add a photo or a clip first")).to_be_visible()


@pytest.mark.browser
def test_a_huge_file_is_refused_before_it_is_sent(
    new_page: Callable[..., Page], photos: Path
) -> None:
    page = new_page()
    expect(page.locator("#fl-too-large[data-watching]")).to_be_attached()
    upload(page, photos / "huge.jpg")
    expect(page.get_by_role("alert").filter(has_text="a photo may have 32 MiB")).to_be_visible()
    upload(page, photos / "one.png")
    expect(page.locator("#fl-status")).to_contain_text("One face")
    expect(page.locator("#fl-too-large")).to_be_hidden()


@pytest.mark.browser
def test_a_camera_picture_is_looked_at(new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.get_by_role("button", name="Capture from camera").click()
    page.get_by_role("button", name="Click to Access Webcam").click()
    # The button is there before the camera's first frame is, and then takes no picture.
    page.wait_for_function("[...document.querySelectorAll('video')].some(v => v.currentTime > 0.2)")
    page.get_by_role("button", name="capture photo").click()
    expect(page.get_by_role("alert").filter(has_text="No face was found")).to_be_visible()


@pytest.mark.browser
def test_stop_ends_an_answer_here_and_at_the_server(
    open_tab: Callable[..., Page], fake_api: FakeApi, photos: Path
) -> None:
    with fake_api(pause=1.0) as (fake, api), open_page(ChatApi(api)) as address:
        page = open_tab(address)
        look_at(page, photos / "one.png")
        ask(page, EXPRESSION)
        expect(page.locator("#fl-chat")).to_contain_text("Expression:")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#fl-chat")).to_contain_text("Stopped.")
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        expect(page.locator("#fl-chat")).not_to_contain_text("teeth")
        assert until(lambda: fake.left == 1)
        assert fake.heard_out == 0


@pytest.mark.browser
@pytest.mark.parametrize("wait", [0, 1500])
def test_a_question_in_the_middle_of_an_answer_is_answered(
    open_tab: Callable[..., Page], fake_api: FakeApi, photos: Path, wait: int
) -> None:
    with fake_api(pause=0.3) as (fake, api), open_page(ChatApi(api)) as address:
        page = open_tab(address)
        look_at(page, photos / "one.png")
        for question in (EXPRESSION, AGE, EXPRESSION):
            ask(page, question)
            page.wait_for_timeout(wait)
        ask(page, AGE)
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        expect(page.locator("#fl-chat")).to_contain_text("Age: 34 years.")
        assert until(lambda: fake.heard_out + fake.left == len(fake.asked["chat"]))
        assert fake.heard_out == 1


@pytest.mark.browser
@pytest.mark.parametrize("reads", [True, False])
def test_leaving_ends_an_answer_at_the_server(
    open_tab: Callable[..., Page], fake_api: FakeApi, photos: Path, reads: bool
) -> None:
    """Also where the tab is closed between asking and reading."""
    with fake_api(pause=1.0) as (fake, api), open_page(ChatApi(api)) as address:
        page = open_tab(address)
        look_at(page, photos / "one.png")
        if not reads:
            page.route("**/queue/data*", lambda route: route.abort())
        with page.expect_event("response" if reads else "requestfailed", is_stream):
            ask(page, EXPRESSION)
        assert until(lambda: len(fake.asked["chat"]) == 1)
        page.close()
        assert until(lambda: fake.left == 1)
        assert fake.heard_out == 0


@pytest.mark.browser
def test_a_closed_tab_is_forgotten(
    open_tab: Callable[..., Page],
    fake_api: FakeApi,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: WeakSet[Session] = WeakSet()
    found = Session.of

    def remembered(*given: Any) -> Session:
        kept.add(session := found(*given))
        return session

    monkeypatch.setattr(Session, "of", remembered)
    monkeypatch.setattr(chat, "KEPT_SECONDS", 1.0)
    with fake_api() as (_, api), open_page(ChatApi(api)) as address:
        closed, left_open = open_tab(address), open_tab(address)
        for page in (closed, left_open):
            look_at(page, photos / "one.png")
        assert len(kept) == 2
        closed.close()
        assert until(lambda: gc.collect() >= 0 and len(kept) == 1)
        ask(left_open, EXPRESSION)
        expect(left_open.locator("#fl-chat")).to_contain_text("Expression:")


@pytest.mark.browser
def test_leaving_ends_a_search(
    open_tab: Callable[..., Page], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = [], []

    async def endless(*given: Any) -> None:
        began.append(given)
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(given)

    monkeypatch.setattr(chat, "search", endless)
    with open_page(ChatApi("http://127.0.0.1:9")) as address:
        page = open_tab(address)
        upload(page, photos / "one.png")
        assert until(lambda: bool(began))
        assert not ended
        page.close()
        assert until(lambda: bool(ended))


@pytest.mark.browser
def test_a_clip_has_a_timeline_and_answers(new_page: Callable[..., Page], clip: Path) -> None:
    page = new_page()
    upload_clip(page, clip)
    expect(page.locator("#fl-status")).to_contain_text("One person found.")
    curve = page.locator("#fl-curve")
    expect(curve.get_by_role("heading", name="Expression over time")).to_be_visible()
    expect(curve.locator("polyline")).to_have_count(2)
    curve.get_by_text("The same as a table").click()
    expect(curve.get_by_role("row")).to_have_count(21)
    expect(page.locator("#fl-where")).to_contain_text("the frame with the strongest expression")
    ask(page, EXPRESSION)
    expect(page.locator("#fl-findings h2")).to_have_text("Expression: happiness")
    ask(page, "Why?")
    expect(page.locator("#fl-chat")).to_contain_text("(1 earlier)")


@pytest.mark.browser
def test_a_photo_after_a_clip_takes_its_place(
    new_page: Callable[..., Page], clip: Path, gif: Path, photos: Path
) -> None:
    page = new_page(390, 844)
    upload(page, gif)  # an animation is a clip, wherever it is given
    expect(page.locator("#fl-status")).to_contain_text("One person found.")
    expect(page.locator("#fl-curve polyline")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    upload(page, photos / "two.png")
    expect(page.locator("#fl-status")).to_contain_text("2 faces found")
    expect(page.locator("#fl-curve")).to_be_hidden()
    upload_clip(page, clip)
    expect(page.locator("#fl-status")).to_contain_text("One person found.")
    page.get_by_role("tab", name="Photo").click()
    expect(page.locator("#fl-photo img")).to_have_count(0)


@pytest.mark.browser
def test_a_recorded_clip_is_looked_at(new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.get_by_role("tab", name="Clip").click()
    page.locator("#fl-clip").get_by_role("button", name="Capture from camera").click()
    page.get_by_role("button", name="Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#fl-clip video')?.currentTime > 0.2")
    record = page.get_by_role("button", name="start recording")
    record.click()
    page.wait_for_timeout(2500)
    record.click()
    # On a busy machine the browser hands out a recording before its first picture is in it.
    seen = re.compile("No face was found in the clip|The clip is not a clip that can be read")
    expect(page.get_by_role("alert").filter(has_text=seen)).to_be_visible()


@pytest.mark.browser
def test_the_adapter_is_chosen_where_there_is_one(
    open_tab: Callable[..., Page], fake_api: FakeApi, clip: Path
) -> None:
    with fake_api(models=["nano", "warm"]) as (fake, api), open_page(ChatApi(api)) as address:
        page = open_tab(address)
        choice = page.get_by_role("combobox", name="Model")
        expect(choice).to_have_value("nano")
        upload_clip(page, clip)
        expect(page.locator("#fl-curve polyline")).to_have_count(2)
        choice.focus()
        page.keyboard.press("ArrowDown")
        page.get_by_role("option", name="warm").click()
        assert until(lambda: [body["model"] for body in fake.asked["analyze"]] == ["nano", "warm"])
        ask(page, AGE)
        expect(page.locator("#fl-chat")).to_contain_text("Answered by warm.")
        assert [body["model"] for body in fake.asked["chat"]] == ["warm"]
        assert len(fake.asked["faces"]) == 1, "a face is found once"


@pytest.mark.browser
def test_a_server_that_is_down_busy_or_broken_is_a_sentence_and_the_next_question_works(
    open_tab: Callable[..., Page],
    fake_api: FakeApi,
    photos: Path,
    clip: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = {"error": "secret detail", "trace": ["more of it"]}
    with fake_api() as (fake, api), open_page(ChatApi(api)) as address:
        fake.refusals = {name: (503, {"Retry-After": "5"}, {}) for name in ("models", "analyze")}
        page = open_tab(address)
        expect(page.get_by_role("alert").filter(has_text="starting or restarting")).to_be_visible()
        upload_clip(page, clip)
        expect(page.locator("#fl-curve").get_by_role("alert")).to_contain_text("try again in 5 s")
        fake.refusals = {"chat": (429, {"Retry-After": "3"}, {})}
        page.get_by_role("tab", name="Photo").click()
        upload(page, photos / "one.png")
        expect(page.locator("#fl-status")).to_contain_text("One face")
        ask(page, AGE)
        expect(page.locator("#fl-chat")).to_contain_text("The server is busy; try again in 3 s.")
        fake.refusals = {"chat": (500, {}, secret)}
        ask(page, AGE)
        expect(page.locator("#fl-chat")).to_contain_text("does not speak as facellava's does")
        fake.refusals = {}
        ask(page, "Break off")
        expect(page.locator("#fl-chat")).to_contain_text("The model ended too early.")
        ask(page, AGE)
        expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")
        expect(page.locator("body")).not_to_contain_text("secret detail")
    # The page outlives its server.
    with listen("127.0.0.1", 0) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    with open_page(ChatApi(gone)) as address:
        page = open_tab(address)
        expect(
            page.get_by_role("alert").filter(has_text="does not answer; start it")
        ).to_be_visible()
        upload(page, photos / "one.png")
        expect(page.get_by_role("alert").filter(has_text=f"{gone} does not answer")).to_be_visible()


def is_stream(traffic: Request | Response) -> bool:
    """Whether a page reads its answers there."""
    return "/queue/data" in traffic.url


def until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it holds before the time is over."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held
