"""The front door: `facellava ask | faces | chat | build | train | eval | doctor | demo`.

Commands parse, call the public function that a Python user would call, and print. Answers go to
stdout, progress and trouble to stderr. Exit code 1: an item failed. Exit code 2: wrong usage.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from facellava import __version__
from facellava.errors import BadModelInput, FacellavaError, UnknownTask

if TYPE_CHECKING:
    from facellava.predictor import FaceChoice

app = typer.Typer(
    name="facellava",
    help="Ask about a face, get an answer with reasons that can be checked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
build_app = typer.Typer(help="Build, check and show an instruction corpus.", no_args_is_help=True)
train_app = typer.Typer(help="Train the embedded model.", no_args_is_help=True)
eval_app = typer.Typer(help="Measure a model on a benchmark.", no_args_is_help=True)
app.add_typer(build_app, name="build")
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")

PhotosArgument = Annotated[
    list[Path], typer.Argument(help="Photos, or folders of photos.", show_default=False)
]
ModelOption = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--model", help="A checkpoint folder; without it, the embedded model."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CropFlag = Annotated[
    bool, typer.Option("--declared-crop", help="Each picture is one tightly cropped face.")
]


def main() -> None:
    """Run the command line; every expected trouble is one sentence on stderr.

    Typer itself ends quietly on Ctrl-C (130) and where the reader of a pipe has gone (1).
    """
    level = os.environ.get("FACELLAVA_LOG", "WARNING").upper()
    if level not in logging.getLevelNamesMapping():
        fail(f"FACELLAVA_LOG is {level!r}; use DEBUG, INFO, WARNING or ERROR.", code=2)
    logging.basicConfig(level=level, format="%(message)s")
    # Importing torch and transformers makes a million objects that all stay; walking them again and
    # again costs almost a second of `ask`.
    gc.set_threshold(200_000, 20, 20)
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without our bars, or a file name that is no text, is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except FacellavaError as error:
        fail(str(error))


def fail(message: str, code: int = 1) -> NoReturn:
    """One sentence on stderr, then the exit code."""
    typer.echo(message, err=True)
    sys.exit(code)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"facellava {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Ask about a face, get an answer with reasons that can be checked."""


@app.command()
def ask(
    photos: PhotosArgument,
    question: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--question", "-q", help="In your own words."),
    ] = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="expression, action_units, attributes, age or deepfake."),
    ] = None,
    face: Annotated[str, typer.Option(help="largest, all, or a face's number from 0.")] = "largest",
    as_json: JsonFlag = False,
    overlay: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the photo with box, landmarks, cited regions and attention."),
    ] = None,
    model: ModelOption = None,
    declared_crop: CropFlag = False,
) -> None:
    """Ask about the faces of photos.

    facellava ask photo.jpg -q "How does she feel, and how can you tell?"
    """
    from tqdm import tqdm

    from facellava.gallery import ask_photos, photo_paths, trouble
    from facellava.predictor import FaceLlava, canonical_question
    from facellava.terminal import show_answer

    choice = face_choice(face)
    try:
        wording = canonical_question(question, task)
    except (BadModelInput, UnknownTask) as error:
        raise typer.BadParameter(str(error)) from error
    paths = photo_paths(photos)
    if overlay is not None and len(paths) > 1:
        raise typer.BadParameter("--overlay is for one photo.")
    if overlay is not None and overlay.suffix.lower() != ".png":
        raise typer.BadParameter(f"The overlay is a PNG; name it .png instead of '{overlay}'.")
    results = ask_photos(
        FaceLlava.load(model),
        paths,
        wording,
        face=choice,
        declared_crop=declared_crop,
        overlay=overlay,
    )
    printed: list[dict[str, Any]] = []
    failed = False
    for path, outcome in results:
        if isinstance(outcome, FacellavaError):
            failed = True
            with tqdm.external_write_mode():
                typer.echo(trouble(path, outcome), err=True)
            printed.append({"photo": str(path), "error": str(outcome)})
            continue
        failed |= any(answer.unreadable for answer in outcome)
        for answer in outcome:
            printed.append({"photo": str(path), **answer.to_dict()})
            if as_json and answer.unreadable:
                with tqdm.external_write_mode():
                    typer.echo(f"{path}: the answer cannot be read.", err=True)
            if not as_json:
                with tqdm.external_write_mode():
                    show_answer(path, answer, several=len(paths) > 1 or len(outcome) > 1)
    if as_json:
        typer.echo(json.dumps(printed, indent=2))
    if failed:
        raise typer.Exit(1)


