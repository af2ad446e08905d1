"""Photos as nobody should send them: cut, bombs, polyglots, odd modes, EXIF tricks."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import numpy as np
from PIL import Image, PngImagePlugin
from skimage import data

Table = dict[str, tuple[tuple[str, ...], Callable[[], bytes]]]
READ: Final = ("face",)
EMPTY: Final = ("no_face",)
REFUSED: Final = ("bad_media",)
TOO_LARGE: Final = ("media_too_large",)
LAID: Final = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is laid down so that its EXIF orientation turns it back."""


@cache
def portrait() -> Image.Image:
    """Head and shoulders of scikit-image's public-domain astronaut, 330x300."""
    return Image.fromarray(np.ascontiguousarray(data.astronaut()[:300, 60:390]))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # Pillow keeps a save's options in the picture, and threads share the portrait.
    picture.copy().save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def portrait_as(kind: str, **options: Any) -> bytes:
    return encoded(portrait(), kind, **options)


def mode(name: str, kind: str, **options: Any) -> bytes:
    return encoded(portrait().convert(name), kind, **options)


def blank(width: int, height: int, kind: str = "PNG") -> bytes:
    return encoded(Image.new("L", (width, height), 90), kind)


def cut(kind: str, share: float) -> bytes:
    whole = portrait_as(kind)
    return whole[: int(len(whole) * share)]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """The portrait as a PNG with one more chunk after its header."""
    whole = portrait_as("PNG")
    return whole[:33] + png_chunk(kind, body) + whole[33:]


def png_sized(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@cache
def deflated_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(mebibytes)) + packer.flush()


