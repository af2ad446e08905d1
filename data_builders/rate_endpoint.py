"""Face-LLaVA's four ratings of a sample, given by any OpenAI-compatible endpoint.

The rater sees what the annotator saw, the label and the text (arXiv 2504.07198, construction of
FaceInstruct-1M; there GPT-4o-mini rated what Gemini wrote). The paper's threshold is not published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from data_builders.annotate.endpoint import FRAMES
from data_builders.rate import DEFAULT_THRESHOLD, REFUSAL, Rule, Threshold, keep
from facellava.endpoint import Asker, Failure, Message, message
from facellava.records import FaceRecord, Ratings, Sample
from facellava.tasks import TASKS, parse_answer
from facellava.tasks.annotation import RATING

Score = Annotated[int, Field(ge=1, le=10)]


class Rating(BaseModel):
    """What a model says about a sample. Reasoning comes before the numbers."""

    model_config = ConfigDict(extra="forbid")

    reason: str
    label_accuracy: Score
    media_consistency: Score
    label_consistency: Score
    overall: Score

    def ratings(self) -> Ratings:
        """As the corpus holds them."""
        return Ratings(
            label=self.label_accuracy,
            face=self.media_consistency,
            text=self.label_consistency,
            overall=self.overall,
            reason=" ".join(self.reason.split()),
        )


EXAMPLE: Final = Rating(
    reason="The label fits the face, and both signs that the text names can be seen clearly.",
    label_accuracy=9,
    media_consistency=9,
    label_consistency=9,
    overall=9,
)
"""A reply of the usual length, for estimates."""


def rating_messages(record: FaceRecord, sample: Sample, frames: int) -> list[Message]:
    """The instructions of the task; the face, the label and the text, the same for both forms."""
    verdict = parse_answer(sample.answer)
    label = TASKS[verdict.task].lead(verdict.label)
    text = f"The label is: {label}\nThe text is: {label} {verdict.reasons}"
    return [
        message(RATING[sample.task], role="system"),
        message(text, record.shown_frames(frames)),
    ]


async def rate_samples(
    samples: Iterable[Sample],
    record: FaceRecord,
    asker: Asker,
    *,
    threshold: Threshold = DEFAULT_THRESHOLD,
    rule: Rule = "each",
    frames: int = FRAMES,
    dropped: Counter[str] | None = None,
) -> list[Sample]:
    """The samples of one face with ratings, and `kept` set by threshold and rule.

    A sample that the endpoint does not rate has no ratings and is not kept.

    Args:
        frames: pictures of a clip that the model is shown, at most.
        dropped: counts the samples without ratings, by "rating of <task>: <reason>".

    Raises:
        EndpointStopped: the endpoint cannot be asked any more.
    """
    rated = []
    for sample in samples:
        if sample.label is None:
            rated.append(replace(sample, ratings=REFUSAL))
            continue
        found = await asker.ask(rating_messages(record, sample, frames), Rating)
        if isinstance(found, Failure):
            if dropped is not None:
                dropped[f"rating of {sample.task}: {found.reason}"] += 1
            rated.append(replace(sample, kept=False))
        else:
            ratings = found.ratings()
            rated.append(replace(sample, ratings=ratings, kept=keep(ratings, threshold, rule)))
    return rated
