"""What noise-aware and class weights and frame augmentation gain where labels of clips are wrong.

    python -m benchmarks.clip_noise --clips faces.npz --clips rendered.npz --out runs/clip_noise

The clips come from `benchmarks.clip_set`. Of the training frames a known share gets a wrong label:
"symmetric" draws any other class for single frames; "neighbours" gives a run of neighbouring frames
the class that theirs is most often confused with. A small network reads one frame and its
landmarks; it is trained from the same start, on the same frames with the same wrong labels, once
with each method, and tested on true labels. Whatever a method is, it sees as many frames.

"weight tells wrong from right" is the area under the ROC curve of the mean noise weight in the last
third of the training, as a detector of the labels that were made wrong; it is measured for every
method, whether it uses the weight or not. Intervals are 95% over seeds (t), differences are paired.
Run again after a stop, it goes on with the units that are missing.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from facellava.metrics import uar, war
from facellava.whole_files import write_text
from train.augment import PADDING
from train.clip_frames import FrameAugment, draw_patch, draw_places
from train.clip_weights import RunningMean, class_weights, noise_weights
from train.device import training_device

LEARNING_RATE: Final = 2e-3
BATCH: Final = 32  # clips
SHOWN: Final = 0.5  # of a clip's frames each time
RUN: Final = 3  # neighbouring frames
CONFUSED: Final = {
    "anger": "disgust", "disgust": "anger", "fear": "surprise", "surprise": "fear",
    "happiness": "neutral", "neutral": "sadness", "sadness": "neutral",
}  # fmt: skip
KINDS: Final = ("symmetric", "neighbours")
PLAIN: Final = "plain"


@dataclass(frozen=True)
class Method:
    """What is done against wrong labels.

    Attributes:
        title: for the table.
        noise: share of the loss that the noise weight weighs; the rest is not weighed by it.
        classes: whether rare classes count more.
        augment: how frames are drawn.
    """

    title: str
    noise: float = 0.0
    classes: bool = False
    augment: FrameAugment = "none"


METHODS: Final = {
    PLAIN: Method("cross-entropy"),
    "noise": Method("noise weights", noise=1.0),
    "half": Method("noise weights on half of the loss, as V-NAW's code", noise=0.5),
    "class": Method("class weights", classes=True),
    "skip": Method("frame skipping", augment="skip"),
    "skip_erase": Method("frame skipping and covering", augment="skip_erase"),
    "noise_class": Method("noise and class weights", noise=1.0, classes=True),
    "all": Method("all", noise=1.0, classes=True, augment="skip_erase"),
}


@dataclass(frozen=True)
class Unit:
    """One training: on which clips, with which wrong labels, how, from which start."""

    clips: str
    kind: str
    rate: float
    method: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Of its file."""
        clips = Path(self.clips).stem
        return f"{clips}-{self.kind}-{self.rate:g}-{self.method}-{self.seed}-{self.epochs}"


class FrameNetwork(nn.Module):
    """A class for each frame: three convolutions, and its landmarks beside them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (1, 24, 48, 96)
        self.pixels = nn.Sequential(
            *(
                layer
                for before, after in zip(widths, widths[1:], strict=False)
                for layer in (
                    nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
            ),
            nn.Flatten(),
            nn.Linear(96 * 36, 96),
        )
        self.points = nn.Sequential(nn.BatchNorm1d(136), nn.Linear(136, 64))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(160, classes))

    def forward(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Logits (N, C) of frames (N, 48, 48) uint8 and landmarks (N, 68, 2)."""
        pixels = self.pixels((frames[:, None].float() - PADDING) / 64)
        logits: Tensor = self.head(torch.cat([pixels, self.points(landmarks.flatten(1))], dim=1))
        return logits


