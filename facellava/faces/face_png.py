"""A found face, or one person's faces of a clip, as one lossless picture that can travel.

The crops are stacked from top to bottom in a PNG, and a text chunk holds what else is known of each
face. Whoever gets such a picture need not search it: the API hands them out and takes them back,
and the server sends them to its engine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from facellava.errors import BadMedia, BadModelInput
from facellava.faces.crop import CROP_SIZE
from facellava.faces.face import Face
from facellava.regions import LARGEST_COORDINATE, N_LANDMARKS

CHUNK: Final = "facellava"
MAX_FRAMES: Final = 64
MAX_CHUNK: Final = 512 * 1024  # characters; 64 faces need about 300 thousand
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_Coordinate = Annotated[float, Field(ge=-LARGEST_COORDINATE, le=LARGEST_COORDINATE)]
_Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Facts(BaseModel):
    """What the text chunk says of one face; its fields are those of `Face`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    landmarks: Annotated[
        list[tuple[_Coordinate, _Coordinate]],
        Field(min_length=N_LANDMARKS, max_length=N_LANDMARKS),
    ]
    box: tuple[_Number, _Number, _Number, _Number]
    index: Annotated[int, Field(ge=0, le=10_000)]
    score: _Number
    source: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]
    crop_to_photo: tuple[tuple[_Number, _Number, _Number], tuple[_Number, _Number, _Number]]


class _Chunk(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    faces: Annotated[list[_Facts], Field(min_length=1, max_length=MAX_FRAMES)]
    seconds: list[Annotated[float, Field(ge=0, le=1e6)]] | None = None


@dataclass(frozen=True, eq=False)
class FacePicture:
    """What a face picture holds.

    Attributes:
        faces: one face of a photo, or one person's faces, frame after frame.
        seconds: when each frame of a clip is shown; None for a photo.
    """

    faces: tuple[Face, ...]
    seconds: tuple[float, ...] | None

    @property
    def item(self) -> Face | tuple[Face, ...]:
        """What the processor takes: the face of a photo, or the frames of a clip."""
        return self.faces[0] if self.seconds is None else self.faces


def to_png(item: Face | Sequence[Face], seconds: Sequence[float] | None = None) -> bytes:
    """A face, or a clip's faces and their times, as a PNG.

    Args:
        item: a photo's face, or one person's faces, at most 64.
        seconds: for a clip, when each frame is shown.

    Raises:
        BadModelInput: no faces or too many, times that do not fit them, or a crop of another size.
    """
    single = isinstance(item, Face)
    faces = (item,) if isinstance(item, Face) else tuple(item)
    if single != (seconds is None) or (seconds is not None and len(seconds) != len(faces)):
        raise BadModelInput(
            "A clip's faces need as many seconds as faces, and a photo's face none."
        )
    if not 1 <= len(faces) <= MAX_FRAMES:
        raise BadModelInput(f"A clip holds {len(faces)} faces; allowed are 1 to {MAX_FRAMES}.")
    for face in faces:
        if face.crop.shape != (CROP_SIZE, CROP_SIZE, 3) or face.crop.dtype != np.uint8:
            raise BadModelInput(
                f"A face's crop has shape {face.crop.shape} and type {face.crop.dtype}; it must be "
                f"({CROP_SIZE}, {CROP_SIZE}, 3) RGB uint8."
            )
    try:
        chunk = _Chunk(
            faces=[_facts(face) for face in faces],
            seconds=None if seconds is None else [float(second) for second in seconds],
        )
    except ValidationError as error:
        raise BadModelInput(_sentence(error)) from error
    notes = PngImagePlugin.PngInfo()
    notes.add_text(CHUNK, chunk.model_dump_json())
    buffer = io.BytesIO()
    stacked = np.concatenate([face.crop for face in faces])
    Image.fromarray(stacked).save(buffer, "PNG", pnginfo=notes, compress_level=1)
    return buffer.getvalue()


def _facts(face: Face) -> _Facts:
    return _Facts.model_validate(
        {
            # A float32 that is written as a float64 comes back bit by bit.
            "landmarks": np.asarray(face.landmarks, np.float64).tolist(),
            "box": face.box,
            "index": face.index,
            "score": face.score,
            "source": face.source,
            "crop_to_photo": np.asarray(face.crop_to_photo, np.float64).tolist(),
        }
    )


def from_png(data: bytes) -> FacePicture | None:
    """The faces that a PNG of :func:`to_png` holds; None for any other picture.

    Raises:
        BadMedia: the picture is damaged, or not of the size that its faces need.
        BadModelInput: what it says of its faces is damaged: a wrong count, shape or range, NaN.
    """
    if not data.startswith(PNG_SIGNATURE) or CHUNK.encode() not in data[: MAX_CHUNK + 4096]:
        return None
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG",))
        written = picture.info.get(CHUNK)
    except Exception as error:
        # Decoders meet hostile bytes here and leave by whatever exception comes to hand.
        raise _damaged() from error
    if written is None:
        return None
    if len(written) > MAX_CHUNK:
        raise BadModelInput("A face picture describes more than it can hold; get it anew.")
    try:
        chunk = _Chunk.model_validate_json(written, strict=True)
    except ValidationError as error:
        raise BadModelInput(_sentence(error)) from error
    count = len(chunk.faces)
    if (1 if chunk.seconds is None else len(chunk.seconds)) != count:
        raise BadModelInput("A face picture's times and faces differ in number; get it anew.")
    if picture.mode != "RGB" or picture.size != (CROP_SIZE, CROP_SIZE * count):
        raise BadMedia(
            f"A face picture has {picture.width}x{picture.height} pixels ({picture.mode}) and "
            f"describes {count} face(s), which need {CROP_SIZE}x{CROP_SIZE * count} in RGB."
        )
    try:
        pixels = np.array(picture, np.uint8)
    except Exception as error:
        raise _damaged() from error
    faces = tuple(
        _face(facts, crop) for facts, crop in zip(chunk.faces, np.split(pixels, count), strict=True)
    )
    return FacePicture(faces, None if chunk.seconds is None else tuple(chunk.seconds))


def _face(facts: _Facts, crop: NDArray[np.uint8]) -> Face:
    matrix = np.array(facts.crop_to_photo, np.float64)
    if abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        raise BadModelInput("A face picture's crop_to_photo maps all to one line; get it anew.")
    return Face(
        crop=crop,
        landmarks=np.array(facts.landmarks, np.float32),
        box=facts.box,
        index=facts.index,
        score=facts.score,
        source=facts.source,
        crop_to_photo=matrix,
    )


def data_url(png: bytes, *, clip: bool) -> str:
    """The picture as a data URL: "image/png", or "video/png" for a clip."""
    kind = "video" if clip else "image"
    return f"data:{kind}/png;base64,{base64.b64encode(png).decode('ascii')}"


def _damaged() -> BadMedia:
    return BadMedia("A face picture is damaged or cut off; get it anew.")


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "its text"
    return (
        f"What is said of a face is wrong at {place} ({first['msg']}); it needs {N_LANDMARKS} "
        "finite landmarks (x, y) in [0, 1] of the crop, box, index, score, source, crop_to_photo."
    )