@app.command()
def faces(
    photos: PhotosArgument,
    overlay: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the photo with boxes and landmarks (one photo only)."),
    ] = None,
    as_json: JsonFlag = False,
    declared_crop: CropFlag = False,
) -> None:
    """Find faces: box, 68 landmarks, score and measurements of each."""
    from facellava.gallery import find_in_photo, photo_paths, trouble
    from facellava.terminal import face_facts, show_faces

    paths = photo_paths(photos)
    if overlay is not None and len(paths) > 1:
        raise typer.BadParameter("--overlay is for one photo.")
    if overlay is not None and overlay.suffix.lower() != ".png":
        raise typer.BadParameter(f"The overlay is a PNG; name it .png instead of '{overlay}'.")
    printed: list[dict[str, Any]] = []
    failed = False
    for path in paths:
        try:
            found = find_in_photo(path, declared_crop=declared_crop, overlay=overlay)
        except FacellavaError as error:
            failed = True
            typer.echo(trouble(path, error), err=True)
            printed.append({"photo": str(path), "faces": [], "error": str(error)})
            continue
        printed.append({"photo": str(path), "faces": [face_facts(item) for item in found]})
        if not as_json:
            show_faces(path, found)
    if as_json:
        typer.echo(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2))
    if failed:
        raise typer.Exit(1)


