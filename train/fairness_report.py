"""What a study of optimisers and fairness found: JSON for machines, tables and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from facellava.metrics import demographic_parity
from facellava.whole_files import write_text
from train.fairness_split import GROUP_TASKS, Part

BASELINE: Final = "adamw"
RESULTS_FILE: Final = "results.json"
PLOT: Final = "gaps.svg"
GAPS: Final = {
    "equalized_odds": "equalized odds",
    "equal_opportunity": "equal opportunity",
    "demographic_parity": "demographic parity",
}
FIGURES: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "worst_group": "worst group's accuracy",
    **GAPS,
}


@dataclass(frozen=True)
class GridPoint:
    """A learning rate that was tried, and what it gave on the validation part."""

    learning_rate: float
    validation_accuracy: float


@dataclass(frozen=True)
class TaskUnits:
    """All trainings of one task.

    Attributes:
        name: of the task.
        parts: its faces.
        grids: the rates that were tried, by optimiser.
        units: by optimiser one entry a seed, in the order of the seeds: "figures" and "groups".
    """

    name: str
    parts: Mapping[str, Part]
    grids: Mapping[str, Sequence[GridPoint]]
    units: Mapping[str, Sequence[Mapping[str, Any]]]


def interval(values: Sequence[float | None]) -> dict[str, float | None]:
    """The mean over seeds and its 95% interval by Student's t; None where it is not defined.

    It speaks of the spread that first weights, order and augmentation make, and of nothing else:
    all seeds see the same training faces and the same test faces.
    """
    known = np.array([value for value in values if value is not None], dtype=float)
    if not known.size:
        return {"mean": None, "low": None, "high": None}
    mean = float(known.mean())
    if known.size < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / np.sqrt(known.size))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def write_report(
    out: Path, tasks: Sequence[TaskUnits], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write gaps.svg, results.md and results.json, each whole, and return what the last holds."""
    results = {"settings": dict(settings), "tasks": {task.name: _task(task) for task in tasks}}
    _draw(results, out / PLOT)
    write_text(out / "results.md", _markdown(results))
    # Last: a study that has it is finished.
    write_text(out / RESULTS_FILE, json.dumps(results, indent=1))
    return results


def _task(task: TaskUnits) -> dict[str, Any]:
    test = task.parts["test"]
    return {
        "positive": GROUP_TASKS[task.name].yes,
        "large_group": GROUP_TASKS[task.name].large,
        "faces": {part: faces.counts() for part, faces in task.parts.items()},
        # What an answerer who is always right would have.
        "parity_gap_of_the_truth": demographic_parity(test.labels.tolist(), test.groups),
        "optimisers": {name: _optimiser(task, name) for name in task.units},
    }


def _optimiser(task: TaskUnits, name: str) -> dict[str, Any]:
    grid, units = task.grids[name], task.units[name]
    best = max(grid, key=lambda point: point.validation_accuracy)
    found: dict[str, Any] = {
        "learning_rate": best.learning_rate,
        "at_the_edge_of_its_grid": best in (grid[0], grid[-1]),
        "grid": [asdict(point) for point in grid],
        "figures": {figure: interval(_over_seeds(units, figure)) for figure in FIGURES},
        "groups": {
            group: {
                rate: interval([unit["groups"][group][rate] for unit in units])
                for rate in units[0]["groups"][group]
            }
            for group in units[0]["groups"]
        },
        "seeds": [unit["figures"] for unit in units],
    }
    if BASELINE in task.units and name != BASELINE:
        found[f"minus_{BASELINE}"] = {
            figure: interval(
                [
                    None if own is None or other is None else own - other
                    for own, other in zip(
                        _over_seeds(units, figure),
                        _over_seeds(task.units[BASELINE], figure),
                        strict=True,
                    )
                ]
            )
            for figure in FIGURES
        }
    return found


def _over_seeds(units: Sequence[Mapping[str, Any]], figure: str) -> list[float | None]:
    return [unit["figures"][figure] for unit in units]


