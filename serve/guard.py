"""The outermost layers: a name for each request, whom it may come from, what is logged.

Logs hold method, path, status and time: no contents, no keys, no query.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
import time
import uuid
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api_errors import INTERNAL, ApiError, log_internal
from serve.settings import Settings

HEALTH: Final = "/health"
CHAT: Final = "/chat"
API: Final = ("/v1/", "/health", "/openapi.json")
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# How long a refused body is read on, in all and without anything arriving.
LINGER_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 2.0

logger = logging.getLogger(__name__)


class Announced:
    """Gives each request an id, logs it, and answers for whatever fails inside.

    A client's own X-Request-Id is kept where it is short and plain. After an error the connection
    ends, but for GET and HEAD, and what is left of the body is read away first: a connection that
    is closed on unread bytes is reset, and the client never sees the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = name
        began, status = time.monotonic(), 0
        whole = refused = lingers = False

        async def read() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def named(message: Message) -> None:
            nonlocal status, refused, lingers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = name
                headers["X-Content-Type-Options"] = "nosniff"
                refused = status >= 400 and scope["method"] not in ("GET", "HEAD")
                if refused:
                    headers["Connection"] = "close"
            elif refused and not whole and not message.get("more_body", False):
                # The client has the whole answer, and the end of it ends the connection.
                message, lingers = {**message, "more_body": True}, True
            await send(message)

        try:
            await self.app(scope, read, named)
        except Exception as error:
            log_internal(name, error)
            if not status:
                await ApiError("internal_error", INTERNAL).response()(scope, read, named)
        finally:
            logger.info(
                "%s %s %s %d %.0f ms",
                name,
                scope["method"],
                _plain(scope["path"]),
                status,
                1000 * (time.monotonic() - began),
            )
        if lingers:
            # A server that stops ends this early; the client has its answer.
            with suppress(asyncio.CancelledError):
                await _read_away(receive)
            await send({"type": "http.response.body"})


async def _read_away(receive: Receive) -> None:
    """Take what is left of a body, unless its client falls silent or never ends."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await asyncio.wait_for(receive(), SILENT_SECONDS)).get("more_body", False):
                pass


def _plain(path: str) -> str:
    """A path for one line of a log."""
    return re.sub(r"[^\x21-\x7e]", "?", path[:100])


class Guarded:
    """Lets in requests to a name that is ours, with the key where there is one.

    The Host header is checked where the server is bound to loopback: a page from the web that has
    its own name resolve to 127.0.0.1 (DNS rebinding) cannot talk to it. The API takes the key as
    a bearer token; the chat page, which people open in browsers, as the password of HTTP Basic.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        key = settings.api_key
        self._key = None if key is None else key.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or web socket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal.response()(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, path: str, headers: Headers) -> ApiError | None:
        if self.settings.loopback and not _is_local(headers, self.settings.local_names):
            return ApiError(
                "invalid_value",
                "The Host header is not a name of this server; call it by localhost.",
                "Host",
            )
        if self._key is None or path == HEALTH:
            return None
        page = path in ("/", CHAT) or path.startswith(f"{CHAT}/")
        given = _credential(headers.get("authorization", ""), "basic" if page else "bearer")
        if given is not None and hmac.compare_digest(given, self._key):
            return None
        how = 'Basic realm="facellava", charset="UTF-8"' if page else "Bearer"
        return ApiError(
            "invalid_api_key",
            "The API key is missing or wrong; give it as the password, with any name."
            if page
            else "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'.",
            headers={"WWW-Authenticate": how},
        )


def _is_local(headers: Headers, names: frozenset[str]) -> bool:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return False
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d{1,5})?", hosts[0].strip().lower())
    return found is not None and found[1].strip("[]") in names


def _credential(header: str, scheme: str) -> bytes | None:
    """The key inside an Authorization header of the scheme."""
    kind, _, value = header.partition(" ")
    if kind.lower() != scheme:
        return None
    if scheme == "bearer":
        return value.strip().encode("latin-1", "replace")
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return None
