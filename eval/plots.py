"""The pictures of a report, drawn for a phone: 345 CSS pixels wide where the content allows.

Blue and orange are told apart with any colour vision (after Okabe and Ito), and never speak alone:
markers, dashes and numbers say the same. Each picture comes light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from eval.protocols import Kind
from eval.report_tables import IN_YEARS, Block, number, one_line, percent, words


@dataclass(frozen=True)
class Theme:
    """Colours: of the ground, of text, of rules, and of two series."""

    paper: str
    ink: str
    soft: str
    line: str
    first: str
    second: str


LIGHT: Final = Theme("#ffffff", "#1b1f24", "#57606a", "#d5dae0", "#0072b2", "#d55e00")
DARK: Final = Theme("#14171b", "#e6e9ed", "#a3adb8", "#343b44", "#1a80c0", "#e69f00")

# Text of labels is never a formula, and the same figures give the same bytes.
_STYLE: Final = {"text.parse_math": False, "svg.hashsalt": "facellava", "svg.fonttype": "path"}
_PHONE: Final = 3.59  # inches of 96 CSS pixels
_ROW: Final = 0.21
_CELL: Final = 0.33
_CELL_HEIGHT: Final = 0.36
_LABEL: Final = 8.0
_SMALL: Final = 7.0
_LONGEST: Final = 22
_PNG_DPI: Final = 200


@dataclass(frozen=True)
class Plot:
    """A picture that can be drawn.

    Attributes:
        title: what it shows, in a line.
        words: the same for those who cannot see it, with what stands out.
        draw: makes it; use :meth:`image`.
    """

    title: str
    words: str
    draw: Callable[[Theme], Figure]

    def image(self, theme: Theme = LIGHT, form: Literal["svg", "png"] = "svg") -> bytes:
        """The picture as a file."""
        with matplotlib.rc_context(_STYLE):
            figure, data = self.draw(theme), BytesIO()
            stamp = {"Date": None} if form == "svg" else {}
            figure.savefig(data, format=form, dpi=_PNG_DPI, metadata=stamp)
        return data.getvalue()


@dataclass(frozen=True)
class _Bars:
    """What is drawn of the rows of `details`."""

    figure: str
    title: str


_BARS: Final[dict[Kind, _Bars]] = {
    "classes": _Bars("recall", "Recall by class"),
    "deepfake": _Bars("recall", "Recall by class"),
    "units": _Bars("F1", "F1 by action unit"),
    "attributes": _Bars("accuracy", "Accuracy by attribute"),
    "years": _Bars("MAE", "MAE by age group"),
}
_MEAN_OF: Final[dict[Kind, str]] = {
    "classes": "UAR",
    "deepfake": "balanced_accuracy",
    "years": "MAE",
}
"""The figure whose majority baseline is a line: no single row has a baseline of its own."""


def plots_of(block: Block) -> list[Plot]:
    """The pictures that can be drawn of one protocol's figures."""
    plots = [confusion_plot(block), bars_plot(block), reliability_plot(block)]
    return [plot for plot in plots if plot] + fairness_plots(block)


