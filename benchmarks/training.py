"""How fast a run learns: grouped and packed batches against Trainer's plain loop.

    python -m benchmarks.training run --corpus CORPUS --samples 1024

The embedded model, LoRA and what else stage "instruct" teaches, the same samples once each, drawn
from the corpus by a seed; each way in a process of its own, since its peak memory is measured.
"Plain" is Hugging Face's Trainer as it stands: random order, padded to the longest of the batch,
logits for every token. "Grouped" is `facellava train run` without packing, "packed" with it, in
rows of as many tokens as a batch has on average, so that all take about as many steps. The loss is
cross-entropy in each. Checking the samples and loading the model are not counted.

CPU seconds are of all threads; they tell a slow way from a busy computer.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import Trainer, TrainingArguments, set_seed

from facellava import checkpoint
from train.dataset import Collator, CorpusTables, Encoded, Reader, TrainingRows, scan
from train.packed_attention import attend_by_sample
from train.packed_rows import PackingCollator
from train.run_checks import base_folder
from train.run_config import RunConfig, load_config
from train.run_trainer import new_trainer
from train.trainable import make_trainable
from train.usable import Usable

WAYS: Final = {"plain": "Trainer's plain loop", "grouped": "grouped", "packed": "packed"}
MEASURES: Final = ("seconds", "cpu_seconds", "peak_mib")
USABLE_FILE: Final = "usable.npz"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


def settings(corpus: Path, out: Path, batch: int, row: int, way: str) -> RunConfig:
    """Preset nano-lora in float32, with the plain loss and nothing on the side."""
    said = (
        f"corpus={corpus}",
        f"out={out}",
        f"instruct.batch={batch}",
        f"packing={str(way == 'packed').lower()}",
        f"max_length={row}",
        "bf16=false",
        "loss=plain",
        "workers=0",
    )
    return load_config("nano-lora", said)


def rows_of(config: RunConfig, cache: Path, usable: Usable | None, count: int) -> TrainingRows:
    """The samples that are learned; drawn and checked where `usable` is not known yet."""
    _, processor = checkpoint.load(base_folder(config))
    tables = CorpusTables(config.corpus, "train", cache)
    reader = Reader(tables, processor, config.max_length, config.clip_frames)
    if usable is None:
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(tables.kept))[:count]
        tables.kept = np.isin(np.arange(len(tables.kept)), drawn)
        usable = scan(reader, skip=True)
    return TrainingRows(reader, usable)


@dataclass(frozen=True)
class PlainCollator(Collator):
    """Without what the plain loop knows nothing of."""

    def __call__(self, samples: list[Encoded]) -> dict[str, torch.Tensor]:  # type: ignore[override]
        batch = super().__call__(samples)
        del batch["uncoded"]
        return batch


def trainer_of(way: str, config: RunConfig, rows: TrainingRows) -> Trainer:
    """Ready to train, one epoch."""
    set_seed(0)
    base, processor = checkpoint.load(base_folder(config))
    if way == "packed":
        attend_by_sample(base.language_model)
    model = make_trainable(base, config, "instruct")
    folder = config.out / "trainer"
    if way != "plain":
        collate = (PackingCollator if config.packing else Collator)(processor)
        ours = new_trainer(
            model, base, config, "instruct", folder, collate, rows, held_out=None, measure=None
        )
        ours.args.save_strategy = "no"
        return ours
    base.face_encoder.vision_tower.eval()
    given = config.instruct
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,
            per_device_train_batch_size=given.batch,
            learning_rate=given.learning_rate,
            warmup_steps=given.warmup,
            lr_scheduler_type=given.schedule,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        ),
        data_collator=PlainCollator(processor),
        train_dataset=rows,
    )


@app.command()
def one(
    way: Annotated[str, typer.Argument(help="plain, grouped or packed.")],
    corpus: Annotated[Path, typer.Argument()],
    folder: Annotated[Path, typer.Argument(help="With the checked samples.")],
    batch: Annotated[int, typer.Option()] = 16,
    row: Annotated[int, typer.Option()] = 1024,
) -> None:
    """One way, in this process; its figures as JSON."""
    config = settings(corpus, folder / way, batch, row, way)
    rows = rows_of(config, folder / "tables", Usable.load(folder / USABLE_FILE), 0)
    trainer = trainer_of(way, config, rows)
    start, cpu_start = time.perf_counter(), time.process_time()
    trainer.train()
    found = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "steps": trainer.state.global_step,
    }
    typer.echo(json.dumps(found))


def measure(way: str, corpus: Path, folder: Path, batch: int, row: int) -> dict[str, float]:
    """One way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "one", way, str(corpus), str(folder)]
    command += ["--batch", str(batch), "--row", str(row)]
    told = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


@app.command()
def run(
    corpus: Annotated[Path, typer.Option(help="A finished corpus.")],
    samples: Annotated[int, typer.Option(min=16, help="Learned once by each way.")] = 1024,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a padded batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not a table.")] = False,
) -> None:
    """Measure all ways, in turn."""
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder = Path(name)
        drawn = settings(corpus, folder, batch, 1024, "plain")
        usable = rows_of(drawn, folder / "tables", None, samples).usable
        usable.save(folder / USABLE_FILE)
        row = max(int(usable.lengths.max()), round(batch * float(usable.lengths.mean())))
        turns: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, found in turns.items():
                found.append(measure(way, corpus, folder, batch, row))
                typer.echo(f"{way}: {found[-1]}", err=True)
    medians: dict[str, dict[str, Any]] = {
        way: {
            "samples_per_second": len(usable.rows) / statistics.median(f["seconds"] for f in found),
            **{key: statistics.median(f[key] for f in found) for key in (*MEASURES, "steps")},
        }
        for way, found in turns.items()
    }
    tokens = int(usable.lengths.sum())
    facts = {"samples": len(usable.rows), "tokens": tokens, "row": row, "ways": medians}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        console.print(f"{facts['samples']} samples of {tokens} tokens, rows of {row}")
        show(medians)


def show(medians: dict[str, dict[str, Any]]) -> None:
    """A table, with ratios to the plain loop."""
    plain = medians["plain"]
    table = Table("way", "samples/s", "times as fast", "by CPU time", "peak MiB", "steps")
    for way, found in medians.items():
        table.add_row(
            WAYS[way],
            f"{found['samples_per_second']:.1f}",
            f"{plain['seconds'] / found['seconds']:.2f}",
            f"{plain['cpu_seconds'] / found['cpu_seconds']:.2f}",
            f"{found['peak_mib']:,.0f}",
            f"{found['steps']:.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    app()
