"""URLs of a request to bytes: data: always, http(s) from allowed hosts, nothing else.

No local path is ever opened, and the caps apply before anything is decoded.
"""

from __future__ import annotations

import binascii
from typing import Final, Literal

from facellava.errors import BadMedia, FacellavaError, MediaTooLarge
from serve.api_errors import ApiError, of_library
from serve.remote_media import RemoteMedia
from serve.settings import Settings

Kind = Literal["image", "video"]

MIME_TYPES: Final[dict[str, frozenset[str]]] = {
    "image": frozenset(
        f"image/{name}"
        for name in (
            "jpeg", "jpg", "png", "webp", "gif", "bmp", "x-ms-bmp", "tiff",
            "x-portable-pixmap", "x-portable-graymap",
        )
    ),
    "video": frozenset(
        (
            "video/mp4", "video/webm", "video/quicktime", "video/x-m4v", "video/x-msvideo",
            "video/avi", "video/x-matroska", "video/mpeg", "video/ogg", "video/mp2t",
            "video/3gpp", "video/x-flv", "video/x-ms-wmv", "video/x-ms-asf", "image/gif",
            "video/png",  # a person's crops, as /v1/faces gives them
        )
    ),
}  # fmt: skip
_NAMES: Final = {"image": "photo", "video": "clip"}


class Intake:
    """Turns the URLs of requests into bytes.

    Args:
        settings: caps, allowed hosts and times.
    """

    def __init__(self, settings: Settings) -> None:
        self._caps = {"image": settings.max_image_bytes, "video": settings.max_video_bytes}
        self._remote = RemoteMedia(settings.allowed_hosts, settings.fetch_seconds)

    async def read(self, url: str, kind: Kind, param: str) -> bytes:
        """The bytes behind a URL.

        Args:
            url: data:, or http(s) of an allowed host.
            kind: what the field is for.
            param: the field, for errors.

        Raises:
            ApiError: url_not_allowed, unsupported_media, bad_media or media_too_large.
        """
        scheme = url[:6].split(":")[0].lower()
        try:
            if scheme == "data":
                return _decode(url, kind, self._caps[kind])
            if scheme in ("http", "https"):
                return await self._remote.fetch(url, self._caps[kind])
        except FacellavaError as error:
            raise of_library(error, param) from error
        except ApiError as error:
            raise ApiError(error.code, error.message, param) from error
        raise ApiError(
            "url_not_allowed",
            f"A {_NAMES[kind]} is sent as a data: URL with base64; other URLs are not opened.",
            param,
        )


def _decode(url: str, kind: Kind, max_bytes: int) -> bytes:
    comma = url.find(",", 0, 200)
    mime, *parameters = url[len("data:") : max(comma, 0)].lower().split(";")
    if comma < 0 or not parameters or parameters[-1].strip() != "base64":
        raise BadMedia(f"A data: URL must be data:{kind}/...;base64,... with base64 after it.")
    if mime.strip() not in MIME_TYPES[kind]:
        raise ApiError(
            "unsupported_media",
            f"A {_NAMES[kind]} of this type is not read; send one of "
            f"{', '.join(sorted(MIME_TYPES[kind]))}.",
        )
    size = (len(url) - comma - 1) // 4 * 3
    if size > max_bytes + 2:
        raise MediaTooLarge(
            f"The {_NAMES[kind]} has {size / 2**20:.1f} MiB; "
            f"up to {max_bytes / 2**20:.0f} MiB are taken."
        )
    try:
        if url.endswith("==="):  # Python takes that after a whole group
            raise ValueError("too much padding")
        data = binascii.a2b_base64(url[comma + 1 :], strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        raise BadMedia("The base64 of a data: URL is damaged; encode the file anew.") from error
    if not data:
        raise BadMedia("The photo or clip is empty; send one that can be seen.")
    return data
