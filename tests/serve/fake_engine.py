"""Speaks like vLLM as far as `serve.engine` listens: started by tests in vLLM's place.

FAKE_ENGINE in the environment names what is wrong with it, words separated by commas:
    slow        listens only FAKE_ENGINE_SLEEP seconds later
    no_plugin   ends like a vLLM that could not load our plugin
    bad_option  ends like a vLLM that does not know an option
    unhealthy   /health gives 503
    blind       does not see pictures
    deaf        does not end when asked
    litter      starts a process in another session, which nobody waits for
    stillborn   ends at its second start; the file in FAKE_ENGINE_STARTS counts
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

WRONG = set(os.environ.get("FAKE_ENGINE", "").split(","))
SLEEPER = "import time; time.sleep(300)"
PLUGIN_TROUBLE = """\
(APIServer pid=7) ERROR 11-24 04:51:02 [__init__.py:75] Failed to load plugin facellava
(APIServer pid=7) ERROR 11-24 04:51:02 [__init__.py:75] Traceback (most recent call last):
(APIServer pid=7) ERROR 11-24 04:51:02 [__init__.py:75]   File "x.py", line 1, in load
(APIServer pid=7) ERROR 11-24 04:51:02 [__init__.py:75] ModuleNotFoundError: No module named 'spam'
Traceback (most recent call last):
  File "y.py", line 2, in <module>
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, The checkpoint you are trying to load has model type `face_llava` but Transformers
"""

app = FastAPI()
sick = "unhealthy" in WRONG


def option(name: str) -> list[str]:
    """The words after --name."""
    words = sys.argv[sys.argv.index(f"--{name}") + 1 :] if f"--{name}" in sys.argv else []
    end = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    return words[:end]


@app.get("/health")
def health() -> Response:
    return Response(status_code=503 if sick else 200)


@app.get("/v1/models")
def models() -> dict[str, Any]:
    adapters = [word.split("=")[0] for word in option("lora-modules")]
    return {"data": [{"id": name} for name in [*option("served-model-name"), *adapters]]}


@app.get("/told")
def told() -> dict[str, Any]:
    """What it was started with."""
    return {"words": sys.argv[1:], "environment": dict(os.environ)}


@app.post("/sick")
def fall_sick() -> None:
    """The process that computes has died, as vLLM tells it."""
    global sick
    sick = True


@app.post("/die")
def die() -> None:
    sys.stdout.write("RuntimeError: the fake engine was told to die\n")
    sys.stdout.flush()
    os._exit(3)


@app.post("/v1/chat/completions")
async def complete(request: Request) -> Response:
    body = await request.json()
    if body.get("stream"):
        return StreamingResponse(
            words(body["max_completion_tokens"]), media_type="text/event-stream"
        )
    seen = 1 if "blind" in WRONG else 4096
    message = {"role": "assistant", "content": "Age: 34 years."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": seen}})


async def words(count: int) -> AsyncIterator[str]:
    for number in range(count):
        choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "nano"}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
        await asyncio.sleep(0.1)
    yield "data: [DONE]\n\n"


def count_start() -> int:
    file = Path(os.environ["FAKE_ENGINE_STARTS"])
    starts = len(file.read_text()) + 1 if file.exists() else 1
    file.write_text("x" * starts)
    return starts


def main() -> None:
    if "no_plugin" in WRONG:
        sys.exit(PLUGIN_TROUBLE)
    if "bad_option" in WRONG:
        sys.exit("entry.py: error: unrecognized arguments: --no-such-thing 1")
    if "stillborn" in WRONG and count_start() > 1:
        sys.exit("(EngineCore pid=9) ValueError: no room for the cache")
    if "litter" in WRONG:
        child = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
        Path(os.environ["FAKE_ENGINE_LITTER"]).write_text(str(child.pid))
    if "slow" in WRONG:
        time.sleep(float(os.environ.get("FAKE_ENGINE_SLEEP", "30")))
    server = uvicorn.Server(uvicorn.Config(app, uds=option("uds")[0], log_level="warning"))
    if "deaf" in WRONG:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # In another thread than the main one, uvicorn leaves signals alone.
        deaf = threading.Thread(target=server.run)
        deaf.start()
        deaf.join()
    else:
        server.run()


if __name__ == "__main__":
    main()
