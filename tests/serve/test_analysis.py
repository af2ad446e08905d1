"""Faces and answers of photos and clips, through the gateway and a double of the engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import av
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.checkpoint import load
from facellava.faces import Face, find_faces, measure
from facellava.faces.clips import apex, read_clip, track_faces
from facellava.faces.face_png import from_png
from facellava.faces.shown_frames import looked_at
from facellava.predictor import CLIP_FRAMES, FaceLlava, embedded_weights
from facellava.tasks import TASKS
from serve.analysis import TIMELINE_FRAMES
from serve.api_answers import AnalysisReply, FacesReply
from serve.settings import Settings
from tests.serve.gateway_rig import Loop, Rig, photo_url, running, url


@pytest.fixture(scope="module")
def run() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def library() -> FaceLlava:
    return FaceLlava(*load(embedded_weights()))


@pytest.fixture(scope="module")
def rig(run: Loop, library: FaceLlava) -> Iterator[Rig]:
    encoder = library.model.face_encoder
    with running(Rig(library.processor, encoder, Settings(face_workers=1)), run) as rig:
        yield rig


@pytest.fixture(scope="module")
def film(portrait: NDArray[np.uint8]) -> bytes:
    """Two seconds in which the portrait moves to the right."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, options={"qscale": "3"})
        stream.width, stream.height, stream.pix_fmt = 330, 300, "yuv420p"
        for shift in range(20):
            moved = np.ascontiguousarray(np.roll(portrait, 2 * shift, axis=1))
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def analyze(rig: Rig, run: Loop, **body: Any) -> AnalysisReply:
    rig.engine.asked.clear()
    response: httpx.Response = run(rig.post("/v1/analyze", {"model": "nano", **body}))
    assert response.status_code == 200, response.text
    return AnalysisReply.model_validate(response.json())


def code(rig: Rig, run: Loop, **body: Any) -> tuple[str, str | None]:
    error = run(rig.post("/v1/analyze", {"model": "nano", **body})).json()["error"]
    return error["code"], error["param"]


def test_faces_are_told_with_all_that_is_known(
    rig: Rig, run: Loop, portrait: NDArray[np.uint8]
) -> None:
    reply = run(rig.post("/v1/faces", {"image": photo_url(portrait)})).json()
    [told] = FacesReply.model_validate(reply).faces
    [face] = find_faces(portrait)
    np.testing.assert_allclose(told.landmarks, face.photo_landmarks, atol=0.01)
    np.testing.assert_allclose(told.box, face.box, atol=0.1)
    assert (told.source, told.weak) == (face.source, face.weak)
    assert told.measurements is not None
    for name, measured in measure(face).items():
        value = told.measurements[name].value
        assert (value is None) == (measured.value is None)
        assert value == pytest.approx(measured.value, abs=1e-4)


def test_persons_of_a_clip_are_told_frame_by_frame(rig: Rig, run: Loop, film: bytes) -> None:
    body = {"video": url(film, "video/mp4"), "frames": 5}
    reply = FacesReply.model_validate(run(rig.post("/v1/faces", body)).json())
    [track] = track_faces(read_clip(film, 5))
    [told] = reply.faces
    assert reply.media.kind == "video"
    assert reply.media.complete
    assert reply.media.duration == pytest.approx(1.9)
    assert told.seconds == pytest.approx(list(track.seconds), abs=1e-3)
    assert told.frames is not None
    assert [frame.second for frame in told.frames] == told.seconds
    strongest = track.frames[apex(track.frames)]
    np.testing.assert_allclose(told.box, strongest.box, atol=0.1)
    assert told.dropped == []
    assert told.crop is not None
    again = run(rig.post("/v1/faces", {"video": told.crop})).json()["faces"]
    assert again[0]["frames"] == [frame.model_dump(mode="json") for frame in told.frames]
    assert code(rig, run, image=told.crop, tasks=["age"])[0] == "unsupported_media"


def test_each_face_is_asked_each_task(rig: Rig, run: Loop, couple: NDArray[np.uint8]) -> None:
    reply = analyze(
        rig, run, image=photo_url(couple), tasks=["age", "expression"], question="Sing", face="all"
    )
    assert [face.index for face in reply.faces] == [0, 1]
    asked = [(answer.face.index, answer.question) for answer in reply.answers]
    questions = [TASKS["age"].canonical_question, TASKS["expression"].canonical_question, "Sing"]
    assert asked == [(face, question) for face in (0, 1) for question in questions]
    assert [answer.task for answer in reply.answers[:3]] == ["age", "expression", None]
    assert reply.answers[0].label == 34
    assert len(reply.answers[0].probabilities.raw) == 117
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (6 * 50, 6 * 7)
    told = [next(iter(body["vllm_xargs"])) for body in rig.engine.asked]
    assert (told.count("facellava_held"), told.count("facellava_read")) == (6, 4)


