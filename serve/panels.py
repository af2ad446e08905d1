"""What the chat page shows beside an answer, as HTML: verdict, probabilities, checked reasons.

Everything that a model or a user wrote is escaped. Colour never speaks alone: each verdict also has
a symbol and a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facellava.evidence import Evidence
from facellava.faces import MEASUREMENTS, Face
from facellava.faces.photo import MAX_BYTES
from facellava.tasks import TASKS
from facellava.tasks.action_units import ACTION_UNITS, ACTION_UNITS_TASK
from serve.chat_replies import AnswerReply

CLOSE_UP_SIDE: Final = 720  # longest side of the picture that an overlay is drawn on, pixels
SURROUND: Final = 0.35  # of the face box, kept on each side of it
TOP_LABELS: Final = 5
AGE_SHARE: Final = 0.8  # of the probability lies in the range of ages that is named

NOTICE: Final = (
    '<header class="fl-head"><h1>facellava</h1>'
    "<p>Ask about a face. Get an answer with reasons that are measured again.</p></header>"
    '<p class="fl-notice"><strong>A small research model: it is often wrong.</strong> '
    "It knows nobody's name, and it must not be used for decisions about people. "
    "Photos and clips go only to the computer that answers.</p>"
)
NOTHING_YET: Final = (
    '<p class="fl-quiet">Probabilities and the reasons, each with its measurement, '
    "appear here after the first answer.</p>"
)
MAX_CLIP_BYTES: Final = 46 * 2**20  # as a data URL, it fits the server's 64 MiB of a request
# Gradio drops a file over its limit without a word; this says it, before anything is sent.
TOO_LARGE: Final = (
    '<p id="fl-too-large" class="fl-warning" role="alert" hidden>The file is too large: a photo '
    f"may have {MAX_BYTES // 2**20} MiB, a clip {MAX_CLIP_BYTES // 2**20} MiB.</p>"
)
SIZE_CHECK: Final = """
const warning = element.querySelector("#fl-too-large");
for (const [kind, files] of [
  ["change", (event) => event.target.files],
  ["drop", (event) => event.dataTransfer?.files],
  ["paste", (event) => event.clipboardData?.files],
]) {
  document.addEventListener(kind, (event) => {
    const given = [...(files(event) ?? [])];
    if (!given.length) return;
    const tooLarge = given.some(
      (file) => file.size > (file.type.startsWith("video/") ? CLIP : PHOTO));
    warning.hidden = !tooLarge;
    if (tooLarge) { event.preventDefault(); event.stopImmediatePropagation(); }
  }, true);
}
warning.dataset.watching = "yes";
""".replace("CLIP", str(MAX_CLIP_BYTES)).replace("PHOTO", str(MAX_BYTES))
_VERDICT_MARKS: Final = {"supported": "✓", "contradicted": "✕", "unmeasurable": "–"}
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:=])")


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it stands: no markup, no HTML, no formula."""
    return _MARKDOWN.sub(r"\\\1", escape(text, quote=False))


def warning(sentence: str) -> str:
    """A sentence that asks for the reader's attention."""
    return f'<p class="fl-warning" role="alert">{escape(sentence)}</p>'


def remark(sentence: str) -> str:
    """A sentence beside the matter."""
    return f'<p class="fl-quiet" role="status">{escape(sentence)}</p>'


def legend(second: float | None) -> str:
    """What the picture of the chosen face shows; in a clip at that second."""
    frame = (
        ""
        if second is None
        else f"At {second:.1f} s, the frame with the strongest expression, where reasons are "
        "measured. "
    )
    return (
        f'<p class="fl-quiet">{frame}Box and 68 landmarks of the chosen face. After an answer: the '
        "regions that its reasons speak of and, where the server tells it, how much the model "
        "looked at each region.</p>"
    )


def close_up(photo: NDArray[np.uint8], face: Face) -> tuple[NDArray[np.uint8], Face]:
    """A face's surroundings at the size of a screen, and the face in that picture's pixels.

    Args:
        photo: (H, W, 3) uint8 RGB.
        face: found in it.
    """
    x0, y0, x1, y1 = face.box
    margin = SURROUND * max(x1 - x0, y1 - y0)
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    part = photo[top : int(y1 + margin) + 1, left : int(x1 + margin) + 1]
    scale = CLOSE_UP_SIDE / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(part, size, interpolation=interpolation), np.uint8)
    corner = np.array([left, top])
    moved = face.crop_to_photo.copy()
    moved[:, 2] -= corner
    low, high = (np.array(face.box).reshape(2, 2) - corner) * scale
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return pixels, replace(face, box=box, crop_to_photo=moved * scale)


