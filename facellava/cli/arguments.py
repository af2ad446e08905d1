"""Arguments that several commands take, and how their words are read."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from facellava.predictor import FaceChoice

PhotosArgument = Annotated[
    list[Path], typer.Argument(help="Photos, or folders of photos.", show_default=False)
]
ModelOption = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--model", help="A checkpoint folder; without it, the embedded model."),
]
FreeReasonsFlag = Annotated[
    bool,
    typer.Option(
        "--free-reasons", help="Let reasons say also what the face's measurements do not support."
    ),
]
AdapterOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--adapter", help="Folder of an adapter that was trained on the model."),
]
ApiKeyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--api-key", envvar="FACELLAVA_API_KEY", help="The server's key."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _with_a_place(file: Path | None) -> Path | None:
    """Before long work is the time to say that its result could not be written."""
    if file is not None:
        there = next(folder for folder in file.absolute().parents if folder.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise typer.BadParameter(f"'{there}' is no folder that can be written to.")
    return file


JsonFileOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--json", dir_okay=False, callback=_with_a_place, help="Write the figures here too."
    ),
]
CropFlag = Annotated[
    bool, typer.Option("--declared-crop", help="Each picture is one tightly cropped face.")
]


def hush_unused_kernels() -> None:
    """PEFT pulls in bitsandbytes, which complains of a kernel that nothing here uses."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


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
