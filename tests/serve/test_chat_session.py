"""A conversation about each face: what is shown, and what the model is told of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.errors import BadMedia, NoFaceFound
from facellava.faces import Face, find_faces
from facellava.faces.clips import apex, read_clip, track_faces
from facellava.faces.face_png import data_url, from_png, to_png
from facellava.faces.shown_frames import shown_of
from serve.chat_api import SEARCHED_FRAMES, Told
from serve.chat_replies import AnswerReply, Found, Reply
from serve.chat_session import ASKED_FRAMES, MAX_TURNS, Exchange, Session, Tab
from serve.chat_work import answer

Recite = Callable[[Face, str], AnswerReply]


def found(kind: str, crops: list[str], **media: Any) -> Found:
    faces = [{"crop": crop} for crop in crops]
    return Found.model_validate({"media": {"kind": kind, **media}, "faces": faces})


@pytest.fixture
def session(couple: NDArray[np.uint8]) -> Session:
    crops = [data_url(to_png(face), clip=False) for face in find_faces(couple)]
    return Session.of(found("image", crops), couple)


def answered(recite: Recite, session: Session, task: str) -> Exchange:
    reply = recite(session.person.face, task)
    told = Told(Reply(answer=reply, faces=()), {})
    return Exchange(reply.question, text=reply.text, told=told)


def test_a_short_lead_is_a_headline_and_a_long_one_is_not(recite: Recite, session: Session) -> None:
    age = answered(recite, session, "age").bubbles[1]["content"]
    assert age.startswith("**Age\\: 34 years\\.** The cheeks")
    attributes = answered(recite, session, "attributes").bubbles[1]["content"]
    assert attributes.startswith("Attributes\\: 5 o'clock shadow no")


def test_a_question_without_words_yet_shows_that_it_waits() -> None:
    assert Exchange("How old?").bubbles[1]["content"] == "…"


def test_history_holds_the_last_readable_turns_of_the_chosen_face(
    recite: Recite, session: Session
) -> None:
    talk = session.person.talk
    talk.append(answered(recite, session, "La la la."))
    talk.append(Exchange("How old?", text="Age: 3", stopped=True))
    talk.extend(answered(recite, session, "age") for _ in range(MAX_TURNS + 1))
    assert len(session.person.history()) == MAX_TURNS
    assert all(text.startswith("Age: 34") for _, text in session.person.history())
    session.chosen = 1
    assert session.person.history() == []


def test_an_interrupted_answer_no_longer_runs(session: Session) -> None:
    session.person.talk.append(Exchange("How old?", text="Age: 3"))
    assert session.person.running is session.person.talk[-1]
    session.interrupt()
    assert session.person.running is None
    assert "Stopped" in session.person.talk[-1].bubbles[1]["content"]


def test_leaving_a_photo_ends_what_runs_for_any_of_its_faces(session: Session) -> None:
    async def leave() -> list[bool]:
        tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in session.persons]
        for person, task in zip(session.persons, tasks, strict=True):
            person.talk.append(Exchange("How old?", writing=task))
        await asyncio.to_thread(Tab(session=session).turn_to, None)
        await asyncio.wait(tasks, timeout=5)
        return [task.cancelled() for task in tasks]

    assert asyncio.run(leave()) == [True, True]
    assert session.left


def test_an_answer_that_nobody_reads_on_runs_no_longer(session: Session) -> None:
    """Else the same question, asked again, would count as a second click."""

    async def words(*_: Any) -> AsyncGenerator[str, None]:
        while True:
            yield "word "
            await asyncio.sleep(0.01)

    async def scenario() -> None:
        session.person.talk.append(Exchange("How old?"))
        steps = answer(SimpleNamespace(ask=words), session, "nano")  # type: ignore[arg-type]
        await anext(steps)
        assert session.person.running is not None
        await steps.aclose()
        assert session.person.running is None

    asyncio.run(scenario())


def test_a_closed_tab_is_forgotten_unless_somebody_comes_back(session: Session) -> None:
    async def scenario() -> None:
        left, returned = (Tab(session=session) for _ in range(2))
        for tab in (left, returned):
            tab.close(forgotten_in=60)
            tab.close(forgotten_in=0.01)
        returned.away = False
        await asyncio.sleep(0.05)
        assert left.session is None
        assert returned.session is session

    asyncio.run(scenario())


def test_a_clip_is_asked_about_by_frames_chosen_as_the_library_does(clip: Path) -> None:
    data = clip.read_bytes()
    [searched] = track_faces(read_clip(data, SEARCHED_FRAMES))
    whole = data_url(to_png(searched.frames, searched.seconds), clip=True)
    person = Session.of(found("video", [whole]), None).person
    assert person.whole == whole
    asked = from_png(base64.b64decode(person.crop.partition(",")[2]))
    wanted = shown_of(searched, ASKED_FRAMES)
    assert asked is not None
    assert len(asked.faces) == ASKED_FRAMES
    assert asked.seconds == pytest.approx(wanted.seconds)
    for mine, theirs in zip(asked.faces, wanted.frames, strict=True):
        assert np.array_equal(mine.crop, theirs.crop)
    strongest = apex(wanted.frames)
    assert person.second == pytest.approx(wanted.seconds[strongest])
    assert np.array_equal(person.face.landmarks, wanted.frames[strongest].landmarks)
    assert person.plain_overlay.shape == (720, 720, 3)


def test_no_face_is_one_sentence(couple: NDArray[np.uint8]) -> None:
    with pytest.raises(NoFaceFound, match="No face was found in the photo; use one where"):
        Session.of(found("image", []), couple)
    with pytest.raises(NoFaceFound, match="No face was found in the clip"):
        Session.of(found("video", []), None)


@pytest.mark.parametrize("crop", ["data:image/png;base64,%%%", "data:image/png;base64,aGVsbG8="])
def test_a_damaged_face_picture_is_one_sentence(couple: NDArray[np.uint8], crop: str) -> None:
    with pytest.raises(BadMedia, match=r"^A face picture .*\.$"):
        Session.of(found("image", [crop]), couple)


def test_a_part_of_a_clip_is_said_to_be_one(portrait: NDArray[np.uint8]) -> None:
    [face] = find_faces(portrait)
    crop = data_url(to_png([face], [0.0]), clip=True)
    session = Session.of(found("video", [crop], complete=False), None)
    assert session.summary == "One person found. Only a part of the clip could be read."
