"""The library's own model in the place of vLLM, for machines on which vLLM is not installed.

It speaks the part of vLLM's chat API that the gateway uses, one request after the other: text,
streams, and the reading of given words with their tokens' scores. Guided JSON and logprobs of free
text need vLLM.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final, Literal

import httpx
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from facellava.conversation import FaceItem
from facellava.errors import BadModelInput, FacellavaError
from facellava.faces.face_png import from_png
from facellava.held_reasons import HELD_KEY, HeldReasons, OnlyHeldReasons
from facellava.predictor import FaceLlava
from serve.scoring import READ_KEY

State = Literal["starting", "ready", "restarting", "stopped", "dead"]
START_SECONDS: Final = 30.0
NEEDS_VLLM: Final = ("response_format", "tools", "logit_bias", "n")

logger = logging.getLogger(__name__)


class LibraryEngine:
    """One model of this process behind the interface of :class:`serve.engine.Engine`.

    Args:
        model: what answers.
        model_name: the name under which it is served.
    """

    def __init__(self, model: FaceLlava, model_name: str) -> None:
        self.model_name = model_name
        self.adapter_names: tuple[str, ...] = ()
        self.state: State = "starting"
        self._folder = tempfile.TemporaryDirectory(prefix="facellava-engine-")
        socket = str(Path(self._folder.name) / "engine.sock")
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket), base_url="http://engine", timeout=None
        )
        app = _application(_Generator(model), model_name)
        self._server = uvicorn.Server(
            uvicorn.Config(app, uds=socket, log_level="warning", timeout_graceful_shutdown=1)
        )
        # The main thread keeps the signals: uvicorn takes them only there.
        self._thread = Thread(target=self._server.run, daemon=True)
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Listen.

        Raises:
            FacellavaError: the socket cannot be opened.
        """
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise FacellavaError("The library's engine did not start; the lines above say why.")
            await asyncio.sleep(0.02)
        self.state = "ready"

    async def watch(self) -> None:
        """Return when the engine is stopped: it dies only with this process."""
        await self._stopped.wait()

    async def stop(self, grace: float = 0.0) -> None:
        """End it and remove its socket; `grace` is not needed, as a stream ends where it is."""
        self.state = "stopped"
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)
        await self.client.aclose()
        self._folder.cleanup()
        self._stopped.set()


def _application(generator: _Generator, model_name: str) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> Response:
        return Response()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model_name, "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        try:
            encoded = await asyncio.to_thread(generator.encode, body)
        except FacellavaError as error:
            return JSONResponse({"error": {"message": str(error), "code": 400}}, 400)
        if ids := (body.get("vllm_xargs") or {}).get(READ_KEY):
            scored = await asyncio.to_thread(generator.read, encoded, ids, body)
            return JSONResponse(_reply(model_name, "", "stop", scored))
        if body.get("stream"):
            return StreamingResponse(
                _events(generator, encoded, body, model_name), media_type="text/event-stream"
            )
        written = _Writing()
        pieces = await asyncio.to_thread(lambda: list(generator.write(encoded, body, written)))
        reply = _reply(model_name, "".join(pieces), written.finish_reason)
        return JSONResponse(reply | {"usage": written.usage})

    return app


class _Writing:
    """How one answer ended."""

    def __init__(self) -> None:
        self.left = Event()
        self.finish_reason = "stop"
        self.usage: dict[str, int] = {}


