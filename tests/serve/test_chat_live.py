"""The page with a server that truly answers, and the page inside the server that it asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from facellava.tasks import TASKS
from serve.chat_api import ChatApi
from serve.chat_pages import let_go, mount_chat, open_page
from serve.chat_server import listen, served

OpenTab = Callable[..., Page]
AGE = TASKS["age"].canonical_question
EXPRESSION = TASKS["expression"].canonical_question


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, portrait: NDArray[np.uint8]) -> Path:
    path = tmp_path_factory.mktemp("photo") / "portrait.png"
    Image.fromarray(portrait).save(path)
    return path


def give(page: Page, kind: str, file: Path) -> None:
    page.get_by_role("tab", name=kind).click()
    page.set_input_files(f"#fl-{kind.lower()} input[type=file]", file)


@pytest.mark.browser
def test_nano_answers_about_a_photo_and_a_clip(
    open_tab: OpenTab, api: str, photo: Path, clip: Path
) -> None:
    with open_page(ChatApi(f"{api}/v1")) as address:
        page = open_tab(address)
        give(page, "Photo", photo)
        expect(page.locator("#fl-status")).to_contain_text("One face found.")
        page.get_by_role("button", name=EXPRESSION).click()
        findings = page.locator("#fl-findings")
        title = findings.get_by_role("heading", level=2)
        expect(title).to_have_text(re.compile("^Expression: "))
        expect(findings.locator(".fl-bars li")).to_have_count(5)
        page.get_by_role("button", name="Answer as JSON").click()
        expect(page.locator("#fl-json")).to_contain_text('"region_attention"')
        page.get_by_role("button", name=AGE).click()
        expect(title).to_have_text(re.compile(r"^Age: \d+ years"))
        give(page, "Clip", clip)
        expect(page.locator("#fl-status")).to_contain_text("One person found.")
        expect(page.locator("#fl-curve polyline").first).to_be_visible()
        page.get_by_role("button", name=EXPRESSION).click()
        expect(title).to_have_text(re.compile("^Expression: "))


@pytest.mark.browser
def test_a_page_inside_the_server_that_it_asks_does_not_wait_for_itself(
    open_tab: OpenTab, fake_api: Callable[..., Any], photo: Path
) -> None:
    with fake_api() as (fake, _), listen("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = type(fake)(pause=0.01).app
        mount_chat(app, ChatApi(f"{address}/v1"))
        with served(app, listener):
            pages = [open_tab(f"{address}/chat/", *size) for size in ((1280, 900), (390, 844))]
            for page in pages:
                give(page, "Photo", photo)
            for page in pages:
                expect(page.locator("#fl-status")).to_contain_text("One face found.")
                page.get_by_role("button", name=AGE).click()
            for page in pages:
                expect(page.locator("#fl-findings h2")).to_have_text("Age: 34 years")
                # Files keep the address of the mount, whatever event they come with.
                page.get_by_role("button", name="Clear").last.click()
                expect(page.locator("#fl-findings h2")).to_have_count(0)
                overlay = page.locator("#fl-overlay img")
                expect(overlay).to_have_attribute("src", re.compile("/chat/gradio_api/file="))
                expect(overlay).to_have_js_property("complete", True)
                assert overlay.evaluate("image => image.naturalWidth") > 0
            let_go(app)
