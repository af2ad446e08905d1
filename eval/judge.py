"""Reasons rated by a judge, a multimodal model behind any OpenAI-compatible endpoint.

The three ratings of Face-LLaVA's Table 10 (arXiv 2504.07198): do the reasons fit what the face
shows, do they fit the true label, are they complete. A judge's numbers depend on what it reads
first, so each answer is judged in two orders, and how far they agree stands beside the means.
Replies are in the endpoint's cache before they are used, so a run that ends goes on without paying
twice.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.metrics import cohen_kappa_score
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from eval.engines import ENDPOINT_FRAMES, PaidEndpoint
from eval.intervals import mean_interval
from eval.items import Item
from eval.protocols import Protocol
from eval.run_folder import write_text
from facellava.answer import verdict_of
from facellava.endpoint import (
    Asker,
    Budget,
    DryRun,
    Endpoint,
    EndpointCache,
    Failure,
    Message,
    message,
)
from facellava.records import FaceRecord
from facellava.tasks import TASKS, Verdict
from facellava.tasks.judging import (
    JUDGING,
    ORDERS,
    RATINGS,
    Order,
    judging_version,
    label_words,
    text_words,
)

NO_TEXT: Final = "no text"
_WAITING: Final = 2  # answers that are worked on, for each request under way

Score = Annotated[int, Field(ge=1, le=10)]


class Judgement(BaseModel):
    """What a judge says. Reasoning comes before the numbers."""

    model_config = ConfigDict(extra="forbid")

    reason: str


class FaceFirst(Judgement):
    """The form of the order face_first. A schema's order is the order in which it is filled in."""

    reason_media: Score
    reason_label: Score
    completeness: Score


class TextFirst(Judgement):
    """The form of the order text_first."""

    completeness: Score
    reason_label: Score
    reason_media: Score


FORMS: Final[dict[Order, type[FaceFirst] | type[TextFirst]]] = {
    "face_first": FaceFirst,
    "text_first": TextFirst,
}
_EXAMPLE: Final[dict[str, Any]] = {
    "reason": "The raised lip corners can be seen, and they speak for the label. The cheeks are "
    "not raised, unlike the text says. The narrowed eyes, a main sign here, are not named.",
    "reason_media": 7,
    "reason_label": 8,
    "completeness": 6,
}
EXAMPLES: Final[dict[type[BaseModel], BaseModel]] = {
    form: form.model_validate(_EXAMPLE) for form in FORMS.values()
}
"""Replies of the usual length, for a :class:`facellava.endpoint.DryRun`."""


@dataclass(frozen=True)
class Judged:
    """One answer in one order.

    Attributes:
        face_id: whose answer.
        order: what the judge read first.
        scores: by name of RATINGS, 1 to 10.
        reason: the judge's words.
    """

    face_id: str
    order: Order
    scores: Mapping[str, int]
    reason: str


Part = tuple[Protocol, Sequence[Item], Mapping[str, FaceRecord]]
"""A protocol with answers to judge, and their faces."""


def judge_parts(
    parts: Iterable[Part],
    paid: PaidEndpoint,
    keep: Callable[[Protocol, dict[str, Any]], None],
    rows_of: Callable[[Protocol], Path],
) -> float:
    """Judge the answers of some protocols, one after the other.

    Args:
        parts: what to judge.
        paid: the judge.
        keep: called with what :func:`judge_items` found, as soon as a protocol is done.
        rows_of: where the single judgements go.

    Returns:
        Dollars that all runs on the cache did cost together, those for answers among them.

    Raises:
        EndpointStopped: as :func:`judge_items`.
    """

    async def run(cache: EndpointCache) -> float:
        budget = Budget(paid.prices, paid.max_cost, cache.spent())
        async with Endpoint(paid.settings, cache, budget) as endpoint:
            for protocol, items, faces in parts:
                frames, rows = partial(_frames, faces), rows_of(protocol)
                keep(protocol, await judge_items(protocol, items, frames, endpoint, rows=rows))
        return budget.spent

    with EndpointCache(paid.cache) as cache:
        return asyncio.run(run(cache))


def estimate_judging(parts: Iterable[Part], paid: PaidEndpoint) -> str:
    """What judging would send and cost; nothing is sent."""

    async def run(dry: DryRun) -> None:
        for protocol, items, faces in parts:
            await judge_items(protocol, items, partial(_frames, faces), dry)

    with EndpointCache(paid.cache if paid.cache.is_file() else None) as cache:
        dry = DryRun(paid.settings, cache, Budget(paid.prices, paid.max_cost), EXAMPLES)
        asyncio.run(run(dry))
    return dry.estimate.text()


def _frames(faces: Mapping[str, FaceRecord], face_id: str) -> list[bytes]:
    return faces[face_id].shown_frames(ENDPOINT_FRAMES)


