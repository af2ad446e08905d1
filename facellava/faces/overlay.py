"""What was found, drawn on the photo: boxes, landmarks, cited regions, attention.

Strokes and letters grow with the photo and have a dark rim, so that they can be read on small
and large, dark and light photos. Colours are Okabe and Ito's, which colour-blind readers tell
apart (Color Universal Design, 2008); attention uses the perceptually even map cividis.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from facellava.errors import BadMedia, BadModelInput
from facellava.faces.face import Face
from facellava.regions import N_REGIONS, REGIONS
from facellava.whole_files import open_to_others

Colour = tuple[int, int, int]

DARK: Final[Colour] = (0, 0, 0)
LIGHT: Final[Colour] = (255, 255, 255)
SURE_BOX: Final[Colour] = (86, 180, 233)  # sky blue
WEAK_BOX: Final[Colour] = (230, 159, 0)  # orange
REGION_COLOURS: Final[dict[str, Colour]] = {
    "face": (204, 121, 167),
    "right_brow": (230, 159, 0),
    "left_brow": (230, 159, 0),
    "nose_bridge": (0, 158, 115),
    "nostrils": (0, 158, 115),
    "right_eye": (86, 180, 233),
    "left_eye": (86, 180, 233),
    "outer_lips": (213, 94, 0),
    "inner_lips": (240, 228, 66),
}
CLOSED: Final = frozenset({"right_eye", "left_eye", "outer_lips", "inner_lips"})
REGION_FILL: Final = 0.35
ATTENTION_FILL: Final = 0.7  # opacity of the region that is looked at most
MIN_LABEL_SIDE: Final = 90  # a smaller face has no room for words


def draw_overlay(
    photo: NDArray[np.uint8],
    faces: Sequence[Face],
    *,
    cited_regions: Mapping[int, Collection[str]] | None = None,
    region_attention: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """The photo with each face's box, number, landmarks, and the regions that matter.

    Args:
        photo: (H, W, 3) uint8 RGB, not changed.
        faces: faces of this photo. A weak one has an orange box and a question mark.
        cited_regions: for a face's index, the names of the regions that its answer cites; they
            are filled and, where there is room, named.
        region_attention: (9,) for the first face, or (len(faces), 9): non-negative weights of
            the regions; the brighter and denser, the more.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        BadModelInput: a region that does not exist, or attention of another shape.
    """
    cited = cited_regions or {}
    unknown = {name for names in cited.values() for name in names} - set(REGIONS)
    if unknown:
        raise BadModelInput(
            f"There is no region '{min(unknown)}'; the regions are {', '.join(REGIONS)}."
        )
    attention = _attention(region_attention, len(faces))
    canvas = np.array(photo, order="C")
    for face, weights in zip(faces, attention, strict=True):
        if weights is not None:
            _fill_attention(canvas, face, weights)
        for name in _painting_order(cited.get(face.index, ())):
            _fill(canvas, _outline(face, name), REGION_COLOURS[name], REGION_FILL)
    for face in faces:
        _draw_face(canvas, face, cited.get(face.index, ()))
    picture = Image.fromarray(canvas)
    taken: list[tuple[float, float, float, float]] = []
    for face in faces:
        _write_number(picture, face, taken)
    for face in faces:
        if _face_side(face) >= MIN_LABEL_SIDE:
            whose = f"{face.index}: " if sum(map(bool, cited.values())) > 1 else ""
            _write_regions(picture, face, cited.get(face.index, ()), whose, taken)
    return np.array(picture)


def save_png(path: str | Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB array (H, W, 3) as PNG, whole or not at all.

    Raises:
        BadMedia: the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:50]}.", suffix=".part"
        )
    except OSError as error:
        raise BadMedia(
            f"'{target}' cannot be written; name a file in a folder that exists and is writable."
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            Image.fromarray(rgb).save(file, format="PNG")
        open_to_others(Path(temporary))
        Path(temporary).replace(target)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise BadMedia(
            f"'{target}' cannot be written; see that it is not a folder and the disk has room."
        ) from error


def _attention(given: NDArray[np.floating] | None, count: int) -> list[NDArray[np.float64] | None]:
    if given is None:
        return [None] * count
    weights = np.asarray(given, dtype=np.float64)
    if weights.shape not in ((N_REGIONS,), (count, N_REGIONS)) or not np.isfinite(weights).all():
        raise BadModelInput(
            f"Region attention must be ({N_REGIONS},) or ({count}, {N_REGIONS}) finite weights, "
            f"not {weights.shape}."
        )
    if weights.ndim == 1:
        return [weights, *[None] * (count - 1)][:count]
    return list(weights)


def _face_side(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def _stroke(face: Face, photo_side: float) -> float:
    """Line width in pixels: by the face, and never so thin that it is lost in the whole photo."""
    return max(1.0, _face_side(face) / 140, photo_side / 700)


def _painting_order(names: Collection[str]) -> list[str]:
    """The face first, the inner lips last, so that nothing is painted over."""
    return [name for name in REGIONS if name in names]


def _outline(face: Face, name: str) -> NDArray[np.float64]:
    """The hull of a region in photo pixels, (N, 2), a little wider than its points."""
    points = face.photo_landmarks[REGIONS[name]]
    if name == "face":
        # The 17 jaw points leave the forehead open: close it above the brows.
        brows = face.photo_landmarks[17:27]
        lift = 0.25 * (face.photo_landmarks[36:48].mean(axis=0) - face.photo_landmarks[33])
        points = np.concatenate([points, brows + lift])
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    # A brow or the bridge of the nose is a thin chain of points: widen it to a patch.
    eyes = face.photo_landmarks[36:42].mean(axis=0) - face.photo_landmarks[42:48].mean(axis=0)
    wider = 0.0 if name == "face" else 0.06 * float(np.hypot(*eyes))
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * wider
    spread = (hull[:, None] + ring[None]).reshape(-1, 2).astype(np.float32)
    return np.asarray(cv2.convexHull(spread)[:, 0], dtype=np.float64)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points for OpenCV's drawing with four binary places, limited to what it can hold."""
    return np.round(points.clip(-30_000, 60_000) * 16).astype(np.int32)


