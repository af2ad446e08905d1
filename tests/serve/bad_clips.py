"""Clips as nobody should send them, and odd ones that must be read. PyAV writes them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Final

import av
import numpy as np
from PIL import Image

from tests.serve.bad_photos import (
    EMPTY,
    READ,
    REFUSED,
    TOO_LARGE,
    Table,
    encoded,
    gif_of_frames,
    noise,
    portrait,
    portrait_as,
)

DISPLAY_MATRIX: Final = 44
"""Where the matrix of an MP4 track header lies, from the header's name."""
CLIP_SIZE: Final = (330, 300)


def clip(
    kind: str = "mp4",
    codec: str = "libx264",
    *,
    times: Sequence[int] = range(8),
    picture: Image.Image | None = None,
    fragmented: bool = False,
) -> bytes:
    """The portrait, drifting, ten frames a second unless `times` (tenths) says otherwise."""
    shown = picture or portrait()
    file = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov"} if fragmented else {}
    with av.open(file, "w", format=kind, options=flags) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = shown.width // 2 * 2, shown.height // 2 * 2
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        stream.options = {"g": "6"}
        for number, time in enumerate(times):
            pixels = np.roll(np.asarray(shown), 2 * (number % 4), axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(stream.width, stream.height)
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@cache
def plain(kind: str = "mp4", codec: str = "libx264") -> bytes:
    return clip(kind, codec)


def cut(kind: str, codec: str, share: float) -> bytes:
    whole = plain(kind, codec)
    return whole[: int(len(whole) * share)]


def changed(whole: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """An MP4 with some bytes of a box overwritten, counted from the box's name."""
    place = whole.index(name) + offset
    return whole[:place] + value + whole[place + len(value) :]


def rotated(quarters: int) -> bytes:
    """Stored on its side, with the flag that turns it upright."""
    laid = portrait().rotate(90 * quarters, expand=True)
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return changed(clip(picture=laid), b"tkhd", DISPLAY_MATRIX, matrix)


def damaged(kind: str, codec: str, *, start: float, every: int) -> bytes:
    whole = bytearray(plain(kind, codec))
    for place in range(int(len(whole) * start), len(whole), every):
        whole[place] ^= 0x5A
    return bytes(whole)


def sound_only(kind: str = "mp4", codec: str = "aac") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=44100)
        silence = np.zeros((1, 44100), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def no_frames(kind: str = "mp4") -> bytes:
    """A container that announces pictures and holds none."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        container.start_encoding()
    return file.getvalue()


def lasting(kind: str, seconds: float) -> bytes:
    """A clip of under a second whose header says something else."""
    whole = plain(kind)
    if kind == "matroska":
        return changed(whole, b"\x44\x89\x88", 3, struct.pack(">d", 1000 * seconds))
    scale = whole.index(b"mvhd") + 16
    units = struct.unpack(">I", whole[scale : scale + 4])[0]
    return changed(whole, b"mvhd", 20, struct.pack(">I", int(units * seconds)))


def claims_frames(count: int) -> bytes:
    """An MP4 whose index says that its one chunk holds `count` frames of one byte."""
    whole = plain()
    whole = changed(whole, b"stsz", 8, struct.pack(">II", 1, count))
    whole = changed(whole, b"stts", 8, struct.pack(">III", 1, count, 1))
    return changed(whole, b"stsc", 8, struct.pack(">IIII", 1, 1, count, 1))


def claims_fragment(count: int) -> bytes:
    """A fragmented MP4 of which one fragment says that it holds `count` frames of no bytes."""
    whole = clip(fragmented=True)
    return changed(whole, b"trun", 4, struct.pack(">II", 0, count))


def repeats_itself(times: int) -> bytes:
    """An MP4 whose edit list plays it `times` times over."""
    whole = plain()
    place = whole.index(b"edts") - 4
    edits = struct.pack(">III", 0, times, 0)[:8] + struct.pack(">IIHH", 100, 0, 1, 0) * times
    box = struct.pack(">I4s", len(edits) + 8, b"elst") + edits
    old = struct.unpack(">I", whole[place : place + 4])[0]
    grown = struct.pack(">I4s", len(box) + 8, b"edts") + box
    whole = whole[:place] + grown + whole[place + old :]
    for name in (b"trak", b"moov"):
        start = whole.index(name) - 4
        size = struct.unpack(">I", whole[start : start + 4])[0] + len(grown) - old
        whole = whole[:start] + struct.pack(">I", size) + whole[start + 4 :]
    return whole


def grows_while_it_plays(side: int, after: int = 1) -> bytes:
    """An AVI of 64x64 by its header, whose JPEG frames are `side` pixels a side from one on."""
    file = io.BytesIO()
    large = encoded(Image.new("L", (side, side), 90), "JPEG")
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        small = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
        first = stream.encode(small)
        container.start_encoding()
        for packet in first if after else ():
            container.mux(packet)
        for number in range(after, 6):
            packet = av.Packet(large)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = Fraction(1, 10)
            container.mux(packet)
    return file.getvalue()


def many_streams(count: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams = []
        for _ in range(count):
            stream = container.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
            streams.append(stream)
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
        for stream in streams:
            container.mux(stream.encode(frame))
    return file.getvalue()


PLAYLISTS: Final = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"/>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n",
}

BAD_CLIPS: Final[Table] = {
    "mp4 h264": (READ, plain),
    "mov mpeg4": (READ, partial(plain, "mov", "mpeg4")),
    "webm vp8": (READ, partial(plain, "webm", "libvpx")),
    "webm vp9": (READ, partial(plain, "webm", "libvpx-vp9")),
    "matroska h264": (READ, partial(plain, "matroska", "libx264")),
    "avi mpeg4": (READ, partial(plain, "avi", "mpeg4")),
    "avi mjpeg": (READ, partial(plain, "avi", "mjpeg")),
    "mpeg transport stream": (READ, partial(plain, "mpegts", "mpeg2video")),
    "gif clip": (READ, partial(plain, "gif", "gif")),
    **{f"rotated by {90 * n}": (READ, partial(rotated, n)) for n in (1, 2, 3)},
    "variable frame rate": (READ, partial(clip, times=(0, 1, 2, 3, 20, 40, 41, 90))),
    "one frame": (READ, partial(clip, times=(0,))),
    "starts at an hour": (READ, partial(clip, "matroska", times=range(36_000, 36_008))),
    "no clip at all": (REFUSED, bytes),
    "clip of noise": (REFUSED, noise),
    "photo given as clip": (REFUSED, lambda: portrait_as("JPEG")),
    "mp4 start, then noise": (REFUSED, lambda: b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + noise()),
    "webm start, then noise": (REFUSED, lambda: b"\x1a\x45\xdf\xa3" + noise()),
    "mp4 cut at a third": (REFUSED, partial(cut, "mp4", "libx264", 0.33)),
    "mp4 cut before its end": (REFUSED, partial(cut, "mp4", "libx264", 0.95)),
    "matroska cut in the middle": (READ, partial(cut, "matroska", "libx264", 0.6)),
    "webm cut early": (REFUSED + READ, partial(cut, "webm", "libvpx", 0.1)),
    "avi cut in the middle": (READ, partial(cut, "avi", "mjpeg", 0.6)),
    "transport stream cut in the middle": (READ, partial(cut, "mpegts", "mpeg2video", 0.6)),
    "damaged h264 packets": (
        READ + EMPTY + REFUSED,
        partial(damaged, "matroska", "libx264", start=0.3, every=97),
    ),
    "damaged vp8 packets": (
        READ + EMPTY + REFUSED,
        partial(damaged, "webm", "libvpx", start=0.3, every=61),
    ),
    "damaged mpeg4 packets": (
        READ + EMPTY + REFUSED,
        partial(damaged, "avi", "mpeg4", start=0.3, every=41),
    ),
    "damaged from its first byte": (REFUSED, partial(damaged, "mp4", "libx264", start=0, every=3)),
    "sound only": (REFUSED, sound_only),
    "sound only, matroska": (REFUSED, partial(sound_only, "matroska")),
    "wav": (REFUSED, lambda: b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0" + bytes(99)),
    "no frames": (REFUSED, no_frames),
    "no frames, matroska": (REFUSED, partial(no_frames, "matroska")),
    "mp4 that claims 27 hours": (READ + TOO_LARGE, partial(lasting, "mp4", 1e5)),
    "matroska that claims 27 hours": (TOO_LARGE, partial(lasting, "matroska", 1e5)),
    **{
        f"matroska of {length} seconds": (
            READ + TOO_LARGE + REFUSED,
            partial(lasting, "matroska", length),
        )
        for length in (float("nan"), float("inf"), -1e300)
    },
    "fragmented mp4": (READ, partial(clip, fragmented=True)),
    "jumps to the twelfth minute": (
        TOO_LARGE,
        partial(clip, "matroska", times=(0, 1, 2, 7200, 7201)),
    ),
    "gif clip that plays for ever": (EMPTY, partial(gif_of_frames, 30)),
    "100000 tiny frames": (TOO_LARGE, partial(gif_of_frames, 100_000, side=16)),
    "frames of one pixel": (REFUSED, partial(gif_of_frames, 5, side=1)),
    "gif screen of a billion pixels": (
        TOO_LARGE + REFUSED,
        partial(gif_of_frames, 5, screen=(65_535, 65_535)),
    ),
    "mp4 that claims 60 million frames": (REFUSED, partial(claims_frames, 60_000_000)),
    "fragment that claims 4 billion frames": (REFUSED, partial(claims_fragment, 2**32 - 1)),
    "mp4 that repeats itself 50000 times": (REFUSED, partial(repeats_itself, 50_000)),
    "mp4 that repeats itself twice": (READ + REFUSED, partial(repeats_itself, 2)),
    "grows to 144 million pixels a frame": (
        EMPTY + REFUSED + TOO_LARGE,
        partial(grows_while_it_plays, 12_000),
    ),
    "frames of 144 million pixels": (
        TOO_LARGE + REFUSED,
        partial(grows_while_it_plays, 12_000, after=0),
    ),
    "200 streams": (EMPTY + REFUSED + TOO_LARGE, partial(many_streams, 200)),
    "jpeg 2000 in a movie": (
        REFUSED,
        partial(clip, "mov", "jpeg2000", times=(0, 1)),
    ),
    **{f"{name} file": (REFUSED, partial(bytes, text)) for name, text in PLAYLISTS.items()},
    "png given as mp4": (REFUSED, lambda: portrait_as("PNG")),
}