def test_the_largest_face_is_asked_by_default_and_others_by_number(
    rig: Rig, run: Loop, couple: NDArray[np.uint8]
) -> None:
    for choice, index in (({}, 0), ({"face": "largest"}, 0), ({"face": 1}, 1)):
        reply = analyze(rig, run, image=photo_url(couple), tasks=["age"], **choice)
        assert [answer.face.index for answer in reply.answers] == [index]
    assert code(rig, run, image=photo_url(couple), tasks=["age"], face=7) == (
        "no_face_found",
        "face",
    )


def test_region_attention_is_the_librarys(
    rig: Rig, run: Loop, library: FaceLlava, portrait: NDArray[np.uint8]
) -> None:
    reply = analyze(rig, run, image=photo_url(portrait), tasks=["age"], region_attention=True)
    told = reply.faces[0].region_attention
    assert told is not None
    expected = library.region_attention(find_faces(portrait)[0])
    np.testing.assert_allclose(told.map, expected, atol=1e-4)
    np.testing.assert_allclose(told.weights, expected.mean(axis=0), atol=1e-4)
    plain = analyze(rig, run, image=photo_url(portrait), tasks=["age"])
    assert plain.faces[0].region_attention is None


def test_region_attention_can_be_switched_off(
    run: Loop, library: FaceLlava, portrait: NDArray[np.uint8]
) -> None:
    settings = Settings(face_workers=1, region_attention=False)
    rig = Rig(library.processor, library.model.face_encoder, settings)
    found = code(rig, run, image=photo_url(portrait), tasks=["age"], region_attention=True)
    assert found == ("invalid_value", "region_attention")


def test_a_clip_is_asked_about_by_the_frames_that_the_library_shows(
    rig: Rig, run: Loop, library: FaceLlava, film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = analyze(rig, run, video=url(film, "video/mp4"), tasks=["expression"])
    [asked] = [body for body in rig.engine.asked if "facellava_held" in body["vllm_xargs"]]
    words, clip = asked["messages"][0]["content"]
    assert words["text"] == "<video>" + TASKS["expression"].canonical_question
    assert clip["type"] == "video_url"
    assert clip["video_url"]["url"].startswith("data:video/png;base64,")
    assert reply.media.kind == "video"
    assert len(reply.media.seconds) == looked_at(CLIP_FRAMES)
    assert reply.timelines == []
    shown: list[Face] = []
    monkeypatch.setattr(library, "ask_many", lambda faces, _: shown.extend(faces[0]))
    library.ask_clip(film, task="expression")
    sent = from_png(base64.b64decode(clip["video_url"]["url"].partition(",")[2]))
    assert sent is not None
    assert list(sent.seconds or ()) == pytest.approx(reply.faces[0].seconds, abs=1e-3)
    assert len(sent.faces) == len(shown) == CLIP_FRAMES
    for mine, theirs in zip(sent.faces, shown, strict=True):
        assert np.array_equal(mine.crop, theirs.crop)
        assert np.array_equal(mine.landmarks, theirs.landmarks)


def test_a_timeline_has_an_expression_for_each_frame(rig: Rig, run: Loop, film: bytes) -> None:
    reply = analyze(rig, run, video=url(film, "video/mp4"), timeline=True)
    assert reply.answers == []
    [line] = reply.timelines
    n_frames = min(20, TIMELINE_FRAMES)
    assert len(line.seconds) == len(line.labels) == n_frames
    assert line.seconds == sorted(line.seconds)
    assert list(line.probabilities) == list(TASKS["expression"].labels)[:7]
    sums = np.sum(list(line.probabilities.values()), axis=0)
    np.testing.assert_allclose(sums, np.ones(n_frames), atol=1e-3)
    assert set(line.labels) == {"anger"}
    assert len(rig.engine.asked) == n_frames
    assert all(
        body["messages"][0]["content"][1]["type"] == "image_url" for body in rig.engine.asked
    )


def test_no_face_is_an_error_here(rig: Rig, run: Loop, landscape: NDArray[np.uint8]) -> None:
    found = code(rig, run, image=photo_url(landscape), tasks=["age"])
    assert found == ("no_face_found", "image")
    assert code(rig, run, video="data:video/mp4;base64,AAAA", tasks=["age"]) == (
        "bad_media",
        "video",
    )


def test_one_answer_that_fails_ends_the_others(
    rig: Rig, run: Loop, couple: NDArray[np.uint8]
) -> None:
    def fail(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(500, json={"error": {"message": "secret"}})

    rig.engine.fault = fail
    try:
        body = {"model": "nano", "image": photo_url(couple), "tasks": ["age"], "face": "all"}
        response = run(rig.post("/v1/analyze", body))
    finally:
        rig.engine.fault = None
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text
