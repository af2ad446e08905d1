"""Bytes of any origin to one upright RGB photo, with caps that apply before decoding."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from facellava.errors import BadMedia, MediaTooLarge

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 25_000_000
MIN_SIDE: Final = 16
PHOTO_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)
# Only formats whose decoders are plain rasters: no SVG, EPS, PDF or fonts.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO", "PPM")

logger = logging.getLogger(__name__)

PhotoSource = str | Path | bytes | Image.Image | NDArray[np.uint8]


def read_photo(source: PhotoSource) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8 RGB, upright.

    EXIF orientation is applied, alpha is laid on white, grey, CMYK, palette and 16-bit pictures
    are converted, and of an animation the first frame is taken.

    Raises:
        BadMedia: missing, empty, not a picture, cut off, or too small.
        MediaTooLarge: more than 32 MiB or 25 million pixels.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the picture")
    if isinstance(source, bytes):
        return _decode(source, "the picture")
    path = Path(source)
    name = f"'{path}'"
    if not path.exists():
        raise BadMedia(f"There is no file {name}; check the path.")
    if not path.is_file():
        raise BadMedia(f"{name} is not a file; give a photo.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise MediaTooLarge(
            f"{name} has {size / 2**20:.0f} MiB; photos of up to {MAX_BYTES // 2**20} MiB are read."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadMedia(f"{name} cannot be opened ({error.strerror}).") from error
    return _decode(data, name)


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    if not data:
        raise BadMedia(f"{name} is empty; give a JPEG, PNG or WebP photo.")
    if len(data) > MAX_BYTES:
        raise MediaTooLarge(
            f"{name} has {len(data) / 2**20:.0f} MiB; photos of up to "
            f"{MAX_BYTES // 2**20} MiB are read."
        )
    try:
        with warnings.catch_warnings():
            # Our own cap is lower than Pillow's warning limit and raises.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise MediaTooLarge(_pixel_message(name)) from error
        raise BadMedia(
            f"{name} is not a photo that can be read; give a JPEG, PNG or WebP."
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadMedia(
            f"{name} is a damaged picture file; save it again as JPEG or PNG."
        ) from error
    return _to_rgb(image, name)


def _pixel_message(name: str, size: tuple[int, int] | None = None) -> str:
    has = f"{size[0]}x{size[1]} pixels" if size else "too many pixels"
    return f"{name} has {has}; photos of up to {MAX_PIXELS // 10**6} million pixels are read."


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise MediaTooLarge(_pixel_message(name, image.size))
    if min(width, height) < MIN_SIDE:
        raise BadMedia(
            f"{name} has {width}x{height} pixels; a photo needs at least {MIN_SIDE} pixels a side."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.seek(0) if getattr(image, "n_frames", 1) > 1 else None
            image.load()
            upright = ImageOps.exif_transpose(image)
            rgb = _flatten(upright)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise BadMedia(
            f"{name} is a damaged picture file; save it again as JPEG or PNG."
        ) from error
    return np.asarray(rgb, dtype=np.uint8)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit greys are scaled, transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray((values.clip(0, top) / top * 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _check_array(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise BadMedia(
            f"An array photo must be (height, width, 3) uint8 RGB, not {pixels.shape} "
            f"{pixels.dtype}."
        )
    height, width = pixels.shape[:2]
    if width * height > MAX_PIXELS:
        raise MediaTooLarge(_pixel_message("the picture", (width, height)))
    if min(width, height) < MIN_SIDE:
        raise BadMedia(
            f"the picture has {width}x{height} pixels; a photo needs at least {MIN_SIDE} a side."
        )
    return pixels
