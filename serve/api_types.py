"""What clients may send. Fields that we do not offer are refused by name.

What they get back is in `serve.api_answers`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from facellava.tasks import ANSWERABLE

MAX_MESSAGES: Final = 256
MAX_TEXT: Final = 100_000
MAX_SCHEMA: Final = 16 * 1024  # characters; the engine compiles it, which takes its time
CLIP_SAMPLE: Final = 8
MAX_CLIP_SAMPLE: Final = 32


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _is_text(value: Any) -> str:
    return "(text)" if isinstance(value, str) else "(parts)"


def _part_kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"({kind})" if isinstance(kind, str) else None


def _is_word(value: Any) -> str:
    return "(word)" if isinstance(value, str) else "(number)"


def _given(field: str, kind: str = "string", **more: JsonValue) -> JsonDict:
    """JSON schema: the field is there and not null."""
    return {"required": [field], "properties": {field: {"type": kind, **more}}}


def _needs(field: JsonDict, other: JsonDict) -> JsonDict:
    """JSON schema: who gives one must give the other too."""
    return {"if": field, "then": other}


def _is_true(field: str) -> JsonDict:
    """JSON schema: the field is there and true."""
    return _given(field, "boolean", const=True)


# What the validators below check, told in the document too.
_CHAT_RULES: Final[list[JsonValue]] = [
    _needs(_given("stream_options", "object"), _is_true("stream")),
    _needs(_given("top_logprobs", "integer", minimum=1), _is_true("logprobs")),
    _needs(_is_true("region_attention"), _is_true("answer")),
]
_ONE_MEDIUM: Final[JsonDict] = {"oneOf": [_given("image"), _given("video")]}
_ANALYZE_RULES: Final[list[JsonValue]] = [
    _ONE_MEDIUM,
    {"anyOf": [_given("tasks", "array", minItems=1), _given("question"), _is_true("timeline")]},
    _needs(_is_true("timeline"), _given("video")),
]

MediaUrl = Annotated[
    str,
    Field(
        min_length=5,
        description="A data: URL with base64, or an http(s) URL of a host that this server allows.",
        json_schema_extra={"pattern": "^([Dd][Aa][Tt][Aa]|[Hh][Tt][Tt][Pp][Ss]?):"},
    ),
]
FaceIndex = Annotated[int, Field(ge=0, le=10_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]
TaskName = Literal["expression", "action_units", "attributes", "age", "deepfake"]
OneFace = Annotated[
    Annotated[Literal["largest"], Tag("(word)")] | Annotated[FaceIndex, Tag("(number)")],
    Discriminator(_is_word),
]
AnyFace = Annotated[
    Annotated[Literal["largest", "all"], Tag("(word)")] | Annotated[FaceIndex, Tag("(number)")],
    Discriminator(_is_word),
]


class TextPart(_Request):
    """Words."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_TEXT)]


class ImageLink(_Request):
    """Where a photo is. `detail` is accepted and not used."""

    url: MediaUrl
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Request):
    """A photo, or a crop that /v1/faces gave."""

    type: Literal["image_url"]
    image_url: ImageLink


class VideoLink(_Request):
    """Where a clip is."""

    url: MediaUrl


class VideoPart(_Request):
    """A clip, or a person's crops that /v1/faces gave."""

    type: Literal["video_url"]
    video_url: VideoLink


Part = Annotated[
    Annotated[TextPart, Tag("(text)")]
    | Annotated[ImagePart, Tag("(image_url)")]
    | Annotated[VideoPart, Tag("(video_url)")],
    Discriminator(
        _part_kind,
        custom_error_type="facellava.part",
        custom_error_message="A part's type must be text, image_url or video_url.",
    ),
]


class ChatMessage(_Request):
    """A turn of the conversation.

    What OpenAI's client and Gradio add to the answers that they send back is accepted as null.
    """

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Annotated[str, Field(max_length=MAX_TEXT), Tag("(text)")]
        | Annotated[list[Part], Field(min_length=1, max_length=64), Tag("(parts)")],
        Discriminator(_is_text),
    ]
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    metadata: None = None
    options: None = None

    @model_validator(mode="after")
    def _media_are_the_users(self) -> ChatMessage:
        media = not isinstance(self.content, str) and any(
            not isinstance(part, TextPart) for part in self.content
        )
        if media and self.role != "user":
            raise PydanticCustomError(
                "facellava.media", "Photos and clips belong into a user's message."
            )
        return self


class StreamOptions(_Request):
    """What a stream carries beside the words."""

    include_usage: bool | None = None


