"""A person's expression over the time of a clip, as a picture of lines and as a table.

Lines are an SVG that stretches with the page; words are HTML beside it, so that they keep their
size on a phone. Each line bears its name at its end: colour never speaks alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

from facellava.tasks import TASKS
from serve.chat_replies import Timeline

MOST_LINES: Final = 4
WORTH_A_LINE: Final = 0.15  # a label that never gets so much probability has no line
LINE_HEIGHT: Final = 9.5  # of a name at a line's end, in hundredths of the picture's height
TICKS: Final = (0, 50, 100)  # percent

WAITING: Final = (
    '<section class="fl-curve-panel"><p class="fl-quiet" role="status">'
    "Reading the expression frame by frame …</p></section>"
)


def curve(timeline: Timeline) -> str:
    """Which labels the frames show, as lines over time, in words and as a table."""
    title = TASKS[timeline.task].title if timeline.task in TASKS else timeline.task
    shown = lines_worth_drawing(timeline.probabilities)
    story = in_words(timeline.seconds, timeline.labels)
    return (
        f'<section class="fl-curve-panel"><h3>{escape(title)} over time '
        f"<small>probability in each of {len(timeline.seconds)} frames</small></h3>"
        f"<p>{escape(story)}</p>{_drawing(timeline, shown)}{_table(timeline, shown)}</section>"
    )


def lines_worth_drawing(probabilities: Mapping[str, Sequence[float]]) -> list[str]:
    """The labels that get most somewhere in the clip, at most four and at least one."""
    ranked = sorted(probabilities, key=lambda name: -max(probabilities[name]))
    return [
        name
        for place, name in enumerate(ranked[:MOST_LINES])
        if place == 0 or max(probabilities[name]) >= WORTH_A_LINE
    ]


def in_words(seconds: Sequence[float], labels: Sequence[str | None]) -> str:
    """What the clip shows one after the other, such as "neutral to 1.2 s, then happiness." """
    runs = [
        (label or "unreadable", [second for _, second in run])
        for label, run in groupby(zip(labels, seconds, strict=True), key=lambda pair: pair[0])
    ]
    if len(runs) == 1:
        return f"{runs[0][0].capitalize()} in every frame."
    told = [f"{name} to {times[-1]:.1f} s" for name, times in runs[:-1]]
    return f"{', '.join([*told, f'then {runs[-1][0]}'])}.".capitalize()


def spread(heights: Sequence[float], gap: float = LINE_HEIGHT) -> list[float]:
    """Places for names beside these heights, in hundredths from the top, none over another.

    Args:
        heights: where each name would like to be.
        gap: the least distance.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    places = list(heights)
    lowest = -gap
    for index in order:
        lowest = places[index] = max(heights[index], lowest + gap)
    highest = 100.0 + gap
    for index in reversed(order):
        highest = places[index] = min(places[index], highest - gap)
    return places


def _drawing(timeline: Timeline, shown: Sequence[str]) -> str:
    start, end = timeline.seconds[0], timeline.seconds[-1]
    width = end - start
    across = [100 * (second - start) / width if width else 50.0 for second in timeline.seconds]
    grid = "".join(
        f'<line class="fl-grid" x1="0" x2="100" y1="{100 - tick}" y2="{100 - tick}"/>'
        for tick in TICKS
    )
    lines = "".join(
        f'<polyline class="fl-line fl-line-{number}" points="'
        + " ".join(
            f"{x:.2f},{100 * (1 - share):.2f}"
            for x, share in zip(across, timeline.probabilities[name], strict=True)
        )
        + '"/>'
        for number, name in enumerate(shown)
    )
    ends = spread([100 * (1 - timeline.probabilities[name][-1]) for name in shown])
    names = "".join(
        f'<span class="fl-end fl-line-{number}" style="top:{place:.1f}%">{escape(name)}</span>'
        for number, (name, place) in enumerate(zip(shown, ends, strict=True))
    )
    scale = "".join(f'<span style="top:{100 - tick}%">{tick}%</span>' for tick in TICKS)
    return (
        '<div class="fl-curve" aria-hidden="true">'
        f'<div class="fl-shares">{scale}</div>'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" focusable="false">'
        f"{grid}{lines}</svg>"
        f'<div class="fl-ends">{names}</div>'
        f'<div class="fl-times"><span>{start:.1f} s</span><span>{end:.1f} s</span></div></div>'
    )


def _table(timeline: Timeline, shown: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in shown)
    rows = "".join(
        f'<tr><th scope="row">{second:.1f} s</th><td>{escape(label or "unreadable")}</td>'
        + "".join(f"<td>{100 * timeline.probabilities[name][at]:.0f}%</td>" for name in shown)
        + "</tr>"
        for at, (second, label) in enumerate(zip(timeline.seconds, timeline.labels, strict=True))
    )
    return (
        "<details><summary>The same as a table</summary>"
        '<div class="fl-wide" role="region" tabindex="0" aria-label="Table over time">'
        '<table class="fl-times-table"><thead><tr><th scope="col">Time</th>'
        f'<th scope="col">Answer</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )
