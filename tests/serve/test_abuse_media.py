"""Hostile and odd media: through the library, through the gateway, through a real server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from facellava.errors import BadMedia, BadModelInput, MediaTooLarge
from facellava.faces import read_photo
from facellava.faces.clips import read_clip
from facellava.faces.face_png import from_png
from tests.serve.abuse_rig import FakeServer, Server, chat, check_error, check_words, fake_server
from tests.serve.bad_media import BAD_MEDIA, OddMedia

SECONDS = 8.0
"""In which any file must be dealt with; on a busy machine it is the largest pictures that last."""
READ_AS = {"face", "no_face"}
MARGIN = 48 * 2**20
"""Bytes that memory may grow by while the corpus is sent once more."""


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server() as running:
        yield running


def media_named(name: str) -> OddMedia:
    [found] = [one for one in BAD_MEDIA if one.name == name]
    return found


def decoded(one: OddMedia) -> str:
    """What the library makes of a file, faces not yet looked for."""
    data = one.make()
    try:
        carried = from_png(data)
        if carried is not None:
            fits = (one.kind == "video") == (carried.seconds is not None)
            return "read" if fits else "invalid_value"
        if one.kind == "image":
            assert read_photo(data).shape[2] == 3
        else:
            assert 1 <= len(read_clip(data, 2).frames) <= 2
    except MediaTooLarge as error:
        check_words(str(error))
        return "media_too_large"
    except BadMedia as error:
        check_words(str(error))
        return "bad_media"
    except BadModelInput as error:
        check_words(str(error))
        return "invalid_value"
    return "read"


@pytest.mark.parametrize("one", BAD_MEDIA, ids=lambda one: one.name)
def test_the_library_reads_it_or_says_why_not(one: OddMedia) -> None:
    one.make()  # some bytes are kept once made
    began = time.perf_counter()
    outcome = decoded(one)
    assert time.perf_counter() - began < SECONDS
    allowed = {"read" if name in READ_AS else name for name in one.outcomes}
    assert outcome in allowed


DECODE_ALL = """
import logging, psutil
from tests.serve.bad_media import BAD_MEDIA
from tests.serve.test_abuse_media import decoded
logging.disable()
corpus = [one for one in BAD_MEDIA if not one.costly]
sizes = []
for _ in range(4):
    for one in corpus:
        decoded(one)
    sizes.append(psutil.Process().memory_info().rss)
print(max(sizes[2:]) - sizes[1])
"""


def test_decoders_leave_no_memory_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DECODE_ALL], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MARGIN


def outcome_of(response: httpx.Response) -> str:
    """Of /v1/faces: as the corpus names it."""
    if response.status_code == 200:
        return "face" if response.json()["faces"] else "no_face"
    return str(check_error(response)["code"])


def faces_request(one: OddMedia) -> dict[str, Any]:
    request: dict[str, Any] = {one.kind: one.url(), "crops": False, "measurements": False}
    return request if one.kind == "image" else {**request, "frames": 2}


def sent(server: Server, corpus: list[OddMedia]) -> dict[str, str]:
    """Names of the files that came out otherwise than they should, and how."""

    def send(one: OddMedia) -> str:
        response = server.post("/v1/faces", faces_request(one))
        if response.status_code == 413 and one.name == "png text of 70 MiB":
            return check_error(response, "body_too_large")["code"] and "media_too_large"
        return outcome_of(response)

    with ThreadPoolExecutor(4) as senders:
        outcomes = list(senders.map(send, corpus))
    return {
        one.name: outcome
        for one, outcome in zip(corpus, outcomes, strict=True)
        if outcome not in one.outcomes
    }


def test_the_gateway_answers_every_file_and_lives(server: FakeServer) -> None:
    assert sent(server, list(BAD_MEDIA)) == {}
    assert server.is_well()


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_file_is_refused_alike_in_a_chat(server: FakeServer, kind: str) -> None:
    refused = [
        one for one in BAD_MEDIA if one.kind == kind and len(one.make()) < 2**20 and not one.costly
    ]
    known = {one.name for one in refused if READ_AS.isdisjoint(one.outcomes)}
    assert len(known) > 20
    asked = len(server.engine.asked)
    for one in refused:
        if one.name not in known:
            continue
        body = chat()
        body["messages"][0]["content"][0] = one.part()
        error = check_error(server.post("/v1/chat/completions", body), *one.outcomes)
        assert error["param"].startswith("messages[0].content[0]")
    assert len(server.engine.asked) == asked
    assert server.is_well()


@pytest.mark.parametrize(
    "mime",
    [
        "image/svg+xml", "application/pdf", "text/html", "application/octet-stream", "image/heic",
        "video/mp4", "image/*", "image/png\r\nX-Evil: 1", "", "../../etc/passwd", "image/" * 30,
    ],
)  # fmt: skip
def test_a_declared_type_that_is_no_photo_is_refused(server: FakeServer, mime: str) -> None:
    response = server.post("/v1/faces", {"image": f"data:{mime};base64,AAAA"})
    check_error(response, "unsupported_media", "bad_media")


@pytest.mark.parametrize(
    "url",
    [
        "data:", "data:,", "data:image/png", "data:image/png,AAAA", "data:image/png;base64",
        "data:image/png;base64,", "data:image/png;base64,====", "data:image/png;base64,AAA",
        "data:image/png;base64,AAAA\nAAAA", "data:image/png;base64,ÄÖÜß",
        "data:image/png;base64,\0",
        "data:image/png;charset=utf-8,%89PNG", "data:image/png;base64,data:image/png;base64,AAAA",
    ],
)  # fmt: skip
def test_damaged_data_urls_are_refused(server: FakeServer, url: str) -> None:
    check_error(server.post("/v1/faces", {"image": url}), "bad_media", "invalid_value")


def tree_memory(server: Server) -> int:
    """Bytes of the server's processes, by whoever listens at its port."""
    port = server.address[1]
    [listener] = {
        link.pid
        for link in psutil.net_connections("tcp")
        if link.status == psutil.CONN_LISTEN and link.laddr.port == port
    }
    top = psutil.Process(listener)
    return sum(process.memory_info().rss for process in (top, *top.children(recursive=True)))


def test_a_real_server_lives_and_keeps_its_memory(api: str) -> None:
    server = Server(api.removesuffix("/v1"))
    corpus = [one for one in BAD_MEDIA if not one.costly and len(one.make()) < 2**20]
    sizes = []
    for _ in range(3):
        assert sent(server, corpus) == {}
        assert server.is_well()
        sizes.append(tree_memory(server))
    assert sizes[2] - sizes[1] < MARGIN


def test_a_real_server_answers_about_odd_files_that_can_be_read(api: str) -> None:
    server = Server(api.removesuffix("/v1"))
    names = ["cmyk jpeg", "16-bit png", "palette with alpha", "animated gif", "jpeg and zip"]
    names += [
        "exif orientation 6",
        "mp4 h264",
        "webm vp9",
        "avi mpeg4",
        "gif clip",
        "rotated by 90",
    ]
    names += ["variable frame rate", "matroska cut in the middle", "face picture", "clip of crops"]
    for name in names:
        body = chat()
        body["messages"][0]["content"][0] = media_named(name).part()
        response = server.post("/v1/chat/completions", body)
        assert response.status_code == 200, (name, response.text)
        assert response.json()["choices"][0]["message"]["content"]
