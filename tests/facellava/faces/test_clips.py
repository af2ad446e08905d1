"""Clips written here with PyAV, read back, damaged, and their persons followed."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from facellava.errors import BadMedia, MediaTooLarge, NoFaceFound
from facellava.faces import Face, canonical_face, clips, find_faces
from facellava.faces.clips import Clip, Track, apex, read_clip, track_faces

MATRIX_OFFSET = 44  # of the display matrix in an MP4 track header, after its name

VIDEO_TAG, SORENSON, VP6 = 9, 2, 4  # of FLV: a kind of tag, and two of its codecs


def written(
    shades: list[int], *, kind: str = "mp4", codec: str = "libx264", times: list[int] | None = None
) -> bytes:
    """A clip of 10 frames a second, 96x64: one grey a frame, with a red top left corner."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"g": "12"}
        for number, shade in enumerate(shades):
            pixels = np.full((64, 96, 3), shade, np.uint8)
            pixels[:16, :16] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts = times[number]
                frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def shade(frame: NDArray[np.uint8]) -> int:
    return int(frame[40:60, 40:60].mean())


def test_frames_are_evenly_spaced_and_right() -> None:
    clip = read_clip(written([40 + 5 * i for i in range(32)]), frames=8)
    assert [round(second * 10) for second in clip.seconds] == [2, 6, 10, 14, 17, 21, 25, 29]
    for frame, second in zip(clip.frames, clip.seconds, strict=True):
        assert frame.shape == (64, 96, 3)
        assert abs(shade(frame) - (40 + 50 * second)) <= 4
    assert clip.complete
    assert clip.duration == pytest.approx(3.1)


def test_a_short_clip_gives_all_its_frames() -> None:
    assert len(read_clip(written([100, 150, 200]), frames=8).frames) == 3
    assert len(read_clip(written([100]), frames=8).frames) == 1


def test_uneven_frame_times_are_respected() -> None:
    # 10 frames in the first second, then one every second: time counts, not the frame's number.
    times = [*range(10), 20, 30, 40, 50, 60, 70, 80]
    clip = read_clip(written([50 + 10 * i for i in range(17)], times=times), frames=4)
    assert [round(second) for second in clip.seconds] == [1, 3, 5, 7]


