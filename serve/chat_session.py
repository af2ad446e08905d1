"""What one browser tab looks at: the faces of a photo and a conversation about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from facellava.answer import Answer
from facellava.faces import Face, find_faces
from facellava.faces.overlay import draw_overlay
from serve.panels import as_markdown, close_up, weak_reasons

LONGEST_HEADLINE: Final = 80  # characters
MAX_TURNS: Final = 1  # earlier turns that the model is shown: as many as nano was trained with


class Answerer(Protocol):
    """What the page needs of a model; facellava.predictor.FaceLlava documents each."""

    def stream(
        self, item: Face, question: str, history: Sequence[tuple[str, str]] = ()
    ) -> Iterator[str]:
        """The answer's text, piece by piece."""

    def read(
        self, item: Face, question: str, text: str, history: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """What the text says, with probabilities and checked reasons."""

    def region_attention(self, face: Face) -> NDArray[np.float32]:
        """(N, 9), how much each image token looks at each region."""


@dataclass(eq=False)
class Exchange:
    """A question and what has come of it so far.

    Attributes:
        question: as typed.
        text: the model's words so far.
        answer: what they say; None until they are whole.
        picture: (H, W, 3) uint8 RGB, the face with what the answer rests on.
        problem: why there is no answer, in one sentence.
        stopped: the user did not want the rest.
    """

    question: str
    text: str = ""
    answer: Answer | None = None
    picture: NDArray[np.uint8] | None = None
    problem: str = ""
    stopped: bool = False

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

    def _notes(self) -> Iterator[str]:
        if self.stopped:
            yield "Stopped."
        if self.problem:
            yield self.problem
        if self.answer and self.answer.unreadable is not None:
            yield "This answer could not be read, so it counts as none."
        if self.answer and (weak := weak_reasons(self.answer)):
            yield f"Weak answer: {' and '.join(weak)}."


@dataclass(eq=False)
class Session:
    """What one browser tab looks at: a photo's faces, and a conversation about each.

    Attributes:
        faces: as found.
        close_ups: of each face the picture that overlays are drawn on, and the face in it.
        chosen: which face is asked about.
        talks: the conversation about each face.
    """

    faces: list[Face]
    close_ups: list[tuple[NDArray[np.uint8], Face]]
    chosen: int = 0
    talks: list[list[Exchange]] = field(default_factory=list)

    @classmethod
    def of(cls, photo: NDArray[np.uint8]) -> Session:
        """A session about a photo; raises NoFaceFound."""
        faces = find_faces(photo)
        return cls(faces, [close_up(photo, face) for face in faces], 0, [[] for _ in faces])

    @property
    def face(self) -> Face:
        """The chosen face."""
        return self.faces[self.chosen]

    @property
    def summary(self) -> str:
        """How many faces there are, in words."""
        count = len(self.faces)
        if count == 1:
            found = "One face found."
        else:
            found = f"{count} faces found; choose whom to ask about."
        weak = any(face.weak for face in self.faces)
        return found + (" A question mark: its landmarks are uncertain." if weak else "")

    @property
    def thumbnails(self) -> list[tuple[NDArray[np.uint8], str]]:
        """Each face's crop with its number, marked as on the overlay."""
        return [(face.crop, f"{face.index}{'?' * face.weak}") for face in self.faces]

    @property
    def talk(self) -> list[Exchange]:
        """The conversation about the chosen face."""
        return self.talks[self.chosen]

    @property
    def running(self) -> Exchange | None:
        """The exchange that is still being answered."""
        last = self.talk[-1] if self.talk else None
        done = last is None or last.answer or last.problem or last.stopped
        return None if done else last

    def interrupt(self) -> None:
        """Let a running answer end where it is."""
        if self.running:
            self.running.stopped = True

    def overlay(self, answer: Answer, attention: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The chosen face with the regions that an answer cites and those that the model looked at.

        Args:
            answer: about the chosen face.
            attention: (9,) weights of the regions.
        """
        picture, face = self.close_ups[self.chosen]
        cited = {face.index: answer.cited_regions}
        return draw_overlay(picture, [face], cited_regions=cited, region_attention=attention)

    def plain_overlay(self) -> NDArray[np.uint8]:
        """The chosen face with its box and landmarks."""
        picture, face = self.close_ups[self.chosen]
        return draw_overlay(picture, [face])

    def history(self) -> list[tuple[str, str]]:
        """Earlier turns about the chosen face that were answered readably, the last few."""
        turns = [
            (turn.question, turn.text)
            for turn in self.talk
            if turn.answer is not None and turn.answer.unreadable is None
        ]
        return turns[-MAX_TURNS:]
