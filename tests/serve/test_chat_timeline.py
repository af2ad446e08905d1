"""The timeline says in lines, in words and in a table what each frame shows."""

from __future__ import annotations

import html
import re
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from serve.chat_replies import Timeline
from serve.chat_timeline import curve, in_words, lines_worth_drawing, spread


def timeline(**changes: Any) -> Timeline:
    facts = {
        "task": "expression",
        "seconds": [0.0, 1.0, 2.5],
        "labels": ["neutral", "neutral", "happiness"],
        "probabilities": {
            "happiness": [0.1, 0.4, 0.8],
            "neutral": [0.85, 0.5, 0.1],
            "fear": [0.05, 0.1, 0.1],
        },
    }
    return Timeline.model_validate(facts | changes)


def test_lines_have_their_names_and_the_table_every_frame() -> None:
    panel = curve(timeline())
    assert panel.count("<polyline") == 2, "fear never gets enough for a line"
    assert re.findall(r'fl-end fl-line-\d" style="top:[\d.]+%">(\w+)', panel) == [
        "neutral",
        "happiness",
    ]
    words = html.unescape(re.sub(r"<[^>]+>", " ", panel))
    assert "Neutral to 1.0 s, then happiness." in words
    assert re.search(r"2\.5 s\s+happiness\s+10%\s+80%", words)
    assert 'aria-hidden="true"' in panel.split("<details>")[0]


def test_points_lie_where_time_and_probability_put_them() -> None:
    points = re.findall(r'points="([^"]+)"', curve(timeline()))[1].split()
    assert points == ["0.00,90.00", "40.00,60.00", "100.00,20.00"]


def test_a_clip_of_one_frame_has_a_panel_too() -> None:
    panel = curve(timeline(seconds=[0.0], labels=["fear"], probabilities={"fear": [0.9]}))
    assert "Fear in every frame." in panel
    assert 'points="50.00,10.00"' in panel


def test_words_tell_each_change_in_order() -> None:
    told = in_words([0.0, 1.0, 2.0, 3.0], ["fear", "anger", "anger", None])
    assert told == "Fear to 0.0 s, anger to 2.0 s, then unreadable."


def test_at_most_four_lines_and_at_least_one() -> None:
    flat = {name: [0.125] for name in "abcdefgh"}
    assert lines_worth_drawing(flat) == ["a"]
    assert lines_worth_drawing({name: [0.2] for name in "abcde"}) == list("abcd")


@pytest.mark.parametrize("heights", [[50, 50, 50, 50], [0, 1, 2], [99, 100], [0, 100], [97, 3, 98]])
def test_names_never_lie_on_one_another_nor_outside(heights: list[float]) -> None:
    places = spread(heights, gap=10)
    ordered = sorted(places)
    assert ordered[0] >= 0
    assert ordered[-1] <= 100
    assert all(later - sooner >= 10 - 1e-9 for sooner, later in pairwise(ordered))
    lines = sorted(zip(heights, places, strict=True))
    for (height, place), (next_height, next_place) in pairwise(lines):
        assert height == next_height or place < next_place, "in the order of the lines"


def test_what_a_server_wrote_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    panel = curve(timeline(labels=[evil] * 3, probabilities={evil: [0.9] * 3}, task=evil))
    assert "<script>" not in panel.lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["fear"]},
        {"probabilities": {"fear": [0.1]}},
        {"seconds": []},
        {"probabilities": {}},
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        timeline(**changes)