def png_overfull() -> bytes:
    """A small PNG whose pixel data unpacks to 256 MiB."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", deflated_zeros(256)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"face{number}.jpg", bytes(8 * 2**20))
    return buffer.getvalue()


def zipped_portrait() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("evil.sh", "#!/bin/sh\nid\n")
    return buffer.getvalue()


def jpeg_sized(width: int, height: int) -> bytes:
    """The portrait's JPEG whose header claims another size."""
    whole = bytearray(portrait_as("JPEG"))
    place = whole.index(b"\xff\xc0")
    whole[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def jpeg_of_scans(scans: int, side: int = 7000) -> bytes:
    """A progressive JPEG, flat grey, that goes over all its pixels once for each scan."""
    whole = encoded(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    frame, scan = whole.index(b"\xff\xc2"), whole.index(b"\xff\xda")
    head = bytearray(whole[:scan])
    head[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    first = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"
    return bytes(head) + (first + b"\x00\x00") * scans + b"\xff\xd9"


def jpeg_segment(marker: int, body: bytes, times: int = 1) -> bytes:
    """The portrait's JPEG with more segments after its start."""
    whole = portrait_as("JPEG")
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
    return whole[:2] + segment * times + whole[2:]


def tiff_sized(width: int, height: int, *, next_ifd: int = 0) -> bytes:
    """A grey TIFF of that many pixels by its header, with one strip of 100 bytes."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 100),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + body + struct.pack("<I", next_ifd)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + directory


def tiff_of_nan() -> bytes:
    pixels = np.asarray(portrait().convert("L"), np.float32).copy()
    pixels[::2] = np.nan
    pixels[1::4] = np.inf
    return encoded(Image.fromarray(pixels), "TIFF")


def bmp_sized(width: int, height: int) -> bytes:
    whole = bytearray(blank(32, 32, "BMP"))
    whole[18:26] = struct.pack("<ii", width, height)
    return bytes(whole)


def gif_of_frames(count: int, *, screen: tuple[int, int] | None = None, side: int = 32) -> bytes:
    """A GIF that plays for ever, all frames alike."""
    whole = blank(side, side, "GIF")
    frame = whole.index(b",\0\0\0\0" + struct.pack("<HH", side, side))
    head = bytearray(whole[:frame])
    if screen:
        head[6:10] = struct.pack("<HH", *screen)
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    one = b"!\xf9\x04\0\x04\0\0\0" + whole[frame:-1]
    return bytes(head) + loop + one * count + b";"


def gif_frame_outgrows_screen() -> bytes:
    whole = bytearray(blank(32, 32, "GIF"))
    frame = whole.index(b",\0\0\0\0" + struct.pack("<HH", 32, 32))
    whole[frame + 5 : frame + 9] = struct.pack("<HH", 65535, 65535)
    return bytes(whole)


def animated(kind: str) -> bytes:
    more = [Image.new("RGB", portrait().size, shade) for shade in ("red", "blue")]
    return encoded(portrait(), kind, save_all=True, append_images=more, duration=40, loop=0)


def exif(value: object, kind: str = "JPEG", tag: int = 0x0112) -> bytes:
    notes = Image.Exif()
    notes[tag] = value
    return encoded(portrait(), kind, exif=notes.tobytes())


def oriented(orientation: int) -> bytes:
    laid = LAID[orientation]
    picture = portrait() if laid is None else portrait().transpose(laid)
    notes = Image.Exif()
    notes[0x0112] = orientation
    return encoded(picture, "JPEG", exif=notes.tobytes())


def texts(count: int, size: int) -> bytes:
    notes = PngImagePlugin.PngInfo()
    for number in range(count):
        notes.add_text(f"note{number}", "x" * size)
    return encoded(portrait(), "PNG", pnginfo=notes)


def noise(size: int = 5000) -> bytes:
    return np.random.default_rng(5).bytes(size)


EXIF_LOOP: Final = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
EXIF_WORDS: Final = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0up!\0\0\0\0\0"
EXIF_FAR: Final = b"Exif\0\0II*\0\xff\xff\xff\x7f"
EXIF_MANY: Final = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" * 50
EXIF_COUNT: Final = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0\0\0\0\0"
LAUGHS: Final = (
    b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">&b; tiff:Orientation="9"</x:xmpmeta>'
)
SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

BILLION_PIXELS: Final[dict[str, Callable[[], bytes]]] = {
    "png": partial(png_sized, 31_700, 31_700),
    "jpeg": partial(jpeg_sized, 65_500, 65_500),
    "tiff": partial(tiff_sized, 31_700, 31_700),
    "bmp": partial(bmp_sized, 31_700, 31_700),
    "bmp upside down": partial(bmp_sized, 31_700, -31_700),
    "gif": partial(gif_of_frames, 1, screen=(65_535, 65_535)),
    "gif frame": gif_frame_outgrows_screen,
    "ppm": lambda: b"P6 31700 31700 255\n" + bytes(99),
}
BAD_PHOTOS: Final[Table] = {
    "nothing at all": (REFUSED, bytes),
    "one byte": (REFUSED, lambda: b"\xff"),
    "noise": (REFUSED, noise),
    "jpeg start, then noise": (REFUSED, lambda: b"\xff\xd8\xff\xe0" + noise()),
    "png start, then noise": (REFUSED, lambda: b"\x89PNG\r\n\x1a\n" + noise()),
    **{
        f"{kind} cut at {share}": (REFUSED, partial(cut, kind, share))
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
        for share in (0.01, 0.5, 0.9)
    },
    "jpeg without its last two bytes": (("face", "bad_media"), lambda: portrait_as("JPEG")[:-2]),
    "png with its checksums wrong": (
        REFUSED,
        lambda: portrait_as("PNG")[:41] + b"\0\0\0\0" + portrait_as("PNG")[45:],
    ),
    **{
        f"{name} header of a billion pixels": (TOO_LARGE, make)
        for name, make in BILLION_PIXELS.items()
    },
    "png of two billion pixels a side": (
        TOO_LARGE + REFUSED,
        partial(png_sized, 2**31 - 1, 2**31 - 1),
    ),
    "jpeg that claims 7000x7000": (REFUSED + EMPTY, partial(jpeg_sized, 7_000, 7_000)),
    "tiff that claims 7000x7000": (REFUSED, partial(tiff_sized, 7_000, 7_000)),
    "tiff whose directories go round": (
        REFUSED + EMPTY,
        partial(tiff_sized, 64, 64, next_ifd=108),
    ),
    "png of 49 million pixels": (EMPTY, partial(blank, 7_000, 7_000)),
    "png of 144 million pixels": (TOO_LARGE, partial(blank, 12_000, 12_000)),
    "png that unpacks to 256 MiB": (REFUSED + EMPTY, png_overfull),
    "png text that unpacks to 64 MiB": (
        REFUSED + READ,
        lambda: with_chunk(b"zTXt", b"note\0\0" + deflated_zeros(64)),
    ),
    "png profile that unpacks to 64 MiB": (
        REFUSED + READ,
        lambda: with_chunk(b"iCCP", b"icc\0\0" + deflated_zeros(64)),
    ),
    "png of 2000 texts": (READ, partial(texts, 2000, 100)),
    "png text of 70 MiB": (REFUSED + TOO_LARGE, partial(texts, 70, 2**20 - 1)),
    "jpeg of 5000 scans": (TOO_LARGE, partial(jpeg_of_scans, 5000)),
    "jpeg of 20000 comments": (READ, partial(jpeg_segment, 0xFE, b"<?php ?>", 20_000)),
    "jpeg whose tables are junk": (REFUSED + READ, partial(jpeg_segment, 0xC4, noise(64))),
    "zip bomb": (REFUSED, zip_bomb),
    "gzip": (REFUSED, lambda: b"\x1f\x8b\x08\0" + noise()),
    "png and html": (READ, lambda: portrait_as("PNG") + b"<html><script>alert(1)</script>"),
    "jpeg and zip": (READ, lambda: portrait_as("JPEG") + zipped_portrait()),
    "gif and javascript": (READ, lambda: portrait_as("GIF") + b"/*GIF89a*/=1;alert(1)//"),
    "zip and jpeg": (REFUSED, lambda: zipped_portrait() + portrait_as("JPEG")),
    "pdf and jpeg": (REFUSED, lambda: b"%PDF-1.7\n" + portrait_as("JPEG")),
    "svg": (REFUSED, lambda: SVG),
    "svg with a declaration": (REFUSED, lambda: b'<?xml version="1.0"?>' + SVG),
    "pdf": (REFUSED, lambda: encoded(portrait(), "PDF")),
    "html": (REFUSED, lambda: b"<!doctype html><html><img src=x onerror=alert(1)></html>"),
    "postscript": (REFUSED, lambda: encoded(portrait(), "EPS")),
    "icon": (REFUSED, lambda: encoded(portrait(), "ICO")),
    "icns": (REFUSED, lambda: encoded(portrait(), "ICNS")),
    "jpeg 2000": (REFUSED, lambda: encoded(portrait(), "JPEG2000")),
    "pcx": (REFUSED, lambda: encoded(portrait(), "PCX")),
    "executable": (REFUSED, lambda: b"\x7fELF\x02\x01\x01" + bytes(99)),
    "safetensors": (REFUSED, lambda: struct.pack("<Q", 2**60) + b"{}"),
    **{
        f"{width}x{height} pixels": (outcome, partial(blank, width, height))
        for width, height, outcome in (
            (1, 1, REFUSED),
            (1, 10_000, REFUSED),
            (10_000, 1, REFUSED),
            (15, 300, REFUSED),
            (16, 16, EMPTY),
            (16, 30_000, EMPTY),
            (30_000, 16, EMPTY),
            (16, 30_001, TOO_LARGE),
        )
    },
    "cmyk jpeg": (READ, partial(mode, "CMYK", "JPEG")),
    "cmyk tiff": (READ, partial(mode, "CMYK", "TIFF")),
    "lab tiff": (READ, partial(mode, "LAB", "TIFF")),
    "grey jpeg": (READ, partial(mode, "L", "JPEG")),
    "black and white png": (READ + EMPTY, partial(mode, "1", "PNG")),
    "16-bit png": (
        READ,
        lambda: encoded(
            Image.fromarray(np.asarray(portrait().convert("L")).astype(np.uint16) * 257), "PNG"
        ),
    ),
    "tiff of nan and infinity": (READ + EMPTY, tiff_of_nan),
    "palette with alpha": (READ, lambda: encoded(portrait().quantize(64), "PNG", transparency=3)),
    "grey with alpha": (READ, partial(mode, "LA", "PNG")),
    "all transparent": (
        EMPTY,
        lambda: encoded(Image.new("RGBA", (300, 300), (9, 9, 9, 0)), "PNG"),
    ),
    "lossless webp": (READ, partial(portrait_as, "WEBP", lossless=True)),
    "progressive jpeg": (READ, partial(portrait_as, "JPEG", progressive=True)),
    "lzw tiff": (READ, partial(portrait_as, "TIFF", compression="tiff_lzw")),
    "animated gif": (READ, partial(animated, "GIF")),
    "animated webp": (READ, partial(animated, "WEBP")),
    "animated png": (READ, partial(animated, "PNG")),
    "gif that plays for ever": (EMPTY, partial(gif_of_frames, 50)),
    **{f"exif orientation {n}": (READ, partial(oriented, n)) for n in range(1, 9)},
    "exif orientation 99": (READ, partial(exif, 99)),
    "exif orientation 0": (READ, partial(exif, 0)),
    "exif orientation in words": (READ, partial(jpeg_segment, 0xE1, EXIF_WORDS)),
    "exif of 60 kB": (READ, partial(exif, "x" * 60_000, tag=0x010E)),
    "exif of 8 MiB in a png": (READ, partial(exif, "x" * 2**23, "PNG", tag=0x010E)),
    "exif that goes round": (READ, partial(jpeg_segment, 0xE1, EXIF_LOOP)),
    "exif that points far away": (READ, partial(jpeg_segment, 0xE1, EXIF_FAR)),
    "exif of 65535 entries": (READ, partial(jpeg_segment, 0xE1, EXIF_MANY)),
    "exif of four billion values": (READ, partial(jpeg_segment, 0xE1, EXIF_COUNT)),
    "exif of noise": (READ, partial(jpeg_segment, 0xE1, b"Exif\0\0" + noise(2000))),
    "xmp of a billion laughs": (
        READ,
        partial(jpeg_segment, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + LAUGHS),
    ),
    "profile of noise": (READ, partial(portrait_as, "JPEG", icc_profile=noise())),
    "mpo index of noise": (READ, partial(jpeg_segment, 0xE2, b"MPF\0" + noise(500))),
}
