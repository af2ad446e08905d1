"""What the API answers, as the chat page reads it: only the fields that the page shows."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from facellava.errors import BadMedia
from facellava.evidence import Evidence
from facellava.faces.face_png import FacePicture, from_png

Share = float


class _Read(BaseModel):
    """Fields that the page does not know may come and go."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FaceFacts(_Read):
    """The face that an answer is about."""

    index: int
    weak: bool


class Probabilities(_Read):
    """Probability of each label, from token scores."""

    raw: dict[str, Share]
    calibrated: dict[str, Share]


class AnswerReply(_Read):
    """An answer; `facellava.answer.Answer` says what each field holds."""

    question: str
    text: str
    task: str | None
    label: dict[str, bool] | tuple[str, ...] | int | str | None
    explanation: str
    probabilities: Probabilities
    evidence: tuple[Evidence, ...]
    weak: bool
    unreadable: str | None
    face: FaceFacts

    @property
    def raw(self) -> dict[str, Share]:
        """Probability of each label as the model gave it."""
        return self.probabilities.raw

    @property
    def calibrated(self) -> dict[str, Share]:
        """The same with the temperature that was fitted for the task."""
        return self.probabilities.calibrated

    @property
    def cited_regions(self) -> set[str]:
        """Regions that the explanation speaks of."""
        return {region for item in self.evidence for region in item.regions}


class RegionLook(_Read):
    """How much the model looked at each region: nine weights, in the order of `regions`."""

    weights: tuple[Share, ...] = Field(min_length=9, max_length=9)


class AskedFace(_Read):
    """Facts of a face beside an answer."""

    region_attention: RegionLook | None = None


class Reply(_Read):
    """What comes after the words of an answer."""

    answer: AnswerReply
    faces: tuple[AskedFace, ...]

    @property
    def attention(self) -> tuple[Share, ...] | None:
        """(9,) weights of the regions; None where the server does not tell them."""
        look = self.faces[0].region_attention if self.faces else None
        return look.weights if look else None


class FoundFace(_Read):
    """A face of a photo or a person of a clip, with the picture that it travels in."""

    crop: str

    def picture(self) -> FacePicture:
        """The face, or the person's faces, out of the picture.

        Raises:
            BadMedia, BadModelInput: it is damaged, or holds no face.
        """
        try:
            data = base64.b64decode(self.crop.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise BadMedia(
                "A face picture of the server is damaged; give the photo anew."
            ) from error
        picture = from_png(data)
        if picture is None:
            raise BadMedia("A face picture holds no landmarks; update the server.")
        return picture


class Media(_Read):
    """The photo or clip that was searched."""

    kind: Literal["image", "video"]
    complete: bool = True


class Found(_Read):
    """What was found in a photo or clip."""

    media: Media
    faces: tuple[FoundFace, ...]


class Timeline(_Read):
    """Probabilities of one task's labels over the time of a clip.

    Attributes:
        seconds: (T,) when each frame is shown.
        labels: (T,) the verdict of each frame.
        probabilities: for each label, (T,).
    """

    task: str
    seconds: tuple[float, ...] = Field(min_length=1)
    labels: tuple[str | None, ...]
    probabilities: dict[str, tuple[Share, ...]] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_many_each(self) -> Timeline:
        lengths = {len(self.labels), *map(len, self.probabilities.values())}
        if lengths != {len(self.seconds)}:
            raise ValueError("a timeline's columns differ in length")
        return self


class Analysis(_Read):
    """The part of an analysis that the page asks for."""

    timelines: tuple[Timeline, ...]


JsonObject = dict[str, Any]
