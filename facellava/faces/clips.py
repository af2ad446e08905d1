"""A clip to frames, and its persons followed from frame to frame.

Decoding is PyAV's, from an open file and only by demuxers that read that one file: play lists
(HLS, concat), which can name other files and addresses, are not opened.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from facellava.errors import BadMedia, MediaTooLarge, NoFaceFound
from facellava.faces.crop import canonical_face
from facellava.faces.detectors import overlap
from facellava.faces.face import Face
from facellava.faces.find import find_faces
from facellava.faces.mp4_index import check_mp4_index
from facellava.faces.photo import MIN_SIDE, read_file

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_FRAME_PIXELS: Final = 4096 * 2304
MAX_SECONDS: Final = 600.0
MAX_FRAMES: Final = 36_000  # ten minutes at 60 frames a second
CONTAINERS: Final = "mov,matroska,avi,gif,mpegts,mpeg,ogg,flv,asf"
# What cameras, phones and browsers write, and the VP6 of CREMA-D's Flash clips; the many other
# decoders are not met by hostile bytes.
CODECS: Final = frozenset(
    {"h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "h263"}
    | {"mpeg1video", "mpeg2video", "mjpeg", "theora", "gif", "flv", "wmv1", "wmv2", "wmv3", "vc1"}
    | {"msmpeg4", "msmpeg4v2", "msmpeg4v3", "prores", "dvvideo", "vp6f"}
)
CLIP_SUFFIXES: Final = frozenset(
    {".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv", ".3gp", ".flv"}
)
SAME_PERSON: Final = 0.2  # box overlap (IoU) from one sampled frame to the next
SEEK_SECONDS: Final = 5.0  # frames farther ahead are reached by a jump to the key frame before
BRIDGED_SECONDS: Final = 0.5  # a face is known to lie between two that are no farther away

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a clip, evenly spaced in time.

    Attributes:
        frames: (H, W, 3) uint8 RGB each, upright.
        seconds: when each is shown, from the clip's first frame.
        duration: seconds from the first frame to the last that can be read.
        complete: False where the file is cut off or damaged and only its readable part was used.
    """

    frames: tuple[NDArray[np.uint8], ...]
    seconds: tuple[float, ...]
    duration: float
    complete: bool


@dataclass(frozen=True)
class DroppedFrame:
    """A sampled frame in which a person has no landmarks, and why."""

    seconds: float
    reason: str


@dataclass(frozen=True, eq=False)
class Track:
    """One person of a clip.

    Attributes:
        frames: the person's face in each usable frame; source "interpolated" where it was bridged.
        seconds: when, for each of `frames`.
        index: 0 for the person with the largest mean face.
        dropped: sampled frames without a usable face.
    """

    frames: tuple[Face, ...]
    seconds: tuple[float, ...]
    index: int
    dropped: tuple[DroppedFrame, ...] = ()


def read_clip(source: str | Path | bytes, frames: int = 8) -> Clip:
    """Evenly spaced frames of a clip, fewer where it has fewer.

    Args:
        source: path or encoded bytes of an MP4, MOV, WebM, MKV, AVI, MPEG or animated GIF.
        frames: how many, at least 1.

    Raises:
        BadMedia: missing, not a clip, without pictures, or nothing in it can be decoded.
        MediaTooLarge: more than 256 MiB, ten minutes, 36,000 frames or 9.4 million pixels a frame.
    """
    if frames < 1:
        raise BadMedia(f"{frames} frames cannot be taken from a clip; ask for at least 1.")
    name = "The clip" if isinstance(source, bytes) else f"'{str(source)[:200]}'"
    if isinstance(source, bytes):
        data = source
        if len(data) > MAX_BYTES:
            raise MediaTooLarge(
                f"{name} has {len(data) / 2**20:.0f} MiB; a clip may have {MAX_BYTES // 2**20} MiB."
            )
    else:
        data = read_file(Path(source), name, MAX_BYTES, "clip")
    if not data:
        raise BadMedia(f"{name} is empty; give an MP4 or WebM clip.")
    times, announced = _frame_times(data, name)
    wanted = evenly(times, frames)
    taken = dict(_decoded(data, name, wanted))
    if not taken:
        raise BadMedia(f"No frame of {name} can be decoded; save it again as MP4 (H.264).")
    complete = len(taken) == len(wanted) and times[-1] - times[0] >= 0.9 * announced - 0.5
    if not complete:
        logger.warning(
            "%s is cut off or damaged: %d of %d frames were read, from %.1f of %.1f s.",
            name,
            len(taken),
            len(wanted),
            times[-1] - times[0],
            announced,
        )
    seconds = tuple(sorted(taken))
    return Clip(
        frames=tuple(taken[time] for time in seconds),
        seconds=tuple(time - times[0] for time in seconds),
        duration=times[-1] - times[0],
        complete=complete,
    )


