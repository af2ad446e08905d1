"""Photos and clips from the web, without opening the server's own network to strangers.

The operator names the hosts. Each address that such a name stands for must be public, and the
connection goes to the very address that was checked, so that a name cannot mean one thing when it
is checked and another when it is called. Redirects are followed by hand, each checked alike.
Proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import httpx

from facellava.errors import BadMedia, MediaTooLarge
from serve.api_errors import ApiError

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_URL: Final = 4096
# IPv6 prefixes that carry an IPv4 address, which then decides.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

logger = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to public addresses: the name is resolved, checked and called in one place."""

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a checked address of the host.

        Raises:
            ApiError: one of its addresses is not public.
            httpcore.ConnectError: it has none, or none answers.
        """
        address = await public_address(host, port)
        return await self._network.connect_tcp(
            address, port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.ConnectError("sockets of this computer are not called")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def public_address(host: str, port: int) -> str:
    """The first address of a host, once all of them are known to be public.

    Raises:
        ApiError: url_not_allowed, where one is not.
        httpcore.ConnectError: the name is unknown.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError("the name is unknown") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        logger.warning("An allowed media host resolves to an address that is not public.")
        raise ApiError("url_not_allowed", "The address of this URL is not a public one.")
    return addresses[0]


def is_public(text: str) -> bool:
    """Whether an IP address lies in the public internet, whatever it is wrapped in."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:  # with a zone, such as fe80::1%eth0: local by its nature
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def check_url(text: str, allowed_hosts: Iterable[str]) -> httpx.URL:
    """An http(s) URL of an allowed host.

    Args:
        text: the URL.
        allowed_hosts: names, or name:port where the port is not the usual one.

    Raises:
        ApiError: url_not_allowed.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise ApiError("url_not_allowed", "The URL cannot be read.") from error
    port = url.port or DEFAULT_PORTS.get(url.scheme)
    names = {url.raw_host.decode("ascii").lower(), url.host.lower()}
    if port != DEFAULT_PORTS.get(url.scheme):
        names = {f"{name}:{port}" for name in names}
    if (
        url.scheme not in DEFAULT_PORTS
        or len(text) > MAX_URL
        or url.userinfo
        or names.isdisjoint(host.lower() for host in allowed_hosts)
    ):
        raise ApiError(
            "url_not_allowed",
            "Media are not fetched from this URL; send the file as a data: URL.",
        )
    return url


class RemoteMedia:
    """Fetches media from allowed hosts.

    Args:
        allowed_hosts: names, or name:port.
        seconds: for one medium, redirects included.
        network: how connections are made; for tests.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str],
        seconds: float,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = tuple(allowed_hosts)
        self._seconds = seconds
        self._network = network or PinnedBackend()

    async def fetch(self, text: str, max_bytes: int) -> bytes:
        """The bytes behind a URL.

        Raises:
            ApiError: url_not_allowed, for the URL or one that it redirects to.
            BadMedia: it cannot be fetched in time, or the answer is no file.
            MediaTooLarge: more than `max_bytes`.
        """
        url = check_url(text, self._allowed)
        try:
            async with (
                asyncio.timeout(self._seconds),
                httpcore.AsyncConnectionPool(
                    ssl_context=ssl.create_default_context(), network_backend=self._network
                ) as pool,
            ):
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._get(pool, url, max_bytes)
                    if isinstance(answer, bytes):
                        return answer
                    url = answer
        except TimeoutError as error:
            raise BadMedia(f"The URL was not fetched within {self._seconds:g} s.") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise BadMedia("The URL cannot be fetched; check it, or send the file.") from error
        except (httpcore.UnsupportedProtocol, ssl.SSLError) as error:
            raise BadMedia("The URL cannot be fetched; check it, or send the file.") from error
        raise BadMedia(f"The URL redirects more than {MAX_REDIRECTS} times.")

    async def _get(
        self, pool: httpcore.AsyncConnectionPool, url: httpx.URL, max_bytes: int
    ) -> bytes | httpx.URL:
        """The file, or where it is said to be."""
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        headers = [
            (b"Host", url.netloc),
            (b"Accept", b"image/*, video/*"),
            (b"Accept-Encoding", b"identity"),
        ]
        async with pool.stream("GET", target, headers=headers) as response:
            told = {name.lower(): value for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in told:
                try:
                    joined = url.join(told[b"location"].decode("latin-1"))
                except (httpx.InvalidURL, ValueError, UnicodeError) as error:
                    raise ApiError("url_not_allowed", "The URL redirects to no URL.") from error
                return check_url(str(joined), self._allowed)
            if response.status != 200 or told.get(b"content-encoding", b"identity") != b"identity":
                raise BadMedia(f"The URL gave no file (status {response.status}); send the file.")
            length = told.get(b"content-length", b"0")
            if length.isdigit() and int(length[:20]) > max_bytes:
                raise _too_large(max_bytes)
            data = bytearray()
            async for piece in response.aiter_stream():
                data += piece
                if len(data) > max_bytes:
                    raise _too_large(max_bytes)
            return bytes(data)


def _too_large(max_bytes: int) -> MediaTooLarge:
    return MediaTooLarge(
        f"The file behind the URL is larger than the {max_bytes / 2**20:.0f} MiB that are taken."
    )
