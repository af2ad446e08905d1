"""What a row of a dataset points at: a photo, a clip, one frame of a clip; and its one face.

A medium is small and goes to worker processes as it is; its bytes are read there, where its face is
looked for. Hostile or damaged bytes are a reason to leave the row out, never to stop a build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from facellava.errors import BadMedia, BadSample, NoFaceFound
from facellava.faces import Face, find_faces, read_photo
from facellava.faces.clips import Clip, FrameReader, Track, read_clip, track_faces

Sampling = Literal["uniform", "expressive"]

CLIP_FRAMES: Final = 8
FRAMES_A_SECOND: Final = 25.0  # of clips that are given out as pictures
SEARCHED: Final = 4  # "expressive" looks at so many times the frames that it keeps
# A person seen in this share of the frames is in the clip; so is the one who is asked about.
PRESENT: Final = 0.5
MOST_BYTES: Final = 2**31  # a clip of DISFA has some 300 MB


class Unusable(Exception):
    """A medium that shows no one face to learn from; `reason` is what is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Look:
    """How clips are looked at.

    Attributes:
        frames: kept of each clip, T.
        sampling: "uniform" takes them evenly spaced in time; "expressive" looks at four times as
            many and keeps those whose landmarks are farthest from the person's median face.
    """

    frames: int = CLIP_FRAMES
    sampling: Sampling = "uniform"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise BadSample(f"{self.frames} frames cannot be taken from a clip; ask for 1 or more.")
        if self.sampling not in ("uniform", "expressive"):
            raise BadSample(
                f"The sampling is {self.sampling!r}; allowed are uniform and expressive."
            )


DEFAULT_LOOK: Final = Look()


class Media(Protocol):
    """A photo or clip of a dataset."""

    def digest(self) -> bytes:
        """Changes with the contents, and is the same for the same contents.

        Raises:
            OSError: a file is gone.
            Unusable: there is nothing to look at.
        """
        ...

    def face(self, look: Look) -> tuple[Face, ...]:
        """The one face, or the one person's face in T frames.

        Raises:
            Unusable: there is none, there are several, or the medium cannot be read.
        """
        ...


@runtime_checkable
class Still(Media, Protocol):
    """One picture, not a clip."""

    def photo(self) -> NDArray[np.uint8]:
        """The picture in which the face is looked for: (H, W, 3) uint8 RGB.

        Raises:
            OSError: a file is gone.
            Unusable: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Picture:
    """One encoded picture (JPEG, PNG, WebP ...): its bytes, or the file that holds them.

    Attributes:
        declared_crop: the picture is one face, tightly cropped.
    """

    data: bytes | Path
    declared_crop: bool = True

    def digest(self) -> bytes:
        if isinstance(self.data, Path):
            return _file_digest(self.data)
        if not self.data:
            raise Unusable("picture is missing")
        return hashlib.sha256(self.data).digest()

    def photo(self) -> NDArray[np.uint8]:
        try:
            return read_photo(self.data)
        except BadMedia as error:
            raise Unusable("picture cannot be read") from error

    def face(self, look: Look) -> tuple[Face, ...]:
        try:
            faces = find_faces(self.photo(), declared_crop=self.declared_crop)
        except NoFaceFound as error:
            raise Unusable("no face found") from error
        return (_only(faces),)


@dataclass(frozen=True)
class ClipFile:
    """One clip as a file."""

    path: Path

    def digest(self) -> bytes:
        return _file_digest(self.path)

    def face(self, look: Look) -> tuple[Face, ...]:
        wanted = look.frames * (SEARCHED if look.sampling == "expressive" else 1)
        try:
            clip = read_clip(self.path, wanted)
        except BadMedia as error:
            raise Unusable("clip cannot be read or has no frames") from error
        return _person(clip, look)


@dataclass(frozen=True)
class FrameFiles:
    """A clip that is given out as pictures, in their order."""

    paths: tuple[Path, ...]

    def digest(self) -> bytes:
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(_file_digest(path))
        return digest.digest()

    def face(self, look: Look) -> tuple[Face, ...]:
        if not self.paths:
            raise Unusable("clip cannot be read or has no frames")
        wanted = look.frames * (SEARCHED if look.sampling == "expressive" else 1)
        count = len(self.paths)
        middles = (np.arange(min(wanted, count)) + 0.5) * count / min(wanted, count)
        places = sorted({int(middle) for middle in middles})
        try:
            frames = tuple(read_photo(self.paths[place]) for place in places)
        except BadMedia as error:
            raise Unusable("a frame of the clip cannot be read") from error
        seconds = tuple(place / FRAMES_A_SECOND for place in places)
        duration = (count - 1) / FRAMES_A_SECOND
        return _person(Clip(frames, seconds, duration, complete=True), look)


@dataclass(frozen=True)
class ClipFrame:
    """One frame of a clip, counted from 0 in the order in which frames are shown."""

    path: Path
    number: int

    def digest(self) -> bytes:
        return hashlib.sha256(_file_digest(self.path) + b"%d" % self.number).digest()

    def photo(self) -> NDArray[np.uint8]:
        try:
            return _reader(self.path).read(self.number)
        except BadMedia as error:
            raise Unusable("frame of the clip cannot be read") from error

    def face(self, look: Look) -> tuple[Face, ...]:
        try:
            return (_only(find_faces(self.photo())),)
        except NoFaceFound as error:
            raise Unusable("no face found") from error


def _only(faces: Sequence[Face]) -> Face:
    if len(faces) > 1:
        # The label belongs to one of them, and nothing says to which.
        raise Unusable("more than one face")
    return faces[0]


def _person(clip: Clip, look: Look) -> tuple[Face, ...]:
    """The one person of a clip, in at most `look.frames` frames, in time order."""
    try:
        tracks = track_faces(clip)
    except NoFaceFound as error:
        raise Unusable("no face found") from error
    enough = PRESENT * len(clip.frames)
    present = [track for track in tracks if len(track.frames) >= enough]
    if not present:
        raise Unusable("the face is lost in more than half of the frames")
    if len(present) > 1:
        raise Unusable("more than one face")
    return _strongest(present[0], look.frames)


def _strongest(track: Track, count: int) -> tuple[Face, ...]:
    """At most `count` frames in time order: those farthest from the person's median face."""
    if len(track.frames) <= count:
        return track.frames
    points = np.stack([face.landmarks for face in track.frames])
    motion = np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean(axis=-1)
    places = sorted(np.argsort(-motion, kind="stable")[:count].tolist())
    return tuple(track.frames[place] for place in places)


@lru_cache(maxsize=1)
def _reader(path: Path) -> FrameReader:
    """Rows of one clip follow one another, so that it is decoded once."""
    return FrameReader(path, MOST_BYTES)


def _file_digest(path: Path) -> bytes:
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, changed: int) -> bytes:
    """Once for all frames of a clip, and again where the file has changed since."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
