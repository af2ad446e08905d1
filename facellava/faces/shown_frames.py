"""Which frames of a clip are shown to a model: spread over it, and among them the one that tells.

A short expression falls between a few frames that are evenly spread. So more frames are looked at
than are shown, and the one that differs most from the evenly spread ones is shown among them.

It is not :func:`facellava.faces.clips.apex`, which is the frame far from the person's usual face:
in a clip that is mostly expression that is the face at rest. Nor are the points of the crop
compared, but those seen from the front, so that a turning head is not taken for an expression.
Protocols of evaluation and training data do not come here: they keep the frames of their papers,
which are evenly spread (`data_builders.media`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from facellava.faces.clips import Track, apex, evenly
from facellava.faces.face import Face
from facellava.faces.pose import estimate_pose

# An odd multiple of the frames that are shown has the evenly spread ones among its own.
LOOKED_AT: Final = 3
# Finding a face takes a fifth of a second, and between many frames little is missed.
MOST_LOOKED_AT: Final = 36
# The jaw line before them is found least exactly.
_INNER: Final = slice(17, None)


def looked_at(shown: int) -> int:
    """How many frames to read of a clip of which `shown` are shown."""
    return max(shown, min(LOOKED_AT * shown, MOST_LOOKED_AT))


def shown_of(track: Track, count: int) -> Track:
    """The person in the `count` frames that stand for the clip, all where there are no more.

    They are evenly spread in time, but for one: the frame that differs most from these is shown
    too, in place of the one that is most like another. Frames with weak landmarks come in so only
    if all are weak, and make place first. A single frame is the apex. What was dropped stays told.

    Args:
        track: a person of a clip of which :func:`looked_at` frames were read.
        count: how many frames to show, at least 1.
    """
    places = _shown(track.frames, track.seconds, count)
    return replace(
        track,
        frames=tuple(track.frames[place] for place in places),
        seconds=tuple(track.seconds[place] for place in places),
    )


def _shown(frames: Sequence[Face], seconds: Sequence[float], count: int) -> list[int]:
    if len(frames) <= count:
        return list(range(len(frames)))
    if count == 1:
        return [apex(frames)]
    spread = [seconds.index(second) for second in evenly(seconds, count)]
    points = np.stack([estimate_pose(face.landmarks).frontal[_INNER] for face in frames])
    # (N, N) mean distance of two frames' points, in eye distances.
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1).mean(axis=-1)
    weak = np.array([face.weak for face in frames])
    differs = apart[:, spread].mean(axis=1)
    most = int((differs if weak.all() else np.where(weak, -1.0, differs)).argmax())
    if most in spread:
        return spread
    together = [*spread, most]

    def worth(place: int) -> tuple[bool, float]:
        others = [other for other in together if other != place]
        return not weak[place], float(apart[place, others].min())

    # Between gaps two of the evenly spread ones may be the same frame.
    if len(together) > count:
        together.remove(min(spread, key=worth))
    return sorted(together)
