"""What can be asked: the model in this process, a facellava server, any OpenAI-compatible endpoint.

All are asked the same question about the same canonical crops, and all answers are read by the same
parsers. An endpoint that is no facellava sees pictures and words only, and gives no probabilities.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from eval import protocols
from eval.answers import Reply
from eval.faces_table import FacesTable
from eval.seen import training_data
from eval.served import ServedModel
from facellava.answer import Answer
from facellava.corpus import sha256
from facellava.endpoint import (
    Budget,
    DryRun,
    Endpoint,
    EndpointCache,
    EndpointSettings,
    Failure,
    Message,
    Prices,
    message,
)
from facellava.errors import BadCheckpoint
from facellava.faces import Face
from facellava.predictor import FaceLlava
from facellava.records import FaceRecord
from facellava.tasks.closed_question import PromptStyle, question_in

LOCAL_BATCH: Final = 64
ENDPOINT_BATCH: Final = 256
ENDPOINT_FRAMES: Final = 8  # of a clip, as the paper shows its baselines
_PLACES: Final = 6

T = TypeVar("T")


class Engine(Protocol):
    """Answers one question about many faces."""

    batch: int
    """How many faces it likes at once."""

    def describe(self) -> dict[str, Any]:
        """What decides its answers: kind, name, weights_sha256, label_only and more."""

    def facts(self) -> dict[str, Any]:
        """What else a run should note: what it was trained on, what it cost."""

    def ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        """A reply a face, in their order.

        Raises:
            FacellavaError: it cannot be asked any more.
        """


class ModelEngine:
    """A checkpoint in this process.

    Args:
        folder: of the checkpoint.
        label_only: end each answer with its verdict.
        free_reasons: see :class:`facellava.predictor.FaceLlava`.

    Raises:
        BadCheckpoint: it cannot be loaded.
    """

    batch = LOCAL_BATCH

    def __init__(
        self, folder: Path, *, label_only: bool = False, free_reasons: bool = False
    ) -> None:
        self.folder, self.label_only, self.free_reasons = folder, label_only, free_reasons
        self.model = FaceLlava.load(folder, free_reasons=free_reasons)

    def describe(self) -> dict[str, Any]:
        """See :class:`Engine`."""
        return {
            "kind": "model",
            "name": self.folder.name,
            "weights_sha256": weights_sha256(self.folder),
            "label_only": self.label_only,
            "free_reasons": self.free_reasons,
        }

    def facts(self) -> dict[str, Any]:
        """See :class:`Engine`."""
        return {"training": training_data(self.folder)}

    def ask(
        self, records: Sequence[FaceRecord], question: str, *, probabilities: bool = True
    ) -> list[Reply]:
        """See :class:`Engine`; studies that read words only can do without probabilities."""
        answers = self.model.ask_many(
            [face_item(record) for record in records],
            [question] * len(records),
            probabilities=probabilities,
            label_only=self.label_only,
        )
        return [_reply(record, answer) for record, answer in zip(records, answers, strict=True)]


class ServedEngine:
    """Our own server: faces travel with their landmarks, probabilities come back."""

    batch = LOCAL_BATCH

    def __init__(self, served: ServedModel) -> None:
        self.served = served

    def describe(self) -> dict[str, Any]:
        """See :class:`Engine`."""
        return {
            "kind": "served",
            "name": self.served.model,
            "weights_sha256": None,
            "label_only": False,
        }

    def facts(self) -> dict[str, Any]:
        """See :class:`Engine`."""
        return {}

    def ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        """See :class:`Engine`."""
        items = [face_item(record) for record in records]
        answers = self.served.ask_many(items, [question] * len(records))
        return [_reply(record, answer) for record, answer in zip(records, answers, strict=True)]


@dataclass(frozen=True)
class PaidEndpoint:
    """Any model behind an OpenAI-compatible API.

    Attributes:
        settings: address, model, key, pace.
        cache: file of all replies, so that nothing is paid for twice.
        prices: dollars by model.
        max_cost: dollars that all runs on the cache may spend together; None for no limit.
    """

    settings: EndpointSettings
    cache: Path
    prices: Prices
    max_cost: float | None = None


class EndpointEngine:
    """Asks a paid endpoint. Use it as a context."""

    batch = ENDPOINT_BATCH

    def __init__(self, paid: PaidEndpoint) -> None:
        self.paid, self.settings = paid, paid.settings

    def __enter__(self) -> Self:
        self._cache = EndpointCache(self.paid.cache)
        self._runner = asyncio.Runner()
        try:
            budget = Budget(self.paid.prices, self.paid.max_cost, self._cache.spent())
            self._endpoint = self._run(_opened(self.settings, self._cache, budget))
        except BaseException:
            self._runner.close()
            self._cache.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._run(self._endpoint.aclose())
        finally:
            self._runner.close()
            self._cache.close()

    def describe(self) -> dict[str, Any]:
        """See :class:`Engine`."""
        return {
            "kind": "endpoint",
            "name": self.settings.model,
            "weights_sha256": None,
            "label_only": False,
            "parameters": dict(self.settings.parameters),
            "max_tokens": self.settings.max_tokens,
        }

    def ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        """See :class:`Engine`.

        Raises:
            EndpointStopped: no money is left, the key is refused, or patience is at its end.
        """
        return self._run(self._ask(records, question))

    def facts(self) -> dict[str, Any]:
        """See :class:`Engine`; the dollars are those of all runs on the cache."""
        totals = self._cache.totals()
        return {"spent": {name: round(found.dollars, 4) for name, found in totals.items()}}

    async def _ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        async def one(record: FaceRecord) -> Reply:
            found = await self._endpoint.ask_text(messages_about(record, question))
            if isinstance(found, Failure):
                return Reply(record.face_id, "", problem=found.reason)
            return Reply(record.face_id, found.strip())

        return list(await asyncio.gather(*(one(record) for record in records)))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


async def _opened(settings: EndpointSettings, cache: EndpointCache, budget: Budget) -> Endpoint:
    return Endpoint(settings, cache, budget)


EXAMPLE_ANSWER: Final = (
    "Expression: happiness. The corners of the mouth are pulled up and the cheeks are raised, "
    "which narrows the eyes; the brows are relaxed."
)
"""An answer of the usual length, for estimates."""


def estimate(
    tables: Sequence[tuple[protocols.Protocol, FacesTable]], paid: PaidEndpoint, prompt: PromptStyle
) -> str:
    """What asking an endpoint about these faces would send and cost; nothing is sent."""
    with EndpointCache(paid.cache if paid.cache.is_file() else None) as cache:
        dry = DryRun(paid.settings, cache, Budget(paid.prices, paid.max_cost), {})
        for protocol, table in tables:
            question = question_in(prompt, protocol.task, protocol.labels)
            for record in table.records(protocol):
                dry.count_text(messages_about(record, question), EXAMPLE_ANSWER)
    return dry.estimate.text()


def messages_about(record: FaceRecord, question: str) -> list[Message]:
    """The face, or frames of its clip, and the question, as any endpoint takes them."""
    return [message(question, record.shown_frames(ENDPOINT_FRAMES))]


def weights_sha256(folder: Path) -> str:
    """One checksum for all weights of a checkpoint folder.

    Raises:
        BadCheckpoint: it holds no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint(f"'{folder}' holds no safetensors; give a checkpoint folder.")
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()


def face_item(record: FaceRecord) -> Face | list[Face]:
    """The face, or the frames of the clip, as the predictor takes them."""
    faces = record.faces()
    return faces[0] if record.media == "image" else faces


def _reply(record: FaceRecord, answer: Answer) -> Reply:
    return Reply(
        face_id=record.face_id,
        text=answer.text,
        table=_rounded(answer.raw),
        calibrated=_rounded(answer.calibrated),
        claims=tuple(
            {"claim": item.claim, "regions": list(item.regions), "verdict": item.verdict}
            for item in answer.evidence
        ),
    )


def _rounded(table: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _PLACES) for name, value in table.items()}
