"""Faces and media as the API tells them: plain values for JSON (`serve.api_answers`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facellava.faces import Face, measure
from facellava.faces.face_png import data_url
from facellava.regions import REGIONS
from serve.face_worker import Seen, Sighting


def media_facts(seen: Seen) -> dict[str, Any]:
    """What kind of medium it was, and how large or long."""
    if seen.seconds is None:
        width, height = seen.size or (None, None)
        return {"kind": "image", "width": width, "height": height}
    return {
        "kind": "video",
        "duration": round(seen.duration, 3),
        "seconds": _seconds(seen.seconds),
        "complete": seen.complete,
    }


def face_facts(
    sighting: Sighting, *, crop: bool = False, measurements: bool = False
) -> dict[str, Any]:
    """A photo's face, or a person of a clip with the values of the apex frame.

    Args:
        sighting: what was found.
        crop: with the face picture as a data URL.
        measurements: with every quantity of the face.
    """
    facts: dict[str, Any] = {"index": sighting.index, **_place(sighting.face)}
    if crop:
        facts["crop"] = data_url(sighting.png, clip=sighting.seconds is not None)
    if measurements:
        measured = sighting.measurements or measure(sighting.face)
        facts["measurements"] = {
            name: {
                "value": None if found.value is None else round(found.value, 4),
                "unit": found.unit,
                "note": found.note,
            }
            for name, found in measured.items()
        }
    if sighting.seconds is not None:
        facts["seconds"] = _seconds(sighting.seconds)
        facts["frames"] = [
            {"second": round(second, 3), **_place(face)}
            for second, face in zip(sighting.seconds, sighting.frames, strict=True)
        ]
        facts["dropped"] = [
            {"seconds": round(frame.seconds, 3), "reason": frame.reason}
            for frame in sighting.dropped
        ]
    return facts


def attention_facts(attention: NDArray[np.float32], grid: tuple[int, int]) -> dict[str, Any]:
    """Region attention (N, 9) of one face; tokens before the patches are left out."""
    patches = attention[-grid[0] * grid[1] :]
    return {
        "regions": list(REGIONS),
        "weights": _rounded(patches.mean(axis=0), 4),
        "grid": list(grid),
        "map": _rounded(patches, 4),
    }


def _place(face: Face) -> dict[str, Any]:
    return {
        "box": [round(value, 1) for value in face.box],
        "score": round(face.score, 3),
        "source": face.source,
        "weak": face.weak,
        "landmarks": _rounded(face.photo_landmarks, 2),
    }


def _seconds(seconds: tuple[float, ...]) -> list[float]:
    return [round(second, 3) for second in seconds]


def _rounded(values: NDArray[Any], places: int) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), places).tolist()
    return rounded
