"""What one browser tab looks at: the faces of a photo or clip and a conversation about each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facellava.errors import NoFaceFound
from facellava.faces import Face
from facellava.faces.clips import Track, apex
from facellava.faces.face_png import FacePicture, data_url, to_png
from facellava.faces.overlay import draw_overlay
from facellava.faces.shown_frames import shown_of
from serve.chat_api import Kind, Told
from serve.chat_replies import AnswerReply, Found, FoundFace, Timeline
from serve.panels import as_markdown, close_up, enlarged_crop, weak_reasons

LONGEST_HEADLINE: Final = 80  # characters
MAX_TURNS: Final = 1  # earlier turns that the model is shown: as many as nano was trained with
ASKED_FRAMES: Final = 4  # of a clip: as many as nano was trained with


@dataclass(eq=False)
class Exchange:
    """A question and what has come of it so far.

    Attributes:
        question: as typed.
        text: the model's words so far.
        told: what stands behind them; None until they are whole.
        picture: (H, W, 3) uint8 RGB, the face with what the answer rests on.
        problem: why there is no answer, in one sentence.
        stopped: the user did not want the rest.
        writing: fills this exchange; cancelling it ends the request to the server.
        by: the model that answers, where there is a choice.
    """

    question: str
    text: str = ""
    told: Told | None = None
    picture: NDArray[np.uint8] | None = None
    problem: str = ""
    stopped: bool = False
    writing: asyncio.Task[None] | None = None
    by: str = ""

    @property
    def answer(self) -> AnswerReply | None:
        """What the words say, once they are whole."""
        return self.told.reply.answer if self.told else None

    @property
    def bubbles(self) -> list[dict[str, str]]:
        """The two messages that the chat shows, as Markdown."""
        lead, mark, reasons = self.text.strip().partition(". ")
        words = as_markdown(lead + mark.strip())
        # The list of forty attributes is a lead too, and no headline.
        opening = f"**{words}**" if mark and len(lead) <= LONGEST_HEADLINE else words
        parts = [f"{opening} {as_markdown(reasons)}".strip()]
        parts += [f"*{as_markdown(note)}*" for note in self._notes()]
        said = "\n\n".join(part for part in parts if part) or "…"
        return [
            {"role": "user", "content": as_markdown(self.question)},
            {"role": "assistant", "content": said},
        ]

    def stop(self) -> None:
        """Let a running answer end where it is, at the server too."""
        self.stopped = True
        _cancel(self.writing)

    def _notes(self) -> Iterator[str]:
        if self.stopped:
            yield "Stopped."
        if self.problem:
            yield self.problem
        if self.answer and self.answer.unreadable is not None:
            yield "This answer could not be read, so it counts as none."
        if self.answer and (weak := weak_reasons(self.answer)):
            yield f"Weak answer: {' and '.join(weak)}."
        if self.answer and self.by:
            yield f"Answered by {self.by}."


@dataclass(eq=False)
class Person:
    """A face of a photo or a person of a clip, and what is said about them.

    Attributes:
        crop: data URL of what questions are asked about.
        whole: data URL of all frames of a clip that were searched.
        face: the face that is measured; of a clip the frame with the strongest expression.
        second: when that frame is shown; None for a photo.
        shown: the picture that overlays are drawn on, and the face in it.
        talk: the conversation.
        timeline: expression over a clip's time, once it is there.
        timeline_problem: why it is not, in one sentence.
        drawing: asks for the timeline.
    """

    crop: str
    whole: str
    face: Face
    second: float | None
    shown: tuple[NDArray[np.uint8], Face]
    talk: list[Exchange] = field(default_factory=list)
    timeline: Timeline | None = None
    timeline_problem: str = ""
    drawing: asyncio.Task[None] | None = None

    @classmethod
    def of_photo(cls, found: FoundFace, picture: FacePicture, photo: NDArray[np.uint8]) -> Person:
        """A face, shown in its surroundings."""
        face = picture.faces[0]
        return cls(found.crop, found.crop, face, None, close_up(photo, face))

    @classmethod
    def of_clip(cls, found: FoundFace, picture: FacePicture) -> Person:
        """A person, asked about by a few frames and shown by one of them."""
        searched = Track(picture.faces, picture.seconds or (), picture.faces[0].index)
        asked = shown_of(searched, ASKED_FRAMES)
        crop = data_url(to_png(asked.frames, asked.seconds), clip=True)
        strongest = apex(asked.frames)
        face = asked.frames[strongest]
        return cls(crop, found.crop, face, asked.seconds[strongest], enlarged_crop(face))

    @property
    def running(self) -> Exchange | None:
        """The exchange that is still being answered."""
        last = self.talk[-1] if self.talk else None
        done = last is None or last.told or last.problem or last.stopped
        return None if done else last

    def overlay(
        self, answer: AnswerReply | None = None, attention: tuple[float, ...] | None = None
    ) -> NDArray[np.uint8]:
        """The face with its box and landmarks, and with what an answer rests on.

        Args:
            answer: about this face: the regions that it cites are filled.
            attention: (9,) how much the model looked at each region.
        """
        picture, face = self.shown
        return draw_overlay(
            picture,
            [face],
            cited_regions={face.index: answer.cited_regions} if answer else None,
            region_attention=None if attention is None else np.array(attention),
        )

    @property
    def last_answered(self) -> Exchange | None:
        """The last exchange that has an answer."""
        return next((turn for turn in reversed(self.talk) if turn.told), None)

    @cached_property
    def plain_overlay(self) -> NDArray[np.uint8]:
        """The face with its box and landmarks alone."""
        return self.overlay()

    def history(self) -> list[tuple[str, str]]:
        """Earlier turns that were answered readably, the last few."""
        turns = [
            (turn.question, turn.text)
            for turn in self.talk
            if turn.answer is not None and turn.answer.unreadable is None
        ]
        return turns[-MAX_TURNS:]


@dataclass(eq=False)
class Session:
    """What one browser tab looks at.

    Attributes:
        kind: whether a photo or a clip.
        complete: False for a clip of which only a part could be read.
        persons: as found.
        chosen: which is asked about.
        left: the tab looks at something else now.
    """

    kind: Kind
    complete: bool
    persons: list[Person]
    chosen: int = 0
    left: bool = False

    @classmethod
    def of(cls, found: Found, photo: NDArray[np.uint8] | None) -> Session:
        """A session about what the server found.

        Args:
            found: its reply.
            photo: (H, W, 3) uint8 RGB, upright; None for a clip.

        Raises:
            NoFaceFound: nothing was found.
            BadMedia, BadModelInput: the server's face pictures cannot be read.
        """
        kind = found.media.kind
        if not found.faces:
            what = "photo" if kind == "image" else "clip"
            raise NoFaceFound(
                f"No face was found in the {what}; use one where the face is large and in view."
            )
        pictures = [(face, face.picture()) for face in found.faces]
        if photo is not None:
            persons = [Person.of_photo(face, picture, photo) for face, picture in pictures]
        else:
            persons = [Person.of_clip(face, picture) for face, picture in pictures]
        return cls(kind, found.media.complete, persons)

    @property
    def person(self) -> Person:
        """The chosen one."""
        return self.persons[self.chosen]

    @property
    def summary(self) -> str:
        """How many faces there are, in words."""
        count = len(self.persons)
        one, many = ("face", "faces") if self.kind == "image" else ("person", "persons")
        if count == 1:
            found = f"One {one} found."
        else:
            found = f"{count} {many} found; choose whom to ask about."
        if any(person.face.weak for person in self.persons):
            found += " A question mark: the landmarks are uncertain."
        return found if self.complete else f"{found} Only a part of the clip could be read."

    @property
    def thumbnails(self) -> list[tuple[NDArray[np.uint8], str]]:
        """Each face's crop with its number, marked as on the overlay."""
        return [
            (person.face.crop, f"{person.face.index}{'?' * person.face.weak}")
            for person in self.persons
        ]

    def forget_timelines(self) -> None:
        """Let them be asked for anew."""
        for person in self.persons:
            _cancel(person.drawing)
            person.timeline, person.timeline_problem, person.drawing = None, "", None

    def interrupt(self) -> None:
        """Let a running answer about the chosen face end where it is."""
        if running := self.person.running:
            running.stop()

    def leave(self) -> None:
        """The tab turns to something else."""
        self.left = True
        self.end_work()

    def end_work(self) -> None:
        """Nobody waits any more: all that still runs for this ends."""
        for person in self.persons:
            if running := person.running:
                running.stop()
            _cancel(person.drawing)


