"""The chat page: a photo, its faces, questions, and answers with their evidence.

The page knows the model by `Answerer` alone, of which `facellava.predictor.FaceLlava` is one.
"""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr
import typer
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from facellava.errors import FacellavaError
from facellava.faces import read_photo
from facellava.faces.photo import MAX_BYTES
from facellava.tasks import ANSWERABLE, TASKS
from serve import panels
from serve.chat_server import environment, listen, served
from serve.chat_session import Answerer, Exchange, Session

REDRAW_SECONDS: Final = 0.05  # between two pictures of an answer that is being written
MAX_SESSIONS: Final = 64
KEPT_SECONDS: Final = 3600  # photos of the page on disk
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
EXAMPLES: Final = (
    *(TASKS[name].canonical_question for name in ANSWERABLE),
    "Is this person wearing glasses?",
    "Why?",
)

logger = logging.getLogger(__name__)

Updates = dict[Any, Any]
"""New values of components, by component."""


def build_page(model: Answerer) -> gr.Blocks:
    """The whole page about one model, to be served by :func:`open_page`."""
    return _Page(model).blocks


class _Page:
    """Components and what they do. Heavy steps wait in one queue; nothing is shared by users."""

    def __init__(self, model: Answerer) -> None:
        self.model = model
        self.blocks = gr.Blocks(
            title="facellava", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
        )
        with self.blocks:
            self.session = gr.State(None)
            gr.HTML(panels.NOTICE)
            with gr.Row(elem_id="fl-columns"):
                with gr.Column(scale=5, min_width=300):
                    self._lay_out_photo()
                with gr.Column(scale=7, min_width=320):
                    self._lay_out_chat()
                    self.findings = gr.HTML(panels.NOTHING_YET, elem_id="fl-findings")
                    with gr.Accordion(
                        "Answer as JSON", open=False, visible=False, elem_id="fl-json"
                    ) as self.json_fold:
                        self.json = gr.JSON(show_label=False)
            self._connect()

    def _lay_out_photo(self) -> None:
        self.photo = gr.Image(
            label="Photo",
            sources=["upload", "webcam", "clipboard"],
            type="filepath",
            buttons=[],
            # A mirrored face would swap the person's left and right.
            webcam_options=gr.WebcamOptions(mirror=False),
            height=300,
            placeholder="Drop a photo here\nor click to choose one",
            elem_id="fl-photo",
        )
        gr.HTML(panels.TOO_LARGE, js_on_load=panels.SIZE_CHECK)
        self.status = gr.HTML("", elem_id="fl-status")
        self.gallery = gr.Gallery(
            label="Faces: choose one",
            visible=False,
            interactive=False,
            allow_preview=False,
            columns=5,
            fit_columns=False,
            height="auto",
            object_fit="cover",
            buttons=[],
            format="jpeg",
            elem_id="fl-faces",
        )
        with gr.Column(visible=False, elem_id="fl-where", min_width=280) as self.where:
            self.overlay = gr.Image(
                label="What was found",
                interactive=False,
                buttons=["fullscreen"],
                format="jpeg",
                height=360,
                elem_id="fl-overlay",
                alt_text="The chosen face with its box, landmarks and marked regions",
            )
            gr.HTML(panels.LEGEND)

    def _lay_out_chat(self) -> None:
        self.chat = gr.Chatbot(
            label="Conversation",
            show_label=False,
            height=370,
            buttons=[],
            layout="bubble",
            latex_delimiters=[],
            allow_tags=False,
            placeholder="Add a photo, choose a face, then ask.",
            elem_id="fl-chat",
        )
        with gr.Row(elem_id="fl-ask"):
            self.message = gr.Textbox(
                label="Your question",
                show_label=False,
                container=False,
                placeholder="Ask about this face …",
                max_length=500,
                scale=8,
                min_width=180,
                elem_id="fl-message",
            )
            self.ask = gr.Button("Ask", variant="primary", scale=1, min_width=84, elem_id="fl-go")
            self.stop = gr.Button(
                "Stop", variant="stop", visible=False, scale=1, min_width=84, elem_id="fl-stop"
            )
        with gr.Row(elem_id="fl-examples"):
            self.examples = [gr.Button(question, size="sm", min_width=40) for question in EXAMPLES]

    def _connect(self) -> None:
        # Detector and model take one request at a time; the rest wait in this line.
        heavy = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
        light = {"queue": False, "show_progress": "hidden"}
        private = {"api_visibility": "private"}
        result = [self.where, self.overlay, self.findings, self.json_fold, self.json]
        talk = [self.chat, self.ask, self.stop]
        for changed in (self.photo.input, self.photo.clear):
            changed(self._interrupt, self.session, None, **light, **private).then(
                self._take_photo,
                self.photo,
                [self.session, self.status, self.gallery, *result, *talk],
                preprocess=False,  # decoding is read_photo's work: its errors are sentences
                **heavy,
                **private,
            )
        self.gallery.select(
            self._choose_face,
            self.session,
            [self.gallery, *result, *talk],
            **light,
            **private,
        )
        asked = [self.message, self.status, *talk]
        starts = [
            event(self._pose, [self.session, self.message], asked, **light, **private)
            for event in (self.message.submit, self.ask.click)
        ]
        starts += [
            button.click(
                partial(self._pose, message=question), self.session, asked, **light, **private
            )
            for button, question in zip(self.examples, EXAMPLES, strict=True)
        ]
        for start in starts:
            start.then(
                self._answer,
                self.session,
                [*talk, *result],
                **heavy,
                **private,
            )
        self.stop.click(self._stop, self.session, talk, **light, **private)
        self.chat.clear(self._forget, self.session, [*talk, *result], **light, **private)

    def _interrupt(self, session: Session | None) -> None:
        if session:
            session.interrupt()

    def _take_photo(self, upload: dict[str, Any] | None) -> Updates:
        """Find the faces of a new photo, or say in one sentence why there is none."""
        session, status = None, ""
        if upload is not None:
            try:
                session = Session.of(read_photo(Path(upload["path"]).read_bytes()))
                status = panels.remark(session.summary)
            except FacellavaError as error:
                status = panels.warning(str(error))
        return {
            self.session: session,
            self.status: status,
            self.gallery: gr.Gallery(
                session.thumbnails if session else [],
                visible=session is not None,
                selected_index=0 if session else None,
            ),
            **self._talk(session),
            **self._result(session),
        }

    def _choose_face(self, session: Session, event: gr.SelectData) -> Updates:
        if event.index != session.chosen:
            session.interrupt()
            session.chosen = event.index
        return {
            self.gallery: gr.Gallery(selected_index=session.chosen),
            **self._talk(session),
            **self._result(session),
        }

    def _pose(self, session: Session | None, message: str) -> Updates:
        """Put a question into the conversation; :meth:`_answer` follows it."""
        if session is None:
            return {self.status: panels.warning("Add a photo first; then ask about a face in it.")}
        if not message.strip():
            return self._talk(session)
        session.interrupt()
        session.talk.append(Exchange(message.strip()))
        return {self.message: "", **self._talk(session)}

    def _answer(self, session: Session | None) -> Iterator[Updates]:
        """Write the answer to the last question piece by piece, then what stands behind it."""
        exchange = session.running if session else None
        if session is None or exchange is None:
            yield gr.skip()
            return
        face, history, drawn = session.face, session.history(), 0.0
        try:
            for piece in self.model.stream(face, exchange.question, history):
                if exchange.stopped:
                    break
                exchange.text += piece
                if time.monotonic() - drawn > REDRAW_SECONDS:
                    yield self._talk(session)
                    drawn = time.monotonic()
            exchange.text = exchange.text.strip()
            if not exchange.stopped:
                answer = self.model.read(face, exchange.question, exchange.text, history)
                attention = self.model.region_attention(face).mean(axis=0)
                exchange.picture = session.overlay(answer, attention)
                exchange.answer = answer
        except FacellavaError as error:
            exchange.problem = str(error)
        except Exception:
            # The page's outermost edge: the reader gets a sentence, the trace goes to the log.
            logger.exception("Answering %r failed.", exchange.question)
            exchange.problem = "The answer failed inside facellava; its terminal shows why."
        yield self._talk(session) | (self._result(session) if exchange.answer else {})

    def _stop(self, session: Session | None) -> Updates:
        self._interrupt(session)
        return self._talk(session)

    def _forget(self, session: Session | None) -> Updates:
        """Begin the conversation about the chosen face anew."""
        if session:
            session.interrupt()
            session.talk.clear()
        return self._talk(session) | self._result(session)

    def _talk(self, session: Session | None) -> Updates:
        """The conversation about the chosen face, and Stop instead of Ask while it is written."""
        busy = session is not None and session.running is not None
        bubbles = [bubble for turn in session.talk for bubble in turn.bubbles] if session else []
        return {
            self.chat: bubbles,
            self.ask: gr.Button(visible=not busy),
            self.stop: gr.Button(visible=busy),
        }

    def _result(self, session: Session | None) -> Updates:
        """What stands behind the last answer about the chosen face."""
        talk = session.talk if session else []
        last = next((turn for turn in reversed(talk) if turn.answer), None)
        answer = last.answer if last else None
        plain = session.plain_overlay() if session and not answer else None
        return {
            self.where: gr.Column(visible=session is not None),
            self.overlay: last.picture if last else plain,
            self.findings: panels.findings(answer) if answer else panels.NOTHING_YET,
            self.json_fold: gr.Accordion(visible=answer is not None),
            self.json: answer.to_dict() if answer else None,
        }


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
        input_background_fill="white",
        input_background_fill_focus="white",
    )


