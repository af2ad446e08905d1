"""A conversation about each face: what is shown, and what the model is told of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.answer import Answer
from facellava.faces import Face
from serve.chat_session import MAX_TURNS, Exchange, Session

Recite = Callable[[Face, str], Answer]


@pytest.fixture
def session(couple: NDArray[np.uint8]) -> Session:
    return Session.of(couple)


def answered(recite: Recite, session: Session, task: str) -> Exchange:
    answer = recite(session.face, task)
    return Exchange(answer.question, text=answer.text, answer=answer)


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
    session.talk.append(answered(recite, session, "La la la."))
    session.talk.append(Exchange("How old?", text="Age: 3", stopped=True))
    session.talk.extend(answered(recite, session, "age") for _ in range(MAX_TURNS + 1))
    assert len(session.history()) == MAX_TURNS
    assert all(text.startswith("Age: 34") for _, text in session.history())
    session.chosen = 1
    assert session.history() == []


def test_an_interrupted_answer_no_longer_runs(session: Session) -> None:
    session.talk.append(Exchange("How old?", text="Age: 3"))
    assert session.running is session.talk[-1]
    session.interrupt()
    assert session.running is None
    assert "Stopped" in session.talk[-1].bubbles[1]["content"]
