"""The chat page served: by itself, or as a part of the server that answers."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import typer
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from serve import panels
from serve.chat import build_page
from serve.chat_api import LOOPBACK, ChatApi
from serve.chat_server import environment, listen, served


def mount_chat(
    app: FastAPI,
    api: ChatApi,
    *,
    path: str = "/chat",
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """Put the page into an application; uploads lie in a folder that goes when the app ends.

    Args:
        app: gets the page. Its server must call :func:`let_go` before it waits for connections.
        api: the page's client, closed when the app ends. It may point to the app itself.
        path: where the page is.
        hosts: names that the page may be called by, so that another site cannot reach it by a name
            that it points here; none allows all, for pages that are meant for others.

    Returns:
        The same application.
    """
    with ExitStack() as opening:
        uploads = opening.enter_context(tempfile.TemporaryDirectory(prefix="facellava-chat-"))
        opening.enter_context(environment("GRADIO_TEMP_DIR", uploads))
        # Gradio makes loops that it never closes wherever none runs, so it is given one that does.
        with ThreadPoolExecutor(1) as aside:
            page = aside.submit(asyncio.run, _put(api, app, path)).result()
        stay = opening.pop_all()
    app.state.chat_page = page
    if hosts:
        page.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])
    before = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        with stay:
            async with before(app) as state:
                yield state
            await api.close()

    app.router.lifespan_context = lifespan
    return app


def let_go(app: FastAPI) -> None:
    """End the streams that open pages hold, which a server would wait for before it stops."""
    app.state.chat_page.stop_event.set()


@contextmanager
def open_page(api: ChatApi, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs; gives its address. Uploads on disk go with it.

    Args:
        api: answers.
        host: loopback unless the page is meant for others.
        port: None takes the first free one from 7860.

    Raises:
        FacellavaError: the port is taken, or the host is not one of this computer's.
    """
    with listen(host, port) as listener:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        mount_chat(app, api, path="/", hosts=LOOPBACK if host in LOOPBACK else ())
        name = "localhost" if host in ("0.0.0.0", "::") else host
        with served(app, listener):
            yield f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"
            let_go(app)


def launch(
    api: ChatApi,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    open_browser: bool = False,
    announce: Callable[[str], None] = typer.echo,
) -> None:
    """Serve the page until Ctrl+C, and say where it is once it can be opened.

    Raises:
        FacellavaError: as :func:`open_page`.
    """
    # Also when the process is told to end, so that uploaded photos are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_page(api, host, port) as address:
        announce(f"The chat is ready at {address} (Ctrl+C ends it).")
        if open_browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            announce("The chat has ended.")


async def _put(api: ChatApi, app: FastAPI, path: str) -> FastAPI:
    """Put the page into an application; returns the part of it that serves the page.

    Files that users give go to the folder that GRADIO_TEMP_DIR names.
    """
    gr.mount_gradio_app(
        app,
        build_page(api),
        path=path,
        # Events outside the queue forget the path of the mount in the addresses of their files.
        root_path=None if path == "/" else path,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=panels.MAX_CLIP_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=_theme(),
        css_paths=Path(__file__).with_name("chat.css"),
    )
    mounted = app.routes[-1]
    if not isinstance(mounted, Mount) or not isinstance(mounted.app, FastAPI):
        raise TypeError("gradio no longer mounts its application as the last route")
    return mounted.app


def _theme() -> gr.themes.Base:
    """Quiet and warm, in the reader's own fonts: nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        # Dark enough to be read on its ground: at least 4.5 to 1.
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_focus="white",
    )
