"""What clients get back: the shapes of our JSON, from which the OpenAPI document is made.

Coordinates are (x, y) in photo pixels, boxes (x0, y0, x1, y1); left and right are the person's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFacts(_Reply):
    """One sentence, and what a program needs to know of the error."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(_Reply):
    """Every error has this shape."""

    error: ErrorFacts


class Health(_Reply):
    """Whether questions are answered now."""

    status: Literal["ready"]


class ModelCard(_Reply):
    """A model, or an adapter of it, that may be named in requests."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["facellava"] = "facellava"


class ModelList(_Reply):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Usage(_Reply):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


class MeasuredValue(_Reply):
    """One quantity of a face; without a value, the note says why."""

    value: float | None
    unit: str
    note: str


class FrameFace(_Reply):
    """A person's face in one frame of a clip."""

    second: float
    box: Box
    score: float
    source: str
    weak: bool
    landmarks: Annotated[list[Point], Field(min_length=68, max_length=68)]


class Dropped(_Reply):
    """A frame in which a person has no usable face."""

    seconds: float
    reason: str


class RegionAttentionMap(_Reply):
    """How much the image tokens look at each face region.

    `map` has a row a token, row by row of the grid (height, width), and a column a region;
    `weights` is its mean.
    """

    regions: list[str]
    weights: list[float]
    grid: tuple[int, int]
    map: list[list[float]]


class FaceFacts(_Reply):
    """A face; of a clip a person, with the values of the frame of strongest expression."""

    index: int
    box: Box
    score: float
    source: str
    weak: bool
    landmarks: Annotated[list[Point], Field(min_length=68, max_length=68)]
    crop: str | None = Field(default=None, description="A data: URL to be used as a medium again.")
    measurements: dict[str, MeasuredValue] | None = None
    seconds: list[float] | None = Field(default=None, description="Clips: when each frame is.")
    frames: list[FrameFace] | None = Field(default=None, description="Clips: each frame's face.")
    dropped: list[Dropped] | None = Field(
        default=None, description="Clips: frames without this face."
    )
    region_attention: RegionAttentionMap | None = None


class ImageFacts(_Reply):
    """The photo; a crop that was sent does not know its photo's size."""

    kind: Literal["image"] = "image"
    width: int | None
    height: int | None


class VideoFacts(_Reply):
    """The clip, and when the frames looked at are; complete is false where its end is damaged."""

    kind: Literal["video"] = "video"
    duration: float
    seconds: list[float]
    complete: bool


Media = Annotated[ImageFacts | VideoFacts, Field(discriminator="kind")]


class FacesReply(_Reply):
    """The faces, the largest first."""

    object: Literal["faces"] = "faces"
    media: Media
    faces: list[FaceFacts]


class Probabilities(_Reply):
    """By label: as the model gives them, and with the checkpoint's temperature."""

    raw: dict[str, float]
    calibrated: dict[str, float]


class EvidenceFacts(_Reply):
    """A claim of the answer, measured again on its face."""

    claim: str
    phrase: str
    span: tuple[int, int]
    regions: list[str]
    measurement: str
    value: float | None
    unit: str
    threshold: float
    direction: int
    width: float
    dead_band: float
    verdict: Literal["supported", "contradicted", "unmeasurable"]
    note: str


class AskedFace(_Reply):
    """Which face an answer is about."""

    index: int
    box: Box
    score: float
    source: str
    weak: bool


class AnswerFacts(_Reply):
    """One answer about one face."""

    question: str
    task: str | None
    label: str | int | list[str] | dict[str, bool] | None
    text: str
    explanation: str
    probabilities: Probabilities
    evidence: list[EvidenceFacts]
    weak: bool
    unreadable: str | None
    face: AskedFace


class Timeline(_Reply):
    """One person's expression, frame after frame."""

    face: int
    task: Literal["expression"] = "expression"
    seconds: list[float]
    labels: list[str]
    probabilities: dict[str, list[float]]


class AnalysisReply(_Reply):
    """Answers face by face, task by task."""

    object: Literal["analysis"] = "analysis"
    model: str
    media: Media
    faces: list[FaceFacts]
    answers: list[AnswerFacts]
    timelines: list[Timeline]
    usage: Usage


class ChatUsage(Usage):
    """Tokens of a completion."""

    total_tokens: int


class ChatReplyMessage(_Reply):
    """The model's words."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None


class ChatChoice(_Reply):
    """The one choice."""

    index: Literal[0] = 0
    message: ChatReplyMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatReply(_Reply):
    """OpenAI's chat completion; `answer` and `faces` where `answer` was asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: Annotated[list[ChatChoice], Field(min_length=1, max_length=1)]
    usage: ChatUsage
    answer: AnswerFacts | None = None
    faces: list[FaceFacts] | None = None
