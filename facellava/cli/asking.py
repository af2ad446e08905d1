"""`facellava ask` and `facellava faces`: photos in, answers or faces out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from facellava.cli.arguments import (
    AdapterOption,
    CropFlag,
    FreeReasonsFlag,
    JsonFlag,
    ModelOption,
    PhotosArgument,
    face_choice,
    hush_unused_kernels,
)
from facellava.errors import BadModelInput, FacellavaError, UnknownTask


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
    adapter: AdapterOption = None,
    declared_crop: CropFlag = False,
    free_reasons: FreeReasonsFlag = False,
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
    hush_unused_kernels()
    results = ask_photos(
        FaceLlava.load(model, adapter, free_reasons=free_reasons),
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
