"""`facellava chat` and `facellava demo`: the model behind a page."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from facellava.cli.arguments import ModelOption


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
