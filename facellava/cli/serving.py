"""`facellava serve`, `facellava chat` and `facellava demo`: the model behind an API and a page."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from facellava.cli.arguments import ApiKeyOption, FreeReasonsFlag, ModelOption, named_folders
from facellava.errors import FacellavaError, MissingBackend

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]


def serve(
    context: typer.Context,
    model: ModelOption = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What requests call the model; by default its folder's name."),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: ApiKeyOption = None,
    page: Annotated[
        bool, typer.Option("--chat", help="Also serve the chat page at /chat.")
    ] = False,
    allow_host: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Fetch photos and clips from this host too; data: URLs always work."),
    ] = None,
    public_host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A name by which clients call this server, beside localhost."),
    ] = None,
    lora: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--lora", "--lora-modules", help="NAME=FOLDER of a LoRA adapter; asked by its name."
        ),
    ] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 256,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Size of a request's body.")] = 64,
    face_workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes that find faces; by default one a core, at most 4."),
    ] = None,
    region_attention: Annotated[
        bool, typer.Option(help="Offer region attention, for which the encoder is loaded twice.")
    ] = True,
    free_reasons: FreeReasonsFlag = False,
    engine_log: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(dir_okay=False, help="Keep vLLM's output in this file."),
    ] = None,
    engine: Annotated[
        Literal["vllm", "library"],
        typer.Option(help="'library' works without vLLM, one request after the other."),
    ] = "vllm",
) -> None:
    """Serve the model through vLLM: an OpenAI-compatible API, faces and analyses.

    Other options are vLLM's own, under their own names, and are handed on:

    facellava serve --chat --max-model-len 2048 --tensor-parallel-size 2
    """
    from pydantic import ValidationError

    from serve.server import ServeOptions
    from serve.server import serve as run_server
    from serve.settings import MIB, Settings

    show_progress(["serve"])  # each request too
    try:
        settings = Settings.model_validate(
            {
                "host": host,
                "public_host": public_host,
                "api_key": api_key,
                "allowed_hosts": tuple(allow_host or ()),
                "max_queue": max_queue,
                "max_body_bytes": max_body_mib * MIB,
                "region_attention": region_attention,
                "free_reasons": free_reasons,
                **({} if face_workers is None else {"face_workers": face_workers}),
            }
        )
    except ValidationError as error:
        raise typer.BadParameter(error.errors(include_input=False)[0]["msg"]) from error
    run_server(
        ServeOptions(
            model=model,
            model_name=name,
            port=port,
            settings=settings,
            adapters=dict(named_folders(lora or [])),
            vllm_options=context.args,
            engine_log=engine_log,
            chat=page,
            engine=engine,
        )
    )


def chat(
    api: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A server's address, such as http://127.0.0.1:8000/v1."),
    ] = None,
    api_key: ApiKeyOption = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=65535, help="Port; without it, the first free one from 7860 on."),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Open the chat page: for a running server (--api), or with a server of its own.

    facellava chat --api http://127.0.0.1:8000/v1
    """
    if api is None:
        show_progress()
        run_with_page(model, host, port)
        return
    if model is not None:
        raise typer.BadParameter("--model is the server's matter; give it or --api, not both.")
    from serve.chat_api import ChatApi
    from serve.chat_pages import launch

    launch(ChatApi(api, api_key), host=host, port=port)


def demo(
    page: Annotated[bool, typer.Option(help="Keep the chat page open after the answer.")] = True,
) -> None:
    """Serve the embedded model, ask it about a sample photo, and keep the chat page open."""
    from facellava.gallery import sample_photo

    show_progress()
    question = "What does her face express, and how can you tell?"

    def ask(address: str) -> None:
        from eval.served import ServedModel
        from facellava.faces import find_faces, read_photo
        from facellava.terminal import show_answer

        try:
            photo = sample_photo()
            typer.echo(f"\nPhoto:    {photo.name} (NASA, public domain)\nQuestion: {question}\n")
            [answer] = ServedModel(address).ask_many([find_faces(read_photo(photo))[0]], [question])
            show_answer(photo, answer, several=False)
        except FacellavaError as error:
            typer.echo(str(error), err=True)
        if not page:
            os.kill(os.getpid(), signal.SIGTERM)

    run_with_page(None, "127.0.0.1", None, when_ready=ask)


def run_with_page(
    model: Path | None,
    host: str,
    port: int | None,
    when_ready: Callable[[str], None] | None = None,
) -> None:
    """A server with its page, through vLLM, or where it is missing on the library's engine."""
    from serve.engine_options import installed_vllm
    from serve.server import ServeOptions
    from serve.server import serve as run_server
    from serve.settings import Settings

    engine: Literal["vllm", "library"] = "vllm"
    try:
        installed_vllm()
    except MissingBackend as error:
        typer.echo(f"{error} Until then the library's own engine answers.", err=True)
        engine = "library"
    settings = Settings(host=host)
    options = ServeOptions(model=model, port=port, settings=settings, chat=True, engine=engine)
    run_server(options, when_ready=when_ready)


def show_progress(loggers: Sequence[str] = ("serve.engine", "serve.server")) -> None:
    """A server says on stderr what it is doing."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.INFO)
