"""How fast nano answers: the engine against one `generate` at a time, and against static batches.

    python -m benchmarks.engine --requests 128

The same weights, faces and questions, in one run, each way in a process of its own, since engines
and libraries set threads for their whole process. Faces are found before the clock starts. The
questions are the tasks in turn: an age takes about 20 tokens, a list of attributes about 100.

All ways run with OMP_WAIT_POLICY=PASSIVE, unless it is set. Without it waiting threads keep their
core busy, and as soon as another program wants one, an answer may take 20 times as long. CPU
seconds are of all threads; they tell a slow way from a busy computer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from skimage import data

from facellava import checkpoint
from facellava.conversation import Message, face_conversation
from facellava.faces import Face, find_faces
from facellava.predictor import MAX_NEW_TOKENS, embedded_weights
from facellava.tasks import TASKS

QUESTIONS = [task.canonical_question for task in TASKS.values() if task.scored_words]
WARM_UP = 8
ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
}
WAYS = {
    "one": "generate, one at a time (the reference's way)",
    "batch": "generate, static batches",
    "engine": "the engine, in process",
}

MEASURES = ("seconds", "fastest", "cpu_seconds")

Answer = Callable[[Sequence[Face], Sequence[list[Message]]], list[int]]
"""Faces and conversations to the number of tokens of each answer."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def requests(count: int, round_number: int) -> tuple[list[Face], list[list[Message]]]:
    """Faces that no round shares with another, so that no cache helps, and their questions."""
    [face] = find_faces(np.ascontiguousarray(data.astronaut()[:300, 60:390]))
    random = np.random.default_rng(round_number)
    faces = [
        replace(
            face,
            crop=np.roll(face.crop, random.integers(-8, 9, 2), axis=(0, 1)),
            landmarks=(face.landmarks + random.normal(0, 0.004, (68, 2))).astype(np.float32),
        )
        for _ in range(count)
    ]
    conversations = [
        face_conversation("image", QUESTIONS[n % len(QUESTIONS)]) for n in range(count)
    ]
    return faces, conversations


def library(batch: int) -> Answer:
    """Transformers' generate, `batch` requests at a time."""
    model, processor = checkpoint.load(embedded_weights())
    end = processor.tokenizer.eos_token_id

    @torch.inference_mode()
    def answer(faces: Sequence[Face], conversations: Sequence[list[Message]]) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(faces), batch):
            part = slice(start, start + batch)
            encoded = processor.encode(conversations[part], faces[part])
            written = model.generate(**encoded, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            for row in written[:, encoded["input_ids"].shape[1] :].tolist():
                lengths.append(row.index(end) + 1 if end in row else len(row))
        return lengths

    return answer


def engine(settings: dict[str, Any]) -> Answer:
    """vLLM with our plugin; faces and prompts go in together, it does the rest."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(embedded_weights()),
        **{
            "dtype": "float32",
            "enforce_eager": True,
            "block_size": 32,
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "limit_mm_per_prompt": {"image": 4, "video": 1},
            **settings,
        },
    )
    processor = checkpoint.load(embedded_weights())[1]
    sampling = SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS)

    def answer(faces: Sequence[Face], conversations: Sequence[list[Message]]) -> list[int]:
        prompts = [
            {"prompt": processor.render(messages), "multi_modal_data": {"image": face}}
            for face, messages in zip(faces, conversations, strict=True)
        ]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]

    return answer


def timed(answer: Answer, count: int, rounds: int) -> dict[str, Any]:
    answer(*requests(WARM_UP, 10**6))
    seconds, cpu, tokens = [], [], []
    for round_number in range(rounds):
        asked = requests(count, round_number)
        start, cpu_start = time.perf_counter(), time.process_time()
        lengths = answer(*asked)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
        tokens.append(lengths)
    return {"seconds": seconds, "cpu": cpu, "tokens": tokens}


@app.command(hidden=True)
def side(way: str, count: int, rounds: int, batch: int, settings: str) -> None:
    """Measure one way in this process and write what was found to the last line."""
    answer = engine(json.loads(settings)) if way == "engine" else library(batch)
    sys.stdout.write("\n" + json.dumps(timed(answer, count, rounds)) + "\n")


def measured(way: str, count: int, rounds: int, batch: int, settings: str) -> dict[str, Any]:
    """Measure one way in a process of its own: seconds and answer lengths of each round.

    Raises:
        typer.Exit: The way failed; its own words are on stderr.
    """
    asked = ["side", way, str(count), str(rounds), str(batch), settings]
    command = [sys.executable, "-m", "benchmarks.engine", *asked]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if way == "engine":
        environment |= {name: os.environ.get(name, v) for name, v in ENGINE_ENVIRONMENT.items()}
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise typer.Exit(1)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@app.command()
def run(
    count: Annotated[int, typer.Option("--requests", help="Requests in a round.")] = 128,
    rounds: Annotated[int, typer.Option(help="Rounds; the table shows medians.")] = 3,
    batch: Annotated[int, typer.Option(help="Rows of a static batch.")] = 32,
    settings: Annotated[str, typer.Option(help="More settings of vLLM, as JSON.")] = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not a table.")] = False,
) -> None:
    """Measure all three ways."""
    sizes = {"one": 1, "batch": batch, "engine": 0}
    found = {way: measured(way, count, rounds, sizes[way], settings) for way in WAYS}
    rows = {}
    for way, result in found.items():
        seconds = statistics.median(result["seconds"])
        tokens = statistics.median(sum(lengths) for lengths in result["tokens"])
        rows[way] = {
            "seconds": seconds,
            "fastest": min(result["seconds"]),
            "cpu_seconds": statistics.median(result["cpu"]),
            "requests_per_second": count / seconds,
            "tokens_per_second": tokens / seconds,
            "same_lengths_as_one": float(
                np.mean(np.array(result["tokens"]) == np.array(found["one"]["tokens"]))
            ),
        }
    ratios = {
        way: {name: rows[way][name] / rows["engine"][name] for name in MEASURES}
        for way in ("one", "batch")
    }
    if as_json:
        found_all = {"requests": count, "batch": batch, "rows": rows, "ratios": ratios}
        sys.stdout.write(json.dumps(found_all) + "\n")
        return
    table = Table(
        "way", "seconds", "fastest", "CPU seconds", "answers/s", "tokens/s", "same length"
    )
    for way, row in rows.items():
        table.add_row(
            WAYS[way] + (f" of {batch}" if way == "batch" else ""),
            f"{row['seconds']:.2f}",
            f"{row['fastest']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['requests_per_second']:.1f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['same_lengths_as_one']:.0%}",
        )
    console = Console()
    console.print(table)
    for way, words in (("one", "one at a time"), ("batch", "static batches")):
        ratio = ratios[way]
        console.print(
            f"The engine is {ratio['seconds']:.1f} times as fast as {words} by the median round, "
            f"{ratio['fastest']:.1f} by the fastest, {ratio['cpu_seconds']:.1f} by CPU time."
        )


if __name__ == "__main__":
    app()