def enlarged_crop(face: Face) -> tuple[NDArray[np.uint8], Face]:
    """A face's crop at the size of a screen, and the face in that picture's pixels.

    For clips, of whose frames the page has the crops alone.
    """
    scale = CLOSE_UP_SIDE / face.crop.shape[0]
    pixels = np.asarray(
        cv2.resize(face.crop, (CLOSE_UP_SIDE, CLOSE_UP_SIDE), interpolation=cv2.INTER_CUBIC),
        np.uint8,
    )
    x0, y0, x1, y1 = face.box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    inverse = np.linalg.inv(face.crop_to_photo[:, :2])
    inside = (corners - face.crop_to_photo[:, 2]) @ inverse.T * scale
    (left, top), (right, bottom) = inside.min(axis=0), inside.max(axis=0)
    box = (float(left), float(top), float(right), float(bottom))
    return pixels, replace(face, box=box, crop_to_photo=np.eye(2, 3) * scale)


def weak_reasons(answer: AnswerReply) -> list[str]:
    """Why an answer is weak, see `Answer.weak`; empty where it is not."""
    grounds = {
        "no human-coded data stands behind action units": answer.task == ACTION_UNITS_TASK.name,
        "the landmarks of this face are uncertain": answer.face.weak,
    }
    return [reason for reason, holds in grounds.items() if holds]


def findings(answer: AnswerReply) -> str:
    """Verdict, probability bars and the table of checked reasons."""
    if answer.unreadable is not None:
        return (
            '<section class="fl-findings"><h2>The answer could not be read</h2>'
            f'<p class="fl-warning">{escape(answer.unreadable)} '
            "So there is no verdict. Ask again in other words.</p></section>"
        )
    weak = weak_reasons(answer)
    badge = f'<p class="fl-weak">Weak answer: {escape(" and ".join(weak))}.</p>' if weak else ""
    return (
        f'<section class="fl-findings"><h2>{escape(_headline(answer))}</h2>{badge}'
        f"{_probabilities(answer)}{_reasons(answer)}</section>"
    )


def _headline(answer: AnswerReply) -> str:
    title = TASKS[str(answer.task)].title
    match answer.label:
        case None:
            return title
        case dict() as table if len(table) > 1:
            return f"{title}: {sum(table.values())} of {len(table)} present"
        case dict() as table:
            [(name, present)] = table.items()
            return f"{title}: {name}, {'yes' if present else 'no'}"
        case label:
            return TASKS[str(answer.task)].lead(label).rstrip(".")


def _probabilities(answer: AnswerReply) -> str:
    if not answer.calibrated:
        return ""
    parts = ['<h3>Probabilities <small>calibrated, <span class="fl-raw">raw</span></small></h3>']
    ranked = sorted(answer.calibrated, key=lambda name: -answer.calibrated[name])
    if isinstance(answer.label, dict | tuple):
        present = {name for name in ranked if _is_present(answer, name)}
        parts.append(_bars(answer, [name for name in ranked if name in present]))
        absent = [name for name in ranked if name not in present]
        if absent:
            inside = _bars(answer, absent)
            some = "open" if not present else ""
            parts.append(f"<details {some}><summary>{len(absent)} absent</summary>{inside}")
            parts.append("</details>")
    else:
        shown = ranked[:TOP_LABELS]
        if str(answer.label) not in shown:
            shown.append(str(answer.label))
        if isinstance(answer.label, int):
            parts.append(_ages(answer.calibrated))
        parts.append(_bars(answer, shown))
    return "".join(parts)


def _is_present(answer: AnswerReply, name: str) -> bool:
    if isinstance(answer.label, dict):
        return answer.label.get(name, False)
    return isinstance(answer.label, tuple) and name in answer.label


def _bars(answer: AnswerReply, names: Iterable[str]) -> str:
    """A list of labels with a bar each; what the answer says is marked."""
    rows = []
    for name in names:
        said = _is_present(answer, name) or name == str(answer.label)
        share = answer.calibrated[name]
        rows.append(
            f'<li class="{"fl-said" if said else ""}">'
            f'<span class="fl-name">{escape(_label_name(answer, name))}</span>'
            f'<span class="fl-track" aria-hidden="true">'
            f'<span style="width:{100 * share:.1f}%"></span></span>'
            f'<span class="fl-share">{_percent(share)} '
            f'<span class="fl-raw">{_percent(answer.raw[name])}</span></span></li>'
        )
    return f'<ul class="fl-bars">{"".join(rows)}</ul>' if rows else ""


