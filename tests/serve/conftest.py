"""What the page is tried with: portraits, and a server that knows its answers by heart."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import pytest
from fastapi import Body, FastAPI, Header
from fastapi.responses import JSONResponse, Response, StreamingResponse
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from skimage import data

from facellava.answer import Answer
from facellava.errors import BadMedia, NoFaceFound, UnreadableAnswer
from facellava.evidence import verify
from facellava.faces import Face, find_faces, read_photo
from facellava.faces.clips import apex, read_clip, track_faces
from facellava.faces.face_png import data_url, from_png, to_png
from facellava.regions import REGIONS
from facellava.tasks import TASKS, parse_answer
from serve.chat_replies import AnswerReply
from serve.chat_server import listen, served

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000  # milliseconds; the machine may be busy
SMILING_YOUNG = {name: name in {"smiling", "young"} for name in TASKS["attributes"].labels}
RECITATIONS = {
    TASKS["age"].canonical_question: (
        "Age: 34 years. The cheeks are smooth and the lip corners are raised."
    ),
    TASKS["expression"].canonical_question: (
        "Expression: happiness. The lip corners are raised, the teeth are visible, "
        "and the lips are shut."
    ),
    TASKS["action_units"].canonical_question: "Action units: AU6, AU12. The teeth are visible.",
    TASKS["attributes"].canonical_question: (
        TASKS["attributes"].lead(SMILING_YOUNG) + " The lip corners are raised."
    ),
    TASKS["deepfake"].canonical_question: "Deepfake: real. The picture is sharp.",
    "Who is this?": "Cannot answer: I do not identify people. Ask about the expression.",
    "Sing a song": "La la la.",
    "Break off": "Expression: happiness. The lip corners are raised.",
    "<b>How</b> *old*?": "Age: 34 years. The lip corners are raised.",
}


def table(task: str, label: object) -> dict[str, float]:
    """Probabilities that fit a label."""
    if task == "age":
        near = np.exp(-((np.arange(117) - 34) ** 2) / 50)
        return {str(year): float(share) for year, share in enumerate(near / near.sum())}
    names = TASKS[task].labels
    if isinstance(label, dict):
        return {name: 0.8 if label[name] else 0.1 for name in label}
    if isinstance(label, tuple):
        return {name: 0.8 if name in label else 0.1 for name in names}
    return {name: 0.7 if name == label else 0.3 / (len(names) - 1) for name in names}


def read(face: Face, question: str, text: str) -> Answer:
    """The full answer for a recited text."""
    try:
        verdict = parse_answer(text)
    except UnreadableAnswer as error:
        return Answer(question=question, text=text, face=face, unreadable=str(error))
    raw = table(verdict.task, verdict.label)
    return Answer(
        question=question,
        text=text,
        face=face,
        task=verdict.task,
        label=verdict.label,
        explanation=verdict.reasons,
        raw=raw,
        calibrated={name: 0.9 * share + 0.1 / len(raw) for name, share in raw.items()},
        evidence=tuple(verify(verdict.reasons, face)),
        weak=face.weak or verdict.task == "action_units",
    )


class FakeApi:
    """A server that speaks our API: faces are found for real, answers are known by heart.

    "Why?" is answered with the lead of the turn before, so that lost or foreign history shows.

    Attributes:
        pause: seconds before each word.
        models: that it offers.
        refusals: for a route, the status, headers and body that it answers with instead.
        asked: the bodies that came, by route.
        heard_out: how many streams were read to their end.
        left: how many were not.
        offers_attention: else asking for region attention is an error.
        keys: the Authorization headers that came to /v1/models.
    """

    def __init__(self, pause: float = 0.0, models: Sequence[str] = ("nano",)) -> None:
        self.pause, self.models = pause, models
        self.refusals: dict[str, tuple[int, dict[str, str], Any]] = {}
        self.asked: dict[str, list[dict[str, Any]]] = {"faces": [], "chat": [], "analyze": []}
        self.heard_out = self.left = 0
        self.offers_attention = True
        self.keys: list[str | None] = []
        self.app = FastAPI()
        self.app.get("/v1/models")(self._models)
        self.app.post("/v1/faces")(self._faces)
        self.app.post("/v1/chat/completions")(self._chat)
        self.app.post("/v1/analyze")(self._analyze)

    def _models(self, authorization: Annotated[str | None, Header()] = None) -> Response:
        self.keys.append(authorization)
        if refused := self._refused("models"):
            return refused
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "facellava"}
                 for name in self.models]  # fmt: skip
        return JSONResponse({"object": "list", "data": cards})

    def _faces(self, body: Annotated[dict[str, Any], Body()]) -> Response:
        self.asked["faces"].append(body)
        if refused := self._refused("faces"):
            return refused
        try:
            if "video" in body:
                return JSONResponse(self._persons(body))
            photo = read_photo(data_of(body["image"]))
        except NoFaceFound:
            return JSONResponse({"media": {"kind": "video", "complete": True}, "faces": []})
        except BadMedia as error:
            return JSONResponse(error_body(str(error), code="bad_media"), 400)
        try:
            faces = find_faces(photo)
        except NoFaceFound:
            faces = []
        media = {"kind": "image", "width": photo.shape[1], "height": photo.shape[0]}
        found = [
            {"index": face.index, "crop": data_url(to_png(face), clip=False)} for face in faces
        ]
        return JSONResponse({"object": "faces", "media": media, "faces": found})

    def _persons(self, body: dict[str, Any]) -> dict[str, Any]:
        clip = read_clip(data_of(body["video"]), body["frames"])
        media = {"kind": "video", "duration": clip.duration, "seconds": clip.seconds}
        found = [
            {
                "index": track.index,
                "crop": data_url(to_png(track.frames, track.seconds), clip=True),
            }
            for track in track_faces(clip)
        ]
        return {
            "object": "faces",
            "media": {**media, "complete": clip.complete},
            "faces": found,
        }

    def _chat(self, body: Annotated[dict[str, Any], Body()]) -> Response:
        self.asked["chat"].append(body)
        if refused := self._refused("chat"):
            return refused
        if body["region_attention"] and not self.offers_attention:
            return refusal(400, "Region attention is not offered.", "region_attention")
        shown, _ = body["messages"][0]["content"]
        url = shown[shown["type"]]["url"]
        picture = from_png(data_of(url))
        assert picture is not None
        question = body["messages"][-1]["content"][-1]["text"]
        before = [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]
        if question == "Why?":
            lead = before[-1].split(".")[0] if before else "Cannot answer: nothing said"
            text = f"{lead}. The lip corners are raised ({len(before)} earlier)."
        else:
            text = RECITATIONS[question]
        face = picture.faces[apex(picture.faces)]
        faces = [LOOK if body["region_attention"] else {"index": 0}]
        last = {"answer": read(face, question, text).to_dict(), "faces": faces}
        return StreamingResponse(
            self._events(text, last, broken=question == "Break off"), media_type="text/event-stream"
        )

    async def _events(self, text: str, last: dict[str, Any], *, broken: bool) -> AsyncIterator[str]:
        whole = False
        try:
            for word in text.split(" "):
                await asyncio.sleep(self.pause)
                yield event({"choices": [{"index": 0, "delta": {"content": f"{word} "}}]})
                if broken:
                    yield f"data: {json.dumps(error_body('The model ended too early.'))}\n\n"
                    return
            yield event({"choices": [], **last})
            yield "data: [DONE]\n\n"
            whole = True
        finally:
            self.heard_out += whole
            self.left += not whole

    def _analyze(self, body: Annotated[dict[str, Any], Body()]) -> Response:
        self.asked["analyze"].append(body)
        if refused := self._refused("analyze"):
            return refused
        picture = from_png(data_of(body["video"]))
        assert picture is not None
        assert picture.seconds is not None
        rising = np.linspace(0.1, 0.8, len(picture.seconds))
        names = [
            name for name in TASKS["expression"].labels if name not in ("happiness", "neutral")
        ]
        shares = {"happiness": rising, "neutral": 0.9 - rising}
        shares |= {name: np.full(len(rising), 0.1 / len(names)) for name in names}
        timeline = {
            "face": 0,
            "task": "expression",
            "seconds": picture.seconds,
            "labels": ["happiness" if share > 0.45 else "neutral" for share in rising],
            "probabilities": {name: list(map(float, share)) for name, share in shares.items()},
        }
        return JSONResponse({"object": "analysis", "timelines": [timeline]})

    def _refused(self, route: str) -> Response | None:
        if route not in self.refusals:
            return None
        status, headers, body = self.refusals[route]
        return JSONResponse(body, status, headers)


LOOK = {
    "index": 0,
    "region_attention": {
        "regions": list(REGIONS),
        "weights": [number / 36 for number in range(9)],
        "grid": [6, 6],
        "map": [[number / 36 for number in range(9)]] * 36,
    },
}


def event(chunk: dict[str, Any]) -> str:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "nano"}
    return f"data: {json.dumps(head | chunk)}\n\n"


def error_body(message: str, param: str | None = None, code: str = "x") -> dict[str, Any]:
    inner = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return {"error": inner}


def refusal(status: int, message: str, param: str | None = None) -> Response:
    return JSONResponse(error_body(message, param), status)


def data_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2], validate=True)


@contextmanager
def serving(fake: FakeApi) -> Iterator[str]:
    """The fake at an address, while the block runs."""
    with listen("127.0.0.1", 0) as listener, served(fake.app, listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """Head and shoulders of scikit-image's public-domain astronaut."""
    return np.ascontiguousarray(data.astronaut()[:300, 60:390])