@app.command()
def chat(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Port; without it, the first free one from 7860 on."),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Open the chat page on this machine."""
    from facellava.predictor import FaceLlava
    from serve.chat import launch

    launch(FaceLlava.load(model), host=host, port=port)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """What is installed, what is broken, and the line that mends it."""
    from facellava.doctor import doctor as examine_and_show

    raise typer.Exit(examine_and_show(as_json=as_json))


@app.command()
def demo(
    page: Annotated[bool, typer.Option(help="Open the chat page after the answer.")] = True,
) -> None:
    """An answer about a sample photo, then the chat page on this machine."""
    from facellava.gallery import sample_photo
    from facellava.predictor import FaceLlava
    from facellava.terminal import show_answer

    model = FaceLlava.load()
    path = sample_photo()
    question = "What does her face express, and how can you tell?"
    typer.echo(f"Photo:    {path.name} (NASA, public domain)\nQuestion: {question}\n")
    [answer] = model.ask(path, question)
    show_answer(path, answer, several=False)
    if page:
        from serve.chat import launch

        launch(model)


@build_app.command("run")
def build_run(
    source: Annotated[list[str], typer.Argument(help="NAME=FOLDER of each dataset.")],
    out: Annotated[Path, typer.Option(help="The corpus folder.")],
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0 for one a core.")] = 0,
    limit: Annotated[int, typer.Option(help="Faces a source and split at most; 0 for all.")] = 0,
) -> None:
    """Build a corpus: faces, questions, answers with measured reasons, ratings.

    facellava build run fer2013=data/fer2013 utkface=data/utkface --out corpus
    """
    from data_builders.build import build

    build(
        named_folders(source),
        out,
        seed=seed,
        workers=workers or (os.cpu_count() or 1),
        limit=limit or None,
    )


@build_app.command("validate")
def build_validate(corpus: Path) -> None:
    """Check a corpus: schemas, checksums, ids, splits."""
    from facellava.corpus import validate

    typer.echo(json.dumps(validate(corpus), indent=2))


@build_app.command("report")
def build_report(corpus: Path) -> None:
    """Counts by source, split and label, what was dropped and why, the ratings' histogram."""
    from data_builders.build import summary

    typer.echo(summary(corpus))


@build_app.command("blends")
def build_blends(
    source: Annotated[list[str], typer.Argument(help="NAME=FOLDER of each dataset of real faces.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    seed: int = 20261123,
) -> None:
    """Write the frozen self-blended test set: real faces and fakes at each blend ratio."""
    from data_builders.build import write_blend_pack

    write_blend_pack(named_folders(source), out, seed=seed)


@train_app.command("nano")
def train_nano_command(
    corpus: Annotated[Path, typer.Option(help="A finished corpus.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the weights come to OUT/nano.")],
    pictures: Annotated[
        int, typer.Option(help="Pictures the encoder's pre-training sees.")
    ] = 420_000,
    epochs: Annotated[float, typer.Option(help="Epochs of stage 2.")] = 1.35,
) -> None:
    """Train the embedded model; run it again after a stop and it goes on."""
    # peft pulls it in with the trainer, and it complains of a kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from train.encoder import EncoderSettings
    from train.nano import NanoSettings, train_nano

    logging.getLogger("train").setLevel(logging.INFO)
    settings = NanoSettings(encoder=EncoderSettings(pictures=pictures), instruct_epochs=epochs)
    typer.echo(f"The weights are in {train_nano(corpus, out, settings)}")


@eval_app.command("run")
def eval_run(
    benchmark: Annotated[str, typer.Option(help="fer2013, utkface, celeba or deepfake.")],
    data: Annotated[Path, typer.Option(help="The dataset's folder, or one Parquet file of it.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")],
    out: Annotated[Path, typer.Option("--json", dir_okay=False, help="Where the report goes.")],
    limit: Annotated[int, typer.Option(min=0, help="Faces at most; 0 for all.")] = 0,
    explanations: Annotated[
        bool, typer.Option(help="Check the claims of the answers too.")
    ] = False,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option(help="Which faces --limit takes.")] = 0,
) -> None:
    """Ask about every face of a benchmark and score the answers.

    facellava eval run --benchmark fer2013 --data FILE.parquet --split validation --json out.json
    """
    from data_builders.build import face_records
    from eval.benchmarks import find_benchmark
    from eval.run import evaluate, write_report
    from facellava.predictor import FaceLlava

    try:
        protocol = find_benchmark(benchmark)
    except FacellavaError as error:
        raise typer.BadParameter(str(error), param_hint="--benchmark") from error
    loaded = FaceLlava.load(model)
    records, count = face_records(
        protocol.source, data, split=split, limit=limit or None, seed=seed
    )
    found, _ = evaluate(protocol, records, loaded, count=count, explanations=explanations)
    found = {"benchmark": benchmark, "split": split, **found}
    write_report(found, out)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    typer.echo(f"The report is in {out}", err=True)


@eval_app.command("questions")
def eval_questions(
    out: Annotated[Path, typer.Option("--json", help="Where the report goes.")],
    model: ModelOption = None,
) -> None:
    """How many freely worded questions are answered under the right lead."""
    from eval.routing import evaluate_routing, read_questions
    from eval.run import write_report
    from facellava.faces import find_faces, read_photo
    from facellava.gallery import sample_photo
    from facellava.predictor import FaceLlava

    loaded = FaceLlava.load(model)
    face = find_faces(read_photo(sample_photo()))[0]
    found = evaluate_routing(loaded, face, read_questions())
    write_report(found, out)
    typer.echo(json.dumps({k: v for k, v in found.items() if k != "astray"}, indent=2))
    typer.echo(f"The report, with the questions that went astray, is in {out}", err=True)


def named_folders(pairs: Sequence[str]) -> list[tuple[str, Path]]:
    """NAME=FOLDER arguments as the builders take them."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, _, folder) in zip(pairs, split, strict=True):
        if not (name and folder):
            raise typer.BadParameter(f"'{pair}' is not NAME=FOLDER.")
    return [(name, Path(folder)) for name, _, folder in split]


def face_choice(word: str) -> FaceChoice:
    """The --face option as the predictor takes it."""
    if word in ("largest", "all"):
        return word  # type: ignore[return-value]
    if word.isdecimal():
        return int(word)
    raise typer.BadParameter(f"'{word}' is not largest, all or a number.", param_hint="--face")
