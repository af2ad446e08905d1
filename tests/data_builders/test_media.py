"""Media: a photo, clips as files and as frames, one frame of a clip, and the one face in each."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from data_builders.build import BuildOptions, build
from data_builders.media import ClipFile, ClipFrame, FrameFiles, Look, Picture, Unusable
from data_builders.mixture import MixtureEntry
from facellava.corpus import read_faces, read_manifest
from facellava.errors import BadMedia, BadSample
from facellava.faces.clips import FrameReader

PORTRAIT = np.ascontiguousarray(skimage.data.astronaut()[:200, 110:330])
NOBODY = np.full_like(PORTRAIT, 90)


def moved(shift: int) -> np.ndarray:
    """The portrait, a few pixels to the right."""
    return np.roll(PORTRAIT, shift, axis=1)


def long_faced(pull: int) -> np.ndarray:
    """The portrait with the face below the nose pulled down by so many pixels."""
    frame = PORTRAIT.copy()
    frame[130 + pull :] = PORTRAIT[130 : len(PORTRAIT) - pull]
    return frame


def encoded(frames, sound=False, kind="mp4", codec="libx264") -> bytes:
    """A clip of 10 frames a second, or one that has sound and no pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        if sound:
            stream = container.add_stream("aac", rate=44100)
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), "fltp", "mono")
            tone.rate = 44100
            container.mux(stream.encode(tone))
        else:
            stream = container.add_stream(codec, rate=10)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
def clip(tmp_path):
    """Frames to a clip's file."""

    def write(frames) -> Path:
        path = tmp_path / "clip.mp4"
        path.write_bytes(encoded(frames))
        return path

    return write


@pytest.fixture
def frame_files(tmp_path):
    """Frames to the files that a dataset gives them out as."""

    def write(frames) -> tuple[Path, ...]:
        paths = tuple(tmp_path / f"{number}.png" for number in range(len(frames)))
        for frame, path in zip(frames, paths, strict=True):
            Image.fromarray(frame).save(path)
        return paths

    return write


def places(faces) -> list[float]:
    """How far each face has moved since the first, in pixels to the right."""
    across = [face.photo_landmarks[:, 0].mean() for face in faces]
    return [round(float(place - across[0]), 1) for place in across]


def reason(media) -> str:
    with pytest.raises(Unusable) as caught:
        media.face(Look(frames=4))
    return caught.value.reason


def test_a_clip_gives_evenly_spaced_frames_of_its_person(clip):
    path = clip([moved(shift) for shift in range(12)])
    faces = ClipFile(path).face(Look(frames=4))
    assert len(faces) == 4
    assert {face.crop.shape for face in faces} == {(192, 192, 3)}
    np.testing.assert_allclose(places(faces), [0, 3, 6, 8], atol=1.0)


def test_a_short_clip_gives_the_frames_that_it_has(clip):
    assert len(ClipFile(clip([moved(0), moved(2)])).face(Look(frames=8))) == 2


def test_flash_video_is_read(tmp_path):
    path = tmp_path / "1001_DFA_ANG_XX.flv"
    path.write_bytes(encoded([moved(shift) for shift in range(4)], kind="flv", codec="flv"))
    assert len(ClipFile(path).face(Look(frames=2))) == 2


def test_expressive_sampling_keeps_the_frames_that_differ_most(frame_files):
    paths = frame_files([long_faced(pull) for pull in (0, 0, 0, 12, 0, 0, 14, 0)])
    strongest = FrameFiles(paths).face(Look(frames=2, sampling="expressive"))
    alone = [FrameFiles((paths[place],)).face(Look(frames=1))[0] for place in (3, 6)]
    for face, expected in zip(strongest, alone, strict=True):
        np.testing.assert_array_equal(face.landmarks, expected.landmarks)
    assert len(FrameFiles(paths[:1]).face(Look(frames=2, sampling="expressive"))) == 1


def test_a_short_gap_is_bridged_and_a_longer_one_left_out(frame_files):
    frames = [moved(0), NOBODY, moved(4), moved(6)]
    faces = FrameFiles(frame_files(frames)).face(Look(frames=4))
    assert [face.source for face in faces] == [
        "dlib_hog", "interpolated", "dlib_hog", "dlib_hog",
    ]  # fmt: skip
    np.testing.assert_allclose(places(faces), [0, 2, 4, 6], atol=1.0)
    # 25 frames are a second: the person is away for more than half a second on one side.
    frames = [moved(0)] * 20 + [NOBODY] * 20
    assert len(FrameFiles(frame_files(frames)).face(Look(frames=4))) == 2


def test_frame_files_are_sampled_evenly(frame_files):
    paths = frame_files([moved(shift) for shift in range(10)])
    faces = FrameFiles(paths).face(Look(frames=3))
    np.testing.assert_allclose(places(faces), [0, 4, 7], atol=1.0)


def test_clips_without_one_person_say_why(clip, frame_files):
    two = np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], axis=1)
    assert reason(ClipFile(clip([two] * 3))) == "more than one face"
    assert reason(ClipFile(clip([NOBODY] * 3))) == "no face found"
    lost = "the face is lost in more than half of the frames"
    assert reason(FrameFiles(frame_files([PORTRAIT, NOBODY, NOBODY, NOBODY]))) == lost