def _open(data: bytes, name: str) -> Any:
    check_mp4_index(data, name)
    options = {"format_whitelist": CONTAINERS, "codec_whitelist": ",".join(sorted(CODECS))}
    try:
        container = av.open(io.BytesIO(data), options=options)
    except (av.FFmpegError, ValueError) as error:
        raise BadMedia(
            f"{name} is not a clip that can be read, or its index at the end is cut off; "
            "give a whole MP4 or WebM clip."
        ) from error
    if not container.streams.video:
        found = "sound but no pictures" if container.streams.audio else "no pictures"
        container.close()
        raise BadMedia(f"{name} has {found}; give a clip that shows a face.")
    context = container.streams.video[0].codec_context
    if context.codec.name not in CODECS:
        container.close()
        raise BadMedia(
            f"{name} is encoded as {context.codec.name}, which is not read here; "
            "save it again as MP4 (H.264)."
        )
    # Frames may grow after the header was checked.
    context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return container


def _frame_times(data: bytes, name: str) -> tuple[list[float], float]:
    """Show times of all frames in seconds, sorted, without decoding; and the announced length."""
    with _open(data, name) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_FRAME_PIXELS:
            raise MediaTooLarge(
                f"{name} has frames of {width}x{height} pixels; a clip may have up to "
                f"{MAX_FRAME_PIXELS / 1e6:.1f} million a frame."
            )
        if min(width, height) < MIN_SIDE:
            raise BadMedia(
                f"{name} has frames of {width}x{height} pixels; "
                f"a clip needs at least {MIN_SIDE} a side."
            )
        stream_says = bool(stream.duration)
        if stream_says:
            announced = float(stream.duration * stream.time_base)
        else:
            announced = (container.duration or 0) / av.time_base
        times: set[float] = set()
        first = float("inf")
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    shown = float(packet.pts * packet.time_base)
                    times.add(shown)
                    first = min(first, shown)
                    if len(times) > MAX_FRAMES or shown - first > MAX_SECONDS:
                        break
        except av.FFmpegError as error:
            logger.warning("%s is damaged (%s); what comes before is used.", name, error)
    span = max(times, default=0.0) - min(times, default=0.0)
    if not stream_says:
        # Some containers count their length from zero, though their first frame comes later.
        announced = max(span, announced - max(0.0, min(times, default=0.0)))
    longest = max(announced, span)
    if len(times) > MAX_FRAMES or longest > MAX_SECONDS:
        raise MediaTooLarge(
            f"{name} has more than {MAX_SECONDS / 60:.0f} minutes or {MAX_FRAMES} frames; "
            "cut out the part that matters."
        )
    if not times:
        raise BadMedia(f"{name} has no frames; give a clip that shows a face.")
    return sorted(times), announced


def evenly(times: Sequence[float], count: int) -> list[float]:
    """Those of the sorted times that are nearest the middles of `count` equal stretches."""
    if len(times) <= count:
        return list(times)
    middles = times[0] + (np.arange(count) + 0.5) * (times[-1] - times[0]) / count
    nearest = np.abs(np.asarray(times)[None, :] - middles[:, None]).argmin(axis=1)
    return [times[i] for i in sorted(set(nearest.tolist()))]