def _fill(
    canvas: NDArray[np.uint8], outline: NDArray[np.float64], colour: Colour, opacity: float
) -> None:
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(outline.min(axis=0)) - 1, 0, [width, height]).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)) + 2, 0, [width, height]).astype(int)
    if (high <= low).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape[:2], dtype=np.uint8)
    cv2.fillPoly(mask, [_fixed(outline - low)], 255, cv2.LINE_AA, 4)
    alpha = mask[..., None].astype(np.float32) / 255 * opacity
    part[:] = np.round(part * (1 - alpha) + np.array(colour, np.float32) * alpha)


def _fill_attention(canvas: NDArray[np.uint8], face: Face, weights: NDArray[np.float64]) -> None:
    relative = weights.clip(0) / max(float(weights.max()), 1e-12)
    colours = cv2.applyColorMap(np.round(relative * 255).astype(np.uint8), cv2.COLORMAP_CIVIDIS)
    for (name, share), bgr in zip(
        zip(REGIONS, relative, strict=True), colours.reshape(-1, 3), strict=True
    ):
        red, green, blue = (int(value) for value in bgr[::-1])
        # The face region lies under all others and would drown them.
        opacity = ATTENTION_FILL * float(share) * (0.5 if name == "face" else 1.0)
        _fill(canvas, _outline(face, name), (red, green, blue), opacity)


def _line(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    colour: Colour,
    width: float,
    *,
    closed: bool,
) -> None:
    """A coloured line with a dark rim."""
    rim = max(1, round(width * 0.5))
    for tint, thickness in ((DARK, round(width) + 2 * rim), (colour, round(width))):
        cv2.polylines(canvas, [_fixed(points)], closed, tint, max(1, thickness), cv2.LINE_AA, 4)


def _draw_face(canvas: NDArray[np.uint8], face: Face, cited: Collection[str]) -> None:
    width = _stroke(face, max(canvas.shape[:2]))
    x0, y0, x1, y1 = face.box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    limit = np.array([canvas.shape[1], canvas.shape[0]]) - 1 - width / 2
    corners = np.clip(corners, width / 2, limit)  # a box at the edge stays in sight
    _line(canvas, corners, WEAK_BOX if face.weak else SURE_BOX, width, closed=True)
    for name in _painting_order(cited):
        _line(
            canvas, _outline(face, name), REGION_COLOURS[name], max(1.0, 0.6 * width), closed=True
        )
    points = face.photo_landmarks
    if _face_side(face) >= MIN_LABEL_SIDE:
        for name, part in REGIONS.items():
            chain = [_fixed(points[part])]
            cv2.polylines(canvas, chain, name in CLOSED, LIGHT, 1, cv2.LINE_AA, 4)
    radius = max(0.7, _face_side(face) / 130)
    for tint, size in ((DARK, radius * 1.5), (LIGHT, radius)):
        for x, y in _fixed(points).tolist():
            cv2.circle(canvas, (x, y), round(size * 16), tint, -1, cv2.LINE_AA, 4)


def _write(
    picture: Image.Image,
    place: tuple[float, float],
    text: str,
    size: float,
    colour: Colour,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Dark letters on a coloured plate inside the photo, moved down while they cover another."""
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = size * 0.2
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(place[0], 0.0), max(0.0, picture.width - width))
    y = min(max(place[1], 0.0), max(0.0, picture.height - height))
    for _ in range(len(taken)):
        hit = [
            other
            for other in taken
            if x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + height
        ]
        if not hit or hit[0][3] + height > picture.height:
            break
        y = hit[0][3] + 1
    plate = (x, y, x + width, y + height)
    taken.append(plate)
    draw.rectangle(plate, fill=colour, outline=DARK)
    draw.text((x + pad - left, y + pad - top), text, fill=DARK, font=font)


def _letter_size(face: Face, picture: Image.Image) -> float:
    by_face, by_photo = _face_side(face) / 9, max(picture.size) / 45
    return float(np.clip(max(by_face, by_photo), 9, max(9.0, min(picture.size) / 10)))


def _write_number(
    picture: Image.Image, face: Face, taken: list[tuple[float, float, float, float]]
) -> None:
    size = _letter_size(face, picture)
    text = f"{face.index}?" if face.weak else f"{face.index}"
    place = (face.box[0], face.box[1] - 1.4 * size)
    _write(picture, place, text, size, WEAK_BOX if face.weak else SURE_BOX, taken)


def _write_regions(
    picture: Image.Image,
    face: Face,
    cited: Collection[str],
    whose: str,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Names beside the box, level with their regions, on the side that has more room."""
    size = 0.75 * _letter_size(face, picture)
    right_side = picture.width - face.box[2] >= face.box[0]
    ordered = sorted(_painting_order(cited), key=lambda name: _outline(face, name)[:, 1].mean())
    for name in ordered:
        words = whose + name.replace("_", " ")
        width = ImageFont.load_default(size).getlength(words) + 0.4 * size
        x = face.box[2] + size / 3 if right_side else face.box[0] - width - size / 3
        y = float(_outline(face, name)[:, 1].mean()) - size * 0.7
        _write(picture, (x, y), words, size, REGION_COLOURS[name], taken)
