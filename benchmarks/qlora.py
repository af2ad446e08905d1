"""QLoRA against LoRA in bfloat16: loss and memory of the same short run.

    python -m benchmarks.qlora --steps 20

A Face-LLaVA with random weights, about half a billion of them in the language model's layers, is
trained by `facellava train run` on made-up faces: noise with the mean shape's landmarks, so that
nothing has to be found in it. Each way runs in a process of its own and gives one line of JSON.
Memory is the most that tensors took on the GPU; without a GPU, the most that the process took.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from transformers import LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from facellava import checkpoint
from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.corpus import CORPUS_VERSION, Sample, record_of, sha256, write_shard
from facellava.faces.crop import canonical_face
from facellava.predictor import embedded_weights
from facellava.tasks import TASKS
from train.run import train_run
from train.run_config import RunConfig
from train.run_report import StageReport
from train.tokenizer import train_tokenizer

WAYS: Final = {"lora": "none", "qlora": "nf4"}
HEAD_WIDTH: Final = 64
GIB: Final = 2**30
SEED: Final = 0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Measured:
    """What one way took."""

    way: str
    device: str
    layer_parameters: int
    steps: int
    batch: int
    first_loss: float
    last_loss: float
    seconds: float
    peak_gib: float


@app.command()
def run(
    steps: Annotated[int, typer.Option(help="Of training.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples of a step.")] = 8,
    width: Annotated[int, typer.Option(help="Of the language model, a multiple of 64.")] = 1280,
    layers: Annotated[int, typer.Option(help="Of the language model.")] = 24,
    way: Annotated[str, typer.Option(help="lora or qlora alone, on FOLDER's data.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Made by a run of both ways.")] = None,
) -> None:
    """Both ways, one after the other; the quotient of their memory last."""
    if way and folder is not None:
        typer.echo(json.dumps(asdict(_measured(way, folder, steps, batch))))
        return
    with tempfile.TemporaryDirectory() as made:
        _make_base(Path(made) / "base", width, layers)
        _make_corpus(Path(made) / "corpus", faces=4 * batch)
        words = ["--steps", str(steps), "--batch", str(batch), "--folder", made]
        found = {each: _in_own_process([*words, "--way", each]) for each in WAYS}
    for line in found.values():
        typer.echo(json.dumps(line))
    saved = found["lora"]["peak_gib"] - found["qlora"]["peak_gib"]
    typer.echo(json.dumps({"saved_gib": round(saved, 3)}))


def _in_own_process(words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.qlora", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def _measured(way: str, folder: Path, steps: int, batch: int) -> Measured:
    on_gpu = torch.cuda.is_available()
    config = RunConfig.model_validate(
        {
            "base": str(folder / "base"),
            "corpus": folder / "corpus",
            "out": folder / way,
            "quantise": WAYS[way],
            "bf16": True,
            "instruct": {"max_steps": steps, "batch": batch, "learning_rate": 3e-4},
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
            "save_steps": steps,
            "log_steps": 1,
            "workers": 0,
            "seed": SEED,
        }
    )
    began = time.perf_counter()
    train_run(config)
    seconds = time.perf_counter() - began
    losses = StageReport.read(config.out / "instruct", "instruct").curve("loss")[1]
    on_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if on_gpu else on_cpu
    return Measured(
        way=way,
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        layer_parameters=json.loads((folder / "size.json").read_text()),
        steps=steps,
        batch=batch,
        first_loss=losses[0],
        last_loss=losses[-1],
        seconds=round(seconds, 2),
        peak_gib=round(peak / GIB, 3),
    )


def _make_base(folder: Path, width: int, layers: int) -> None:
    torch.manual_seed(SEED)
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(
        text for task in TASKS.values() for text in [task.canonical_question] * 30
    )
    config = FaceLlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=6,
            num_attention_heads=6,
            image_size=96,
            patch_size=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * 27 // 10 // HEAD_WIDTH * HEAD_WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD_WIDTH,
            num_key_value_heads=width // HEAD_WIDTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        region_heads=4,
    )
    model, processor = checkpoint.new_model(config, tokenizer)
    checkpoint.save(model, processor, folder, dtype=torch.bfloat16)
    blocks = model.language_model.model.layers
    size = sum(p.numel() for p in blocks.parameters() if p.ndim == 2)
    (folder.parent / "size.json").write_text(json.dumps(size))


def _make_corpus(folder: Path, faces: int) -> None:
    values = json.loads((embedded_weights() / "config.json").read_text())
    shape = np.array(values["landmark_mean"])
    draw = np.random.default_rng(SEED)
    task = TASKS["expression"]
    records, samples = [], []
    for number in range(faces):
        picture = draw.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        points = shape * 200 + draw.normal(0, 1, (68, 2))
        label = task.labels[number % 7]
        records.append(
            record_of(
                [canonical_face(picture, points)],
                face_id=f"noise-{number}",
                source="noise",
                split="train",
                labels={"expression": label},
                licence="none",
                origin=str(number),
            )
        )
        samples.append(
            Sample(
                sample_id=f"noise-{number}-0",
                face_id=f"noise-{number}",
                task="expression",
                question=task.canonical_question,
                answer=f"{task.lead(label)} The mouth is closed.",
                label=label,
            )
        )
    files = {}
    for table, rows in (("faces", records), ("samples", samples)):
        path = folder / table / "train-noise-00000.parquet"
        rows_written = write_shard(path, rows, table)
        files[f"{table}/{path.name}"] = {"rows": rows_written, "sha256": sha256(path)}
    manifest = {
        "version": CORPUS_VERSION,
        "settings": {},
        "sources": {"noise": {"title": "Noise", "licence": "none"}},
        "counts": {
            "faces": {"noise": {"train": faces}},
            "samples": {"expression": {"train": faces}},
        },
        "files": files,
        "dropped": {},
    }
    (folder / "README.md").write_text("Noise.")
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    app()
