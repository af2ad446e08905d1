"""The chat's door to the server: the public API, and every failure of it as one sentence."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

import httpx
import openai
from pydantic import BaseModel, ValidationError

from facellava.errors import BadMedia, FacellavaError
from serve.chat_replies import Analysis, Found, JsonObject, Reply, Timeline

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 180.0  # between two pieces of a reply; a full queue may take minutes
SEARCHED_FRAMES: Final = 20
"""Frames of a clip that are searched, for its timeline: an odd multiple of those that are asked
about, so that evenly spread ones are among them, and no more than a timeline may have. The library
looks at fewer, so that it may show another frame beside these."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
UNREADABLE: Final = ("bad_media", "media_too_large", "unsupported_media")

Kind = Literal["image", "video"]
Parsed = TypeVar("Parsed", bound=BaseModel)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Told:
    """The end of a reply: what stands behind its words.

    Attributes:
        reply: what the page shows.
        json: the same, and all else that the API said, as it came.
    """

    reply: Reply
    json: JsonObject


class ChatApi:
    """A client of one server. To be used from one event loop, by any number of users."""

    def __init__(self, address: str, key: str | None = None) -> None:
        """Nothing is sent yet.

        Args:
            address: of the API, such as http://127.0.0.1:8000/v1.
            key: of the API; None where it wants none.

        Raises:
            FacellavaError: the address is none.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FacellavaError(
                f"'{address}' is no address of a server; give one such as http://127.0.0.1:8000/v1."
            )
        self.address = address.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=f"{self.address}/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            # A proxy for the outside does not reach this computer.
            trust_env=parts.hostname not in LOOPBACK,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        )
        self._attention = True  # until the server says that it does not tell it
        self._client = openai.AsyncOpenAI(
            base_url=self.address,
            api_key=key or "none",
            # Newer versions of openai name another client here and take this one too.
            http_client=cast(Any, self._http),
            max_retries=0,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    async def models(self) -> list[str]:
        """The names of the model and of its adapters.

        Raises:
            FacellavaError: the server does not answer, or has none.
        """
        with self._troubles():
            page = await self._client.models.list()
        names = [model.id for model in page.data]
        if not names:
            raise FacellavaError(f"The server at {self.address} offers no model.")
        return names

    async def faces(self, kind: Kind, url: str) -> Found:
        """The faces of a photo, or the persons of a clip.

        Args:
            kind: "image" or "video".
            url: data URL of the file.

        Raises:
            FacellavaError: the file is of no use, or the server does not answer.
        """
        body: JsonObject = {kind: url, "measurements": False}
        if kind == "video":
            body["frames"] = SEARCHED_FRAMES
        return await self._post("faces", body, Found)

    async def timeline(self, model: str, clip: str) -> Timeline:
        """The expression of a clip's person over time.

        Args:
            model: its name.
            clip: data URL of the person's faces, as :meth:`faces` gave it.

        Raises:
            FacellavaError: it cannot be asked, or the server does not answer.
        """
        body: JsonObject = {"model": model, "video": clip, "tasks": [], "timeline": True}
        analysis = await self._post("analyze", body, Analysis)
        if not analysis.timelines:
            raise self._foreign()
        return analysis.timelines[0]

    async def ask(
        self,
        model: str,
        kind: Kind,
        crop: str,
        question: str,
        history: Sequence[tuple[str, str]] = (),
    ) -> AsyncGenerator[str | Told, None]:
        """An answer's words piece by piece, then what stands behind them.

        A reader that leaves (`aclose`, or a cancelled task) ends the request.

        Args:
            model: its name.
            kind: what the crop shows.
            crop: data URL of a face or of a person's faces.
            question: about it.
            history: earlier turns about it, question and answer.

        Raises:
            FacellavaError: it cannot be asked, or the server does not answer.
        """
        with self._troubles():
            messages = _messages(kind, crop, question, history)
            try:
                stream = await self._begin(model, messages)
            except openai.BadRequestError as error:
                if not self._attention or error.param != "region_attention":
                    raise
                self._attention = False
                stream = await self._begin(model, messages)
            async with stream:
                told = None
                async for chunk in stream:
                    for choice in chunk.choices:
                        if choice.delta.content:
                            yield choice.delta.content
                    extra = chunk.model_extra or {}
                    if "answer" in extra:
                        told = self._told(model, extra)
        if told is None:
            raise self._foreign()
        yield told

    async def _begin(self, model: str, messages: list[Any]) -> openai.AsyncStream[Any]:
        return await self._client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            extra_body={"answer": True, "region_attention": self._attention},
        )

    def _told(self, model: str, extra: JsonObject) -> Told:
        plain: JsonObject = {"model": model, "answer": extra["answer"], "faces": extra.get("faces")}
        return Told(self._read(plain, Reply), plain)

    async def _post(self, route: str, body: JsonObject, kind: type[Parsed]) -> Parsed:
        """Files are large: what is done with their text is no work for the event loop."""
        content = await asyncio.to_thread(lambda: json.dumps(body).encode())
        with self._troubles():
            response = await self._http.post(
                route, content=content, headers={"Content-Type": "application/json"}
            )
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        return await asyncio.to_thread(lambda: self._read(response.content, kind))

    def _read(self, said: bytes | JsonObject, kind: type[Parsed]) -> Parsed:
        try:
            if isinstance(said, bytes):
                return kind.model_validate_json(said)
            return kind.model_validate(said)
        except ValidationError as error:
            logger.warning("%s does not fit what was asked: %s", self.address, error)
            raise self._foreign() from error

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Failures of the clients as sentences."""
        begun = time.monotonic()
        try:
            yield
        except openai.APIStatusError as error:
            # The client was given httpx's, so that is whose response it is.
            raise self._refusal(cast(httpx.Response, error.response)) from error
        except (openai.APITimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
            if isinstance(error.__cause__, httpx.ConnectTimeout):
                raise self._silence() from error
            raise FacellavaError(
                f"The server at {self.address} said nothing for "
                f"{time.monotonic() - begun:.0f} seconds; ask again later."
            ) from error
        except (openai.APIConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._silence() from error
        except httpx.TransportError as error:
            raise FacellavaError(
                f"The server at {self.address} broke off before the end; ask again."
            ) from error
        except openai.APIError as error:
            # An error in the middle of a stream.
            raise FacellavaError(_sentence(error.body) or str(error.message)) from error

    def _silence(self) -> FacellavaError:
        return FacellavaError(
            f"The server at {self.address} does not answer; start it with 'facellava serve', or "
            "name another one with --api."
        )

    def _foreign(self) -> FacellavaError:
        return FacellavaError(
            f"The server at {self.address} does not speak as facellava's does; see that the "
            "address ends in /v1 and that both are of the same version."
        )

    def _refusal(self, response: httpx.Response) -> FacellavaError:
        """The sentence for a status that is no success."""
        match response.status_code:
            case 429:
                return FacellavaError(f"The server is busy; try again {_when(response)}.")
            case 503:
                return FacellavaError(
                    f"The server is starting or restarting; try again {_when(response)}."
                )
            case 401:
                return FacellavaError(
                    f"The server at {self.address} wants another API key; give it with --api-key."
                )
            case status:
                try:
                    said = _sentence(response.json())
                except (ValueError, httpx.ResponseNotRead):
                    said = ""
                logger.warning("%s answered %d: %s", response.url, status, said)
                if said and _code(response.json()) in UNREADABLE:
                    return BadMedia(said)
                return FacellavaError(said) if said else self._foreign()


def _when(response: httpx.Response) -> str:
    after = response.headers.get("retry-after", "")
    return f"in {after} s" if after.isdecimal() else "in a moment"


def _sentence(body: object) -> str:
    """The message in a body of OpenAI's error form, else ""."""
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return message if isinstance(message, str) else ""


def _code(body: object) -> object:
    """The code in a body of OpenAI's error form."""
    inner = body.get("error") if isinstance(body, dict) else None
    return inner.get("code") if isinstance(inner, dict) else None


def _messages(
    kind: Kind, crop: str, question: str, history: Sequence[tuple[str, str]]
) -> list[Any]:
    """The conversation in OpenAI's form, the crop in its first turn."""
    shown: JsonObject = {"type": f"{kind}_url", f"{kind}_url": {"url": crop}}
    messages: list[Any] = []
    for asked, answered in (*history, (question, None)):
        words = {"type": "text", "text": asked}
        messages.append({"role": "user", "content": [words] if messages else [shown, words]})
        if answered is not None:
            messages.append({"role": "assistant", "content": answered})
    return messages
