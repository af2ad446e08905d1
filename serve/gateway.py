"""The public server: a fixed list of routes, everything else is refused.

From outside in: each request gets an id and a line in the log, its Host and key are checked, its
body is counted (`serve.guard`, `serve.traffic`); then FastAPI validates it and a route answers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response

from facellava import __version__
from facellava.errors import FacellavaError
from facellava.face_encoder import FaceEncoder
from facellava.processor import FaceLlavaProcessor
from serve import api_answers
from serve.analysis import Analysis
from serve.api_errors import NO_ENGINE, STATUS, ApiError, log_internal, of_library, of_validation
from serve.api_types import AnalyzeRequest, ChatRequest, FacesRequest
from serve.asking import Desk
from serve.completions import Completions
from serve.guard import Announced, Guarded
from serve.settings import Settings
from serve.strict_json import BadJson, read_json
from serve.traffic import Traffic, Worked
from serve.upstream import EngineLike, Upstream

DESCRIPTION: Final = """Questions about faces, in OpenAI's API and two routes of our own.

Photos and clips are data: URLs; http(s) ones only of hosts that the operator allows. Every error
has one shape, and its `code` says what kind it is."""
_MEANINGS: Final[dict[int, str]] = {
    400: "The request cannot be used; param names the field.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    408: "The body came too slowly, or the request took too long.",
    413: "The body or a medium is too large.",
    415: "The body is not JSON, or a medium is of a type that is not read.",
    429: "Too many requests are under way; see Retry-After.",
    500: "The server made a mistake.",
    503: "The model is not ready, or the server stops; see Retry-After.",
}


def create_app(
    engine: EngineLike,
    processor: FaceLlavaProcessor,
    face_encoder: FaceEncoder,
    settings: Settings,
) -> FastAPI:
    """The gateway in front of an engine.

    `app.state.traffic.drain()` is to be awaited when the server stops: requests under way then
    finish or get an error.

    Args:
        engine: answers chat completions; may start and restart while the gateway runs.
        processor: of the engine's checkpoint.
        face_encoder: of the engine's checkpoint, in evaluation mode.
        settings: limits, keys and times.
    """
    upstream, traffic = Upstream(engine), Traffic(settings)
    desk = Desk(upstream, processor, face_encoder, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await desk.pool.start()
        yield
        await desk.pool.stop()

    app = FastAPI(
        title="facellava",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.traffic = traffic
    app.router.route_class = _StrictRoute
    _add_routes(app, desk)
    _add_error_handlers(app)
    _describe(app, settings, upstream.model_names)
    # The last one is the outermost.
    app.add_middleware(Worked, traffic=traffic)
    app.add_middleware(Guarded, settings=settings)
    app.add_middleware(Announced)
    return app


def _add_routes(app: FastAPI, desk: Desk) -> None:
    upstream, completions, analysis = desk.upstream, Completions(desk), Analysis(desk)
    started = int(time.time())

    @app.get("/health", responses=_errors(503), summary="Whether questions are answered")
    async def health() -> api_answers.Health:
        if not upstream.ready:
            raise ApiError("engine_unavailable", NO_ENGINE)
        return api_answers.Health(status="ready")

    @app.get("/v1/models", responses=_errors(401), summary="The model and its adapters")
    async def models() -> api_answers.ModelList:
        cards = [api_answers.ModelCard(id=name, created=started) for name in upstream.model_names]
        return api_answers.ModelList(data=cards)

    @app.get("/v1/models/{model:path}", responses=_errors(401, 404), summary="One of them")
    async def one_model(model: str) -> api_answers.ModelCard:
        upstream.check_name(model)
        return api_answers.ModelCard(id=model, created=started)

    work = _errors(400, 401, 408, 413, 415, 429, 500, 503)

    @app.post(
        "/v1/chat/completions",
        response_model=api_answers.ChatReply,
        responses={
            **work,
            **_errors(404),
            200: {
                "description": "The completion; with stream, chunks as server-sent events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
        },
        summary="Talk about faces",
    )
    async def chat_completions(request: ChatRequest) -> Response:
        return await completions.reply(request)

    @app.post(
        "/v1/faces", response_model=api_answers.FacesReply, responses=work, summary="Find faces"
    )
    async def faces(request: FacesRequest) -> Response:
        return JSONResponse(await analysis.faces(request))

    @app.post(
        "/v1/analyze",
        response_model=api_answers.AnalysisReply,
        responses={**work, **_errors(404)},
        summary="Ask several things about one or all faces",
    )
    async def analyze(request: AnalyzeRequest) -> Response:
        return JSONResponse(await analysis.analyze(request))


class _StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """The body's JSON.

        Raises:
            HTTPException: it is not what `serve.strict_json` takes.
        """
        try:
            return read_json(await self.body())
        except BadJson as error:
            raise HTTPException(400, str(error)) from error


class _StrictRoute(APIRoute):
    """A route for such requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(FacellavaError)
    async def library(request: Request, error: FacellavaError) -> Response:
        told = of_library(error)
        if told.status >= 500:
            log_internal(str(request.state.request_id), error)
        return told.response()

    @app.exception_handler(ExceptionGroup)
    async def together(request: Request, group: ExceptionGroup[Exception]) -> Response:
        """Of tasks that ran together the first that failed."""
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, ApiError):
            return first.response()
        if isinstance(first, FacellavaError):
            return await library(request, first)
        raise group

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return of_validation(error.errors()).response()

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: StarletteHTTPException) -> Response:
        match error.status_code:
            case 404:
                told = ApiError("not_found", "There is no such route; see /openapi.json.")
            case 405:
                told = ApiError(
                    "method_not_allowed",
                    "This route does not take this method.",
                    headers=error.headers,
                )
            case _:
                told = ApiError("invalid_value", str(error.detail))
        return told.response()


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": api_answers.ErrorReply, "description": _MEANINGS[status]}
        for status in statuses
    }


def _describe(app: FastAPI, settings: Settings, model_names: Sequence[str]) -> None:
    """The OpenAPI document says what is answered, not what FastAPI would answer by itself."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    if settings.api_key is not None and operation["operationId"] != "health":
                        operation["security"] = [{"key": []}]
            schemas = document["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for name in ("ChatRequest", "AnalyzeRequest"):
                schemas[name]["properties"]["model"]["enum"] = list(model_names)
            schemas["ErrorFacts"]["properties"]["code"]["enum"] = sorted(STATUS)
            if settings.api_key is not None:
                scheme = {"type": "http", "scheme": "bearer"}
                document["components"]["securitySchemes"] = {"key": scheme}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
