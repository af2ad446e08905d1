"""The report of a run: curves, figures and answers, for machines and for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from train.held_out import Given
from train.run_config import RunConfig, Stage
from train.trainable import PartRow
from train.usable import Usable

HISTORY_FILE: Final = "history.json"
ANSWERS_SHOWN: Final = 12
REPORT_FILE: Final = "report.json"
CURVES: Final = "curves.svg"


@dataclass(frozen=True)
class StageReport:
    """One stage: the log of its steps, and what learned in it."""

    stage: Stage
    history: list[dict[str, float]]
    table: list[PartRow]

    def write(self, folder: Path) -> None:
        """Keep it beside the stage's checkpoints, for a run that goes on later."""
        write_whole(folder / HISTORY_FILE, json.dumps(_plain(asdict(self)), indent=1))

    @classmethod
    def read(cls, folder: Path, stage: Stage) -> StageReport:
        """What :meth:`write` wrote."""
        stored = json.loads((folder / HISTORY_FILE).read_text("utf-8"))
        return cls(stage, stored["history"], [PartRow(**row) for row in stored["table"]])

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one logged figure."""
        points = [
            (entry["step"], entry[name]) for entry in self.history if entry.get(name) is not None
        ]
        return [step for step, _ in points], [value for _, value in points]

    def last(self) -> dict[str, float]:
        """The last value of every held-out figure."""
        found: dict[str, float] = {}
        for entry in self.history:
            found |= {name: value for name, value in entry.items() if name.startswith("eval_")}
        timing = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
        return {name: value for name, value in found.items() if name not in timing}


def write_report(
    config: RunConfig,
    stages: Sequence[StageReport],
    usable: Usable,
    answers: Sequence[Given],
    machine: Mapping[str, Any],
) -> None:
    """Write OUT/report.json, report.md and the curves.

    Args:
        config: the run.
        stages: in order.
        usable: the samples that were trained on, and those that were skipped.
        answers: to held-out questions, by the trained model.
        machine: what was chosen by what the machine has.
    """
    body = {
        "machine": dict(machine),
        "settings": config.model_dump(mode="json"),
        "samples": {"used": len(usable.rows), "skipped": list(usable.skipped)},
        "tokens_an_epoch": int(usable.lengths.sum()),
        "stages": [{**asdict(stage), "held_out": stage.last()} for stage in stages],
        "answers": [asdict(answer) for answer in answers],
    }
    _draw(stages, config.out / CURVES)
    write_whole(config.out / "report.md", _markdown(config, stages, usable, answers, machine))
    # Last: a run that has it is finished.
    write_whole(config.out / REPORT_FILE, json.dumps(_plain(body), indent=1, ensure_ascii=False))


def _draw(stages: Sequence[StageReport], path: Path) -> None:
    figure = Figure(figsize=(5.5 * len(stages), 3.6), layout="constrained")
    for place, stage in enumerate(stages, start=1):
        axes = figure.add_subplot(1, len(stages), place)
        for name, label in (("loss", "training"), ("eval_loss", "held out")):
            steps, values = stage.curve(name)
            if steps:
                axes.plot(steps, values, marker="." if len(steps) < 30 else None, label=label)
        axes.set(title=f"stage {stage.stage}", xlabel="step", ylabel="loss")
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(path)


def _markdown(
    config: RunConfig,
    stages: Sequence[StageReport],
    usable: Usable,
    answers: Sequence[Given],
    machine: Mapping[str, Any],
) -> str:
    lines = [
        f"# Training run {config.out.name}",
        "",
        f"{len(usable.rows)} samples were trained on and {len(usable.skipped)} skipped.",
        f"Machine: {', '.join(f'{key} {value}' for key, value in machine.items())}.",
        "",
        f"![loss by step]({CURVES})",
    ]
    lines += [f"- skipped: {sentence}" for sentence in usable.skipped[:ANSWERS_SHOWN]]
    for stage in stages:
        lines += ["", f"## Stage {stage.stage}", "", "| part | parameters | learn | share |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {row.part} | {row.parameters:,} | {row.trainable:,} | {row.share:.1%} |"
            for row in stage.table
        ]
        if stage.last():
            lines += ["", "| held out | value |", "|---|---|"]
            lines += [f"| {name} | {_figure(value)} |" for name, value in stage.last().items()]
    if answers:
        lines += ["", "## Answers to held-out questions"]
    for given in answers[:ANSWERS_SHOWN]:
        lines += ["", f"**{given.sample_id}**, {given.task}: {_line(given.question)}", ""]
        lines += [f"- wanted: {_line(given.wanted)}", f"- answered: {_line(given.text)}"]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _plain(value: Any) -> Any:
    """For JSON: what is no finite number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
