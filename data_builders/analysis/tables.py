"""An analysis for people: tables with each measure in words, and one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_builders.analysis.apparent import DECADES
from data_builders.analysis.comparison import Analysis, PairAnalysis, SetAnalysis
from data_builders.analysis.similarity import FEWEST_FACES, NEIGHBOURS, Measure
from facellava.faces import CROP_SIZE
from facellava.records import JPEG_QUALITY

NONE: Final = "-"
FEW_PAIRS: Final = 10

INTRODUCTION: Final = f"""\
The outline follows "Evaluating Facial Expression Recognition Datasets for Deep Learning: A \
Benchmark Study with Novel Similarity Metrics" (arXiv 2503.20428): one normalisation for all sets, \
apparent age and gender by a model, and Local, Global and Paired Similarity for difficulty, \
generality and transfer. Only its abstract was at hand, which gives no formulas: those below are \
our own, and their numbers cannot be set beside the paper's.

**Normalisation.** Every face of every source is found, turned upright, scaled and cut out by its \
68 landmarks in the same way, and stored as {CROP_SIZE}x{CROP_SIZE} RGB in JPEG of quality \
{JPEG_QUALITY}; grey pictures become RGB with three equal channels. What a source cannot give, \
such as sharpness, stays different.

**Embedding.** The mean of the image tokens that the model's face encoder gives to its language \
model, scaled to length 1; of a clip, the mean over its frames. The encoder sees sets that it was \
taught on (see its model card) as easier than others."""

LOCAL: Final = f"""\
**Local Similarity** (difficulty): of a face's {NEIGHBOURS} nearest neighbours in its set, the \
share with its own expression; mean over the faces of an expression, then over expressions. 1 is \
easy; at chance neighbours are no guide. Pictures of one person are neighbours too."""

GLOBAL: Final = """\
**Global Similarity** (generality): each set becomes one centre an expression. Of the other sets' \
faces, the share whose nearest centre has their own expression; mean over expressions, then over \
the other sets. 1: the set sorts all others rightly; at chance it says nothing about them."""

PAIRED: Final = """\
**Paired Similarity** (transfer): an expression's direction is its centre less the mean of all \
centres; the measure is the cosine between the directions of two sets, with what chance adds to \
their lengths taken off. 1: expressions move faces the same way in both; 0: unrelated; below 0: \
labels contradict each other. On the diagonal are a set's own two halves: what chance leaves of 1. \
Traits of all faces of a set, such as its light, do not count, nor do labels wrong by lot."""

TRANSFER: Final = """\
**Check.** A logistic regression on the embeddings, taught on the row's set and asked about the \
column's: mean recall over the expressions that both have. The diagonal is cross-validated."""

PEOPLE: Final = """\
Guesses of the model {model} on faces drawn by lot, not facts about these people, and no part of a \
corpus. "Male" is CelebA's attribute, which knows two boxes. Where a source gives age or gender \
itself, the guesses' error on the same faces stands beside; it may be lower on faces that the \
model was taught on."""


def analysis_text(analysis: Analysis) -> str:
    """analysis.md."""
    parts = ["# The sets and their likeness", INTRODUCTION, "## Sets", _sets(analysis.sets)]
    if analysis.measured:
        parts += [
            f"The measures saw {analysis.faces_a_set} faces of each measured set, drawn with seed "
            f"{analysis.seed}, less those of expressions with fewer than {FEWEST_FACES}. Brackets "
            "hold 95% intervals from bootstrap draws of these faces.",
            "## Local and Global Similarity",
            LOCAL,
            GLOBAL,
            _measures(analysis.measured),
            "## Paired Similarity",
            PAIRED,
            _matrix(analysis, lambda each: _written(each.halves), _likeness),
            "## Does it foretell transfer?",
            TRANSFER,
            _matrix(analysis, lambda each: _number(each.own_accuracy), _transfer),
            _verdict(analysis),
        ]
    if any(each.apparent for each in analysis.sets):
        heading = "## Apparent age and gender"
        parts += [heading, PEOPLE.format(model=analysis.model), _ages(analysis.sets)]
        parts += [_genders(analysis.sets)]
    return "\n\n".join(parts) + "\n"


def similarity_chart(analysis: Analysis) -> bytes:
    """similarity.png: Paired Similarity as a heat map, Local and Global beside it."""
    sets = analysis.measured
    side = max(2.0, 0.9 * len(sets))
    figure = Figure(figsize=(side + 7.5, side + 1.8), layout="constrained")
    if not sets:
        figure.text(0.5, 0.5, "No set has enough faces with an expression.", ha="center")
    else:
        heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=[side, 3.5])
        _draw_heat(heat, analysis)
        _draw_bars(bars, sets)
    contents = BytesIO()
    figure.savefig(contents, dpi=130)
    return contents.getvalue()


