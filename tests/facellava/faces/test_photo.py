"""Photos of every kind that users and attackers give, and the sentence each bad one gets."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava.errors import BadMedia, MediaTooLarge
from facellava.faces import read_photo


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.fixture
def quadrants() -> NDArray[np.uint8]:
    """Red, green, blue and white corners, so that any turn or mirroring shows."""
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[:24, :32], pixels[:24, 32:] = (220, 30, 30), (30, 220, 30)
    pixels[24:, :32], pixels[24:, 32:] = (30, 30, 220), (240, 240, 240)
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_comes_out_upright(
    quadrants: NDArray[np.uint8], orientation: int, kind: str
) -> None:
    # Store the picture the way a camera held at this orientation does: the inverse operation.
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(quadrants)
    if orientation in inverse:
        stored = stored.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = read_photo(encoded(stored, kind, exif=exif, **options))
    np.testing.assert_array_equal(photo, quadrants)
    assert photo.flags.c_contiguous
    assert photo.flags.writeable


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff"],
)
def test_broken_exif_is_ignored(quadrants: NDArray[np.uint8], exif: bytes) -> None:
    photo = read_photo(encoded(Image.fromarray(quadrants), "JPEG", exif=exif, quality=95))
    assert np.abs(photo.astype(int) - quadrants).mean() < 5


def grey_16_bit(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels.mean(axis=2).astype(np.uint16) * 257)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_brightness(quadrants: NDArray[np.uint8], kind: str) -> None:
    photo = read_photo(encoded(grey_16_bit(quadrants), kind))
    grey = quadrants.mean(axis=2, keepdims=True).astype(int)
    assert np.abs(photo.astype(int) - grey).max() <= 1


def test_16_bit_colour_png_is_read(quadrants: NDArray[np.uint8]) -> None:
    height, width = quadrants.shape[:2]
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in quadrants)

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_photo(data), quadrants)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_colour_mode_becomes_rgb(quadrants: NDArray[np.uint8], mode: str) -> None:
    photo = read_photo(Image.fromarray(quadrants).convert(mode))
    assert photo.shape == quadrants.shape
    assert photo.dtype == np.uint8
    assert photo[40, 60].mean() > 200  # the white corner stays light
    assert photo[40, 4].mean() < 150  # and the blue one darker


def test_adobe_cmyk_jpeg_is_not_inverted(quadrants: NDArray[np.uint8]) -> None:
    photo = read_photo(encoded(Image.fromarray(quadrants).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(photo.astype(int) - quadrants).mean() < 6


def test_transparency_is_laid_on_white(quadrants: NDArray[np.uint8]) -> None:
    layered = Image.fromarray(quadrants).convert("RGBA")
    layered.putalpha(
        Image.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0))
    )
    photo = read_photo(encoded(layered, "PNG"))
    assert (photo[:, :32] == 255).all()
    np.testing.assert_array_equal(photo[:, 32:], quadrants[:, 32:])

    palette = Image.fromarray((quadrants[..., 0] > 100).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    photo = read_photo(encoded(palette, "PNG", transparency=0))
    assert set(np.unique(photo)) == {9, 255}


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    shades = [Image.new("RGB", (32, 32), (value,) * 3) for value in (40, 120, 200)]
    data = encoded(shades[0], kind, save_all=True, append_images=shades[1:])
    assert abs(int(read_photo(data)[16, 16, 0]) - 40) <= 3


def test_progressive_jpeg_and_trailing_bytes_are_read(quadrants: NDArray[np.uint8]) -> None:
    data = encoded(Image.fromarray(quadrants), "JPEG", progressive=True, quality=95)
    assert read_photo(data + b"%PDF-1.7 <script>").shape == quadrants.shape


@pytest.mark.parametrize(
    "size",
    [(20_000, 20_000), (31_623, 31_623), (2**31 - 1, 2**31 - 1), (9_000, 8_000), (16, 40_000)],
)
def test_a_huge_header_is_refused_before_decoding(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    with pytest.raises(MediaTooLarge, match="up to 50 million"):
        read_photo(png_header(*size))
    assert time.perf_counter() - start < 1.0


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(MediaTooLarge, match=r"33\.0 MiB.*up to 32 MiB"):
        read_photo(path)


@pytest.mark.parametrize("size", [(1, 1), (15, 300)])
def test_a_tiny_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BadMedia, match="at least 16 a side"):
        read_photo(encoded(Image.new("RGB", size), "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
def test_a_cut_file_gets_our_sentence(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadMedia, match=r"(cut-off picture file|not a photo)[^.]*\.$"):
        read_photo(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"hello, I am no photo" * 9, "is not a photo"),
        (b"%PDF-1.7\n" + bytes(99), "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video clip"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_what_is_no_photo_is_named(data: bytes, sentence: str) -> None:
    with pytest.raises(BadMedia, match=sentence) as caught:
        read_photo(data)
    assert str(caught.value).count(".") == 1
    assert "JPEG" in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadMedia, match="There is no file"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(BadMedia, match="is a folder"):
        read_photo(tmp_path)
    with pytest.raises(BadMedia, match="is a web address"):
        read_photo("https://example.org/face.jpg")
    with pytest.raises(BadMedia):
        read_photo("x" * 5000)
    with pytest.raises(BadMedia, match="not as int"):
        read_photo(3)  # type: ignore[arg-type]

    locked = tmp_path / "locked.jpg"
    locked.write_bytes(b"\xff\xd8")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so chmod proves nothing
    with pytest.raises(BadMedia, match="check its permissions"):
        read_photo(locked)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_damaged_bytes_give_a_photo_or_our_error(kind: str) -> None:
    rng = np.random.default_rng(7)
    whole = encoded(Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)), kind)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(0, min(len(data), 300)))] = int(rng.integers(0, 256))
        try:
            outcomes.add(read_photo(bytes(data)).dtype.name)
        except BadMedia:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"uint8", "refused"}


def test_an_array_must_be_rgb_bytes(quadrants: NDArray[np.uint8]) -> None:
    assert read_photo(quadrants) is quadrants
    with pytest.raises(BadMedia, match=r"\(height, width, 3\) uint8"):
        read_photo(quadrants[..., 0])
    with pytest.raises(BadMedia, match="float64"):
        read_photo(quadrants.astype(float))  # type: ignore[arg-type]