@pytest.fixture(scope="session")
def couple(portrait: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The portrait beside a smaller, mirrored one."""
    mirrored = Image.fromarray(portrait[:, ::-1]).resize((264, 240))
    canvas = np.full((300, 330 + 264, 3), 120, np.uint8)
    canvas[:, :330] = portrait
    canvas[:240, 330:] = np.asarray(mirrored)
    return canvas


@pytest.fixture(scope="session")
def landscape() -> NDArray[np.uint8]:
    """A picture that shows no face."""
    rows = np.linspace(60, 200, 300, dtype=np.uint8)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(rows, (300, 400, 3)))


@pytest.fixture(scope="session")
def clip(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the portrait, which comes slowly nearer."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 320, 288, "yuv420p"
        for number in range(24):
            cut = portrait[number // 3 : 300 - number // 3, number // 3 : 330 - number // 3]
            picture = np.asarray(Image.fromarray(cut).resize((320, 288)))
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="session")
def gif(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An animation of the portrait."""
    path = tmp_path_factory.mktemp("clips") / "clip.gif"
    frames = [Image.fromarray(portrait[step:]) for step in range(0, 12, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, loop=0)
    return path


@pytest.fixture(scope="session")
def recite() -> Callable[[Face, str], AnswerReply]:
    """Called with a face and a task, or with any text of an answer: what the page gets of it."""

    def answer(face: Face, task_or_text: str) -> AnswerReply:
        task = TASKS.get(task_or_text)
        question = task.canonical_question if task else "?"
        said = read(face, question, RECITATIONS.get(question, task_or_text))
        return AnswerReply.model_validate_json(json.dumps(said.to_dict()))

    return answer


@pytest.fixture(scope="session")
def fake_api() -> Callable[..., AbstractContextManager[tuple[FakeApi, str]]]:
    """Called with what `FakeApi` takes: a server while the block runs, and its address."""

    @contextmanager
    def run(**manner: Any) -> Iterator[tuple[FakeApi, str]]:
        fake = FakeApi(**manner)
        with serving(fake) as address:
            yield fake, address

    return run


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """For a module: while it runs, its thread has an event loop, and other tests want their own."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Called with an address: a page of its own context, that may speak to this address alone."""
    pages: list[Page] = []
    strangers: list[str] = []

    def open_one(address: str, width: int = 1280, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        own = (address, "blob:", "data:")
        page.on(
            "request",
            lambda request: None if request.url.startswith(own) else strangers.append(request.url),
        )
        page.goto(address)
        expect(page.locator("#fl-chat")).to_be_visible()
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.context.close()
    assert strangers == []
