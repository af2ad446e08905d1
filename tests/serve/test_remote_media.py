"""Fetching from the web: only named hosts, only public addresses, at every step of the way."""

from __future__ import annotations

import asyncio
import time

import httpcore
import pytest

from facellava.errors import BadMedia, MediaTooLarge
from serve.api_errors import ApiError
from serve.remote_media import PinnedBackend, RemoteMedia, check_url, is_public, public_address

ALLOWED = ("photos.example", "cdn.example:8080", "127.0.0.1", "localhost", "[::1]")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001::1",
        "2001:0:7f00:1::",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://photos.example/a.jpg",
        "http://PHOTOS.example/a.jpg?x=1",
        "https://photos.example:443/a.jpg",
        "http://cdn.example:8080/a.jpg",
    ],
)
def test_named_hosts_are_taken(url: str) -> None:
    assert check_url(url, ALLOWED).host in ("photos.example", "cdn.example")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.jpg",
        "https://photos.example.evil.example/a.jpg",
        "https://xphotos.example/a.jpg",
        "https://sub.photos.example/a.jpg",
        "https://photos.example@evil.example/a.jpg",
        "https://user:password@photos.example/a.jpg",
        "https://evil.example\\@photos.example/",
        "https://photos.example:22/a.jpg",
        "https://photos.example:8080/a.jpg",
        "http://cdn.example/a.jpg",
        "https://photos.example./a.jpg",
        "ftp://photos.example/a.jpg",
        "file://photos.example/etc/passwd",
        "//photos.example/a.jpg",
        "https:///a.jpg",
        "https://",
        "http://[photos.example]/",
        "https://photos.example:99999/a",
        "https://photos.example/\x00",
        "https://photos.example/\r\nX: y",
        "https://photos.example/" + "a" * 5000,
        "https://рhotos.example/a.jpg",  # a Cyrillic letter
    ],
)
def test_all_else_is_not_allowed(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_url(url, ALLOWED)
    assert caught.value.code == "url_not_allowed"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.jpg",
        "http://localhost/a.jpg",
        "http://[::1]/a.jpg",
        "https://127.0.0.1/a.jpg",
    ],
)
def test_an_allowed_name_of_a_private_address_is_refused_all_the_same(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        asyncio.run(RemoteMedia(ALLOWED, 5).fetch(url, 1000))
    assert caught.value.code == "url_not_allowed"


def test_one_private_address_among_public_ones_is_enough() -> None:
    async def two_addresses(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]

    async def look() -> str:
        asyncio.get_running_loop().getaddrinfo = two_addresses  # type: ignore[assignment,method-assign]
        return await public_address("photos.example", 443)

    with pytest.raises(ApiError):
        asyncio.run(look())


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """The second look-up of a rebinding name is never made."""
    looked_up, called = [], []

    async def rebinding(*_: object, **__: object) -> list[tuple[object, ...]]:
        looked_up.append(1)
        address = "93.184.216.34" if len(looked_up) == 1 else "127.0.0.1"
        return [(2, 1, 6, "", (address, 80))]

    class Recorder(httpcore.AsyncMockBackend):
        async def connect_tcp(self, host: str, *_: object, **__: object) -> object:  # type: ignore[override]
            called.append(host)
            return await super().connect_tcp(host, 80)

    async def fetch() -> bytes:
        asyncio.get_running_loop().getaddrinfo = rebinding  # type: ignore[assignment,method-assign]
        backend = PinnedBackend()
        backend._network = Recorder(answer(200, b"photo"))  # type: ignore[assignment]
        return await RemoteMedia(ALLOWED, 5, backend).fetch("http://photos.example/a", 1000)

    assert asyncio.run(fetch()) == b"photo"
    assert (called, len(looked_up)) == (["93.184.216.34"], 1)


def answer(status: int, body: bytes = b"", *headers: bytes) -> list[bytes]:
    length = b"Content-Length: %d" % len(body)
    lines = [b"HTTP/1.1 %d OK" % status, *(headers or [length]), b"Connection: close", b"", body]
    return [b"\r\n".join(lines)]


def fetch(
    *answers: list[bytes], url: str = "http://photos.example/a.jpg", most: int = 1000
) -> bytes:
    """Each connection gets the next answer."""
    left = iter(answers)

    class Network(httpcore.AsyncMockBackend):
        async def connect_tcp(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
            return httpcore.AsyncMockStream(list(next(left)))

    return asyncio.run(RemoteMedia(ALLOWED, 5, Network([])).fetch(url, most))


def test_a_file_is_fetched_over_redirects_between_allowed_hosts() -> None:
    there = answer(302, b"", b"Location: http://cdn.example:8080/b.jpg")
    back = answer(307, b"", b"Location: http://photos.example/c.jpg")
    relative = answer(301, b"", b"Location: d.jpg")
    assert fetch(there, back, relative, answer(200, b"photo")) == b"photo"


@pytest.mark.parametrize(
    "location",
    [
        b"http://evil.example/",
        b"http://169.254.169.254/latest/meta-data/",
        b"file:///etc/passwd",
        b"//evil.example/a.jpg",
        b"http://photos.example:22/",
        b"gopher://photos.example/",
        b"http://[/",
    ],
)
def test_each_redirect_is_checked(location: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        fetch(answer(302, b"", b"Location: " + location), answer(200, b"secret"))
    assert caught.value.code == "url_not_allowed"


def test_redirects_end() -> None:
    with pytest.raises(BadMedia, match="redirects more than 5"):
        fetch(*[answer(302, b"", b"Location: /again") for _ in range(7)])


def test_too_large_a_file_is_not_read_on() -> None:
    with pytest.raises(MediaTooLarge):
        fetch(answer(200, b"", b"Content-Length: 5000"))
    unannounced = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *([b"x" * 400] * 5)]
    with pytest.raises(MediaTooLarge):
        fetch(unannounced)


@pytest.mark.parametrize(
    "reply",
    [
        answer(404, b"no"),
        answer(500),
        answer(204),
        answer(302),
        answer(200, b"zipped", b"Content-Encoding: gzip"),
        [b"not HTTP\r\n\r\n"],
        [],
        answer(200, b"cut", b"Content-Length: 10"),
    ],
)
def test_what_is_no_file_is_said_in_our_words(reply: list[bytes]) -> None:
    with pytest.raises(BadMedia, match="^The URL "):
        fetch(reply)


def test_a_slow_host_is_given_up() -> None:
    class Silent(httpcore.AsyncMockBackend):
        async def connect_tcp(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
            await asyncio.sleep(60)
            raise AssertionError

    began = time.monotonic()
    with pytest.raises(BadMedia, match=r"within 0\.1 s"):
        asyncio.run(RemoteMedia(ALLOWED, 0.1, Silent([])).fetch("http://photos.example/a", 1000))
    assert time.monotonic() - began < 5


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(answer(200, b"photo")) == b"photo"