def wrong_labels(
    labels: NDArray[np.int64], kind: str, rate: float, classes: list[str], seed: int
) -> NDArray[np.int64]:
    """The labels (N, T) with a share `rate` of them replaced."""
    rng = np.random.default_rng((3, seed))
    if kind == "symmetric":
        hit = rng.random(labels.shape) < rate
        others = (labels + rng.integers(1, len(classes), labels.shape)) % len(classes)
        return np.where(hit, others, labels)
    runs = -(-labels.shape[1] // RUN)
    hit = np.repeat(rng.random((len(labels), runs)) < rate, RUN, axis=1)[:, : labels.shape[1]]
    confused = np.array([classes.index(CONFUSED[name]) for name in classes])
    return np.where(hit, confused[labels], labels)


def batches(
    count: int, frames: int, augment: FrameAugment, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None]]:
    """One epoch's batches: clip numbers (N,), frame numbers (N,), what is covered (N, 48, 48).

    Without augmentation the frames of a clip follow each other, as a clip is usually cut.
    """
    shown = round(frames * SHOWN)
    order = rng.permutation(count)
    for start in range(0, count - BATCH + 1, BATCH):
        clips = order[start : start + BATCH]
        if augment == "none":
            first = rng.integers(frames - shown + 1, size=BATCH)
            places = first[:, None] + np.arange(shown)
        else:
            places = np.stack([draw_places(frames, shown, rng) for _ in clips])
        covered = None
        if augment == "skip_erase":
            covered = np.zeros((BATCH * shown, 48, 48), bool)
            for picture in covered:
                patch = draw_patch(48, 48, rng)
                if patch is not None:
                    picture[patch] = True
        yield np.repeat(clips, shown), places.reshape(-1), covered


