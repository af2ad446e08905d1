"""An engine without a model: it answers in vLLM's shape and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx

from facellava.processor import FaceLlavaProcessor
from facellava.tasks import TASKS

ANSWERS = {
    TASKS["expression"].canonical_question: (
        "Expression: happiness. The mouth corners are pulled up."
    ),
    TASKS["age"].canonical_question: "Age: 34 years.",
    TASKS["action_units"].canonical_question: "Action units: AU6, AU12.",
    TASKS["deepfake"].canonical_question: "Deepfake: real.",
}
USAGE = {"prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 57}


class WordedEngine(httpx.AsyncBaseTransport):
    """Both the engine and its network.

    Attributes:
        asked: the bodies of all requests.
        open_streams: streams that are being sent.
        pause: seconds before each word of a stream, and before a whole answer.
        fault: what happens instead of an answer.
        well: whether /health says so.
    """

    def __init__(self, processor: FaceLlavaProcessor) -> None:
        self.state, self.model_name, self.adapter_names = "ready", "nano", ("smiles",)
        self.client = httpx.AsyncClient(transport=self, base_url="http://engine")
        self.asked: list[dict[str, Any]] = []
        self.open_streams, self.aborted, self.pause = 0, 0, 0.0
        self.fault: Callable[[dict[str, Any]], httpx.Response] | None = None
        self.dies_after: int | None = None
        self.well = True
        self._processor = processor

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if request.url.path == "/health":
            return httpx.Response(200 if self.well else 503)
        body = json.loads(await request.aread())
        self.asked.append(body)
        if self.fault is not None:
            return self.fault(body)
        if ids := (body.get("vllm_xargs") or {}).get("facellava_read"):
            return httpx.Response(200, json=self._read(ids, body["logprob_token_ids"]))
        text = self._text(body)
        if body.get("stream"):
            return httpx.Response(200, stream=_Events(self, text, body))
        await self._wait()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "tool_calls": []},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
        return httpx.Response(
            200,
            json={
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [choice],
                "usage": USAGE | {"prompt_tokens_details": None},
                "prompt_logprobs": None,
            },
        )

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.aborted += 1
            raise

    def _text(self, body: Mapping[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        words = content if isinstance(content, str) else content[0]["text"]
        question = words.removeprefix("<image>").removeprefix("<video>")
        if body.get("response_format"):
            return json.dumps({"task": "expression", "label": "fear", "reasons": ["why"]})
        return ANSWERS.get(question, f"You said: {words}")

    def _read(self, ids: list[int], wanted: list[int]) -> dict[str, Any]:
        """The first wanted token is nine times as probable as each other one."""
        logs = [-0.1, *(-2.3 for _ in wanted[1:])]
        top = [
            {"token": f"token_id:{token}", "logprob": log, "bytes": None}
            for token, log in zip(wanted, logs, strict=True)
        ]
        places = [
            {"token": f"token_id:{token}", "logprob": -0.5, "bytes": None, "top_logprobs": top}
            for token in [*ids, self._processor.tokenizer.eos_token_id]
        ]
        return {"choices": [{"logprobs": {"content": places}}], "usage": USAGE}


class _Events(httpx.AsyncByteStream):
    """One streamed answer, cut into pieces that do not end where events end."""

    def __init__(self, engine: WordedEngine, text: str, body: Mapping[str, Any]) -> None:
        self._engine, self._text, self._body = engine, text, body
        self._finished = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        engine = self._engine
        engine.open_streams += 1
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
        head["model"] = self._body["model"]

        def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
            return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode()

        def choice(delta: Mapping[str, str], reason: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

        kept = event(choice({"role": "assistant", "content": ""}))
        for number, word in enumerate(self._text.split(" ")):
            if number == engine.dies_after:
                raise httpx.ReadError("the engine died")
            await asyncio.sleep(engine.pause)
            kept += event(choice({"content": f" {word}" if number else word}))
            cut = len(kept) - 5
            yield kept[:cut]
            kept = kept[cut:]
        kept += event(choice({}, "stop"))
        if (self._body.get("stream_options") or {}).get("include_usage"):
            kept += event([], usage=USAGE)
        self._finished = True
        yield kept + b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        """The reader is done, or has left."""
        self._engine.open_streams -= 1
        self._engine.aborted += not self._finished
