"""Is a model fairer for the optimiser that trained it? The same small network under each of them.

The question is that of Kolahdouzi, Gunes and Etemad, Some Optimizers are More Equal: Understanding
the Role of Optimizers in Group Fairness (arXiv 2504.14882, 2025). Its abstract reports that the
optimiser matters most under severe imbalance, and that adaptive ones like RMSProp and Adam
outperform SGD in these three gaps at comparable accuracy, on CelebA, FairFace and MS-COCO. Only the
abstract was read: this study asks the same with other splits and networks, and is no reproduction.

Every optimiser first gets its own learning rate: each of a grid is trained once, with a seed that
the study does not use, and the best accuracy on the validation part wins, never fairness and never
the test part. Every training is a unit with a file of its own, so that a study that was stopped
goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from facellava.errors import BadSettings
from facellava.metrics import demographic_parity, equal_opportunity, equalized_odds, uar, war
from facellava.whole_files import write_text
from train.damage import undamaged
from train.device import training_device
from train.fairness_report import GridPoint, TaskUnits, write_report
from train.fairness_split import Part, Split, make_study_folder
from train.fairness_training import DevicePart, TrainingSettings, answers, train_network
from train.optimisers import OPTIMISERS

SETTINGS_FILE: Final = "settings.json"
GRID_SEED: Final = 1_000_000
ADAPTIVE_RATES: Final = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RATES: Final = {
    "adamw": ADAPTIVE_RATES,
    "adam": ADAPTIVE_RATES,
    "rmsprop": ADAPTIVE_RATES,
    "sgd": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}


@dataclass(frozen=True)
class StudySettings:
    """What is compared.

    Attributes:
        optimisers: names out of OPTIMISERS.
        seeds: trainings of each optimiser; theirs are the numbers from 0.
        training: how each of them goes.
    """

    optimisers: tuple[str, ...] = tuple(OPTIMISERS)
    seeds: int = 10
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        unknown = [name for name in self.optimisers if name not in OPTIMISERS]
        if unknown or not self.optimisers:
            raise BadSettings(
                f"There is no optimiser {', '.join(unknown) or 'named'}; "
                f"use some of {', '.join(OPTIMISERS)}."
            )
        if min(self.seeds, self.training.epochs, self.training.batch) < 1:
            raise BadSettings("Seeds, epochs and batch are whole numbers from 1; give no less.")


def run_study(split: Split, out: Path, settings: StudySettings) -> dict[str, Any]:
    """Train whatever is not trained yet and write results.json, results.md and gaps.svg to `out`.

    Returns:
        What results.json holds.

    Raises:
        BadSettings: the folder holds a study of other faces or settings.
    """
    make_study_folder(out)
    _claim(out, {"faces": split.sha256, **asdict(settings)})
    device = training_device()
    a_task = sum(len(RATES[name]) + settings.seeds for name in settings.optimisers)
    with tqdm(total=a_task * len(split.parts), unit="training") as bar:
        tasks = [
            _TaskStudy(name, parts, out, settings, device).run(bar)
            for name, parts in split.parts.items()
        ]
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return write_report(
        out,
        tasks,
        {
            "device": machine,
            "torch": torch.__version__,
            "faces_sha256": split.sha256,
            "split": asdict(split.settings),
            **asdict(settings),
        },
    )


def _claim(out: Path, wanted: Mapping[str, Any]) -> None:
    path = out / SETTINGS_FILE
    text = json.dumps(wanted, indent=1)
    if path.exists():
        if path.read_text("utf-8") != text:
            raise BadSettings(
                f"'{out}' holds a study of other faces or settings; give another --out."
            )
    else:
        write_text(path, text)


class _TaskStudy:
    """All trainings of one task."""

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Part],
        out: Path,
        settings: StudySettings,
        device: torch.device,
    ) -> None:
        self.name, self.parts, self.settings = name, parts, settings
        self.units = out / "units" / name
        self.units.mkdir(parents=True, exist_ok=True)
        self.on_device = {part: DevicePart.of(faces, device) for part, faces in parts.items()}

    def run(self, bar: tqdm) -> TaskUnits:
        """Choose every learning rate, then train with every seed."""
        grids: dict[str, list[GridPoint]] = {}
        figures: dict[str, list[dict[str, Any]]] = {}
        for optimiser in self.settings.optimisers:
            grids[optimiser] = list(self._grid(optimiser, bar))
            # Of equals the smallest.
            best = max(grids[optimiser], key=lambda point: point.validation_accuracy)
            figures[optimiser] = list(self._seeds(optimiser, best.learning_rate, bar))
        return TaskUnits(self.name, self.parts, grids, figures)

    def _grid(self, optimiser: str, bar: tqdm) -> Iterator[GridPoint]:
        for rate in RATES[optimiser]:

            def accuracy(rate: float = rate) -> dict[str, Any]:
                said = self._answers(optimiser, rate, GRID_SEED, "validation")
                return {"accuracy": war(self.parts["validation"].labels.tolist(), said.tolist())}

            done = self._unit(f"grid-{optimiser}-{rate:g}", accuracy, bar)
            yield GridPoint(rate, done["accuracy"])

    def _seeds(self, optimiser: str, rate: float, bar: tqdm) -> Iterator[dict[str, Any]]:
        for seed in range(self.settings.seeds):

            def measured(seed: int = seed) -> dict[str, Any]:
                said = self._answers(optimiser, rate, seed, "test")
                return unit_figures(self.parts["test"], said)

            yield self._unit(f"{optimiser}-{seed}", measured, bar)

    def _answers(self, optimiser: str, rate: float, seed: int, part: str) -> NDArray[np.bool_]:
        model = train_network(
            self.on_device["train"], optimiser, rate, seed, self.settings.training
        )
        return answers(model, self.on_device[part]).numpy()

    def _unit(self, name: str, work: Callable[[], dict[str, Any]], bar: tqdm) -> dict[str, Any]:
        """What the unit's file holds, or what the work finds, which then is written there."""
        path = self.units / f"{name}.json"
        bar.set_description(f"{self.name}, {name}")
        if not path.exists():
            write_text(path, json.dumps(work()))
        bar.update()
        with undamaged(path, "remove it, and the same command trains it again."):
            found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found


def unit_figures(part: Part, said: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy and gaps of one training's answers, and the rates of each group.

    The gaps are those of :mod:`facellava.metrics`; None where a figure is not defined, such as the
    true-positive rate of a group without a positive face.
    """
    truth, given = part.labels.tolist(), said.tolist()
    names = np.array(part.groups)
    groups: dict[str, dict[str, float | None]] = {}
    accuracies = []
    for name in part.counts():
        own, wanted = said[names == name], part.labels[names == name]
        accuracies.append(float(np.mean(own == wanted)))
        groups[name] = {
            "accuracy": accuracies[-1],
            "true_positive_rate": _rate(own[wanted]),
            "false_positive_rate": _rate(own[~wanted]),
            "answered_yes": float(np.mean(own)),
        }
    figures = {
        "accuracy": war(truth, given),
        "balanced_accuracy": uar(truth, given),
        "worst_group": min(accuracies),
        "equalized_odds": equalized_odds(truth, given, part.groups),
        "equal_opportunity": equal_opportunity(truth, given, part.groups),
        "demographic_parity": demographic_parity(given, part.groups),
    }
    known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {"figures": known, "groups": groups}


def _rate(answers_given: NDArray[np.bool_]) -> float | None:
    return float(np.mean(answers_given)) if len(answers_given) else None