def train_unit(unit: Unit) -> dict[str, Any]:
    """Train and test one network."""
    torch.set_num_threads(1)
    device = training_device()
    with np.load(unit.clips) as stored:
        classes = stored["classes"].tolist()
        test = stored["test"]
        arrays = {name: stored[name] for name in ("frames", "landmarks", "labels")}
    true = arrays["labels"][~test]
    given = wrong_labels(true, unit.kind, unit.rate, classes, unit.seed)
    frames = torch.from_numpy(arrays["frames"][~test]).to(device)
    points = torch.from_numpy(arrays["landmarks"][~test]).to(device)
    labels = torch.from_numpy(given).to(device)
    method = METHODS[unit.method]
    counts = np.bincount(given.reshape(-1), minlength=len(classes))
    rare = torch.from_numpy(class_weights(counts)).to(device)
    torch.manual_seed(unit.seed)
    network = FrameNetwork(len(classes)).to(device)
    rng = np.random.default_rng((4, unit.seed))
    steps = unit.epochs * (len(given) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    mean, step = RunningMean(), 0
    seen = torch.zeros(2, *given.shape, device=device)  # sum of weights, how often
    for _ in range(unit.epochs):
        for clips, places, covered in batches(len(given), given.shape[1], method.augment, rng):
            pixels, wanted = frames[clips, places], labels[clips, places]
            if covered is not None:
                pixels = pixels.masked_fill(torch.from_numpy(covered).to(device), int(PADDING))
            logits = network(pixels, points[clips, places])
            noise = noise_weights(logits.softmax(dim=1), wanted, step / steps)
            if step >= steps * 2 / 3:
                seen[0].index_put_((_at(clips, device), _at(places, device)), noise, True)
                seen[1].index_put_(
                    (_at(clips, device), _at(places, device)), torch.ones_like(noise), True
                )
            losses = functional.cross_entropy(logits, wanted, reduction="none")
            weights = rare[wanted] if method.classes else torch.ones_like(losses)
            if method.noise:
                weights = weights * (1 - method.noise + method.noise * noise / mean.mean)
                mean.update(float(noise.sum()), len(noise))
            optimiser.zero_grad()
            (losses * weights).mean().backward()
            optimiser.step()
            schedule.step()
            step += 1
    return asdict(unit) | _tested(network.eval(), arrays, test, device) | _told(seen, true, given)


def _at(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device)


def _tested(
    network: nn.Module, arrays: dict[str, NDArray], test: NDArray[np.bool_], device: torch.device
) -> dict[str, float]:
    """UAR and WAR over the test clips' frames that have a label."""
    there = arrays["labels"][test] >= 0
    frames = torch.from_numpy(arrays["frames"][test][there]).to(device)
    points = torch.from_numpy(arrays["landmarks"][test][there]).to(device)
    truth = arrays["labels"][test][there].tolist()
    with torch.inference_mode():
        parts = zip(frames.split(512), points.split(512), strict=True)
        found = torch.cat([network(*part).argmax(dim=1) for part in parts]).tolist()
    return {"uar": uar(truth, found), "war": war(truth, found)}


def _told(
    seen: Tensor, true: NDArray[np.int64], given: NDArray[np.int64]
) -> dict[str, float | None]:
    """How well the noise weight tells wrong labels, and how many of both get less than half."""
    total, often = seen.cpu().numpy()
    there = often > 0
    weights, wrong = total[there] / often[there], (true != given)[there]
    low = weights < weights.mean() / 2
    if not wrong.any():
        return {"auc": None, "low_wrong": None, "low_right": float(low.mean())}
    return {
        "auc": float(roc_auc_score(wrong, -weights)),
        "low_wrong": float(low[wrong].mean()),
        "low_right": float(low[~wrong].mean()),
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95% interval of the mean, by Student's t, of two values or more."""
    spread = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return float(np.mean(values)), float(spread)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each clip set, kind, rate and method: means and intervals over seeds."""
    groups: dict[tuple[str, str, float, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        key = (Path(row["clips"]).stem, row["kind"], row["rate"], row["method"])
        groups.setdefault(key, {})[row["seed"]] = row
    found = []
    for (clips, kind, rate, method), by_seed in groups.items():
        base = groups[clips, kind, rate, PLAIN]
        gains = [by_seed[seed]["uar"] - base[seed]["uar"] for seed in by_seed]
        entry: dict[str, Any] = {"clips": clips, "kind": kind, "rate": rate, "method": method}
        for name in ("uar", "war"):
            entry[name] = interval([row[name] for row in by_seed.values()])
        entry["uar_gain"] = interval(gains)
        for name in ("auc", "low_wrong", "low_right"):
            values = [row[name] for row in by_seed.values() if row[name] is not None]
            entry[name] = float(np.mean(values)) if values else None
        found.append(entry)
    return found


def markdown(found: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The tables, one for each clip set, kind and rate."""
    lines = [f"{facts['seeds']} seeds, {facts['epochs']} epochs, on {facts['device']}.", ""]
    for key in dict.fromkeys((row["clips"], row["kind"], row["rate"]) for row in found):
        lines += [
            f"**{key[0]}, {key[2]:.0%} {key[1]}**" if key[2] else f"**{key[0]}, all labels right**",
            "",
            "| method | UAR | WAR | UAR against cross-entropy | weight tells wrong from right "
            "| low weight: wrong, right |",
            "|---|---|---|---|---|---|",
        ]
        for row in found:
            if (row["clips"], row["kind"], row["rate"]) != key:
                continue
            gain = "" if row["method"] == PLAIN else _points(row["uar_gain"], signed=True)
            auc = "" if row["auc"] is None else f"{row['auc']:.3f}"
            low = "" if row["auc"] is None else f"{row['low_wrong']:.0%}, {row['low_right']:.0%}"
            title = METHODS[row["method"]].title
            lines.append(
                f"| {title} | {_points(row['uar'])} | {_points(row['war'])} | {gain} | {auc} | "
                f"{low} |"
            )
        lines.append("")
    return "\n".join(lines)


def _points(value: tuple[float, float], *, signed: bool = False) -> str:
    mean, spread = (100 * part for part in value)
    return f"{mean:+.1f} ± {spread:.1f}" if signed else f"{mean:.1f} ± {spread:.1f}"


def main(
    clips: Annotated[list[Path], typer.Option(help="Files of benchmarks.clip_set; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each kind.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the clips.")] = 20,
    rates: Annotated[str, typer.Option(help="Shares of wrong labels.")] = "0,0.2,0.4",
    methods: Annotated[str, typer.Option(help="Some of the methods.")] = ",".join(METHODS),
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON lines, no tables.")] = False,
) -> None:
    """Train every method on every kind of wrong labels, and write report.json and report.md."""
    names = dict.fromkeys((PLAIN, *methods.split(",")))
    conditions = [
        (kind, float(rate))
        for rate in rates.split(",")
        for kind in (KINDS if float(rate) else KINDS[:1])
    ]
    units = [
        Unit(str(path), kind, rate, method, seed, epochs)
        for path in clips
        for kind, rate in conditions
        for seed in range(seeds)
        for method in names
    ]
    folder = out / "units"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [unit for unit in units if not (folder / f"{unit.name}.json").exists()]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        waiting = {pool.submit(train_unit, unit): unit for unit in missing}
        for done in tqdm(as_completed(waiting), total=len(waiting), unit="training", disable=None):
            write_text(folder / f"{waiting[done].name}.json", json.dumps(done.result()))
    rows = [json.loads((folder / f"{unit.name}.json").read_text()) for unit in units]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    facts = {"seeds": seeds, "epochs": epochs, "device": device}
    found = summary(rows)
    write_text(out / "report.json", json.dumps(facts | {"rows": found}, indent=1))
    write_text(out / "report.md", markdown(found, facts))
    lines = "\n".join(json.dumps(facts | row) for row in found)
    typer.echo(lines if as_json else markdown(found, facts))


if __name__ == "__main__":
    typer.run(main)
