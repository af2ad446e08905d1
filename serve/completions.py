"""POST /v1/chat/completions: OpenAI's contract in front, faces behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse

from facellava.conversation import EMPTY_QUESTION, Message
from facellava.errors import BadModelInput, FacellavaError
from facellava.predictor import MAX_NEW_TOKENS
from facellava.tasks import JSON_REQUEST, TASKS
from serve.api_errors import INTERNAL, ApiError, of_library
from serve.api_types import ChatMessage, ChatRequest, ImagePart, JsonFormat, TextPart, VideoPart
from serve.asking import Conversation, Desk, question_of
from serve.face_facts import attention_facts, face_facts
from serve.face_worker import Sighting
from serve.upstream import DONE

EVENT: Final = b"data: "
# What is handed to the engine as it came, where it came.
_AS_GIVEN: Final = (
    "top_p", "stop", "seed", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty",
)  # fmt: skip


class Completions:
    """Answers chat completions.

    Args:
        desk: media, engine and reading of answers.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def reply(self, request: ChatRequest) -> Response:
        """A completion, whole or as a stream.

        Raises:
            ApiError, FacellavaError: the request cannot be answered.
        """
        self._desk.upstream.check(request.model)
        if request.region_attention:
            self._desk.check_attention()
        conversation = await self._conversation(request)
        body = self._body(request, conversation)
        if request.stream:
            return await self._stream(request, conversation, body)
        try:
            reply = await self._desk.upstream.complete(body)
        except ApiError as error:
            raise _in_the_schema(request, error) from error
        [choice] = reply["choices"]
        text = choice["message"]["content"] or ""
        usage = reply["usage"]
        told: dict[str, Any] = {
            "id": reply["id"],
            "object": "chat.completion",
            "created": reply["created"],
            "model": reply["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": choice["logprobs"],
                    "finish_reason": choice["finish_reason"],
                }
            ],
            "usage": {
                name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
            },
        }
        if request.answer:
            told |= await self._read(request, conversation, text)
        return JSONResponse(told)

    async def _conversation(self, request: ChatRequest) -> Conversation:
        media = [
            (part, f"messages[{number}].content[{place}]")
            for number, message in enumerate(request.messages)
            if not isinstance(message.content, str)
            for place, part in enumerate(message.content)
            if not isinstance(part, TextPart)
        ]
        self._check_counts([part for part, _ in media])
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._sighting(part, place, request)) for part, place in media
            ]
        words = [_library_form(message) for message in request.messages]
        if not question_of(words):
            raise of_library(BadModelInput(EMPTY_QUESTION), "messages")
        if _wants_own_json(request):
            words[-1] = _asking_for_json(words[-1])
        try:
            return await self._desk.conversation(words, [look.result() for look in looks])
        except FacellavaError as error:
            raise of_library(error, "messages") from error

    def _check_counts(self, media: Sequence[ImagePart | VideoPart]) -> None:
        settings = self._desk.settings
        photos = sum(isinstance(part, ImagePart) for part in media)
        clips = len(media) - photos
        if not media:
            raise ApiError(
                "invalid_value", "The conversation shows no photo and no clip; add one.", "messages"
            )
        if photos > settings.max_images or clips > settings.max_videos:
            raise ApiError(
                "invalid_value",
                f"The conversation shows {photos} photo(s) and {clips} clip(s); allowed are "
                f"{settings.max_images} and {settings.max_videos}.",
                "messages",
            )

    async def _sighting(
        self, part: ImagePart | VideoPart, place: str, request: ChatRequest
    ) -> Sighting:
        face = "largest" if request.face is None else request.face
        try:
            if isinstance(part, ImagePart):
                seen = await self._desk.look(part.image_url.url, "image", f"{place}.image_url.url")
            else:
                seen = await self._desk.look(part.video_url.url, "video", f"{place}.video_url.url")
            [sighting] = self._desk.chosen(seen, face)
        except FacellavaError as error:
            raise of_library(error, place) from error
        return sighting

    def _body(self, request: ChatRequest, conversation: Conversation) -> dict[str, Any]:
        wanted = request.max_completion_tokens or request.max_tokens or MAX_NEW_TOKENS
        given = {name: getattr(request, name) for name in _AS_GIVEN}
        body: dict[str, Any] = {
            "model": request.model,
            "messages": conversation.turns,
            "temperature": request.temperature or 0,
            "max_completion_tokens": min(wanted, self._desk.settings.max_new_tokens),
            **{name: value for name, value in given.items() if value is not None},
            **conversation.engine_fields,
        }
        if isinstance(request.response_format, JsonFormat):
            asked = request.response_format.json_schema
            schema = TASKS[asked.name].json_schema() if asked.given is None else asked.given
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": asked.name, "schema": schema, "strict": True},
            }
        if request.stream_options is not None and request.stream_options.include_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _stream(
        self, request: ChatRequest, conversation: Conversation, body: dict[str, Any]
    ) -> Response:
        """The engine's events as they come; what it refuses is refused before the stream begins."""
        stack = AsyncExitStack()
        try:
            events = await stack.enter_async_context(self._desk.upstream.stream(body))
        except BaseException:
            await stack.aclose()
            raise
        told = self._told(request, conversation, events, stack)
        return StreamingResponse(
            told,
            media_type="text/event-stream",
            # Proxies must not collect what is meant to be read as it is written.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _told(
        self,
        request: ChatRequest,
        conversation: Conversation,
        events: AsyncIterator[bytes],
        stack: AsyncExitStack,
    ) -> AsyncIterator[bytes]:
        try:
            async with stack:
                if request.answer:
                    events = self._with_answer(request, conversation, events)
                async for event in events:
                    yield event
        except ApiError as error:
            yield _event(_in_the_schema(request, error).body)
        except FacellavaError as error:
            yield _event(of_library(error).body)

    async def _with_answer(
        self, request: ChatRequest, conversation: Conversation, events: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The events, and before the last one a chunk with answer and faces."""
        text = ""
        head: dict[str, Any] = {}
        async for event in events:
            if event != DONE:
                yield event
                chunk = json.loads(event.removeprefix(EVENT))
                head = head or {name: chunk[name] for name in ("id", "created", "model")}
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                continue
            if not head:
                raise ApiError("internal_error", INTERNAL)
            answer = await self._read(request, conversation, text)
            yield _event({**head, "object": "chat.completion.chunk", "choices": [], **answer})
            yield event

    async def _read(
        self, request: ChatRequest, conversation: Conversation, text: str
    ) -> dict[str, Any]:
        """The fields `answer` and `faces`."""
        answer = await self._desk.answer(request.model, conversation, text.strip())
        sighting = conversation.sightings[-1]
        facts = face_facts(sighting)
        if request.region_attention:
            facts["region_attention"] = attention_facts(*await self._desk.attention(sighting))
        return {"answer": answer.to_dict(), "faces": [facts]}


def _in_the_schema(request: ChatRequest, error: ApiError) -> ApiError:
    """What went wrong in the engine, where the client's own schema may be the cause.

    One that nothing can satisfy, such as a reference to itself, fails there and not when compiled.
    """
    form = request.response_format
    own = isinstance(form, JsonFormat) and form.json_schema.given is not None
    if not own or error.code != "internal_error":
        return error
    sentence = "No answer could be written that follows the schema; give a simpler one."
    return ApiError("invalid_value", sentence, "response_format")


def _event(value: dict[str, Any]) -> bytes:
    return EVENT + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _wants_own_json(request: ChatRequest) -> bool:
    """Whether a task's own schema is asked for, and the question does not say so itself."""
    form, last = request.response_format, request.messages[-1]
    if not isinstance(form, JsonFormat) or form.json_schema.given is not None:
        return False
    content = last.content
    texts = (
        [content]
        if isinstance(content, str)
        else [part.text for part in content if isinstance(part, TextPart)]
    )
    return last.role == "user" and not any("json" in text.lower() for text in texts)


def _asking_for_json(message: Message) -> Message:
    """In JSON without having been asked for it a model is where it has never been, and loses its
    thread."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{content} {JSON_REQUEST}"}
    return {**message, "content": [*content, {"type": "text", "text": f" {JSON_REQUEST}"}]}


def _library_form(message: ChatMessage) -> Message:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    kinds = {ImagePart: "image", VideoPart: "video"}
    return {
        "role": message.role,
        "content": [
            {"type": "text", "text": part.text}
            if isinstance(part, TextPart)
            else {"type": kinds[type(part)]}
            for part in message.content
        ],
    }
