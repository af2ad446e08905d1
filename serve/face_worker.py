"""What the face-finding processes do: hostile bytes are decoded here and nowhere else.

These processes must stay small: nothing that imports torch may be imported here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

import numpy as np

from facellava.errors import NoFaceFound
from facellava.faces import Face, Measurement, find_faces, measure, read_photo
from facellava.faces.clips import DroppedFrame, apex, read_clip, track_faces
from facellava.faces.detectors import detect
from facellava.faces.face_png import to_png
from facellava.faces.landmarks import fit_landmarks
from facellava.faces.shown_frames import shown_of

NICENESS = 10  # the engine goes first
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class Sighting:
    """A photo's face, or one person of a clip.

    Attributes:
        index: 0 for the largest.
        frames: one face, or the person's face in each usable frame.
        seconds: when each frame is shown; None for a photo's face.
        dropped: of a clip, the frames without this person.
        measurements: of `face`; None where nobody has asked for them yet.
        png: the face picture (`facellava.faces.face_png`).
    """

    index: int
    frames: tuple[Face, ...]
    seconds: tuple[float, ...] | None
    dropped: tuple[DroppedFrame, ...]
    measurements: dict[str, Measurement] | None
    png: bytes

    @classmethod
    def of(
        cls,
        frames: tuple[Face, ...],
        seconds: tuple[float, ...] | None,
        dropped: tuple[DroppedFrame, ...] = (),
    ) -> Sighting:
        """Measure and pack what was found."""
        item = frames[0] if seconds is None else frames
        face = frames[apex(frames)]
        return cls(face.index, frames, seconds, dropped, measure(face), to_png(item, seconds))

    @property
    def item(self) -> Face | tuple[Face, ...]:
        """What the processor takes."""
        return self.frames[0] if self.seconds is None else self.frames

    @property
    def face(self) -> Face:
        """The photo's face, or that of the frame with the strongest expression."""
        return self.frames[apex(self.frames)]

    @property
    def nbytes(self) -> int:
        """Memory that it takes, about."""
        return len(self.png) + sum(face.crop.nbytes + 2048 for face in self.frames)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a photo or clip shows.

    Attributes:
        sightings: largest first; may be empty.
        nothing: why it is empty, as a sentence.
        size: of a photo, (width, height) in pixels.
        duration: of a clip, in seconds.
        seconds: of a clip, when the frames that were looked at are shown.
        complete: False for a clip whose end is cut off or damaged.
    """

    sightings: tuple[Sighting, ...]
    nothing: str = ""
    size: tuple[int, int] | None = None
    duration: float = 0.0
    seconds: tuple[float, ...] | None = None
    complete: bool = True

    @property
    def nbytes(self) -> int:
        """Memory that it takes, about."""
        return 1024 + sum(sighting.nbytes for sighting in self.sightings)


def start_worker() -> None:
    """Be polite to the engine, do not outlive the server, and load what the first task needs."""
    os.nice(NICENESS)
    # Python's own handlers wait for native code, which may never come back.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # The fork server ends with the gateway, however that ends; this process ends with it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    grey = np.full((96, 96, 3), 128, np.uint8)
    detect(grey)
    fit_landmarks(grey, (16.0, 16.0, 80.0, 80.0))


def see_photo(data: bytes) -> Seen:
    """The faces of an encoded photo.

    Raises:
        BadMedia: it cannot be read, or is too large.
        MissingBackend: the face finder's files are not there.
    """
    photo = read_photo(data)
    size = (photo.shape[1], photo.shape[0])
    try:
        faces = find_faces(photo)
    except NoFaceFound as error:
        return Seen((), str(error), size)
    return Seen(tuple(Sighting.of((face,), None) for face in faces), size=size)


def see_clip(data: bytes, frames: int, shown: int) -> Seen:
    """The persons of an encoded clip, looked for in `frames` frames and told in `shown` of them.

    Raises:
        BadMedia: it cannot be read, or is too large.
        MissingBackend: the face finder's files are not there.
    """
    clip = read_clip(data, frames)
    duration, seconds, complete = clip.duration, clip.seconds, clip.complete
    try:
        tracks = track_faces(clip)
    except NoFaceFound as error:
        return Seen((), str(error), None, duration, seconds, complete)
    tracks = [shown_of(track, shown) for track in tracks]
    found = tuple(Sighting.of(track.frames, track.seconds, track.dropped) for track in tracks)
    return Seen(found, "", None, duration, seconds, complete)


def as_photo(face: Face) -> Sighting:
    """A frame's face as if it were a photo's."""
    return Sighting(face.index, (face,), None, (), None, to_png(face))