@contextmanager
def open_page(model: Answerer, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs; gives its address. Photos on disk go with it.

    Args:
        model: answers.
        host: loopback unless the page is meant for others.
        port: None takes the first free one from 7860.

    Raises:
        FacellavaError: the port is taken, or the host is not one of this computer's.
    """
    with (
        listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="facellava-chat-") as uploads,
        environment("GRADIO_TEMP_DIR", uploads),
    ):
        port = listener.getsockname()[1]
        app = gr.mount_gradio_app(
            FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
            build_page(model),
            path="/",
            server_name=host,
            server_port=port,
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=MAX_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=_theme(),
            css_paths=Path(__file__).with_name("chat.css"),
        )
        if host in LOOPBACK:
            # Another site's page must not reach this one by a name that it points here.
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK])
        name = "localhost" if host in ("0.0.0.0", "::") else host
        with served(app, listener):
            yield f"http://{f'[{name}]' if ':' in name else name}:{port}"
            # Open pages hold a stream each, which the server would wait for.
            for route in app.routes:
                if isinstance(route, Mount) and isinstance(route.app, gr.routes.App):
                    route.app.stop_event.set()


def launch(
    model: Answerer,
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
    with open_page(model, host, port) as address:
        announce(f"The chat is ready at {address} (Ctrl+C ends it).")
        if open_browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            announce("The chat has ended.")
