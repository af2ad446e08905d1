"""Face pictures that were tampered with, as photos and as clips; and whole ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import numpy as np
from PIL import Image, PngImagePlugin

from facellava.faces import Face, find_faces
from facellava.faces.face_png import CHUNK, to_png
from tests.serve.bad_photos import READ, REFUSED, Table, portrait

TAMPERED: Final = ("bad_media", "invalid_value")
SIDE: Final = 192


@cache
def face() -> Face:
    return find_faces(np.asarray(portrait()))[0]


def whole() -> bytes:
    return to_png(face())


def whole_clip() -> bytes:
    return to_png([face(), face()], [0.0, 0.5])


def written(text: str, picture: Image.Image | None = None, *, packed: bool = False) -> bytes:
    """A face picture that says `text` of its faces."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text(CHUNK, text, zip=packed)
    buffer = io.BytesIO()
    shown = picture or Image.fromarray(face().crop)
    shown.save(buffer, "PNG", pnginfo=notes)
    return buffer.getvalue()


def said(make: Callable[[], bytes] = whole) -> dict[str, Any]:
    chunk: dict[str, Any] = json.loads(Image.open(io.BytesIO(make())).info[CHUNK])
    return chunk


def changed(picture: Image.Image | None = None, **facts: Any) -> bytes:
    """The face picture with other facts."""
    chunk = said()
    chunk["faces"][0].update(facts)
    return written(json.dumps(chunk), picture)


def landmarks(value: object) -> bytes:
    """The first landmark's x is something else."""
    points = said()["faces"][0]["landmarks"]
    points[0][0] = value
    return changed(landmarks=points)


def counted(faces: int, seconds: int | None, rows: int) -> bytes:
    """So many faces described, so many times, so many crops."""
    chunk = said()
    chunk["faces"] = chunk["faces"] * faces
    chunk["seconds"] = None if seconds is None else [float(n) for n in range(seconds)]
    crops = np.concatenate([face().crop] * rows)
    return written(json.dumps(chunk), Image.fromarray(crops))


def sized(width: int, height: int, mode: str = "RGB") -> bytes:
    return changed(Image.new(mode, (width, height)))


def tampered_pixels() -> bytes:
    data = bytearray(whole())
    place = data.index(b"IDAT") + 200
    data[place : place + 50] = bytes(50)
    return bytes(data)


BAD_FACE_PHOTOS: Final[Table] = {
    "face picture": (READ, whole),
    "face picture cut": (TAMPERED, lambda: whole()[:-2000]),
    "face picture with other pixels": (TAMPERED, tampered_pixels),
    **{
        f"landmark of {value}": (TAMPERED, partial(landmarks, value))
        for value in (float("nan"), float("inf"), 1e30, -7.0, None, "0.5", [0.5], True)
    },
    "67 landmarks": (TAMPERED, lambda: changed(landmarks=said()["faces"][0]["landmarks"][:67])),
    "69 landmarks": (
        TAMPERED,
        lambda: changed(landmarks=said()["faces"][0]["landmarks"] + [[0, 0]]),
    ),
    "landmarks in three dimensions": (TAMPERED, lambda: changed(landmarks=[[0.5, 0.5, 0.5]] * 68)),
    "no landmarks": (TAMPERED, lambda: changed(landmarks=[])),
    "all landmarks in one point": (READ + TAMPERED, lambda: changed(landmarks=[[0.5, 0.5]] * 68)),
    "unknown fact": (TAMPERED, lambda: changed(image_size=9999)),
    "score in words": (TAMPERED, lambda: changed(score="high")),
    "source with a path": (TAMPERED, lambda: changed(source="../../etc/passwd")),
    "index of a million": (TAMPERED, lambda: changed(index=10**6)),
    "box of nan": (TAMPERED, lambda: changed(box=[0, 0, float("nan"), 1])),
    "map onto one line": (TAMPERED, lambda: changed(crop_to_photo=[[1, 1, 0], [1, 1, 0]])),
    "crop of 191 rows": (TAMPERED, partial(sized, SIDE, SIDE - 1)),
    "crop of 1 pixel": (TAMPERED, partial(sized, 1, 1)),
    "crop of 49 million pixels": (TAMPERED, partial(sized, 7000, 7000)),
    "grey crop": (TAMPERED, partial(sized, SIDE, SIDE, "L")),
    "crop with alpha": (TAMPERED, partial(sized, SIDE, SIDE, "RGBA")),
    "two faces, one crop": (TAMPERED, partial(counted, 2, 2, 1)),
    "two faces without times": (TAMPERED, partial(counted, 2, None, 2)),
    "no faces": (TAMPERED, partial(counted, 0, None, 1)),
    "text that is no json": (TAMPERED, partial(written, "landmarks?")),
    "text that is a list": (TAMPERED, partial(written, "[]")),
    "text of deep lists": (TAMPERED, partial(written, "[" * 100_000)),
    "text of a megabyte": (TAMPERED, partial(written, " " * (2**20 - 10), packed=True)),
    "text that is empty": (TAMPERED + ("no_face",), partial(written, "")),
    "clip's crops as a photo": (TAMPERED, whole_clip),
}
BAD_FACE_CLIPS: Final[Table] = {
    "clip of crops": (READ, whole_clip),
    "photo's crop as a clip": (TAMPERED, whole),
    "three times, two faces": (TAMPERED, partial(counted, 2, 3, 2)),
    "65 crops": (TAMPERED, partial(counted, 65, 65, 65)),
    "clip of crops cut": (REFUSED, lambda: whole_clip()[:-2000]),
}