def test_clips_without_frames_say_so(tmp_path):
    nothing = "clip cannot be read or has no frames"
    contents = {"sound.mp4": encoded([], sound=True), "empty.mp4": b"", "text.flv": b"version 1"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        assert reason(ClipFile(tmp_path / name)) == nothing
    assert reason(ClipFile(tmp_path / "gone.mp4")) == nothing
    assert reason(FrameFiles(())) == nothing
    assert reason(FrameFiles((tmp_path / "text.flv",))) == "a frame of the clip cannot be read"


def test_one_frame_of_a_clip(clip):
    path = clip([moved(shift) for shift in range(0, 24, 2)])
    faces = [ClipFrame(path, number).face(Look())[0] for number in (1, 2, 11, 4)]
    np.testing.assert_allclose(places(faces), [0, 2, 20, 6], atol=1.0)
    assert reason(ClipFrame(path, 12)) == "frame of the clip cannot be read"
    assert reason(ClipFrame(path.with_name("gone.mp4"), 0)) == "frame of the clip cannot be read"


def test_frames_are_read_by_number_in_rising_order_and_back(clip):
    greys = [np.full((64, 64, 3), 40 + 10 * number, np.uint8) for number in range(15)]
    reader = FrameReader(clip(greys))
    assert len(reader) == 15
    for number in (0, 1, 2, 7, 14, 3, 4, 4, 14, 0):
        assert abs(float(reader.read(number).mean()) - (40 + 10 * number)) < 4
    for number in (-1, 15):
        with pytest.raises(BadMedia, match=f"has 15 frames and no frame {number}"):
            reader.read(number)
    assert abs(float(reader.read(5).mean()) - 90) < 4


def test_a_picture_is_bytes_or_a_file(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PORTRAIT).save(path)
    (from_file,) = Picture(path).face(Look())
    (from_bytes,) = Picture(path.read_bytes()).face(Look())
    np.testing.assert_array_equal(from_file.landmarks, from_bytes.landmarks)
    assert Picture(path).digest() == Picture(path.read_bytes()).digest()
    path.write_bytes(b"not a picture")
    assert reason(Picture(path)) == "picture cannot be read"


def test_a_picture_that_is_no_declared_crop_is_searched(tmp_path):
    two = np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], axis=1)
    for pixels, why in ((NOBODY, "no face found"), (two, "more than one face")):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert reason(Picture(tmp_path / "a.png", declared_crop=False)) == why


def test_digests_tell_contents_apart(tmp_path):
    first, second = tmp_path / "1.jpg", tmp_path / "2.jpg"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    media = [
        Picture(first), Picture(second), FrameFiles((first, second)), FrameFiles((second, first)),
        ClipFrame(first, 0), ClipFrame(first, 1),
    ]  # fmt: skip
    digests = [one.digest() for one in media]
    assert len(set(digests)) == len(media)
    assert ClipFile(first).digest() == Picture(first).digest()
    first.write_bytes(b"another")
    assert [one.digest() == digest for one, digest in zip(media, digests, strict=True)] == [
        False, True, False, False, False, False,
    ]  # fmt: skip
    first.unlink()
    with pytest.raises(FileNotFoundError):
        ClipFile(first).digest()


def test_looks_that_cannot_be_are_refused():
    with pytest.raises(BadSample, match="0 frames cannot be taken"):
        Look(frames=0)
    with pytest.raises(BadSample, match="allowed are uniform and expressive"):
        Look(sampling="random")


def test_a_dataset_of_clips_becomes_a_corpus(tmp_path):
    """DFEW in small, from its lists to the frames of its faces."""
    labels = {1: 1, 2: 5, 3: 2, 4: 3, 5: 4}  # each clip is tested in the fold of its number
    for fold in labels:
        for part in ("train", "test"):
            folder = tmp_path / "dfew" / "EmoLabel_DataSplit" / f"{part}(single-labeled)"
            folder.mkdir(parents=True, exist_ok=True)
            listed = [name for name in labels if (name == fold) == (part == "test")]
            lines = ["video_name,label", *(f"{name},{labels[name]}" for name in listed)]
            (folder / f"set_{fold}.csv").write_text("\n".join(lines))
    clips = tmp_path / "dfew" / "Clip" / "original"
    clips.mkdir(parents=True)
    for name in (1, 2, 3):
        (clips / f"{name}.mp4").write_bytes(encoded([moved(name + shift) for shift in range(6)]))
    (clips / "4.mp4").write_bytes(encoded([], sound=True))
    options = BuildOptions(look=Look(frames=3), fold=2)
    build(
        [MixtureEntry(name="dfew", root=tmp_path / "dfew")], tmp_path / "corpus", options, workers=1
    )
    records = {record.face_id: record for record in read_faces(tmp_path / "corpus")}
    assert {
        name: (record.split, record.fold, record.labels["expression"], record.media)
        for name, record in records.items()
    } == {
        "dfew-00001": ("train", 1, "happiness", "clip"),
        "dfew-00002": ("test", 2, "surprise", "clip"),
        "dfew-00003": ("train", 3, "sadness", "clip"),
    }
    assert {len(record.frames) for record in records.values()} == {3}
    assert {reason: found["count"] for reason, found in dropped(tmp_path / "corpus").items()} == {
        "clip is missing or has no frames": 1,
        "clip cannot be read or has no frames": 1,
    }


def dropped(corpus: Path) -> dict:
    return read_manifest(corpus)["dropped"]["dfew"]
