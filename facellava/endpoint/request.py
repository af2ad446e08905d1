"""What is asked of an OpenAI-compatible endpoint, and what its reply says.

A request is known by the hash of all that decides its reply: model, messages with their pictures,
parameters, schema. The address and the key are no part of it, so a model may move.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from facellava.errors import FacellavaError
from facellava.tasks.prose import clean_json

KEY_VERSION: Final = 1  # a change makes every cached reply a stranger
_LONGEST_DETAIL: Final = 200

Message = Mapping[str, Any]
Form = TypeVar("Form", bound=BaseModel)
Reason = Literal[
    "refused", "not the asked-for JSON", "cut off", "no content", "rejected", "endpoint failed"
]


@dataclass(frozen=True)
class EndpointSettings:
    """One model behind one address, and how it is asked.

    Attributes:
        base_url: of the API, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1.
        model: its name there.
        api_key: None to read it from the environment; local servers want none.
        api_key_env: the variable that holds the key.
        concurrency: requests under way at once.
        requests_per_minute: None for no limit.
        timeout: seconds for one whole reply.
        patience: seconds for which one request is tried while the endpoint fails or limits us.
        first_wait: seconds before the first new try, about doubled before each further one.
        longest_wait: the most seconds between two tries, unless the endpoint asks for more.
        failed_tries: failures of one request after which the endpoint is asked a word: if it
            answers, the fault is the request's, else the endpoint is waited for.
        attempts: paid replies to one request until one is usable.
        max_tokens: of a reply; doubled after a reply that was cut off.
        image_tokens: tokens of one picture, an assumption for costs: endpoints differ much.
        parameters: more of the request, such as {"temperature": 0.7}, or {"max_tokens": 1024} for a
            server that does not know max_completion_tokens.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout: float = 120.0
    patience: float = 7200.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    failed_tries: int = 8
    attempts: int = 3
    max_tokens: int = 1024
    image_tokens: int = 300
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):
            raise FacellavaError(
                f"'{self.base_url}' is no address of an endpoint; give one such as "
                "http://127.0.0.1:8000/v1."
            )
        if not self.model.strip():
            raise FacellavaError(
                "The name of the endpoint's model is empty; give the model's name."
            )
        for name in ("concurrency", "timeout", "failed_tries", "attempts", "max_tokens"):
            if getattr(self, name) <= 0:
                raise FacellavaError(f"The {name} is {getattr(self, name)}; it must be above 0.")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise FacellavaError("The requests per minute must be above 0; leave them out for all.")

    @property
    def key(self) -> str:
        """The API key, empty where there is none."""
        return self.api_key or os.environ.get(self.api_key_env, "")

    @property
    def host(self) -> str:
        """The host in the address."""
        return urlsplit(self.base_url).hostname or ""

    def decides(self) -> dict[str, Any]:
        """What decides the replies, for manifests: no address and no key."""
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "attempts": self.attempts,
            "parameters": dict(self.parameters),
        }


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a bracket that cannot be
        return False


def message(text: str, pictures: Sequence[bytes] = (), role: str = "user") -> Message:
    """A turn: JPEG pictures first, as they are stored, then the text."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_base64(picture)}"}}
        for picture in pictures
    ]
    parts.append({"type": "text", "text": text})
    return {"role": role, "content": parts if pictures else text}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True)
class Request:
    """A request ready to be sent.

    Attributes:
        body: what goes to the endpoint, without the limit of tokens.
        key: the content's hash.
        text_bytes: of words and schema in UTF-8; no tokenizer makes more tokens of them.
        pictures: how many.
    """

    body: Mapping[str, Any]
    key: str
    text_bytes: int
    pictures: int

    def most_input_tokens(self, settings: EndpointSettings) -> int:
        """Tokens that the endpoint counts at most, if a picture counts as assumed."""
        return self.text_bytes + self.pictures * settings.image_tokens


def request_of(
    settings: EndpointSettings, messages: Sequence[Message], schema: type[BaseModel] | None
) -> Request:
    """The request for a reply of that form, or for free text where the schema is None."""
    body: dict[str, Any] = {"model": settings.model, "messages": list(messages)}
    schema_text = ""
    if schema is not None:
        form = schema.model_json_schema()
        schema_text = json.dumps(form)
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": schema.__name__, "schema": form, "strict": True},
        }
    decisive = {
        "version": KEY_VERSION,
        "parameters": dict(settings.parameters),
        "max_tokens": settings.max_tokens,
        **body,
    }
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    words, pictures = _words_and_pictures(messages)
    return Request(
        body=body,
        key=hashlib.sha256(text.encode()).hexdigest(),
        text_bytes=len(f"{words}{schema_text}".encode()),
        pictures=pictures,
    )


def _words_and_pictures(messages: Sequence[Message]) -> tuple[str, int]:
    words, pictures = [], 0
    for turn in messages:
        content = turn["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            words.append(part.get("text", ""))
            pictures += part["type"] != "text"
        words.append(f"<|{turn['role']}|>  ")  # what a chat template adds
    return "\n".join(words), pictures


@dataclass(frozen=True)
class Usage:
    """Tokens of a request and its reply; the cached ones are among the input."""

    input: int
    cached: int
    output: int


@dataclass(frozen=True)
class Reply:
    """What came back, as it is cached: text that may be anything, and what it cost."""

    model: str
    text: str
    finish: str
    refusal: str
    usage: Usage
    dollars: float


@dataclass(frozen=True)
class Failure:
    """No usable reply: why, in a word to count by, and in detail.

    The first four reasons are about replies that were paid for. "rejected": the endpoint does not
    take the request. "endpoint failed": it fails at this request and answers others.
    """

    reason: Reason
    detail: str = ""


_REFUSAL: Final = re.compile(
    r"\W*(?:(?:i'?m|i am) (?:very |really |truly )?sorry|sorry\b|i apologi[sz]e"
    r"|(?:i|we) (?:can(?:no|')t|can not|won't|will not|must decline|am unable|am not able)"
    r"|(?:i'm|we are) (?:unable|not able)|as an ai\b)",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether the text opens as refusals do."""
    return _REFUSAL.match(text.replace("\u2019", "'")) is not None


def read_text(reply: Reply) -> str | Failure:
    """The reply as free text."""
    if reply.refusal or reply.finish == "content_filter":
        return Failure("refused", reply.refusal[:_LONGEST_DETAIL] or reply.finish)
    if reply.finish == "length":
        return Failure("cut off", reply.text[-_LONGEST_DETAIL:])
    return reply.text if reply.text.strip() else Failure("no content", reply.finish)


def read_form(reply: Reply, schema: type[Form]) -> Form | Failure:
    """The reply as the asked-for form; a Markdown fence around it is no fault."""
    try:
        return schema.model_validate_json(clean_json(reply.text))
    except ValidationError as error:
        text = read_text(reply)
        if isinstance(text, Failure):
            return text
        if refuses(text):
            return Failure("refused", text[:_LONGEST_DETAIL])
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(place) for place in first["loc"]) or "reply"
        return Failure("not the asked-for JSON", f"{where}: {first['msg']}"[:_LONGEST_DETAIL])
