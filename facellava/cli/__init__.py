"""The front door: `facellava ask | serve | chat | build | train | eval | convert | doctor | ...`.

Commands parse, call the public function that a Python user would call, and print. Answers go to
stdout, progress and trouble to stderr. Exit code 1: an item failed. Exit code 2: wrong usage.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from facellava import __version__
from facellava.cli import asking, building, converting, evaluating, serving, training
from facellava.cli.arguments import JsonFlag
from facellava.errors import FacellavaError

app = typer.Typer(
    name="facellava",
    help="Ask about a face, get an answer with reasons that can be checked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(asking.ask)
app.command()(asking.faces)
app.command(context_settings=serving.PASSED_ON)(serving.serve)
app.command()(serving.chat)
app.command()(serving.demo)
app.command()(converting.convert)
app.add_typer(building.app, name="build")
app.add_typer(training.app, name="train")
app.add_typer(evaluating.app, name="eval")


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
def doctor(as_json: JsonFlag = False) -> None:
    """What is installed, what is broken, and the line that mends it."""
    from facellava.doctor import doctor as examine_and_show

    raise typer.Exit(examine_and_show(as_json=as_json))
