"""The panels say what an answer says, escaped, and in words as well as in colours."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from facellava.faces import Face, find_faces
from facellava.tasks import TASKS
from serve.chat_replies import AnswerReply
from serve.panels import as_markdown, close_up, enlarged_crop, findings, weak_reasons

Recite = Callable[..., AnswerReply]


@pytest.fixture(scope="module")
def face(portrait: NDArray[np.uint8]) -> Face:
    return find_faces(portrait)[0]


def words_of(panel: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", panel)))


def test_expression_names_its_label_first_and_checks_each_reason(
    recite: Recite, face: Face
) -> None:
    answer = recite(face, "expression")
    words = words_of(findings(answer))
    assert words.startswith(" Expression: happiness")
    assert words.index("happiness", 25) < words.index("anger")
    for item in answer.evidence:
        assert item.phrase in words
        assert item.verdict in words
    assert {item.verdict for item in answer.evidence} == {"supported", "contradicted"}


def test_a_claim_shows_value_unit_and_condition(recite: Recite, face: Face) -> None:
    item = recite(face, "age").evidence[-1]
    assert item.claim == "lip_corners_raised"
    words = words_of(findings(recite(face, "age")))
    assert f"{item.value:.2f} {item.unit}" in words
    assert f"at least {item.threshold:.2f}" in words


def test_age_gives_the_range_that_holds_most_of_the_probability(recite: Recite, face: Face) -> None:
    words = words_of(findings(recite(face, "age")))
    assert "80% of the probability lies between" in words
    low, high = map(int, re.findall(r"between (\d+) and (\d+) years", words)[0])
    assert low < 34 < high
    assert "34 years" in words


def test_present_attributes_stand_before_the_folded_absent_ones(recite: Recite, face: Face) -> None:
    panel = findings(recite(face, "attributes"))
    open_part, folded = panel.split("<details", maxsplit=1)
    assert "Attributes: 2 of 40 present" in words_of(open_part)
    assert {"smiling", "young"} <= set(words_of(open_part).split())
    assert "38 absent" in folded
    assert "eyeglasses" in folded
    assert "eyeglasses" not in open_part


def test_action_units_have_their_names_and_are_marked_weak(recite: Recite, face: Face) -> None:
    words = words_of(findings(recite(face, "action_units")))
    assert "AU12 lip corner puller" in words
    assert "Weak answer: no human-coded data stands behind action units." in words


def test_uncertain_landmarks_are_named_as_the_weakness(recite: Recite, face: Face) -> None:
    doubtful = replace(face, score=0.2)
    assert weak_reasons(recite(doubtful, "age")) == ["the landmarks of this face are uncertain"]
    assert weak_reasons(recite(face, "age")) == []


def test_an_unreadable_answer_has_no_verdict_and_a_refusal_no_numbers(
    recite: Recite, face: Face
) -> None:
    unreadable = findings(recite(face, "<script>alert(1)</script>"))
    assert "could not be read" in words_of(unreadable)
    assert "<script>" not in unreadable
    refusal = words_of(findings(recite(face, "Cannot answer: I do not identify people. Ask on.")))
    assert "I do not identify people." in refusal
    assert "%" not in refusal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AU6_AU12 *bold*", r"AU6\_AU12 \*bold\*"),
        ("<b>x</b> & y", "&lt;b&gt;x&lt;/b&gt; &amp; y"),
        ("[a](http://b)", r"\[a\]\(http\://b\)"),
    ],
)
def test_markdown_shows_text_as_it_stands(text: str, shown: str) -> None:
    assert as_markdown(text) == shown


def test_close_up_moves_the_face_with_the_picture(portrait: NDArray[np.uint8], face: Face) -> None:
    picture, moved = close_up(portrait, face)
    assert max(picture.shape[:2]) == 720
    before, after = face.photo_landmarks, moved.photo_landmarks
    scale = np.ptp(after, axis=0) / np.ptp(before, axis=0)
    np.testing.assert_allclose(scale[0], scale[1], rtol=0.02)
    # The same skin lies under the same landmark.
    for point in (30, 8, 62):
        x, y = np.round(before[point]).astype(int)
        u, v = np.round(after[point]).astype(int)
        assert np.abs(portrait[y, x].astype(int) - picture[v, u]).max() < 40


def test_an_enlarged_crop_holds_the_same_landmarks_and_box(
    portrait: NDArray[np.uint8], face: Face
) -> None:
    picture, moved = enlarged_crop(face)
    assert picture.shape == (720, 720, 3)
    np.testing.assert_allclose(moved.photo_landmarks, face.landmarks * 720, atol=1e-3)
    x0, y0, x1, y1 = moved.box
    points = moved.photo_landmarks
    # As in the photo, the eyes and the nose lie inside the box.
    assert (points[27:48] > (x0, y0)).all()
    assert (points[27:48] < (x1, y1)).all()


def test_every_task_has_a_panel(recite: Recite, face: Face) -> None:
    for name, task in TASKS.items():
        if task.scored_words:
            assert words_of(findings(recite(face, name))).strip().startswith(task.title)