@dataclass(eq=False)
class Tab:
    """A tab of a browser.

    Attributes:
        file: that it looks at, as uploaded.
        session: what is known of it; None until its faces are found.
        searching: finds them.
        models: that the server offers.
        away: the browser let go of it, and nobody has come back to it since.
        forgetting: drops what is known of it, an hour after it was let go of.
    """

    file: Path | None = None
    session: Session | None = None
    searching: asyncio.Task[Session] | None = None
    models: list[str] = field(default_factory=list)
    away: bool = False
    forgetting: asyncio.TimerHandle | None = None

    def turn_to(self, file: Path | None) -> None:
        """Leave what was looked at for another file, or for none."""
        _cancel(self.searching)
        if self.session:
            self.session.leave()
        self.file, self.session, self.searching, self.away = file, None, None, False

    def close(self, forgotten_in: float) -> None:
        """Let go of by the browser: all that still runs for it ends.

        Args:
            forgotten_in: so many seconds, unless somebody comes back to it.
        """
        self.away = True
        if self.forgetting:
            self.forgetting.cancel()
        self.forgetting = asyncio.get_running_loop().call_later(forgotten_in, self._forget)
        _cancel(self.searching)
        if self.session:
            self.session.end_work()

    def _forget(self) -> None:
        if self.away:
            self.turn_to(None)


def _cancel(task: asyncio.Task[Any] | None) -> None:
    """End a task, from whatever thread."""
    if task and not task.done():
        task.get_loop().call_soon_threadsafe(task.cancel)
