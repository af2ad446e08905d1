"""Measurements from pixels inside patches of the canonical crop, lighting normalised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facellava.faces.quantity import MeasurementSpec, Unmeasurable
from facellava.faces.skin_patches import SkinPatches

_FINE: Final = 100.0  # photo pixels along the crop's side that wrinkles need
_COARSE: Final = 45.0
_COLOUR: Final = 30.0
_NEARLY_GREY: Final = 3.0  # mean chroma of the cheeks; below it the photo is black and white
_OPEN_MOUTH: Final = 0.05  # eye distances; narrower, the mouth shows no interior
_COVERED_FOREHEAD: Final = 4.5  # forehead_cover; above it lines are strands of hair
_SIDES_ABOVE: Final = 20.0  # largest yaw for patches beside or above the face


def _lines(seen: SkinPatches, *names: str) -> float:
    """Median fine structure against the face's sharpness: hairs at a patch's edge weigh little."""
    structure = float(np.median(np.abs(seen.pixels(seen.fine, *names))))
    return 100.0 * structure / max(seen.sharpness, 0.1)


def _forehead_lines(seen: SkinPatches) -> float:
    lines = _lines(seen, "forehead")
    if seen.strength(seen.coarse, "forehead") > _COVERED_FOREHEAD:
        raise Unmeasurable("hair or headwear covers the forehead")
    return lines


def _darker_than_cheeks(seen: SkinPatches, brightness: float) -> float:
    cheeks = seen.mean(seen.luminance, *seen.pair("cheek"))
    return 100.0 * (1.0 - brightness / max(cheeks, 1.0))


def _patch_darkness(*names: str) -> Callable[[SkinPatches], float]:
    return lambda seen: _darker_than_cheeks(seen, seen.mean(seen.luminance, *names))


def _need_colour(seen: SkinPatches) -> None:
    skin = seen.pixels(seen.lab, *seen.pair("cheek"))
    if np.hypot(skin[:, 1] - 128, skin[:, 2] - 128).mean() < _NEARLY_GREY:
        raise Unmeasurable("the photo has no colour")


def _lips(seen: SkinPatches) -> NDArray[np.float32]:
    return seen.inside(seen.lab, seen.lips, "red of the lips")


def _mouth_surround(seen: SkinPatches) -> NDArray[np.float32]:
    return seen.inside(seen.lab, seen.mouth_surround, "skin around the mouth")


def _mouth_interior(seen: SkinPatches) -> NDArray[np.float32]:
    points = seen.pose.frontal
    if points[65:68, 1].mean() - points[61:64, 1].mean() < _OPEN_MOUTH:
        raise Unmeasurable("the mouth is not open far enough to see inside")
    return seen.inside(seen.lab, seen.mouth_interior, "inside of the mouth")


def _mouth_darkness(seen: SkinPatches) -> float:
    return float(_lips(seen)[:, 0].mean() - _mouth_interior(seen)[:, 0].mean())


def _teeth(seen: SkinPatches) -> float:
    return float(np.percentile(_mouth_interior(seen)[:, 0], 80) - np.median(_lips(seen)[:, 0]))


def _lip_redness(seen: SkinPatches) -> float:
    _need_colour(seen)
    return float(np.median(_lips(seen)[:, 1]) - np.median(_mouth_surround(seen)[:, 1]))


def _lip_contrast(seen: SkinPatches) -> float:
    return float(np.median(_mouth_surround(seen)[:, 0]) - np.median(_lips(seen)[:, 0]))


def _colour_step(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(first - second))


def _cheek_forehead_step(seen: SkinPatches) -> float:
    _need_colour(seen)
    return _colour_step(seen.colour(*seen.pair("cheek"))[1:], seen.colour("forehead")[1:])


def _mouth_step(seen: SkinPatches) -> float:
    return _colour_step(np.median(_mouth_surround(seen), axis=0), seen.colour(*seen.pair("cheek")))


def _detail(seen: SkinPatches) -> float:
    lids = seen.pair("lid")
    return 100.0 * seen.strength(seen.fine, *lids) / max(seen.strength(seen.coarse, *lids), 0.1)


def _grain(seen: SkinPatches) -> float:
    residual = float(seen.inside(seen.residual, seen.inner_face, "face").mean())
    return 100.0 * residual / max(seen.sharpness, 0.1)


def _noise_step(seen: SkinPatches) -> float:
    face = float(seen.inside(seen.residual, seen.whole_face, "face").mean())
    around = float(seen.inside(seen.residual, seen.face_surround, "surround of the face").mean())
    return math.log2(max(face, 1e-3) / max(around, 1e-3))


def _cheek_redness(seen: SkinPatches) -> float:
    _need_colour(seen)
    return float(seen.colour(*seen.pair("cheek"))[1] - 128)


def _hair_yellowness(seen: SkinPatches) -> float:
    _need_colour(seen)
    return float(seen.colour("right_hair", "left_hair")[2] - 128)


def _colourfulness(seen: SkinPatches) -> float:
    face = seen.inside(seen.lab, seen.inner_face, "face")
    return float(np.hypot(face[:, 1] - 128, face[:, 2] - 128).mean())


_EYES: Final = ("right_eye", "left_eye")
_BROWS: Final = ("right_brow", "left_brow")
_LIPS: Final = ("outer_lips",)
_FACE: Final = ("face",)
_BANDS: Final = "; fine structure is the median difference of two blurs (0.8 and 2 crop pixels)"

TEXTURE_SPECS: Final[tuple[MeasurementSpec[SkinPatches], ...]] = (
    MeasurementSpec(
        "forehead_lines", _BROWS,
        f"fine structure of the lower forehead over the face's mean gradient{_BANDS}",
        "percent", 1.0, (1, 2), _forehead_lines, _FINE,
    ),
    MeasurementSpec(
        "glabella_lines", _BROWS, "fine structure between the brows over the face's mean gradient",
        "percent", 1.5, (4,), lambda seen: _lines(seen, "glabella"), _FINE, 25.0,
    ),
    MeasurementSpec(
        "eye_corner_lines", _EYES,
        "fine structure below the outer corners of the eyes over the face's mean gradient",
        "percent", 2.5, (6,), lambda seen: _lines(seen, *seen.pair("eye_corner")), _FINE, 25.0,
    ),
    MeasurementSpec(
        "under_eye_lines", _EYES, "fine structure under the eyes over the face's mean gradient",
        "percent", 2.0, (6, 7), lambda seen: _lines(seen, *seen.pair("under_eye")), _FINE,
    ),
    MeasurementSpec(
        "cheek_lines", _FACE, "fine structure of the cheeks over the face's mean gradient",
        "percent", 1.0, (), lambda seen: _lines(seen, *seen.pair("cheek")), _FINE,
    ),
    MeasurementSpec(
        "under_eye_folds", _EYES,
        "mean strength of dark coarse structure that runs across, under the eyes",
        "percent", 0.15, (6,),
        lambda seen: seen.mean(seen.dark_level_folds, *seen.pair("under_eye")), _COARSE,
    ),
    MeasurementSpec(
        "nose_mouth_folds", ("nostrils", "outer_lips"),
        "mean strength of dark coarse structure between the nostrils and the corners of the mouth",
        "percent", 0.3, (6, 10, 12),
        lambda seen: seen.mean(seen.dark_folds, *seen.pair("fold")), _COARSE,
    ),
    MeasurementSpec(
        "mouth_darkness", ("inner_lips",),
        "mean lightness of the lips minus that of the open mouth's inside",
        "levels", 6.0, (25, 26), _mouth_darkness, _COARSE,
    ),
    MeasurementSpec(
        "teeth_brightness", ("inner_lips",),
        "80th percentile of the lightness inside the open mouth minus the lips' median",
        "levels", 6.0, (12, 25), _teeth, _COARSE,
    ),
    MeasurementSpec(
        "lip_redness", _LIPS, "red-green level of the lips minus that of the skin around them",
        "levels", 1.0, (), _lip_redness, _COLOUR,
    ),
    MeasurementSpec(
        "lip_contrast", _LIPS, "lightness of the skin around the mouth minus that of the lips",
        "levels", 4.0, (), _lip_contrast, _COLOUR,
    ),
    MeasurementSpec(
        "brow_darkness", _BROWS, "how much darker the brows are than the cheeks",
        "percent", 3.0, (),
        lambda seen: _darker_than_cheeks(
            seen, float(seen.inside(seen.luminance, seen.brows, "brows").mean())
        ),
        _COARSE,
    ),
    MeasurementSpec(
        "lid_structure", _EYES, "mean strength of fine structure on lids and lashes",
        "percent", 0.3, (), lambda seen: seen.strength(seen.fine, *seen.pair("lid")), _COARSE,
    ),
    MeasurementSpec(
        "spectacle_edges", ("nose_bridge", "right_eye", "left_eye"),
        "mean downward gradient on the bridge of the nose, between the eyes",
        "percent", 0.2, (), lambda seen: seen.mean(seen.level_edges, "bridge"), _COARSE,
    ),
    MeasurementSpec(
        "skin_brightness", _FACE, "mean lightness of the cheeks",
        "levels", 4.0, (), lambda seen: seen.mean(seen.lab[..., 0], *seen.pair("cheek")), _COLOUR,
    ),
    MeasurementSpec(
        "cheek_redness", _FACE, "red-green level of the cheeks",
        "levels", 1.0, (), _cheek_redness, _COLOUR,
    ),
    MeasurementSpec(
        "forehead_darkness", _BROWS, "how much darker the lower forehead is than the cheeks",
        "percent", 2.5, (), _patch_darkness("forehead"), _COLOUR,
    ),
    MeasurementSpec(
        "forehead_cover", _BROWS,
        "mean strength of coarse structure on the lower forehead: strands, a brim, deep lines",
        "percent", 0.3, (), lambda seen: seen.strength(seen.coarse, "forehead"), _COARSE,
    ),
    MeasurementSpec(
        "head_top_structure", _FACE,
        "mean strength of coarse structure at the top of the crop, over both eyes",
        "percent", 0.7, (),
        lambda seen: seen.strength(seen.coarse, "right_head_top", "left_head_top"),
        _COARSE, _SIDES_ABOVE,
    ),
    MeasurementSpec(
        "hair_lightness", _FACE, "mean lightness of the crop's upper corners",
        "levels", 5.0, (), lambda seen: seen.mean(seen.lab[..., 0], "right_hair", "left_hair"),
        _COLOUR, _SIDES_ABOVE,
    ),
    MeasurementSpec(
        "hair_yellowness", _FACE, "median yellow-blue level of the crop's upper corners",
        "levels", 1.0, (), _hair_yellowness, _COLOUR, _SIDES_ABOVE,
    ),
    MeasurementSpec(
        "beard_darkness", _FACE, "how much darker the chin is than the cheeks",
        "percent", 3.0, (), _patch_darkness("chin"), _COLOUR,
    ),
    MeasurementSpec(
        "beard_structure", _FACE, "mean strength of fine structure on the chin",
        "percent", 0.2, (), lambda seen: seen.strength(seen.fine, "chin"), _COARSE,
    ),
    MeasurementSpec(
        "moustache_darkness", ("nostrils", "outer_lips"),
        "how much darker the skin over the upper lip is than the cheeks",
        "percent", 3.0, (), _patch_darkness("upper_lip"), _COLOUR,
    ),
    MeasurementSpec(
        "cheek_forehead_step", _FACE,
        "distance between the cheeks' and the forehead's median red-green and yellow-blue levels",
        "levels", 1.0, (), _cheek_forehead_step, _COLOUR,
    ),
    MeasurementSpec(
        "mouth_cheek_step", _LIPS,
        "CIELAB distance between the median colours of the skin around the lips and of the cheeks",
        "levels", 4.0, (), _mouth_step, _COLOUR,
    ),
    MeasurementSpec(
        "grain", _FACE,
        "finest structure of the inner face (what a 3x3 median takes away) over its mean gradient",
        "percent", 0.6, (), _grain, _FINE,
    ),
    MeasurementSpec(
        "noise_step", _FACE,
        "base-2 logarithm of the finest structure inside the hull of the landmarks over that of a "
        "band around it",
        "ratio", 0.15, (), _noise_step, _FINE,
    ),
    MeasurementSpec(
        "colourfulness", _FACE, "mean CIELAB chroma of the inner face",
        "levels", 1.0, (), _colourfulness, _COLOUR,
    ),
    MeasurementSpec(
        "detail", _EYES, "fine over coarse structure of lids and lashes: low in a blurred picture",
        "percent", 2.5, (), _detail, _COARSE,
    ),
    MeasurementSpec(
        "contrast", _FACE, "mean gradient of the inner face",
        "percent", 0.2, (), lambda seen: seen.sharpness,
    ),
)  # fmt: skip
"""Quantities of the pixels; the ids are stable."""
