"""FaceInstruct-1M: labels read from answers, supplied landmarks, the texts as samples."""

import io
import json
import pickle

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from data_builders.media import ClipFile, Look, Picture, Unusable
from data_builders.shard import record_of_row
from data_builders.sources.faceinstruct import LandmarkedMedia, samples_of
from facellava.errors import BadCorpus
from facellava.faces import find_faces
from facellava.records import Sample
from facellava.tasks import parse_answer
from tests.data_builders.sources.miniatures import read, write

AU_TEXT = "AU6 (Cheek raiser) and AU12 (Lip corner puller) are active."


def record(answer, question="<image>\nWhich facial action units appear?", **media):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": 0, "conversations": turns} | (media or {"image": "a.jpg"})


def files(**lists):
    texts = {f"json_files/{name}.json": json.dumps(found) for name, found in lists.items()}
    return texts | {"a.jpg": b"not opened"}


@pytest.fixture(scope="module")
def crop():
    """A 256x256 crop of the astronaut and its landmarks in pixels."""
    pixels = np.ascontiguousarray(skimage.data.astronaut()[0:256, 90:346])
    return pixels, find_faces(pixels)[0].photo_landmarks


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def save(path, points):
    np.save(path, points)
    return path


def test_tasks_and_labels(tmp_path):
    write(
        tmp_path,
        files(
            affectnet_emotion=[record("The person appears happy, with raised lip corners.")],
            bp4d=[record(AU_TEXT)],
            utkface=[record("22 years old is a reasonable estimate.")],
            faceforensics_c23=[record("The video is fake: the mouth is blurred.", video="a.jpg")],
        ),
    )
    rows, drops = read("faceinstruct", tmp_path)
    assert [(row.key, row.labels, row.split) for row in rows] == [
        ("affectnet_emotion-0000000", {"expression": "happiness"}, "train"),
        ("bp4d-0000000", {"action_units": ["AU6", "AU12"]}, "train"),
        ("faceforensics_c23-0000000", {"deepfake": "fake"}, "train"),
        ("utkface-0000000", {"age": 22}, "train"),
    ]
    assert rows[1].conversations == (("Which facial action units appear?", AU_TEXT),)
    assert rows[1].media == Picture(tmp_path / "a.jpg")
    assert rows[2].media == ClipFile(tmp_path / "a.jpg")
    assert rows[1].origin == "json_files/bp4d.json:0"
    assert not drops.counts


def test_what_cannot_be_used_is_counted(tmp_path):
    happy = "The person appears happy."
    both = record(happy)
    both["conversations"] += record("The person appears sad.")["conversations"]
    swapped = record(happy)
    swapped["conversations"].reverse()
    write(
        tmp_path,
        files(
            celeba=[record("The man has arched eyebrows and a goatee.")],
            dfew=[
                record("It is hard to say."),
                record("Expression: happiness. The lips are raised."),
                both,
                swapped,
                "text",
                record(""),
                record(happy, image="b.jpg"),
                record(happy, image="../a.jpg"),
                record(happy, image=["a.jpg", "a.jpg"]),
                record(happy, image="a.jpg", landmarks_2d="a.npy"),
            ],
            unheard=[record(happy)],
        ),
    )
    rows, drops = read("faceinstruct", tmp_path)
    assert rows == []
    assert drops.counts == {
        "the answer's label cannot be read": 3,
        "the answers of a conversation have several labels": 1,
        "conversation is not questions and answers in turn": 3,
        "picture or clip is missing": 1,
        "path of the picture or clip leaves the folder": 1,
        "record names no picture or clip or several": 1,
        "landmark file is missing": 1,
        "file, not row: its name does not tell the task": 1,
    }
    assert drops.examples["landmark file is missing"] == ["dfew-0000009"]


@pytest.mark.parametrize("text", ["", "{}", "[{}", "[{} {}]", "[1,,2]", "[1[2]", "]"])
def test_other_json_is_refused(tmp_path, text):
    write(tmp_path, {"dfew.json": text})
    with pytest.raises(BadCorpus, match="dfew.json' is not a whole JSON list"):
        read("faceinstruct", tmp_path)


def test_a_folder_without_json_is_refused(tmp_path):
    with pytest.raises(BadCorpus, match="holds no .json file; expected"):
        read("faceinstruct", tmp_path)
    with pytest.raises(BadCorpus, match="is missing; expected"):
        read("faceinstruct", tmp_path / "nowhere")