def _draw_heat(axes: Axes, analysis: Analysis) -> None:
    names = [each.name for each in analysis.measured]
    grid = np.full((len(names), len(names)), np.nan)
    for place, each in enumerate(analysis.measured):
        grid[place, place] = np.nan if each.halves is None else each.halves.value
    for pair in analysis.pairs:
        one, other = names.index(pair.one), names.index(pair.other)
        value = np.nan if pair.similarity is None else pair.similarity.value
        grid[one, other] = grid[other, one] = value
    image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(grid):
        colour = "black" if value > 0.6 or np.isnan(value) else "white"
        text = NONE if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Paired Similarity\n(diagonal: a set's two halves)", fontsize=10)
    colours = axes.figure.colorbar(image, ax=axes, location="left", shrink=0.8)
    colours.set_label("1 the same, 0 and below unrelated", fontsize=8)


def _draw_bars(axes: Axes, sets: Sequence[SetAnalysis]) -> None:
    chosen: list[tuple[str, str, list[Measure | None]]] = [
        ("Local (how easy)", "tab:blue", [each.local_similarity for each in sets]),
        ("Global (how general)", "tab:orange", [each.global_similarity for each in sets]),
    ]
    height = 0.36
    for number, (label, colour, measures) in enumerate(chosen):
        known = [
            (place + (number - 0.5) * height, found)
            for place, found in enumerate(measures)
            if found is not None
        ]
        places = [place for place, _ in known]
        values = [found.value for _, found in known]
        errors = [
            [found.value - found.low for _, found in known],
            [found.high - found.value for _, found in known],
        ]
        axes.barh(places, values, height, xerr=errors, color=colour, label=label, alpha=0.85)
        axes.vlines(
            [found.chance or 0.0 for _, found in known],
            [place - height / 2 for place in places],
            [place + height / 2 for place in places],
            colors="black",
            linestyles="dotted",
            # A label that begins with _ is not in the legend: once is enough.
            label="_chance" if number else "chance",
        )
    axes.set_xlim(0, 1)
    axes.set_title("Local and Global Similarity", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, fontsize=8, frameon=False)


def _sets(sets: Sequence[SetAnalysis]) -> str:
    rows = [
        [
            each.name,
            str(each.faces),
            str(each.labelled),
            ", ".join(f"{word} {count}" for word, count in each.compared.items())
            or f"not measured: {each.unmeasured}",
        ]
        for each in sets
    ]
    return _table(["set", "faces", "with expression", "compared"], rows)


def _measures(sets: Sequence[SetAnalysis]) -> str:
    rows = [
        [
            each.name,
            _written(each.local_similarity),
            _chance(each.local_similarity),
            _written(each.global_similarity),
            _chance(each.global_similarity),
        ]
        for each in sets
    ]
    table = _table(["set", "Local", "chance", "Global", "chance"], rows)
    if all(each.global_similarity is None for each in sets):
        table += "\n\nGlobal Similarity needs a second set with two of the same expressions."
    return table


def _matrix(
    analysis: Analysis,
    own: Callable[[SetAnalysis], str],
    of_pair: Callable[[PairAnalysis, str], str],
) -> str:
    """A square table; `of_pair` is told which set the row is of."""
    by_names = {frozenset((pair.one, pair.other)): pair for pair in analysis.pairs}
    rows = []
    for row in analysis.measured:
        cells = [
            own(row)
            if row is column
            else of_pair(by_names[frozenset((row.name, column.name))], row.name)
            for column in analysis.measured
        ]
        rows.append([row.name, *cells])
    return _table(["", *(each.name for each in analysis.measured)], rows)


def _likeness(pair: PairAnalysis, _: str) -> str:
    return _written(pair.similarity)


def _transfer(pair: PairAnalysis, row: str) -> str:
    return _number(pair.one_to_other if row == pair.one else pair.other_to_one)


def _verdict(analysis: Analysis) -> str:
    pairs = len(analysis.pairs)
    if analysis.transfer_rank is None:
        return (
            f"With {pairs} pair(s) of sets nothing can be said on whether Paired Similarity "
            "foretells transfer; three pairs with different values are needed."
        )
    text = (
        "Rank correlation (Spearman) of Paired Similarity and the mean of both directions, over "
        f"{pairs} pairs: {analysis.transfer_rank:.2f}."
    )
    return f"{text} So few pairs are no proof." if pairs < FEW_PAIRS else text


def _ages(sets: Sequence[SetAnalysis]) -> str:
    rows = []
    for each in sets:
        if found := each.apparent:
            error = NONE
            if found.age_error is not None:
                error = f"{found.age_error:.1f} years on {found.age_known}"
            shares = [f"{100 * found.ages[decade] / found.faces:.0f}" for decade in DECADES]
            rows.append([each.name, str(found.faces), *shares, f"{found.mean_age:.1f}", error])
    decades = [f"{decade}s" for decade in DECADES]
    table = _table(["set", "asked", *decades, "mean age", "mean error"], rows)
    return f"Percent of the faces by decade of apparent age:\n\n{table}"


def _genders(sets: Sequence[SetAnalysis]) -> str:
    rows = []
    for each in sets:
        if found := each.apparent:
            recall = NONE
            if found.gender_recall is not None:
                recall = f"{found.gender_recall:.2f} on {found.gender_known}"
            rows.append([each.name, str(found.faces), f"{100 * found.male:.0f}", recall])
    table = _table(["set", "asked", "apparently male, percent", "mean recall of the two"], rows)
    words = 'Share with a "male" probability above one half (a mean recall of 0.5 is guessing):'
    return f"{words}\n\n{table}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _written(found: Measure | None) -> str:
    return NONE if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _chance(found: Measure | None) -> str:
    return NONE if found is None else _number(found.chance)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