class TextFormat(_Request):
    """Prose."""

    type: Literal["text"]


class JsonSchema(_Request):
    """A schema, or a task's name alone, which stands for that task's schema."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    description: Annotated[str, Field(max_length=1000)] | None = None
    # `schema` is a method of pydantic's models.
    given: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _known_without_schema(self) -> JsonSchema:
        if self.given is None and self.name not in ANSWERABLE:
            raise PydanticCustomError(
                "facellava.schema",
                "Give a schema, or name one of the tasks that have one: {tasks}.",
                {"tasks": ", ".join(ANSWERABLE)},
            )
        if self.given is not None and len(json.dumps(self.given)) > MAX_SCHEMA:
            raise PydanticCustomError(
                "facellava.schema_size",
                "A schema may have up to {size} characters.",
                {"size": MAX_SCHEMA},
            )
        return self


class JsonFormat(_Request):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("(text)")] | Annotated[JsonFormat, Tag("(json_schema)")],
    Discriminator(
        _part_kind,
        custom_error_type="facellava.format",
        custom_error_message="response_format's type must be text or json_schema.",
    ),
]


def _one_or_many(value: Any) -> str:
    return "(list)" if isinstance(value, list) else "(word)"


StopWord = Annotated[str, Field(min_length=1, max_length=200)]


class ChatRequest(_Request):
    """OpenAI's chat completions, and what faces need beyond them: `face`, `answer` ...

    Fields of the conversation's end come last. `user`, `metadata` and `store` are accepted and not
    used. null is the same as leaving a field out.
    """

    model_config = ConfigDict(json_schema_extra={"allOf": _CHAT_RULES})

    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    n: Literal[1] | None = None
    stop: (
        Annotated[
            Annotated[StopWord, Tag("(word)")]
            | Annotated[list[StopWord], Field(max_length=4), Tag("(list)")],
            Discriminator(_one_or_many),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    store: bool | None = None
    face: OneFace | None = None
    answer: bool | None = None
    region_attention: bool | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "facellava.stream_options", "stream_options needs stream to be true."
            )
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError(
                "facellava.top_logprobs", "top_logprobs needs logprobs to be true."
            )
        if self.region_attention and not self.answer:
            raise PydanticCustomError(
                "facellava.region_attention", "region_attention needs answer to be true."
            )
        return self


class _MediumRequest(_Request):
    image: MediaUrl | None = None
    video: MediaUrl | None = None

    @model_validator(mode="after")
    def _one_medium(self) -> _MediumRequest:
        if (self.image is None) == (self.video is None):
            raise PydanticCustomError("facellava.medium", "Give exactly one of image and video.")
        return self


class FacesRequest(_MediumRequest):
    """Which faces a photo or clip shows."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [_ONE_MEDIUM, _needs(_given("frames", "integer"), _given("video"))]
        }
    )

    frames: Annotated[int, Field(ge=1, le=MAX_CLIP_SAMPLE)] | None = Field(
        default=None, description=f"Of a clip, {CLIP_SAMPLE} where left out."
    )
    measurements: bool | None = Field(default=None, description="true where left out.")
    crops: bool | None = Field(default=None, description="true where left out.")

    @model_validator(mode="after")
    def _frames_of_clips(self) -> FacesRequest:
        if self.frames is not None and self.video is None:
            raise PydanticCustomError("facellava.frames", "frames belongs to a video.")
        return self


class AnalyzeRequest(_MediumRequest):
    """Several tasks, or a question, about one or all faces of a photo or clip."""

    model_config = ConfigDict(json_schema_extra={"allOf": _ANALYZE_RULES})

    model: ModelName
    tasks: (
        Annotated[
            list[TaskName],
            Field(max_length=len(ANSWERABLE), json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None
    question: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    face: AnyFace | None = None
    region_attention: bool | None = None
    timeline: bool | None = Field(
        default=None, description="Of a video: its expressions over time."
    )

    @model_validator(mode="after")
    def _something_is_asked(self) -> AnalyzeRequest:
        if not self.tasks and self.question is None and not self.timeline:
            raise PydanticCustomError(
                "facellava.nothing", "Give tasks, a question, or timeline with a video."
            )
        if self.tasks and len(set(self.tasks)) != len(self.tasks):
            raise PydanticCustomError("facellava.tasks", "tasks names a task twice.")
        if self.timeline and self.video is None:
            raise PydanticCustomError("facellava.timeline", "timeline needs a video.")
        return self