class _Generator:
    """One model, one request at a time."""

    def __init__(self, model: FaceLlava) -> None:
        self.model, self.processor = model.model, model.processor
        self.held_reasons = HeldReasons(model.processor.tokenizer)
        self.lock = Lock()

    def encode(self, body: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
        """The tensors of a request whose text holds its placeholders already.

        Raises:
            BadModelInput: more than this engine does, or text and faces that do not fit.
        """
        for name in NEEDS_VLLM:
            if body.get(name) not in (None, 1):
                raise BadModelInput(f"{name} needs vLLM, which is not installed here.")
        if body.get("logprobs") and READ_KEY not in (body.get("vllm_xargs") or {}):
            raise BadModelInput("logprobs need vLLM, which is not installed here.")
        items: list[FaceItem] = []
        turns = [_turn(message, items) for message in body["messages"]]
        prompt = self.processor.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        encoded: Mapping[str, torch.Tensor] = self.processor(images=items, text=[prompt])
        most = self.model.config.text_config.max_position_embeddings
        if encoded["input_ids"].shape[1] >= most:
            raise BadModelInput(f"The conversation is longer than the {most} tokens of the model.")
        return encoded

    def write(
        self, encoded: Mapping[str, torch.Tensor], body: Mapping[str, Any], written: _Writing
    ) -> Iterator[str]:
        """The answer's pieces; `written` tells how it ended when they are all there."""
        streamer = TextIteratorStreamer(
            self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        failures: list[BaseException] = []

        def generate() -> None:
            try:
                self._generate(encoded, body, streamer, written)
            except BaseException as error:  # handed to the reader below, never lost
                failures.append(error)
                streamer.end()

        with self.lock:
            writer = Thread(target=generate, daemon=True)
            writer.start()
            try:
                yield from (piece for piece in streamer if piece)
            finally:
                # A reader that goes away ends the writing too.
                written.left.set()
                writer.join()
        if failures:
            raise failures[0]

    @torch.inference_mode()
    def _generate(
        self,
        encoded: Mapping[str, torch.Tensor],
        body: Mapping[str, Any],
        streamer: TextIteratorStreamer,
        written: _Writing,
    ) -> None:
        tokenizer = self.processor.tokenizer
        prompt = encoded["input_ids"].shape[1]
        room = self.model.config.text_config.max_position_embeddings - prompt
        most = min(room, body.get("max_completion_tokens") or body.get("max_tokens") or room)
        temperature = body.get("temperature") or 0.0
        sampling = {"temperature": temperature, "top_p": body.get("top_p") or 1.0}
        if body.get("seed") is not None:
            torch.manual_seed(body["seed"])

        def reader_left(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            return torch.full((input_ids.shape[0],), written.left.is_set())

        ids = self.model.generate(
            **encoded,
            do_sample=temperature > 0,
            **(sampling if temperature > 0 else {}),
            max_new_tokens=most,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([reader_left]),
            logits_processor=LogitsProcessorList(self._only_held(prompt, body)),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        length = ids.shape[1] - prompt
        written.finish_reason = "stop" if ids[0, -1] == tokenizer.eos_token_id else "length"
        written.usage = {
            "prompt_tokens": prompt,
            "completion_tokens": length,
            "total_tokens": prompt + length,
        }

    def _only_held(self, prompt: int, body: Mapping[str, Any]) -> list[LogitsProcessor]:
        """What keeps the reasons to the claims that the body allows, where it does."""
        held = (body.get("vllm_xargs") or {}).get(HELD_KEY)
        return [] if held is None else [OnlyHeldReasons(self.held_reasons, prompt, [held])]

    @torch.inference_mode()
    def read(
        self, encoded: Mapping[str, torch.Tensor], ids: list[int], body: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Each given token and the end behind them, with the scores asked for."""
        tokenizer = self.processor.tokenizer
        whole = torch.cat([encoded["input_ids"], torch.tensor([ids])], dim=1)
        with self.lock:
            logits = self.model(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
                pixel_values=encoded["pixel_values"],
                landmarks=encoded["landmarks"],
                logits_to_keep=len(ids) + 1,
            ).logits[0]
        logs = logits.float().log_softmax(dim=-1)
        wanted = body.get("logprob_token_ids") or []
        return [
            {
                **_scored(token, row),
                "top_logprobs": [_scored(other, row) for other in (token, *wanted)],
            }
            for token, row in zip([*ids, tokenizer.eos_token_id], logs, strict=True)
        ]


def _turn(message: Mapping[str, Any], items: list[FaceItem]) -> dict[str, str]:
    """A message as the template takes it; its faces are added to `items`."""
    content = message["content"]
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    text = ""
    for part in content:
        if part["type"] == "text":
            text += part["text"]
            continue
        url = part[part["type"]]["url"]
        picture = from_png(base64.b64decode(url.partition(",")[2]))
        if picture is None:
            raise BadModelInput("The engine takes face pictures only.")
        items.append(picture.item)
    return {"role": message["role"], "content": text}


def _scored(token: int, row: torch.Tensor) -> dict[str, Any]:
    return {"token": f"token_id:{token}", "logprob": float(row[token]), "bytes": None}


def _reply(
    model: str, text: str, finish_reason: str, scored: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
        "logprobs": None if scored is None else {"content": list(scored)},
    }
    return {**_head(model, "chat.completion"), "choices": [choice]}


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


async def _events(
    generator: _Generator,
    encoded: Mapping[str, torch.Tensor],
    body: Mapping[str, Any],
    model: str,
) -> AsyncIterator[str]:
    """The stream of one answer; a client that goes away ends the writing."""
    head, written = _head(model, "chat.completion.chunk"), _Writing()

    def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    pieces: asyncio.Queue[str | None | Exception] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def pump() -> None:
        ended: Exception | None = None
        try:
            for piece in generator.write(encoded, body, written):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
        except Exception as error:  # told to the reader below
            logger.exception("Answering failed.")
            ended = error
        loop.call_soon_threadsafe(pieces.put_nowait, ended)

    Thread(target=pump, daemon=True).start()
    try:
        yield event({"role": "assistant", "content": ""})
        while isinstance(piece := await pieces.get(), str):
            yield event({"content": piece})
        if piece is not None:
            failure = {"message": "Answering failed.", "code": 500}
            yield f"data: {json.dumps({'error': failure})}\n\n"
            return
        yield event({}, written.finish_reason)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': written.usage})}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        written.left.set()