def _label_name(answer: AnswerReply, name: str) -> str:
    if name in ACTION_UNITS:
        return f"{name} {ACTION_UNITS[name].name}"
    return f"{name} years" if isinstance(answer.label, int) and answer.task == "age" else name


def _percent(share: float) -> str:
    if 0 < share < 0.01:
        return "&lt;1%"
    return "&gt;99%" if 0.99 < share < 1 else f"{100 * share:.0f}%"


def _ages(table: dict[str, float]) -> str:
    """The distribution over the years, and the narrow range that holds most of it."""
    years = sorted((int(name), share) for name, share in table.items())
    shares = np.array([share for _, share in years])
    below = np.cumsum(shares)
    tail = (1 - AGE_SHARE) / 2
    low, high = (years[int(np.searchsorted(below, cut))][0] for cut in (tail, 1 - tail))
    top = float(shares.max())
    columns = "".join(
        f'<rect x="{year}" y="{30 * (1 - share / top):.1f}" width="1" height="30"/>'
        for year, share in years
        if share > top / 100
    )
    return (
        f'<svg class="fl-ages" viewBox="0 0 {years[-1][0] + 1} 30" preserveAspectRatio="none" '
        f'aria-hidden="true">{columns}</svg><div class="fl-scale" aria-hidden="true">'
        f"<span>0</span><span>{years[-1][0]} years</span></div>"
        f"<p>{AGE_SHARE:.0%} of the probability lies between {low} and {high} years.</p>"
    )


def _reasons(answer: AnswerReply) -> str:
    if answer.label is None:
        return f"<p>{escape(answer.explanation)}</p>"
    if not answer.evidence:
        return '<p class="fl-quiet">The answer gives no reason that can be measured.</p>'
    counts = {
        verdict: sum(item.verdict == verdict for item in answer.evidence)
        for verdict in _VERDICT_MARKS
    }
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    rows = "".join(_row(item) for item in answer.evidence)
    used = dict.fromkeys(item.measurement for item in answer.evidence)
    formulas = "".join(
        f"<dt>{_words(name)}</dt><dd>{escape(MEASUREMENTS[name].formula)}</dd>" for name in used
    )
    return (
        f"<h3>Reasons, measured again on this face <small>{summary}</small></h3>"
        '<table class="fl-evidence"><thead><tr><th scope="col">The answer says</th>'
        '<th scope="col">Where</th><th scope="col">Measured</th><th scope="col">Holds if</th>'
        f'<th scope="col">Verdict</th></tr></thead><tbody>{rows}</tbody></table>'
        f"<details><summary>How these are measured</summary><dl>{formulas}</dl></details>"
    )


def _row(item: Evidence) -> str:
    value = "not measured" if item.value is None else f"{_number(item.value)} {item.unit}"
    note = f'<span class="fl-note">{escape(item.note)}</span>' if item.note else ""
    return (
        f'<tr><td data-label="Claim">{escape(item.phrase)}</td>'
        f'<td data-label="Where">{_words(", ".join(item.regions))}</td>'
        f'<td data-label="Measured">{escape(value)}'
        f'<span class="fl-note">{_words(item.measurement)}</span></td>'
        f'<td data-label="Holds if">{escape(_condition(item))}</td>'
        f'<td data-label="Verdict"><span class="fl-verdict fl-{item.verdict}">'
        f'<span aria-hidden="true">{_VERDICT_MARKS[item.verdict]}</span> {item.verdict}</span>'
        f"{note}</td></tr>"
    )


def _condition(item: Evidence) -> str:
    if item.direction == 0:
        low, high = item.threshold - item.width, item.threshold + item.width
        return f"{_number(low)} to {_number(high)}"
    return f"{'at least' if item.direction > 0 else 'at most'} {_number(item.threshold)}"


def _number(value: float) -> str:
    """Two places for shares of a face, one for degrees and levels; a true minus sign."""
    places = 1 if abs(value) >= 10 else 2
    return f"{value:.{places}f}".replace("-", "−")


def _words(name: str) -> str:
    return escape(name.replace("_", " "))