def test_a_long_clip_is_reached_by_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    data_ = written([60 + i for i in range(120)])
    expected = [shade(frame) for frame in read_clip(data_, frames=3).frames]
    monkeypatch.setattr(clips, "SEEK_SECONDS", 1.0)
    assert [shade(frame) for frame in read_clip(data_, frames=3).frames] == expected


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((0, 1, -1, 0), (4, -4)), ((0, -1, 1, 0), (-4, 4)), ((-1, 0, 0, -1), (-4, -4))],
)
def test_the_rotation_flag_is_applied(
    matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    encoded = written([120] * 4)
    a, b, c, d = (value << 16 for value in matrix)
    start = encoded.index(b"tkhd") + MATRIX_OFFSET
    flagged = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    frame = read_clip(encoded[:start] + flagged + encoded[start + 36 :]).frames[0]
    assert frame.shape == ((64, 96, 3) if matrix[0] else (96, 64, 3))
    assert frame[corner][0] > 180
    assert frame[corner][1] < 100


def test_a_cut_file_keeps_what_decodes(caplog: pytest.LogCaptureFixture) -> None:
    whole = written([40 + 2 * i for i in range(100)], kind="matroska")
    with caplog.at_level(logging.WARNING):
        clip = read_clip(whole[: len(whole) // 2])
    assert 1 <= len(clip.frames) <= 8
    assert not clip.complete
    assert clip.duration < 8
    assert "cut off or damaged" in caplog.text


def test_what_is_no_clip_gets_a_sentence(tmp_path: object) -> None:
    whole = written([100] * 30)
    sound = io.BytesIO()
    with av.open(sound, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 44100), np.float32), format="fltp", layout="mono"
        )
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    playlist = (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
    )
    for source, sentence in [
        (b"", "is empty"),
        (b"no clip at all" * 50, "not a clip"),
        (whole[: len(whole) // 3], "index at the end is cut off"),
        (playlist, "not a clip"),
        (sound.getvalue(), "sound but no pictures"),
        (f"{tmp_path}/missing.mp4", "There is no file"),
        (f"{tmp_path}", "is a folder"),
    ]:
        with pytest.raises(BadMedia, match=sentence):
            read_clip(source)
    with pytest.raises(BadMedia, match="at least 1"):
        read_clip(whole, frames=0)


def test_caps_come_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written([100] * 30)
    for name, value in [
        ("MAX_FRAME_PIXELS", 1000),
        ("MAX_SECONDS", 1.0),
        ("MAX_FRAMES", 10),
        ("MAX_BYTES", 100),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(clips, name, value)
            with pytest.raises(MediaTooLarge):
                read_clip(whole)


@pytest.fixture(scope="module")
def portrait_face() -> tuple[NDArray[np.uint8], Face]:
    photo = np.ascontiguousarray(data.astronaut()[:240, 90:350])
    return photo, find_faces(photo)[0]


def clip_of(frames: list[NDArray[np.uint8]], step: float) -> Clip:
    seconds = tuple(step * i for i in range(len(frames)))
    return Clip(tuple(frames), seconds, seconds[-1], complete=True)


@pytest.fixture
def finder(
    portrait_face: tuple[NDArray[np.uint8], Face], monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[list[tuple[float, float]]]], list[NDArray[np.uint8]]]:
    """Frames of which the finder is told where faces are: (shift in pixels, scale) each."""
    photo, face = portrait_face

    def plan(script: list[list[tuple[float, float]]]) -> list[NDArray[np.uint8]]:
        frames = [photo.copy() for _ in script]

        def scripted(frame: NDArray[np.uint8]) -> list[Face]:
            (number,) = [i for i, one in enumerate(frames) if one is frame]
            if not script[number]:
                raise NoFaceFound("No face was found.")
            moved = [(face.photo_landmarks * scale + (shift, 0)) for shift, scale in script[number]]
            faces = [
                canonical_face(frame, points, source="dlib_hog", score=2.0) for points in moved
            ]
            return [one.with_index(i) for i, one in enumerate(faces)]

        monkeypatch.setattr(clips, "find_faces", scripted)
        return frames

    return plan


def test_persons_are_kept_apart_and_the_larger_comes_first(
    finder: Callable[[list[list[tuple[float, float]]]], list[NDArray[np.uint8]]],
) -> None:
    small, large = (0.0, 0.6), (150.0, 1.0)
    frames = finder([[small, large], [large, small], [(5.0, 0.6), (145.0, 1.0)]])
    first, second = track_faces(clip_of(frames, 0.2))
    assert (first.index, second.index) == (0, 1)
    assert [len(first.frames), len(second.frames)] == [3, 3]
    assert all(face.box[0] > 140 for face in first.frames)
    assert all(face.box[0] < 140 for face in second.frames)
    assert {face.index for face in second.frames} == {1}


def test_short_gaps_are_bridged_and_long_ones_dropped(
    finder: Callable[[list[list[tuple[float, float]]]], list[NDArray[np.uint8]]],
) -> None:
    frames = finder([[(0.0, 1.0)], [], [(10.0, 1.0)]])
    (bridged,) = track_faces(clip_of(frames, 0.4))
    assert [face.source for face in bridged.frames] == ["dlib_hog", "interpolated", "dlib_hog"]
    middle = (bridged.frames[0].photo_landmarks + bridged.frames[2].photo_landmarks) / 2
    np.testing.assert_allclose(bridged.frames[1].photo_landmarks, middle, atol=0.01)
    assert bridged.frames[1].weak

    (broken,) = track_faces(clip_of(frames, 1.0))
    assert broken.seconds == (0.0, 2.0)
    assert [one.seconds for one in broken.dropped] == [1.0]
    assert "within 0.5 s" in broken.dropped[0].reason


def test_a_clip_without_a_face_says_so() -> None:
    with pytest.raises(NoFaceFound, match="2 frames"):
        track_faces(clip_of([np.full((64, 64, 3), 90, np.uint8)] * 2, 0.1))


def test_a_real_face_is_followed(portrait_face: tuple[NDArray[np.uint8], Face]) -> None:
    photo, face = portrait_face
    frames = [np.ascontiguousarray(np.roll(photo, shift, axis=1)) for shift in (0, 4)]
    (track,) = track_faces(clip_of(frames, 0.1))
    travel = track.frames[1].photo_landmarks - track.frames[0].photo_landmarks
    np.testing.assert_allclose(travel.mean(axis=0), [4, 0], atol=1.0)


def test_the_apex_is_the_frame_that_moved_most(
    portrait_face: tuple[NDArray[np.uint8], Face],
) -> None:
    photo, face = portrait_face
    frames = []
    for opening in (0, 0, 12, 2, 0):
        points = face.photo_landmarks.copy()
        points[55:60, 1] += opening
        frames.append(canonical_face(photo, points))
    track = Track(tuple(frames), (0.0, 0.1, 0.2, 0.3, 0.4), 0)
    assert apex(track.frames) == 2


def test_vp6_in_flash_is_a_codec_that_is_read() -> None:
    """PyAV cannot write VP6, so the tags of another codec say that they were: FLV's codec 4."""
    data = bytearray(written([100, 150], kind="flv", codec="flv"))
    place = len(b"FLV") + 1 + 1 + 4 + 4
    while place < len(data):
        kind, size = data[place], int.from_bytes(data[place + 1 : place + 4])
        if kind == VIDEO_TAG:
            assert data[place + 11] & 0x0F == SORENSON
            data[place + 11] = data[place + 11] & 0xF0 | VP6
        place += 11 + size + 4
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.name == "vp6f"
    with pytest.raises(BadMedia) as trouble:
        read_clip(bytes(data))
    assert "which is not read here" not in str(trouble.value)