def test_supplied_landmarks_make_the_face_and_the_texts_its_samples(tmp_path, crop):
    pixels, points = crop
    asked = record(AU_TEXT, image=["a.jpg"], landmarks_2d=["a.npy"])
    asked["conversations"] += [
        {"from": "human", "value": "Why?"}, {"from": "gpt", "value": AU_TEXT},
    ]  # fmt: skip
    write(tmp_path, files(disfa=[asked]) | {"a.jpg": png(pixels)})
    save(tmp_path / "a.npy", points)
    [row], _ = read("faceinstruct", tmp_path)
    [face] = row.media.face(Look())
    assert face.source == "supplied"
    assert not face.weak
    np.testing.assert_allclose(face.photo_landmarks, points, atol=0.01)
    stored = record_of_row("faceinstruct", row, [face])
    lead = "Action units: AU6, AU12. "
    first, second = samples_of(stored, row)
    assert first == Sample(
        sample_id="faceinstruct-disfa-0000000#given0",
        face_id="faceinstruct-disfa-0000000",
        task="action_units",
        question="Which facial action units appear?",
        answer=lead + AU_TEXT,
        label=["AU6", "AU12"],
        annotator="FaceInstruct-1M",
    )
    assert (second.question, second.history) == ("Why?", ((first.question, first.answer),))
    assert second.sample_id == "faceinstruct-disfa-0000000#given1"
    assert parse_answer(second.answer).label == ("AU6", "AU12")
    assert Sample.from_row(second.to_row()) == second


def test_the_digest_follows_picture_and_landmarks(tmp_path, crop):
    (tmp_path / "a.png").write_bytes(png(crop[0]))
    media = LandmarkedMedia(tmp_path / "a.png", save(tmp_path / "a.npy", crop[1]), clip=False)
    before = media.digest()
    assert media.digest() == before
    save(tmp_path / "a.npy", crop[1] + 1)
    assert media.digest() != before


def test_frames_of_a_clip_by_their_landmarks(tmp_path, crop):
    pixels, points = crop
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width = stream.height = 256
        for _ in range(8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    frames = np.stack([points] * 8)
    frames[[3, 6], 48:] += 6.0
    media = LandmarkedMedia(tmp_path / "a.mp4", save(tmp_path / "a.npy", frames), clip=True)
    even = media.face(Look(frames=4))
    np.testing.assert_allclose([f.photo_landmarks for f in even], frames[[1, 3, 5, 7]], atol=0.01)
    moved = media.face(Look(frames=2, sampling="expressive"))
    np.testing.assert_allclose([f.photo_landmarks for f in moved], frames[[3, 6]], atol=0.01)
    assert len(media.face(Look(frames=20))) == 8
    save(tmp_path / "a.npy", frames[:7])
    with pytest.raises(Unusable, match="differ in their number of frames"):
        media.face(Look())


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.zeros((68, 2)), "not those of a face"),
        (np.full((68, 2), np.nan), "not those of a face"),
        (np.full((68, 2), 1e30), "not those of a face"),
        (np.zeros((67, 2)), "not 68 points a frame"),
        (np.zeros((3, 68, 2)), "several frames"),
        (np.array(["x"] * 136).reshape(68, 2), "cannot be read"),
        (b"", "cannot be read"),
        (pickle.dumps([1]), "cannot be read"),
    ],
)
def test_unusable_landmarks(tmp_path, crop, points, reason):
    (tmp_path / "a.png").write_bytes(png(crop[0]))
    path = tmp_path / "a.npy"
    path.write_bytes(points) if isinstance(points, bytes) else save(path, points)
    with pytest.raises(Unusable, match=reason):
        LandmarkedMedia(tmp_path / "a.png", path, clip=False).face(Look())


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"no picture", "cannot be read"), (png(np.zeros((128, 128, 3), np.uint8)), "256x256")],
)
def test_unusable_pictures(tmp_path, crop, data, reason):
    (tmp_path / "a.png").write_bytes(data)
    media = LandmarkedMedia(tmp_path / "a.png", save(tmp_path / "a.npy", crop[1]), clip=False)
    with pytest.raises(Unusable, match=reason):
        media.face(Look())
