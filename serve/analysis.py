"""POST /v1/faces and POST /v1/analyze: what is seen, and what the model says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from facellava.answer import Answer
from facellava.conversation import face_conversation
from facellava.errors import FacellavaError
from facellava.faces import Face
from facellava.predictor import MAX_NEW_TOKENS
from facellava.tasks import TASKS, Verdict
from serve.api_errors import of_library
from serve.api_types import CLIP_SAMPLE, AnalyzeRequest, FacesRequest
from serve.asking import Desk
from serve.face_facts import attention_facts, face_facts, media_facts
from serve.face_worker import Seen, Sighting, as_photo

TIMELINE_FRAMES: Final = 24
# Completions of one request that are with the engine at once: it batches them, others get theirs.
AT_ONCE: Final = 32


@dataclass
class _Account:
    """What one analysis has used."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Analysis:
    """Tells faces, and asks about them.

    Args:
        desk: media, engine and reading of answers.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def faces(self, request: FacesRequest) -> dict[str, Any]:
        """The faces of a photo, or the persons of a clip (`serve.api_answers.FacesReply`).

        Raises:
            ApiError, FacellavaError: the medium cannot be used.
        """
        seen = await self._look(request.image, request.video, request.frames or CLIP_SAMPLE)
        told = partial(
            face_facts,
            crop=request.crops is not False,
            measurements=request.measurements is not False,
        )
        # Crops that were sent are measured now, which takes some milliseconds.
        faces = await asyncio.to_thread(lambda: [told(each) for each in seen.sightings])
        return {"object": "faces", "media": media_facts(seen), "faces": faces}

    async def analyze(self, request: AnalyzeRequest) -> dict[str, Any]:
        """Answers face by face, task by task (`serve.api_answers.AnalysisReply`).

        Raises:
            ApiError, FacellavaError: the request cannot be answered.
        """
        desk = self._desk
        desk.upstream.check(request.model)
        if request.region_attention:
            desk.check_attention()
        face = "largest" if request.face is None else request.face
        looks = [self._look(request.image, request.video)]
        if request.timeline:
            looks.append(self._look(request.image, request.video, TIMELINE_FRAMES))
        seen, *longer = await asyncio.gather(*looks)
        medium = "image" if request.image is not None else "video"
        try:
            chosen = desk.chosen(seen, face)
            lines = [person for each in longer for person in desk.chosen(each, face)]
        except FacellavaError as error:
            raise of_library(error, medium) from error
        wordings = [TASKS[name].canonical_question for name in request.tasks or ()]
        wordings += [] if request.question is None else [request.question]
        account = _Account()
        async with asyncio.TaskGroup() as group:
            answers = [
                group.create_task(self._ask(request.model, sighting, wording, account))
                for sighting in chosen
                for wording in wordings
            ]
            timelines = [
                group.create_task(self._timeline(request.model, person, account))
                for person in lines
            ]
            facts = [
                group.create_task(self._facts(sighting, bool(request.region_attention)))
                for sighting in chosen
            ]
        return {
            "object": "analysis",
            "model": request.model,
            "media": media_facts(seen),
            "faces": [task.result() for task in facts],
            "answers": [task.result().to_dict() for task in answers],
            "timelines": [task.result() for task in timelines],
            "usage": {
                "prompt_tokens": account.prompt_tokens,
                "completion_tokens": account.completion_tokens,
            },
        }

    async def _look(self, image: str | None, video: str | None, frames: int | None = None) -> Seen:
        try:
            if image is not None:
                return await self._desk.look(image, "image", "image")
            return await self._desk.look(video or "", "video", "video", frames)
        except FacellavaError as error:
            raise of_library(error, "video" if image is None else "image") from error

    async def _facts(self, sighting: Sighting, with_attention: bool) -> dict[str, Any]:
        facts = face_facts(sighting)
        if with_attention:
            facts["region_attention"] = attention_facts(*await self._desk.attention(sighting))
        return facts

    async def _ask(self, model: str, sighting: Sighting, wording: str, account: _Account) -> Answer:
        """One question about one face, as the library asks it."""
        words = face_conversation("image" if sighting.seconds is None else "video", wording)
        conversation = await self._desk.conversation(words, [sighting])
        async with account.places:
            reply = await self._desk.upstream.complete(
                {
                    "model": model,
                    "messages": conversation.turns,
                    "temperature": 0,
                    "max_completion_tokens": MAX_NEW_TOKENS,
                    **conversation.engine_fields,
                }
            )
            account.prompt_tokens += reply["usage"]["prompt_tokens"]
            account.completion_tokens += reply["usage"]["completion_tokens"]
            text = (reply["choices"][0]["message"]["content"] or "").strip()
            return await self._desk.answer(model, conversation, text)

    async def _timeline(self, model: str, person: Sighting, account: _Account) -> dict[str, Any]:
        """A person's expression in each frame, each asked about as a photo's face.

        Only the label is read: the probabilities of the words behind the answer's lead.
        """
        task = TASKS["expression"]
        words = face_conversation("image", task.canonical_question)
        verdict = Verdict(task.name, task.labels[0], "")

        async def read(face: Face) -> dict[str, float]:
            sighting = await asyncio.to_thread(as_photo, face)
            conversation = await self._desk.conversation(words, [sighting], with_reasons=False)
            async with account.places:
                return await self._desk.scorer.table(model, conversation.turns, verdict)

        tables = await asyncio.gather(*(read(face) for face in person.frames))
        return {
            "face": person.index,
            "task": task.name,
            "seconds": [round(second, 3) for second in person.seconds or ()],
            "labels": [max(table, key=lambda label: table[label]) for table in tables],
            "probabilities": _by_label(tables),
        }


def _by_label(tables: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {label: [round(table[label], 4) for table in tables] for label in tables[0]}
