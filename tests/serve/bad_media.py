"""Hostile and odd media, each with a name and what becomes of it. Bytes are made, none are stored.

Used by the tests and by the soak. Outcomes are "face" (it is read and shows one), "no_face" (it is
read and shows none), or the code of the error; several where decoders may rightly differ.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tests.serve.bad_clips import BAD_CLIPS
from tests.serve.bad_face_pictures import BAD_FACE_CLIPS, BAD_FACE_PHOTOS
from tests.serve.bad_photos import BAD_PHOTOS, Table

Kind = Literal["image", "video"]
COSTLY: Final = frozenset(
    {"png of 49 million pixels", "jpeg that claims 7000x7000", "png text of 70 MiB"}
)


@dataclass(frozen=True)
class OddMedia:
    """One file of the corpus.

    Attributes:
        name: what is odd about it.
        kind: how it is given to the API.
        make: builds the bytes.
        outcomes: what may become of it.
    """

    name: str
    kind: Kind
    make: Callable[[], bytes]
    outcomes: tuple[str, ...]

    @property
    def costly(self) -> bool:
        """Over a second of work, or hundreds of megabytes, for a server that is well."""
        return self.name in COSTLY

    def url(self) -> str:
        """As a data URL, always under a type that the API takes."""
        mime = "image/jpeg" if self.kind == "image" else "video/mp4"
        return f"data:{mime};base64,{base64.b64encode(self.make()).decode('ascii')}"

    def part(self) -> dict[str, object]:
        """The content part of a chat message that shows it."""
        return {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": self.url()}}


def _corpus() -> tuple[OddMedia, ...]:
    tables: tuple[tuple[Kind, Table], ...] = (
        ("image", BAD_PHOTOS),
        ("image", BAD_FACE_PHOTOS),
        ("video", BAD_CLIPS),
        ("video", BAD_FACE_CLIPS),
    )
    return tuple(
        OddMedia(name, kind, make, outcomes)
        for kind, table in tables
        for name, (outcomes, make) in table.items()
    )


BAD_MEDIA: Final = _corpus()
