"""Errors as clients see them: OpenAI's JSON shape, our codes, fixed sentences.

Nothing that a decoder, a validator or the engine wrote reaches a client: their words may hold
addresses, paths or other people's data.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import JSONResponse

from facellava.errors import (
    BadMedia,
    BadModelInput,
    FacellavaError,
    MediaTooLarge,
    NoFaceFound,
    UnknownTask,
)

STATUS: Final[dict[str, int]] = {
    "invalid_value": 400,
    "unknown_field": 400,
    "no_face_found": 400,
    "bad_media": 400,
    "url_not_allowed": 400,
    "invalid_api_key": 401,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "media_too_large": 413,
    "unsupported_media": 415,
    "rate_limit_exceeded": 429,
    "internal_error": 500,
    "engine_unavailable": 503,
}
INTERNAL: Final = "The server made a mistake; it has been logged under the request's id."
BUSY: Final = "The server has as many requests as it can take; try again in a moment."
NO_ENGINE: Final = "The model is not ready; try again in a moment."
STOPPING: Final = "The server is stopping; send the request to another one, or later."
TOO_SLOW: Final = "The request took too long and was given up; ask for less, or try again."
RETRY_SECONDS: Final = {"rate_limit_exceeded": 1, "engine_unavailable": 5}

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that is an error.

    Args:
        code: a key of STATUS.
        message: one sentence for the client.
        param: the field that it is about, such as "messages[0].content".
        headers: to be sent with it; Retry-After is added where the code has one.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.status = STATUS[code]
        self.headers = dict(headers or {})
        if code in RETRY_SECONDS:
            self.headers["Retry-After"] = str(RETRY_SECONDS[code])

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON that is sent."""
        if self.status >= 500:
            kind = "server_error"
        else:
            kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
                self.status, "invalid_request_error"
            )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def of_library(error: FacellavaError, param: str | None = None) -> ApiError:
    """A library error as the client's, where the client caused it; else an internal one."""
    match error:
        case MediaTooLarge():
            return ApiError("media_too_large", str(error), param)
        case BadMedia():
            return ApiError("bad_media", str(error), param)
        case NoFaceFound():
            return ApiError("no_face_found", str(error), param)
        case BadModelInput() | UnknownTask():
            return ApiError("invalid_value", str(error), param)
        case _:
            return ApiError("internal_error", INTERNAL)


def log_internal(request_id: str, error: BaseException) -> None:
    """Log where something failed, without the message: that may quote what the client sent."""
    frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
    logger.error("%s failed with %s at\n%s", request_id, type(error).__qualname__, frames)


# What pydantic found, in our words; {field} and the validator's own limits are filled in.
_SENTENCES: Final[dict[str, str]] = {
    "missing": "{field} is missing.",
    "string_type": "{field} must be a string.",
    "string_unicode": "{field} holds broken characters; send UTF-8.",
    "string_too_long": "{field} may have up to {max_length} characters.",
    "string_too_short": "{field} must have at least {min_length} character(s).",
    "string_pattern_mismatch": "{field} holds characters that are not allowed there.",
    "bool_type": "{field} must be true or false.",
    "int_type": "{field} must be a whole number.",
    "float_type": "{field} must be a number.",
    "finite_number": "{field} must be a finite number.",
    "list_type": "{field} must be a list.",
    "dict_type": "{field} must be an object.",
    "model_type": "{field} must be an object.",
    "model_attributes_type": "{field} must be an object.",
    "none_required": "{field} must be null or left out.",
    "literal_error": "{field} must be {expected}.",
    "greater_than": "{field} must be above {gt}.",
    "greater_than_equal": "{field} must be at least {ge}.",
    "less_than_equal": "{field} must be at most {le}.",
    "too_long": "{field} may have up to {max_length} entries.",
    "too_short": "{field} must have at least {min_length} entry.",
}
OURS: Final = "facellava."  # begins the type of every error that our own validators raise


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first thing that pydantic found wrong with a request, in our words.

    An unknown field comes first: it explains the others.
    """
    found = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    param = _path(found["loc"])
    kind = found["type"]
    if kind == "extra_forbidden":
        return ApiError(
            "unknown_field", "There is no such field here; leave out what param names.", param
        )
    field = param or "The body"
    if kind.startswith(OURS):
        return ApiError("invalid_value", str(found["msg"]), param)
    sentence = _SENTENCES.get(kind, "{field} cannot be used.")
    return ApiError("invalid_value", sentence.format(field=field, **found.get("ctx", {})), param)


def _path(places: Sequence[str | int]) -> str | None:
    """("body", "messages", 0, "(parts)", "type") as "messages[0].type"."""
    written = ""
    for place in places[1:]:
        if isinstance(place, int):
            written += f"[{place}]"
        elif not place.startswith("("):  # the name of a union's member
            written += f".{place[:64]}" if written else place[:64]
    return written or None
