"""A conversation with faces in it: as the engine takes it, and what its answers are checked with.

The text is made by the library's `flatten_turns` and sent with its placeholders in place, so that
the engine renders what the library renders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from facellava.answer import Answer, measured_face, read_answer, verdict_of
from facellava.conversation import Message, flatten_turns, item_kinds
from facellava.errors import FacellavaError, NoFaceFound
from facellava.evidence import supported_claims
from facellava.face_encoder import FaceEncoder
from facellava.faces import measure
from facellava.faces.face_png import data_url
from facellava.faces.measurements import Measurement
from facellava.faces.shown_frames import looked_at
from facellava.held_reasons import HELD_KEY
from facellava.predictor import CLIP_FRAMES, choose
from facellava.processor import FaceLlavaProcessor
from facellava.tasks import Verdict
from serve.api_errors import ApiError, of_library
from serve.face_pool import FacePool
from serve.face_worker import Seen, Sighting
from serve.intake import Intake, Kind
from serve.scoring import Scorer
from serve.settings import Settings
from serve.upstream import Upstream

FaceChoice = Literal["largest", "all"] | int
# Tokenizing more than this many characters is not done between other requests' chunks.
QUICK_TEXT: Final = 4096


@dataclass(frozen=True)
class Conversation:
    """What the engine is asked.

    Attributes:
        turns: messages in the engine's form.
        sightings: the face or person of each photo and clip, in order.
        question: the user's last words.
        measurements: of the last sighting, which the question is about; None where no reasons are
            wanted.
        free_reasons: the answer may give reasons that these do not support.
    """

    turns: list[dict[str, Any]]
    sightings: list[Sighting]
    question: str
    measurements: Mapping[str, Measurement] | None = None
    free_reasons: bool = False

    @property
    def engine_fields(self) -> dict[str, Any]:
        """What else the engine is told: which claims it may make."""
        if self.measurements is None or self.free_reasons:
            return {}
        return {"vllm_xargs": {HELD_KEY: sorted(supported_claims(self.measurements))}}


class Desk:
    """What every route needs: media in, conversations made, answers read.

    Args:
        upstream: the engine.
        processor: of the checkpoint.
        face_encoder: of the checkpoint, for region attention.
        settings: limits.
    """

    def __init__(
        self,
        upstream: Upstream,
        processor: FaceLlavaProcessor,
        face_encoder: FaceEncoder,
        settings: Settings,
    ) -> None:
        self.upstream, self.settings = upstream, settings
        self.pool, self.intake = FacePool(settings), Intake(settings)
        self.scorer = Scorer(upstream, processor.tokenizer)
        self._processor, self._face_encoder = processor, face_encoder
        self._config = face_encoder.config
        self._encoding = asyncio.Semaphore(1)

    async def look(self, url: str, kind: Kind, param: str, frames: int | None = None) -> Seen:
        """What a medium shows; of a clip, in the frames that the library would ask about.

        Args:
            url: of the medium.
            kind: what it is.
            param: where it stands in the request.
            frames: of a clip, so many evenly spaced ones instead, and all of them.

        Raises:
            ApiError: the URL is not opened.
            FacellavaError: the medium cannot be used.
        """
        data = await self.intake.read(url, kind, param)
        if kind == "image":
            return await self.pool.photo(data)
        if frames is not None:
            return await self.pool.clip(data, frames, frames)
        shown = self._processor.clip_frames or CLIP_FRAMES
        return await self.pool.clip(data, looked_at(shown), shown)

    def chosen(self, seen: Seen, face: FaceChoice) -> list[Sighting]:
        """The faces that were asked for.

        Raises:
            NoFaceFound: there are none.
            ApiError: there is none of that number.
        """
        if not seen.sightings:
            raise NoFaceFound(seen.nothing)
        by_index = {sighting.index: sighting for sighting in seen.sightings}
        try:
            faces = choose([sighting.face for sighting in seen.sightings], face)
        except FacellavaError as error:
            raise of_library(error, "face") from error
        return [by_index[found.index] for found in faces]

    async def conversation(
        self,
        messages: Sequence[Message],
        sightings: Sequence[Sighting],
        *,
        with_reasons: bool = True,
    ) -> Conversation:
        """Messages in the library's form, and a face for each of their photos and clips.

        Args:
            messages: the turns.
            sightings: of their media, in order.
            with_reasons: an answer is to be written, and not only its label's probability read.

        Raises:
            BadModelInput: turns out of order, or text that cannot be escaped.
        """
        length = sum(len(text) for message in messages for text in _texts(message))
        if length > QUICK_TEXT:
            flat = await asyncio.to_thread(flatten_turns, messages, self._processor.escape)
        else:
            flat = flatten_turns(messages, self._processor.escape)
        left = iter(sightings)
        turns = []
        for message, turn in zip(messages, flat, strict=True):
            media = [_media_part(next(left)) for _ in item_kinds([message])]
            words = {"type": "text", "text": turn["content"]}
            turns.append({**turn, "content": [words, *media] if media else turn["content"]})
        question = question_of(messages)
        measurements = None
        if with_reasons:
            # Measuring takes some milliseconds, in which others are served.
            measurements = await asyncio.to_thread(measure, measured_face(sightings[-1].item))
        return Conversation(
            turns, list(sightings), question, measurements, self.settings.free_reasons
        )

    async def answer(self, model: str, conversation: Conversation, text: str) -> Answer:
        """The model's words with verdict, probabilities and checked evidence.

        They are about the conversation's last photo or clip.

        Raises:
            ApiError: the engine fails.
        """
        verdict = verdict_of(text)
        table: dict[str, float] = {}
        if isinstance(verdict, Verdict):
            table = await self.scorer.table(model, conversation.turns, verdict)
        return read_answer(
            conversation.question,
            text,
            verdict,
            conversation.sightings[-1].item,
            table,
            self._config.calibration,
            conversation.measurements,
        )

    def check_attention(self) -> None:
        """Refuse where region attention is not offered.

        Raises:
            ApiError: invalid_value.
        """
        if not self.settings.region_attention:
            raise ApiError(
                "invalid_value",
                "This server does not give region attention; leave the field out.",
                "region_attention",
            )

    async def attention(self, sighting: Sighting) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Region attention (N, 9) of a face, heads averaged, and the grid (height, width)."""
        self.check_attention()
        async with self._encoding:
            attention = await asyncio.to_thread(self._attend, sighting)
        height, width = self._config.image_grid
        return attention, (height, width)

    @torch.inference_mode()
    def _attend(self, sighting: Sighting) -> NDArray[np.float32]:
        encoded = self._processor.encode_faces([sighting.face])
        features = self._face_encoder.encode_pixels(encoded["pixel_values"])
        attention = self._face_encoder(features, encoded["landmarks"]).attention
        return np.asarray(attention[0].float().mean(dim=0), np.float32)


def question_of(messages: Sequence[Message]) -> str:
    """The user's last words; empty where there are none."""
    asked = [message for message in messages if message["role"] == "user"]
    return "".join(_texts(asked[-1])).strip() if asked else ""


def _texts(message: Message) -> list[str]:
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def _media_part(sighting: Sighting) -> Mapping[str, Any]:
    clip = sighting.seconds is not None
    kind = "video_url" if clip else "image_url"
    return {"type": kind, kind: {"url": data_url(sighting.png, clip=clip)}}
