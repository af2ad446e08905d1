"""What the operator of a server decides: addresses, keys, limits and times."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from facellava.faces import photo

MIB: Final = 2**20
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_Count = Annotated[int, Field(ge=1)]
_Bytes = Annotated[int, Field(ge=1024)]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseModel):
    """Settings of the gateway.

    Attributes:
        host: the address that is bound; on a loopback one only local Host headers are answered.
        public_host: a further name by which clients may call a server bound to loopback.
        api_key: asked of every request but /health; None asks nothing.
        allowed_hosts: names from which http(s) media are fetched; none by default.
        max_body_bytes: of a request's body.
        max_held_bytes: of all bodies that are under way together.
        body_seconds: in which a body must have arrived.
        max_image_bytes: of one photo, decoded from its URL.
        max_video_bytes: of one clip.
        max_images: photos of one conversation.
        max_videos: clips of one conversation.
        max_queue: requests under way at once; further ones get 429.
        request_seconds: after which a request is given up.
        fetch_seconds: for one http(s) medium, redirects included.
        face_workers: processes that find faces.
        photo_seconds: in which a photo's faces must be found; then the worker is ended.
        clip_seconds: likewise for a clip.
        cache_bytes: of found faces that are kept for the next request with the same medium.
        max_new_tokens: that a client may ask for.
        region_attention: whether it is offered; costly for large models.
        free_reasons: reasons may also be such as the face's measurements do not support.
        drain_seconds: that requests under way get when the server stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    public_host: str | None = None
    api_key: SecretStr | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: _Bytes = 64 * MIB
    max_held_bytes: _Bytes = 512 * MIB
    body_seconds: _Seconds = 30.0
    max_image_bytes: _Bytes = photo.MAX_BYTES
    max_video_bytes: _Bytes = 64 * MIB
    max_images: _Count = 4
    max_videos: _Count = 1
    max_queue: _Count = 256
    request_seconds: _Seconds = 180.0
    fetch_seconds: _Seconds = 10.0
    face_workers: _Count = Field(default_factory=lambda: min(4, os.cpu_count() or 1))
    photo_seconds: _Seconds = 20.0
    clip_seconds: _Seconds = 90.0
    cache_bytes: Annotated[int, Field(ge=0)] = 128 * MIB
    max_new_tokens: _Count = 1024
    region_attention: bool = True
    free_reasons: bool = False
    drain_seconds: _Seconds = 3.5

    @field_validator("api_key")
    @classmethod
    def _no_empty_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not key.get_secret_value().strip():
            raise ValueError("the API key is empty; give one, or none at all")
        return key

    @property
    def loopback(self) -> bool:
        """Whether the server can be reached from this computer only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host in LOOPBACK

    @property
    def local_names(self) -> frozenset[str]:
        """Host names that a server bound to loopback answers to."""
        named = [self.host, self.public_host or self.host]
        return frozenset([*LOOPBACK, *(name.lower() for name in named)])