def _markdown(results: Mapping[str, Any]) -> str:
    settings = results["settings"]
    lines = [
        "# Optimisers and group fairness",
        "",
        f"{settings['seeds']} seeds, {settings['training']['epochs']} epochs of batches of "
        f"{settings['training']['batch']}, pictures of {settings['split']['size']} pixels, on "
        f"{settings['device']}. Mean and 95% interval over seeds (Student's t), in percent; a gap "
        "of 0 is parity. All seeds share the faces, so the intervals leave out how faces were "
        "drawn, and they are not corrected for the number of comparisons.",
        "",
        f"![gaps by optimiser]({PLOT})",
    ]
    for name, task in results["tasks"].items():
        lines += ["", f"## {name}", "", _faces_sentence(task), ""]
        lines += _table(
            ["optimiser", "learning rate", *FIGURES.values()],
            [
                [optimiser, _rate_cell(found), *(_cell(found["figures"][f]) for f in FIGURES)]
                for optimiser, found in task["optimisers"].items()
            ],
        )
        against = {
            optimiser: found[f"minus_{BASELINE}"]
            for optimiser, found in task["optimisers"].items()
            if f"minus_{BASELINE}" in found
        }
        if against:
            lines += ["", f"Minus {BASELINE}, seed by seed; * where the interval excludes 0:", ""]
            lines += _table(
                ["optimiser", *FIGURES.values()],
                [
                    [optimiser, *(_cell(found[f], signed=True) for f in FIGURES)]
                    for optimiser, found in against.items()
                ],
            )
        groups = list(task["faces"]["test"])
        lines += ["", "Accuracy by group:", ""]
        lines += _table(
            ["optimiser", *groups],
            [
                [optimiser, *(_cell(found["groups"][g]["accuracy"]) for g in groups)]
                for optimiser, found in task["optimisers"].items()
            ],
        )
    return "\n".join(lines) + "\n"


def _faces_sentence(task: Mapping[str, Any]) -> str:
    train, test = task["faces"]["train"], task["faces"]["test"]
    listed = ", ".join(f"{group} {train[group]}" for group in train)
    return (
        f"Training faces: {listed}. Test faces: "
        + ", ".join(f"{group} {count}" for group, count in test.items())
        + f". Positive is {task['positive']}; right answers would have a demographic parity gap of "
        f"{100 * task['parity_gap_of_the_truth']:.1f}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _rate_cell(found: Mapping[str, Any]) -> str:
    edge = " (edge of its grid)" if found["at_the_edge_of_its_grid"] else ""
    return f"{found['learning_rate']:g}{edge}"


def _cell(value: Mapping[str, float | None], *, signed: bool = False) -> str:
    mean, low, high = value["mean"], value["low"], value["high"]
    if mean is None:
        return "-"
    text = f"{100 * mean:+.1f}" if signed else f"{100 * mean:.1f}"
    if low is None or high is None:
        return text
    mark = "*" if signed and (low > 0 or high < 0) else ""
    return f"{text} ({100 * low:.1f} to {100 * high:.1f}){mark}"


def _draw(results: Mapping[str, Any], path: Path) -> None:
    """The three gaps of each optimiser with their intervals, a panel a task."""
    tasks = results["tasks"]
    figure = Figure(figsize=(4.6 * len(tasks), 3.4), layout="constrained")
    for place, (name, task) in enumerate(tasks.items(), start=1):
        axes = figure.add_subplot(1, len(tasks), place)
        optimisers = list(task["optimisers"])
        for number, (gap, label) in enumerate(GAPS.items()):
            values = [task["optimisers"][optimiser]["figures"][gap] for optimiser in optimisers]
            means = [_percent(value["mean"]) for value in values]
            halves = [_percent(value["high"]) - _percent(value["mean"]) for value in values]
            axes.errorbar(
                np.arange(len(optimisers)) + 0.2 * (number - 1),
                means,
                # A single seed has no interval.
                yerr=np.nan_to_num(halves),
                fmt="os^"[number],
                capsize=3,
                label=label,
            )
        axes.set(title=name, ylabel="gap, percent", ylim=(0, None))
        axes.set_xticks(range(len(optimisers)), optimisers)
        axes.legend(frameon=False, fontsize="small")
    drawn = StringIO()
    figure.savefig(drawn, format="svg")
    write_text(path, drawn.getvalue())


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