async def judge_items(
    protocol: Protocol,
    items: Sequence[Item],
    frames_of: Callable[[str], Sequence[bytes]],
    asker: Asker,
    *,
    rows: Path | None = None,
) -> dict[str, Any]:
    """Have every answer judged in both orders.

    Args:
        protocol: whose labels are the true ones.
        items: its answers; those without a text are not judged.
        frames_of: a face id to the pictures that the judge sees: JPEG crops, at least one, of a
            clip some frames in time order.
        asker: an endpoint, or a dry run with EXAMPLES.
        rows: where to write the single judgements, a JSON line each; None for nowhere.

    Returns:
        "judge", "prompt_version"; "n" answers judged in both orders; "unjudged" ones by reason;
        "ratings": of each the "mean" over answers (of an answer, over its orders) with its 95%
        interval "low" to "high"; "agreement": of each rating how the orders agree: the share of
        answers with an "equal" number and with one "within_one", the quadratic "kappa" (NaN where
        one number was given throughout) and the "shift", text_first minus face_first on the mean.

    Raises:
        EndpointStopped: the endpoint cannot be asked any more; run again to go on.
        FacellavaError: `rows` cannot be written.
    """
    unjudged: Counter[str] = Counter()
    found = await _all_judged(protocol, items, frames_of, asker, unjudged)
    if rows is not None:
        write_text(rows, "".join(_line(judged) for answer in found for judged in answer))
    whole = [answer for answer in found if len(answer) == len(ORDERS)]
    numbers = {
        name: np.array([[judged.scores[name] for judged in answer] for answer in whole], float)
        .reshape(-1, len(ORDERS))
        for name in RATINGS
    }  # fmt: skip
    return {
        "judge": asker.settings.model,
        "prompt_version": judging_version(protocol.task),
        "n": len(whole),
        "unjudged": dict(unjudged.most_common()),
        "ratings": {name: _mean(pairs) for name, pairs in numbers.items()},
        "agreement": {name: _agreement(pairs) for name, pairs in numbers.items()},
    }


async def _all_judged(
    protocol: Protocol,
    items: Sequence[Item],
    frames_of: Callable[[str], Sequence[bytes]],
    asker: Asker,
    unjudged: Counter[str],
) -> list[list[Judged]]:
    """The judgements of each answer, in the order of the items."""
    slots = asyncio.Semaphore(_WAITING * asker.settings.concurrency)
    with logging_redirect_tqdm(), tqdm(total=len(items), unit="answer", desc="judged") as bar:

        async def of_item(item: Item) -> list[Judged]:
            judged: list[Judged] = []
            said_anything = bool(item.text.strip())
            async with slots:
                for order in ORDERS if said_anything else ():
                    told = judge_messages(protocol, item, frames_of(item.face_id), order)
                    said = await asker.ask(told, FORMS[order])
                    if isinstance(said, Failure):
                        unjudged[said.reason] += 1
                        break
                    scores = {name: getattr(said, name) for name in RATINGS}
                    judged.append(Judged(item.face_id, order, scores, said.reason))
            unjudged.update([] if said_anything else [NO_TEXT])
            bar.update()
            return judged

        tasks = [asyncio.create_task(of_item(item)) for item in items]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def judge_messages(
    protocol: Protocol, item: Item, frames: Sequence[bytes], order: Order
) -> list[Message]:
    """The instructions, and a turn of the face with its true label and the text, either first.

    Args:
        frames: JPEG pictures, at least one.
    """
    label = label_words(truth_words(protocol, item.truth))
    face = message(label, frames)["content"]
    text = {"type": "text", "text": text_words(shown_text(item.text))}
    parts = [*face, text] if order == "face_first" else [text, *face]
    return [
        message(JUDGING[protocol.task][order], role="system"),
        {"role": "user", "content": parts},
    ]


def truth_words(protocol: Protocol, truth: Any) -> str:
    """The right answer of an item as a sentence, such as ``"Age: 34 years."``."""
    task = TASKS[protocol.task]
    if protocol.kind == "units":
        active = tuple(unit for unit in protocol.labels if truth.get(unit))
        coded = ", ".join(unit for unit in protocol.labels if unit in truth)
        return f"{task.lead(active)} Coded were {coded}."
    if task.name == "age" and protocol.kind == "classes":
        return f"{task.title}: {truth} years."
    return task.lead(truth)


def shown_text(text: str) -> str:
    """The answer as prose: a judge shall not see whether it was written as JSON."""
    verdict = verdict_of(text)
    if not isinstance(verdict, Verdict) or verdict.label is None:
        return text
    return f"{TASKS[verdict.task].lead(verdict.label)} {verdict.reasons}".strip()


def _line(judged: Judged) -> str:
    return json.dumps(vars(judged), ensure_ascii=False) + "\n"


def _mean(pairs: NDArray[np.float64]) -> dict[str, float]:
    found = mean_interval(pairs.mean(axis=1).tolist())
    return {"mean": found.pop("value"), **found}


def _agreement(pairs: NDArray[np.float64]) -> dict[str, float]:
    """How the two orders agree: pairs (n, 2) of numbers from 1 to 10."""
    if not len(pairs):
        return dict.fromkeys(("equal", "within_one", "kappa", "shift"), float("nan"))
    first, second = pairs.astype(int).T
    differences = second - first
    # One number throughout: nothing is left that chance could be beaten at.
    varied = len(np.unique(pairs)) > 1
    return {
        "equal": float(np.mean(differences == 0)),
        "within_one": float(np.mean(np.abs(differences) <= 1)),
        "kappa": float(cohen_kappa_score(first, second, weights="quadratic", labels=range(1, 11)))
        if varied
        else float("nan"),
        "shift": float(np.mean(differences)),
    }
