"""The chat page: a photo or clip, its faces, questions, and answers with their evidence.

The page is a client of the API like any other: see `serve.chat_api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import gradio as gr

from facellava.errors import BadMedia, FacellavaError
from facellava.tasks import ANSWERABLE, TASKS
from serve import panels
from serve.chat_api import ChatApi, Kind
from serve.chat_session import Exchange, Session, Tab
from serve.chat_timeline import WAITING, curve
from serve.chat_work import answer, search, trace

KEPT_SECONDS: Final = 3600  # files of the page on disk, and what a closed tab looked at
MOST_AT_ONCE: Final = 64  # requests of all tabs to the API; the rest wait
EXAMPLES: Final = (
    *(TASKS[name].canonical_question for name in ANSWERABLE),
    "Is this person wearing glasses?",
    "Why?",
)

Updates = dict[Any, Any]
"""New values of components, by component."""


def build_page(api: ChatApi) -> gr.Blocks:
    """The whole page, to be served by `serve.chat_pages`."""
    return _Page(api).blocks


class _Page:
    """Components and what they do. Nothing is shared by users but the client of the API."""

    def __init__(self, api: ChatApi) -> None:
        self.api = api
        # By Gradio's name of them; it keeps those of the last ten thousand visits.
        self.tabs: WeakValueDictionary[str | None, Tab] = WeakValueDictionary()
        self.blocks = gr.Blocks(
            title="facellava", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
        )
        with self.blocks:
            self.tab = gr.State(Tab())
            gr.HTML(panels.NOTICE)
            with gr.Row(elem_id="fl-columns"):
                with gr.Column(scale=5, min_width=300):
                    self._lay_out_media()
                with gr.Column(scale=7, min_width=320):
                    self._lay_out_chat()
                    self.findings = gr.HTML(panels.NOTHING_YET, elem_id="fl-findings")
                    with gr.Accordion(
                        "Answer as JSON", open=False, visible=False, elem_id="fl-json"
                    ) as self.json_fold:
                        self.json = gr.JSON(show_label=False)
            self._connect()

    def _lay_out_media(self) -> None:
        # A mirrored face would swap the person's left and right.
        camera = gr.WebcamOptions(mirror=False)
        with gr.Tabs(elem_id="fl-media"):
            with gr.Tab("Photo"):
                self.photo = gr.Image(
                    show_label=False,
                    label="Photo",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    buttons=[],
                    webcam_options=camera,
                    height=300,
                    placeholder="Drop a photo here\nor click to choose one",
                    elem_id="fl-photo",
                )
            with gr.Tab("Clip"):
                self.clip = gr.Video(
                    show_label=False,
                    label="Clip",
                    sources=["upload", "webcam"],
                    include_audio=False,
                    buttons=[],
                    webcam_options=camera,
                    height=300,
                    elem_id="fl-clip",
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
        self.curve = gr.HTML("", visible=False, elem_id="fl-curve")
        with gr.Column(visible=False, elem_id="fl-where", min_width=280) as self.where:
            self.overlay = gr.Image(
                label="What was found",
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                format="jpeg",
                height=360,
                elem_id="fl-overlay",
                alt_text="The chosen face with its box, landmarks and marked regions",
            )
            self.legend = gr.HTML(panels.legend(None))

    def _lay_out_chat(self) -> None:
        self.model = gr.Dropdown(
            [], label="Model", visible=False, interactive=True, filterable=False, elem_id="fl-model"
        )
        self.chat = gr.Chatbot(
            label="Conversation",
            show_label=False,
            height=370,
            buttons=[],
            layout="bubble",
            latex_delimiters=[],
            allow_tags=False,
            placeholder="Add a photo or a clip, choose a face, then ask.",
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
        # What asks the API waits in a line; what only changes the page does not.
        asking = {"concurrency_limit": MOST_AT_ONCE, "show_progress": "hidden"}
        at_once = {"queue": False, "show_progress": "hidden"}
        private = {"api_visibility": "private"}
        result = [self.where, self.overlay, self.legend, self.findings, self.json_fold, self.json]
        talk = [self.chat, self.ask, self.stop]
        look = [self.tab, self.model]
        self.blocks.load(self._greet, self.tab, [self.model, self.status], **asking, **private)
        self.blocks.unload(self._closed)
        photo = (self.photo.input, self.photo.clear)
        # A recording is no input to Gradio.
        clip = (self.clip.input, self.clip.clear, self.clip.stop_recording)
        media: list[tuple[gr.Component, tuple[Any, ...], Kind, gr.Component]] = [
            (self.photo, photo, "image", self.clip),
            (self.clip, clip, "video", self.photo),
        ]
        for source, changes, kind, other in media:
            for changed in changes:
                # Decoding is the server's work: its errors are sentences.
                changed(
                    partial(self._look_at, other=other),
                    [self.tab, source],
                    [self.status, self.gallery, self.curve, other, *result, *talk],
                    preprocess=False,
                    **at_once,
                    **private,
                ).then(
                    partial(self._search, kind=kind, source=source),
                    look,
                    [self.status, self.gallery, self.model, self.curve, source, *result, *talk],
                    **asking,
                    **private,
                ).then(self._trace, look, self.curve, **asking, **private)
        self.gallery.select(
            self._choose_face,
            self.tab,
            [self.gallery, self.curve, *result, *talk],
            **at_once,
            **private,
        ).then(self._trace, look, self.curve, **asking, **private)
        self.model.input(self._forget_curves, self.tab, None, **at_once, **private).then(
            self._trace, look, self.curve, **asking, **private
        )
        asked = [self.message, self.status, *talk]
        # A question may come while the one before is answered, and ends that answer.
        any_time = {"trigger_mode": "multiple", **private}
        starts = [
            event(self._pose, [self.tab, self.message], asked, **at_once, **any_time)
            for event in (self.message.submit, self.ask.click)
        ]
        starts += [
            button.click(
                partial(self._pose, message=question), self.tab, asked, **at_once, **any_time
            )
            for button, question in zip(self.examples, EXAMPLES, strict=True)
        ]
        for start in starts:
            start.then(self._answer, look, [*talk, *result], **asking, **any_time)
        self.stop.click(self._stop, self.tab, talk, **at_once, **private)
        self.chat.clear(self._forget, self.tab, [*talk, *result], **at_once, **private)

    async def _greet(self, tab: Tab, request: gr.Request) -> Updates:
        """The choice of models, or why there is none."""
        self.tabs[request.session_hash] = tab
        try:
            return {self.model: await self._choice(tab)}
        except FacellavaError as error:
            return {self.status: panels.warning(str(error))}

    async def _closed(self, request: gr.Request) -> None:
        """The browser let go of a tab; one that slept may come back and ask again.

        Gradio ends an answer by itself only where the page had begun to read it.
        """
        if tab := self.tabs.get(request.session_hash):
            tab.close(forgotten_in=KEPT_SECONDS)

    async def _choice(self, tab: Tab) -> gr.Dropdown:
        """The model and its adapters; shown where there is more than one."""
        tab.models = await self.api.models()
        return gr.Dropdown(tab.models, value=tab.models[0], visible=len(tab.models) > 1)

    async def _look_at(
        self, tab: Tab, upload: dict[str, Any] | None, other: gr.Component
    ) -> Updates:
        """Drop what was looked at; :meth:`_search` follows."""
        tab.turn_to(Path(upload["path"]) if upload else None)
        return {
            self.status: panels.remark("Looking for faces …") if upload else "",
            self.gallery: gr.Gallery([], visible=False, selected_index=None),
            self.curve: gr.HTML("", visible=False),
            other: None,
            **self._talk(None),
            **self._result(None),
        }

    async def _search(self, tab: Tab, _: str | None, kind: Kind, source: gr.Component) -> Updates:
        """Find the faces of the new file, or say in one sentence why there are none."""
        file, status, choice, shown = tab.file, "", gr.skip(), gr.skip()
        if file is None:
            return {self.status: status}
        try:
            tab.searching = searching = asyncio.create_task(search(self.api, file, kind))
            await asyncio.wait({searching})
            if searching.cancelled() or tab.file != file:
                return {self.status: gr.skip()}  # the next file is looked at by now, or nothing
            tab.session = found = searching.result()
            status = panels.remark(found.summary)
            if not tab.models:
                choice = await self._choice(tab)
        except BadMedia as error:
            # The browser cannot show it either.
            status, shown = panels.warning(str(error)), None
        except FacellavaError as error:
            status = panels.warning(str(error))
        session = tab.session
        return {
            self.status: status,
            self.model: choice,
            source: shown,
            self.gallery: gr.Gallery(
                session.thumbnails if session else [],
                visible=session is not None,
                selected_index=0 if session else None,
            ),
            self.curve: self._curve(session),
            **self._talk(session),
            **self._result(session),
        }

    async def _trace(self, tab: Tab, model: str | None) -> Updates:
        """The chosen person's expression over a clip's time."""
        session = tab.session
        if session is not None and session.kind == "video":
            await trace(self.api, session.person, model)
        return {self.curve: self._curve(tab.session)}

    async def _forget_curves(self, tab: Tab) -> None:
        """Another model sees another timeline."""
        if tab.session:
            tab.session.forget_timelines()

    async def _choose_face(self, tab: Tab, event: gr.SelectData) -> Updates:
        session, tab.away = tab.session, False
        if session and event.index != session.chosen:
            session.interrupt()
            session.chosen = event.index
        return {
            self.gallery: gr.Gallery(selected_index=session.chosen if session else None),
            self.curve: self._curve(session),
            **self._talk(session),
            **self._result(session),
        }

    async def _pose(self, tab: Tab, message: str) -> Updates:
        """Put a question into the conversation; :meth:`_answer` follows it."""
        session, tab.away = tab.session, False
        if session is None:
            sentence = "Add a photo or a clip first; then ask about a face in it."
            return {self.status: panels.warning(sentence)}
        running = session.person.running
        if not message.strip() or (running and running.question == message.strip()):
            return self._talk(session)  # a second click
        session.interrupt()
        session.person.talk.append(Exchange(message.strip()))
        return {self.message: "", **self._talk(session)}

    async def _answer(self, tab: Tab, model: str | None) -> AsyncGenerator[Updates, None]:
        """Write the answer to the last question piece by piece, then what stands behind it."""
        session = tab.session
        exchange = session.person.running if session else None
        if session is None or exchange is None:
            yield self._talk(session)
            return
        exchange.by = str(model) if len(tab.models) > 1 else ""
        async with aclosing(answer(self.api, session, model)) as steps:
            async for _ in steps:
                # By now the tab may look at something else, or at nothing.
                yield self._talk(tab.session)
        shown = exchange.told and not session.left
        yield self._talk(tab.session) | (self._result(session) if shown else {})

    async def _stop(self, tab: Tab) -> Updates:
        tab.away = False
        if tab.session:
            tab.session.interrupt()
        return self._talk(tab.session)

    async def _forget(self, tab: Tab) -> Updates:
        """Begin the conversation about the chosen face anew."""
        tab.away = False
        if tab.session:
            tab.session.interrupt()
            tab.session.person.talk.clear()
        return self._talk(tab.session) | self._result(tab.session)

    def _talk(self, session: Session | None) -> Updates:
        """The conversation about the chosen face, and Stop instead of Ask while it is written."""
        talk = session.person.talk if session else []
        busy = session is not None and session.person.running is not None
        return {
            self.chat: [bubble for turn in talk for bubble in turn.bubbles],
            self.ask: gr.Button(visible=not busy),
            self.stop: gr.Button(visible=busy),
        }

    def _result(self, session: Session | None) -> Updates:
        """What stands behind the last answer about the chosen face."""
        person = session.person if session else None
        last = person.last_answered if person else None
        told = last.told if last else None
        plain = person.plain_overlay if person and not last else None
        return {
            self.where: gr.Column(visible=person is not None),
            self.overlay: last.picture if last else plain,
            self.legend: panels.legend(person.second if person else None),
            self.findings: panels.findings(told.reply.answer) if told else panels.NOTHING_YET,
            self.json_fold: gr.Accordion(visible=told is not None),
            self.json: told.json if told else None,
        }

    def _curve(self, session: Session | None) -> gr.HTML:
        """The timeline of a clip's chosen person, or why there is none yet."""
        person = session.person if session and session.kind == "video" else None
        if person is None:
            return gr.HTML("", visible=False)
        if person.timeline:
            return gr.HTML(curve(person.timeline), visible=True)
        trouble = person.timeline_problem
        return gr.HTML(panels.warning(trouble) if trouble else WAITING, visible=True)