def _decoded(
    data: bytes, name: str, wanted: list[float]
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frames shown at the wanted times, or the next after each; damaged ones are left out."""
    with _open(data, name) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        reformatter = av.video.reformatter.VideoReformatter()
        waiting = list(wanted)
        packets = container.demux(stream)
        while waiting:
            try:
                packet = next(packets, None)
                decoded = packet.decode() if packet is not None else []
            except av.FFmpegError as error:
                # One damaged packet: the decoder goes on at the next that it can read.
                logger.debug("%s has a damaged packet (%s).", name, error)
                decoded = []
            if packet is None:
                return
            for frame in decoded:
                if frame.time is None or not waiting or frame.time < waiting[0] - 1e-6:
                    continue
                yield float(frame.time), _upright_rgb(frame, reformatter)
                waiting = [time for time in waiting if time > frame.time + 1e-6]
            if decoded and waiting and waiting[0] - (decoded[-1].time or 0.0) > SEEK_SECONDS:
                container.seek(int(waiting[0] / stream.time_base), stream=stream)
                packets = container.demux(stream)


class FrameReader:
    """Single frames of one clip by their number, read quickly when asked for in rising order.

    Args:
        path: the clip.
        most_bytes: of a dataset's own clips, which may be larger than what strangers send.

    Raises:
        BadMedia, MediaTooLarge: as :func:`read_clip`.
    """

    def __init__(self, path: Path, most_bytes: int = MAX_BYTES) -> None:
        self._name = f"'{str(path)[:200]}'"
        self._data = read_file(path, self._name, most_bytes, "clip")
        self._times = _frame_times(self._data, self._name)[0]
        self._frames: Iterator[tuple[float, NDArray[np.uint8]]] = iter(())
        self._next = len(self._times)

    def __len__(self) -> int:
        return len(self._times)

    def read(self, number: int) -> NDArray[np.uint8]:
        """Frame `number`, counted from 0 in the order in which they are shown: (H, W, 3) RGB.

        Raises:
            BadMedia: the clip has no such frame, or it cannot be decoded.
        """
        if not 0 <= number < len(self._times):
            raise BadMedia(f"{self._name} has {len(self._times)} frames and no frame {number}.")
        if number < self._next:
            self._frames = _decoded(self._data, self._name, self._times[number:])
        self._next = number + 1
        for time, frame in self._frames:
            if time > self._times[number] - 1e-6:
                if time < self._times[number] + 1e-6:
                    return frame
                break
        # What was decoded beyond the frame is lost: the next one starts anew.
        self._next = len(self._times)
        raise BadMedia(f"Frame {number} of {self._name} cannot be decoded.")


def _upright_rgb(frame: Any, reformatter: Any) -> NDArray[np.uint8]:
    # One reformatter for all frames: to_ndarray alone makes a new one each time, ten times slower.
    rgb = reformatter.reformat(frame, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def track_faces(clip: Clip) -> list[Track]:
    """The persons of a clip, the one with the largest face first.

    A face belongs to the person whose box it overlaps most in the frame before. Where a person is
    lost in a frame, landmarks are interpolated between faces at most 0.5 s away on either side.

    Raises:
        NoFaceFound: no frame shows a face.
        MissingBackend: the face finder's files are not there.
    """
    seen: list[dict[int, Face]] = []
    for number, frame in enumerate(clip.frames):
        try:
            faces = find_faces(frame)
        except NoFaceFound:
            continue
        _assign(seen, number, faces)
    if not seen:
        raise NoFaceFound(
            f"No face was found in {len(clip.frames)} frames of the clip; "
            "use a clip where the face is large and in view."
        )
    persons = sorted(seen, key=lambda person: -float(np.mean([_area(f) for f in person.values()])))
    return [_track(clip, person, index) for index, person in enumerate(persons)]


def _assign(seen: list[dict[int, Face]], number: int, faces: list[Face]) -> None:
    """Give each face of a frame to the person it overlaps most, or to a new one."""
    pairs = sorted(
        (
            (overlap(face.box, person[max(person)].box), which, position)
            for which, person in enumerate(seen)
            for position, face in enumerate(faces)
        ),
        reverse=True,
    )
    persons_left, faces_left = set(range(len(seen))), set(range(len(faces)))
    for shared, which, position in pairs:
        if shared >= SAME_PERSON and which in persons_left and position in faces_left:
            seen[which][number] = faces[position]
            persons_left.remove(which)
            faces_left.remove(position)
    seen.extend({number: faces[position]} for position in sorted(faces_left))


def _track(clip: Clip, person: dict[int, Face], index: int) -> Track:
    frames, seconds, dropped = [], [], []
    for number, second in enumerate(clip.seconds):
        face = person.get(number) or _bridged(clip, person, number)
        if face is None:
            reason = f"no face of this person within {BRIDGED_SECONDS} s on both sides"
            dropped.append(DroppedFrame(second, reason))
            logger.info("Person %d has no face at %.2f s: %s.", index, second, reason)
        else:
            frames.append(face.with_index(index))
            seconds.append(second)
    return Track(tuple(frames), tuple(seconds), index, tuple(dropped))


def _bridged(clip: Clip, person: dict[int, Face], number: int) -> Face | None:
    """The face between its neighbours in time, or None where one of them is too far away."""
    before = max((other for other in person if other < number), default=None)
    after = min((other for other in person if other > number), default=None)
    if before is None or after is None:
        return None
    now, start, end = (clip.seconds[i] for i in (number, before, after))
    if now - start > BRIDGED_SECONDS or end - now > BRIDGED_SECONDS:
        return None
    share = (now - start) / (end - start)
    one, other = person[before], person[after]
    x0, y0, x1, y1 = ((1 - share) * a + share * b for a, b in zip(one.box, other.box, strict=True))
    return canonical_face(
        clip.frames[number],
        (1 - share) * one.photo_landmarks + share * other.photo_landmarks,
        box=(x0, y0, x1, y1),
        source="interpolated",
    )


def _area(face: Face) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def apex(frames: Sequence[Face]) -> int:
    """Which of one person's frames shows the strongest expression.

    The frame whose landmarks, in the canonical crop (so without place, scale and roll), lie
    farthest from the median face. Frames with weak landmarks count only if all are weak.
    """
    landmarks = np.stack([face.landmarks for face in frames])
    motion = np.linalg.norm(landmarks - np.median(landmarks, axis=0), axis=-1).mean(axis=-1)
    weak = np.array([face.weak for face in frames])
    if not weak.all():
        motion = np.where(weak, -1.0, motion)
    return int(motion.argmax())