def confusion_plot(block: Block) -> Plot | None:
    """How each label (rows) was answered (columns): percent of the row, and counts."""
    found = block["confusion"]
    if not found or not np.sum(found["counts"]):
        return None
    counts = np.array(found["counts"], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    rows = [_short(label) for label in found["labels"]]
    columns = [_short(label) for label in found["columns"]]
    wrong = shares.copy()
    wrong[np.arange(len(rows)), np.arange(len(rows))] = 0
    truth, answer = np.unravel_index(wrong.argmax(), wrong.shape)
    said = (
        f"Confusion matrix. Most frequent mistake: {rows[truth]} answered as {columns[answer]}, "
        f"{percent(float(wrong[truth, answer]))} of {int(totals[truth, 0]):,} faces."
    )
    if not wrong.any():
        said = "Confusion matrix without a mistake."

    def draw(theme: Theme) -> Figure:
        size = max(_PHONE, 0.95 + _CELL * len(columns)), 1.1 + _CELL_HEIGHT * len(rows)
        figure, axes = _canvas(size, theme)
        ramp = LinearSegmentedColormap.from_list("share", [theme.paper, theme.first])
        axes.imshow(shares, cmap=ramp, vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*shares.shape):
            share, count = float(shares[row, column]), int(counts[row, column])
            if count:
                text = f"{100 * share:.0f}%\n{count}"
                axes.text(column, row, text, ha="center", va="center", size=_SMALL,
                          color=_readable_on(ramp(share), theme))  # fmt: skip
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        return figure

    return Plot("Truth and answer", said, draw)


def bars_plot(block: Block) -> Plot | None:
    """A bar a class, unit, attribute or age group, with what the majority answer gets."""
    kind, bars = block["kind"], _BARS[block["kind"]]
    rows = {
        _short(label): (row[bars.figure], _row_baseline(block, label, row), _value(bars, row))
        for label, row in block["details"].items()
        if row[bars.figure] is not None
    }
    if not rows:
        return None
    values, simple, texts = zip(*rows.values(), strict=True)
    mean = _MEAN_OF.get(kind)
    level = block["baselines"]["majority"]["figures"].get(mean) if mean else None
    ordered = sorted(rows, key=lambda label: rows[label][0])
    said = (
        f"{bars.title}, from {number(bars.figure, min(values))} "
        f"({ordered[0]}) to {number(bars.figure, max(values))} ({ordered[-1]})."
    )
    if level is not None:
        said += f" The majority answer gets {number(bars.figure, level)} on average."
    if kind in ("units", "attributes"):
        above = sum(v > b for v, b in zip(values, simple, strict=True) if b is not None)
        said += f" {above} of {len(rows)} are above what the majority answer gets."

    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas((_PHONE, 0.95 + _ROW * len(rows)), theme)
        axes.barh(range(len(rows)), values, color=theme.first, height=0.7)
        for place, text in enumerate(texts):
            # Beside the chart, where no mark can hide it.
            axes.text(1.02, place, text, va="center", size=_SMALL,
                      color=theme.ink, transform=axes.get_yaxis_transform())  # fmt: skip
        marked = [(b, p) for p, b in enumerate(simple) if b is not None]
        if marked:
            x, y = zip(*marked, strict=True)
            axes.scatter(x, y, marker="D", s=16, color=theme.second,
                         edgecolor=theme.paper, linewidth=0.6, zorder=3,
                         label="majority answer")  # fmt: skip
        if level is not None:
            axes.axvline(level, color=theme.second, linestyle="--", linewidth=1.2,
                         label="majority answer, mean")  # fmt: skip
        _rows(axes, list(rows))
        longest = max([*values, *(each for each, _ in marked), level or 0])
        axes.set_xlim(0, 1.08 * longest if bars.figure in IN_YEARS else 1)
        axes.set_xlabel(
            "mean error in years (mean of answer minus truth)"
            if bars.figure in IN_YEARS
            else words(bars.figure)
        )
        _legend(figure, axes)
        return figure

    return Plot(bars.title, said, draw)


def _value(bars: _Bars, row: Mapping[str, Any]) -> str:
    value = number(bars.figure, row[bars.figure])
    bias = row.get("bias")
    return value if bias is None else f"{value} ({bias:+.1f})"


def _row_baseline(block: Block, label: str, row: Mapping[str, Any]) -> float | None:
    """What the majority answer gets in this row; None where it has no say on single rows."""
    if block["kind"] == "attributes":
        return row["majority"]
    if block["kind"] != "units" or not row["n"]:
        return None
    always = block["baselines"]["majority"]["answer"].get(label)
    return 2 * row["positives"] / (row["n"] + row["positives"]) if always else 0.0


def reliability_plot(block: Block) -> Plot | None:
    """Confidence beside the share of right answers, raw and calibrated; large dots hold more."""
    found = {name: each for name, each in (block["calibration"] or {}).items() if each}
    if not found:
        return None
    said = "; ".join(f"{name} ECE {number('ECE', each['ECE'])}" for name, each in found.items())

    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas((_PHONE, 3.5), theme)
        axes.plot([0, 1], [0, 1], color=theme.soft, linestyle=":", linewidth=1)
        looks = {"raw": (theme.second, "s", "--"), "calibrated": (theme.first, "o", "-")}
        for name, each in found.items():
            colour, marker, dashes = looks[name]
            x = [part["confidence"] for part in each["bins"]]
            y = [part["accuracy"] for part in each["bins"]]
            fullest = max(part["count"] for part in each["bins"])
            sizes = [8 + 50 * part["count"] / fullest for part in each["bins"]]
            axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.2)
            axes.scatter(x, y, s=sizes, color=colour, marker=marker, edgecolor=theme.paper,
                         linewidth=0.6, zorder=3,
                         label=f"{name}, ECE {number('ECE', each['ECE'])}")  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.grid(color=theme.line, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of right answers")
        _legend(figure, axes)
        return figure

    return Plot("Confidence and correctness", f"Reliability diagram: {said}.", draw)


def fairness_plots(block: Block) -> list[Plot]:
    """For each way to slice: the headline figure of each group with its 95% interval."""
    plots = []
    for key, found in block["fairness"].items():
        name = next(iter(block["figures"]))
        if plot := _group_plot(words(key), name, found["groups"], block["figures"][name]["value"]):
            plots.append(plot)
    return plots


def _group_plot(
    key: str, name: str, groups: Mapping[str, Any], overall: float | None
) -> Plot | None:
    known = {
        group: each["figures"][name]
        for group, each in groups.items()
        if each["figures"] and each["figures"][name]["value"] is not None
    }
    if not known:
        return None
    said = ", ".join(f"{_short(g)} {number(name, each['value'])}" for g, each in known.items())

    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas((_PHONE, 0.85 + _ROW * 1.15 * len(groups)), theme)
        for place, (group, each) in enumerate(groups.items()):
            if group not in known:
                axes.text(0.02, place, one_line(each.get("note") or "no figure"), va="center",
                          size=_SMALL, color=theme.soft,
                          transform=axes.get_yaxis_transform())  # fmt: skip
                continue
            value, low, high = (known[group][part] for part in ("value", "low", "high"))
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=theme.first, linewidth=2)
            axes.plot([value], [place], "o", color=theme.first, markersize=5)
        if overall is not None:
            axes.axvline(overall, color=theme.second, linestyle="--", linewidth=1.2,
                         label="all faces")  # fmt: skip
        _rows(axes, [f"{_short(group)} ({each['n']:,})" for group, each in groups.items()])
        axes.grid(axis="x", color=theme.line, linewidth=0.6)
        axes.set_xlabel(f"{words(name)}, 95% interval")
        _legend(figure, axes)
        return figure

    title = f"By {one_line(key)}: {words(name)}"
    return Plot(title, f"{words(name)} by {one_line(key)}: {said}.", draw)


def _canvas(size: tuple[float, float], theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, facecolor=theme.paper, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, labelsize=_LABEL, length=0)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.soft)
        label.set_fontsize(_LABEL)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    return figure, axes


def _readable_on(ground: tuple[float, ...], theme: Theme) -> str:
    """The theme's lighter or darker text colour, whichever has more contrast (as WCAG counts)."""

    def light(colour: Any) -> float:
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05

    def contrast(colour: str) -> float:
        return max(light(colour), light(ground)) / min(light(colour), light(ground))

    return max(theme.ink, theme.paper, key=contrast)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        colour = axes.yaxis.label.get_color()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=_SMALL,
                      frameon=False, labelcolor=colour)  # fmt: skip


def _short(label: str) -> str:
    text = one_line(label)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
