"""URLs of requests: which are opened, and what is said of the others."""

from __future__ import annotations

import asyncio
import base64

import pytest

from serve.api_errors import ApiError
from serve.intake import Intake, Kind
from serve.settings import Settings

DATA = b"not a picture, which is for others to find"
ENCODED = base64.b64encode(DATA).decode()


def read(url: str, kind: Kind = "image", settings: Settings | None = None) -> bytes:
    return asyncio.run(Intake(settings or Settings()).read(url, kind, "image"))


def refused(url: str, kind: Kind = "image", settings: Settings | None = None) -> str:
    with pytest.raises(ApiError) as caught:
        read(url, kind, settings)
    assert caught.value.param == "image"
    # What the client sent is not said again.
    assert len(url) < 20 or url[:40] not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("data:image/png;base64,", "image"),
        ("DATA:Image/JPEG;Base64,", "image"),
        ("data:image/webp;charset=utf-8;base64,", "image"),
        ("data:video/mp4;base64,", "video"),
        ("data:video/png;base64,", "video"),
        ("data:image/gif;base64,", "video"),
    ],
)
def test_data_urls_are_read(head: str, kind: Kind) -> None:
    assert read(head + ENCODED, kind) == DATA


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "/etc/passwd",
        "../photo.jpg",
        "\\\\server\\share\\photo.jpg",
        "ftp://example.org/a.jpg",
        "gopher://127.0.0.1:6379/_x",
        "javascript:alert(1)",
        "blob:https://example.org/1",
        "unix:/run/docker.sock",
        "dict://127.0.0.1/x",
        "http://example.org/a.jpg",
        "https://example.org/a.jpg",
        "https:example.org",
        " data:image/png;base64," + ENCODED,
        "\tfile:///etc/passwd",
        "datum",
    ],
)
def test_other_urls_are_not_opened(url: str) -> None:
    assert refused(url) == "url_not_allowed"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:", "bad_media"),
        ("data:,", "bad_media"),
        ("data:image/png," + ENCODED, "bad_media"),
        ("data:image/png;base64", "bad_media"),
        ("data:image/png;base64,", "bad_media"),
        ("data:image/png;base64,####", "bad_media"),
        ("data:image/png;base64,AAA", "bad_media"),
        ("data:image/png;base64,AA\nAA", "bad_media"),
        ("data:image/png;base64,AAAA====", "bad_media"),
        ("data:image/png;base64,AA==AAAA", "bad_media"),
        ("data:image/png;base64,__--", "bad_media"),
        ("data:image/png;base64,ÄÄÄÄ", "bad_media"),
        ("data:image/png;base64,AAAA%3D", "bad_media"),
        ("data:image/svg+xml;base64," + ENCODED, "unsupported_media"),
        ("data:text/html;base64," + ENCODED, "unsupported_media"),
        ("data:application/pdf;base64," + ENCODED, "unsupported_media"),
        ("data:video/mp4;base64," + ENCODED, "unsupported_media"),
        ("data:image/heic;base64," + ENCODED, "unsupported_media"),
    ],
)
def test_bad_data_urls_are_told_apart(url: str, code: str) -> None:
    assert refused(url) == code


def test_size_is_known_before_anything_is_decoded() -> None:
    settings = Settings(max_image_bytes=1024, max_video_bytes=2048)
    for kind, mime, most in (("image", "image/png", 1024), ("video", "video/mp4", 2048)):
        head = f"data:{mime};base64,"
        exact = base64.b64encode(bytes(most)).decode()
        assert read(head + exact, kind, settings) == bytes(most)  # type: ignore[arg-type]
        # Not base64 at all: the length alone decides.
        assert refused(head + "#" * 6000, kind, settings) == "media_too_large"  # type: ignore[arg-type]
