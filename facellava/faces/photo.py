"""Bytes of any origin to one upright RGB photo, with caps that apply before decoding."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from facellava.errors import BadMedia, MediaTooLarge

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 50_000_000  # a 48-megapixel phone photo is read, about 350 MB while decoding
MAX_SIDE: Final = 30_000  # OpenCV's warps count pixels in 16 bits
# A decoder goes over all pixels for every scan: 60 kB of empty scans took 11 s. Encoders write 10.
MAX_SCANS: Final = 100
MIN_SIDE: Final = 16  # dataset faces of 48 pixels are read, icons and tracking pixels are not
PHOTO_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)
# Only plain rasters: no SVG, EPS, PDF or fonts. "JPEG" covers MPO too.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
ADVICE: Final = "give a JPEG, PNG or WebP photo"

# Markers with a length, and the end: no stuffed byte, restart, filler or second start.
_SCAN_END: Final = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9

ORIENTATION_TAG: Final = 0x0112
# EXIF orientation to (transpose first, then flip rows, then flip columns).
UPRIGHT: Final[dict[int, tuple[bool, bool, bool]]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

# What users give by mistake, by the first bytes: the sentence then names it.
_FTYP_KINDS: Final = {
    b"heic": "a HEIC picture",
    b"heix": "a HEIC picture",
    b"heif": "a HEIC picture",
    b"hevc": "a HEIC picture",
    b"mif1": "a HEIC picture",
    b"msf1": "a HEIC picture",
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
}
_MAGIC_KINDS: Final = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"\x1a\x45\xdf\xa3", "a video clip"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"8BPS", "a Photoshop file"),
)

logger = logging.getLogger(__name__)

PhotoSource = str | Path | bytes | Image.Image | NDArray[np.uint8]

_quiet_lock = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: its own pixel limit is above ours, odd metadata is no matter.

    warnings.catch_warnings swaps a list of the whole process, and two threads in it at once can
    leave the wrong one behind: hence the lock, and hence only around quick header work.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_photo(source: PhotoSource) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8 RGB, upright.

    EXIF orientation is applied (damaged EXIF is ignored), alpha is laid on white, grey, CMYK,
    palette and 16-bit pictures are converted, and of an animation the first frame is taken. A
    Pillow image is taken at the frame it stands at.

    Args:
        source: path, encoded bytes, Pillow image, or an (H, W, 3) uint8 RGB array.

    Raises:
        BadMedia: missing, empty, not a picture, cut off, or below 16 pixels a side.
        MediaTooLarge: more than 32 MiB, 50 million pixels, 30,000 pixels a side, or 100 scans of
            a JPEG. All is read from headers, nothing is decoded.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "The picture")
    if isinstance(source, bytes):
        return _decode(source, "The picture")
    if not isinstance(source, str | Path):
        raise BadMedia(
            "A photo is given as a path, bytes, a Pillow image or an RGB array, not as "
            f"{type(source).__name__}."
        )
    name = f"'{source}'" if len(str(source)) <= 200 else f"'{str(source)[:200]}...'"
    return _decode(read_file(Path(source), name, MAX_BYTES, "photo"), name)


def read_file(path: Path, name: str, max_bytes: int, what: str) -> bytes:
    """The bytes of a file, of which a user may say anything.

    Args:
        path: the file.
        name: how to call it in errors.
        max_bytes: more than this is refused unread.
        what: "photo" or "clip", for the wording.

    Raises:
        BadMedia: no such file, not a file, not readable.
        MediaTooLarge: more than `max_bytes`.
    """
    try:
        if str(path).startswith(("http:", "https:")):  # Path has made one slash of two
            raise BadMedia(f"{name} is a web address; download the {what} and give its path.")
        if path.is_dir():
            raise BadMedia(f"{name} is a folder; give a single {what}.")
        if not path.exists():
            raise BadMedia(f"There is no file {name}; check the path.")
        if not path.is_file():
            raise BadMedia(f"{name} is not a plain file; give a {what}.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, BadMedia):
            raise
        if isinstance(error, PermissionError):
            raise BadMedia(f"{name} may not be read; check its permissions.") from error
        raise BadMedia(f"{name} cannot be opened; check the path and the disk.") from error
    if len(data) > max_bytes:
        raise MediaTooLarge(_bytes_message(name, path.stat().st_size, max_bytes, what))
    return data


def _bytes_message(name: str, size: int, max_bytes: int, what: str) -> str:
    return f"{name} has {size / 2**20:.1f} MiB; a {what} may have up to {max_bytes // 2**20} MiB."


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    if not data:
        raise BadMedia(f"{name} is empty; {ADVICE}.")
    if len(data) > MAX_BYTES:
        raise MediaTooLarge(_bytes_message(name, len(data), MAX_BYTES, "photo"))
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(
            f"{name} has more pixels than can be read; "
            f"a photo may have up to {MAX_PIXELS // 10**6} million."
        ) from error
    except UnidentifiedImageError as error:
        kind = _kind(data)
        raise BadMedia(
            f"{name} is {kind}, which is not read here; {ADVICE}."
            if kind
            else f"{name} is not a photo that can be read; {ADVICE}."
        ) from error
    except Exception as error:
        # Decoders meet hostile bytes here and leave by whatever exception comes to hand.
        raise _damaged(name) from error
    if _has_scans(data, MAX_SCANS + 1):
        raise MediaTooLarge(
            f"{name} is a JPEG of more than {MAX_SCANS} scans; save it again as JPEG or PNG."
        )
    return _to_rgb(image, name)


def _has_scans(data: bytes, count: int) -> bool:
    """Whether the bytes are a JPEG whose picture is written in `count` scans or more."""
    if not data.startswith(b"\xff\xd8"):
        return False
    place, seen = 2, 0
    while (found := _SCAN_END.search(data, place)) and found[0][1] != _END_OF_IMAGE:
        seen += found[0][1] == _START_OF_SCAN
        if seen >= count:
            return True
        # Before the length of a segment nothing can be said of its bytes: they may look like scans.
        place = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return False


def _kind(data: bytes) -> str:
    """What the bytes are, where it is a thing that users take for a photo; else ""."""
    if data[4:8] == b"ftyp":
        return _FTYP_KINDS.get(data[8:12], "a video clip")
    for magic, kind in _MAGIC_KINDS:
        if data.startswith(magic):
            return kind
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return ""


def _damaged(name: str) -> BadMedia:
    return BadMedia(f"{name} is a damaged or cut-off picture file; save it again as JPEG or PNG.")


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaTooLarge(
            f"{name} has {width}x{height} pixels; a photo may have up to "
            f"{MAX_PIXELS // 10**6} million, and {MAX_SIDE} a side."
        )
    if min(width, height) < MIN_SIDE:
        raise BadMedia(
            f"{name} has {width}x{height} pixels; a photo needs at least {MIN_SIDE} a side."
        )


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    _check_size(image.width, image.height, name)
    try:
        # A TIFF reads its EXIF data, and warns, only while it is decoded.
        with _quiet() if image.format == "TIFF" else nullcontext():
            image.load()
        rgb = np.asarray(_flatten(image), dtype=np.uint8)
    except Exception as error:
        # As above: truncated data shows as OSError, SyntaxError, struct.error and others.
        raise _damaged(name) from error
    transposed, rows, columns = UPRIGHT[_orientation(image, name)]
    if transposed:
        rgb = rgb.transpose(1, 0, 2)
    # A copy, since Pillow's memory is read-only and torch warns about that.
    return np.array(rgb[:: -1 if rows else 1, :: -1 if columns else 1], order="C")


def _orientation(image: Image.Image, name: str) -> int:
    """EXIF orientation, 1 to 8. To be read after decoding, since Pillow turns TIFFs itself."""
    try:
        with _quiet():
            value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:
        logger.warning("%s has damaged EXIF data, taken as upright (%s).", name, error)
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB: deep greys are scaled to 8 bits, transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=np.inf)
        # Files do not say which part of the range they use: the smallest usual one that holds it.
        peak = float(values.max())
        top = 1.0 if image.mode == "F" and peak <= 1 else 255.0 if peak <= 255 else 65535.0
        return Image.fromarray((values.clip(0, top) / top * 255).astype(np.uint8)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
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
    _check_size(pixels.shape[1], pixels.shape[0], "The picture")
    return pixels
