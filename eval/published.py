"""Figures that others published, to stand beside ours; they are data, in ``published.toml``.

None of them was measured here. Each bears its source, and a caveat where something is known that
hinders a comparison.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from facellava.tasks.judging import RATINGS

Setting = Literal["zero-shot", "fine-tuned", "supervised"]
Rating = Annotated[float, Field(ge=1, le=10)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PublishedRow(_Strict):
    """Figures of one model on one dataset, by our names for them; rates in [0, 1], MAE in years."""

    model: str
    setting: Setting
    figures: Mapping[str, float]
    source: str
    caveat: str = ""


class PublishedTable(_Strict):
    """What was published about one dataset, and what a reader has to know to compare."""

    caveat: str
    rows: tuple[PublishedRow, ...]


class RatedRow(_Strict):
    """Mean ratings of one model's reasons, 1 to 10, a number a task in the order of the tasks."""

    model: str
    reason_media: tuple[Rating, ...]
    reason_label: tuple[Rating, ...]
    completeness: tuple[Rating, ...]


class Reasoning(_Strict):
    """Ratings of reasons by a judge; `tasks` are ours, and "all" for their mean."""

    judge: str
    source: str
    caveat: str
    tasks: tuple[str, ...]
    rows: tuple[RatedRow, ...]

    def ratings(self, task: str) -> dict[str, dict[str, float]]:
        """Model to its mean rating by name of RATINGS; models that were not rated are left out."""
        place = self.tasks.index(task)
        return {
            row.model: {name: getattr(row, name)[place] for name in RATINGS}
            for row in self.rows
            if place < len(row.reason_media)
        }


class Published(_Strict):
    """All that was published: tables by the `published` key of a protocol, and the ratings."""

    protocols: Mapping[str, PublishedTable]
    reasoning: Reasoning


@cache
def published() -> Published:
    """The published figures, read and checked once."""
    text = files("eval").joinpath("published.toml").read_text("utf-8")
    return Published.model_validate(tomllib.loads(text))
