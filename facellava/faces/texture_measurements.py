"""Measurements from pixels inside patches of the canonical crop, lighting normalised."""

from __future__ import annotations

from typing import Final

import numpy as np

from facellava.faces.quantity import MeasurementSpec, Unmeasurable
from facellava.faces.skin_patches import SkinPatches

_FINE: Final = 100.0  # photo pixels along the crop that fine lines need
_COARSE: Final = 45.0
_NOISE: Final = 140.0
_COLOUR: Final = 30.0
_NEARLY_GREY: Final = 3.0  # mean chroma below this: a black-and-white photo
_OPEN_MOUTH: Final = 0.05  # eye distances; narrower, the mouth shows no interior

Patches = SkinPatches


def _need_colour(seen: Patches) -> None:
    skin = seen.pixels(seen.lab, *seen.pair("cheek"))
    chroma = np.hypot(skin[:, 1] - 128, skin[:, 2] - 128).mean()
    if chroma < _NEARLY_GREY:
        raise Unmeasurable("the photo has no colour")


def _under_eye_shadow(seen: Patches) -> float:
    under = seen.mean(seen.luminance, *seen.pair("under_eye"))
    cheek = seen.mean(seen.luminance, *seen.pair("cheek"))
    return 100.0 * (1.0 - under / max(cheek, 1.0))


def _mouth_interior(seen: Patches) -> np.ndarray:
    points = seen.pose.frontal
    if points[65:68, 1].mean() - points[61:64, 1].mean() < _OPEN_MOUTH:
        raise Unmeasurable("the mouth is not open far enough to see inside")
    return seen.inside(seen.lab, seen.mouth_interior, "mouth")


def _mouth_darkness(seen: Patches) -> float:
    inside = _mouth_interior(seen)[:, 0].mean()
    lips = seen.inside(seen.lab, seen.lips, "lips")[:, 0].mean()
    return float(lips - inside)


def _teeth(seen: Patches) -> float:
    inside = _mouth_interior(seen)
    lips = np.median(seen.inside(seen.lab, seen.lips, "lips"), axis=0)
    return float(np.percentile(inside[:, 0], 80) - lips[0])


def _lip_redness(seen: Patches) -> float:
    _need_colour(seen)
    lips = np.median(seen.inside(seen.lab, seen.lips, "lips"), axis=0)
    return float(lips[1] - seen.colour(*seen.pair("cheek"))[1])


def _lip_contrast(seen: Patches) -> float:
    lips = np.median(seen.inside(seen.lab, seen.lips, "lips")[:, 0])
    return float(seen.colour(*seen.pair("cheek"))[0] - lips)


def _colour_step(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second))


def _cheek_forehead(seen: Patches) -> float:
    return _colour_step(seen.colour(*seen.pair("cheek")), seen.colour("forehead"))


def _mouth_surround(seen: Patches) -> float:
    ring = np.median(seen.inside(seen.lab, seen.mouth_surround, "mouth surround"), axis=0)
    return _colour_step(ring, seen.colour(*seen.pair("cheek")))


def _inner_rim(seen: Patches) -> float:
    inner = np.median(seen.inside(seen.lab, seen.inner_face, "face"), axis=0)
    rim = np.median(seen.inside(seen.lab, seen.face_rim, "face rim"), axis=0)
    return _colour_step(inner, rim)


def _brow_darkness(seen: Patches) -> float:
    brows = seen.inside(seen.luminance, seen.brows, "brows").mean()
    return float(100.0 * (1.0 - brows / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0)))


def _lid_darkness(seen: Patches) -> float:
    lids = seen.mean(seen.luminance, *seen.pair("lid"))
    return 100.0 * (1.0 - lids / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0))


def _hair_darkness(seen: Patches) -> float:
    hair = seen.mean(seen.luminance, "head_top")
    return 100.0 * (1.0 - hair / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0))


def _hair_warmth(seen: Patches) -> float:
    _need_colour(seen)
    return float(seen.colour("head_top")[2] - 128)


def _forehead_darkness(seen: Patches) -> float:
    forehead = seen.mean(seen.luminance, "forehead")
    return 100.0 * (1.0 - forehead / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0))


def _beard_darkness(seen: Patches) -> float:
    beard = seen.mean(seen.luminance, "chin", *seen.pair("jaw"))
    return 100.0 * (1.0 - beard / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0))


def _moustache_darkness(seen: Patches) -> float:
    beard = seen.mean(seen.luminance, "upper_lip")
    return 100.0 * (1.0 - beard / max(seen.mean(seen.luminance, *seen.pair("cheek")), 1.0))


def _ratio(seen: Patches, pixel_map: np.ndarray) -> float:
    inner = seen.inside(pixel_map, seen.inner_face, "face").mean()
    rim = seen.inside(pixel_map, seen.face_rim, "face rim").mean()
    return float(np.log2(max(float(inner), 1e-3) / max(float(rim), 1e-3)))


def _skin_brightness(seen: Patches) -> float:
    return seen.mean(seen.lab[..., 0], *seen.pair("cheek"))


def _cheek_redness(seen: Patches) -> float:
    _need_colour(seen)
    return float(seen.colour(*seen.pair("cheek"))[1] - 128)


def _colourfulness(seen: Patches) -> float:
    face = seen.inside(seen.lab, seen.inner_face, "face")
    return float(np.hypot(face[:, 1] - 128, face[:, 2] - 128).mean())


_EYES: Final = ("right_eye", "left_eye")
_BROWS: Final = ("right_brow", "left_brow")
_LIPS: Final = ("outer_lips",)
_FACE: Final = ("face",)

TEXTURE_SPECS: Final[tuple[MeasurementSpec[SkinPatches], ...]] = (
    MeasurementSpec(
        "forehead_lines", _BROWS,
        "mean strength of fine structure that runs across the forehead",
        "percent", 0.15, (1, 2), lambda seen: seen.strength(seen.level_lines, "forehead"), _FINE,
    ),
    MeasurementSpec(
        "glabella_lines", _BROWS,
        "mean strength of fine structure between the brows",
        "percent", 0.3, (4,), lambda seen: seen.strength(seen.fine, "glabella"), _FINE, 25.0,
    ),
    MeasurementSpec(
        "eye_corner_lines", _EYES,
        "mean strength of fine structure beside the outer corners of the eyes",
        "percent", 0.3, (6,),
        lambda seen: seen.strength(seen.fine, *seen.pair("eye_corner")), _FINE, 25.0,
    ),
    MeasurementSpec(
        "under_eye_lines", _EYES,
        "mean strength of fine structure under the eyes",
        "percent", 0.3, (6, 7),
        lambda seen: seen.strength(seen.fine, *seen.pair("under_eye")), _FINE,
    ),
    MeasurementSpec(
        "under_eye_shadow", _EYES,
        "how much darker the skin under the eyes is than the cheeks",
        "percent", 3.0, (), _under_eye_shadow, _COARSE,
    ),
    MeasurementSpec(
        "nose_cheek_folds", ("nostrils", "outer_lips"),
        "mean strength of coarse structure between the nostrils and the corners of the mouth",
        "percent", 0.4, (6, 10, 12),
        lambda seen: seen.strength(seen.coarse, *seen.pair("fold")), _COARSE,
    ),
    MeasurementSpec(
        "cheek_texture", _FACE, "mean strength of fine structure on the cheeks",
        "percent", 0.2, (), lambda seen: seen.strength(seen.fine, *seen.pair("cheek")), _FINE,
    ),
    MeasurementSpec(
        "mouth_darkness", ("inner_lips",),
        "lightness of the lips minus that of the open mouth's inside",
        "levels", 5.0, (25, 26), _mouth_darkness, _COARSE,
    ),
    MeasurementSpec(
        "teeth_brightness", ("inner_lips",),
        "80th percentile of the lightness inside the open mouth minus the lips' median",
        "levels", 5.0, (12, 25), _teeth, _COARSE,
    ),
    MeasurementSpec(
        "lip_redness", _LIPS, "red-green level of the lips minus that of the cheeks",
        "levels", 2.0, (), _lip_redness, _COLOUR,
    ),
    MeasurementSpec(
        "lip_contrast", _LIPS, "lightness of the cheeks minus that of the lips",
        "levels", 5.0, (), _lip_contrast, _COLOUR,
    ),
    MeasurementSpec(
        "cheek_forehead_difference", _FACE,
        "CIELAB distance between the cheeks' and the forehead's median colour",
        "levels", 4.0, (), _cheek_forehead, _COLOUR,
    ),
    MeasurementSpec(
        "inner_face_rim_difference", _FACE,
        "CIELAB distance between the median colours of the inner face and of a rim around it",
        "levels", 4.0, (), _inner_rim, _COLOUR,
    ),
    MeasurementSpec(
        "mouth_surround_difference", _LIPS,
        "CIELAB distance between the median colours of the ring around the lips and the cheeks",
        "levels", 4.0, (), _mouth_surround, _COLOUR,
    ),
    MeasurementSpec(
        "brow_darkness", _BROWS, "how much darker the brows are than the cheeks",
        "percent", 4.0, (), _brow_darkness, _COARSE,
    ),
    MeasurementSpec(
        "lid_darkness", _EYES, "how much darker lids and lashes are than the cheeks",
        "percent", 4.0, (), _lid_darkness, _COARSE,
    ),
    MeasurementSpec(
        "skin_brightness", _FACE, "lightness of the cheeks",
        "levels", 6.0, (), _skin_brightness, _COLOUR,
    ),
    MeasurementSpec(
        "cheek_redness", _FACE, "red-green level of the cheeks",
        "levels", 1.5, (), _cheek_redness, _COLOUR,
    ),
    MeasurementSpec(
        "forehead_darkness", _BROWS, "how much darker the forehead is than the cheeks",
        "percent", 5.0, (), _forehead_darkness, _COLOUR,
    ),
    MeasurementSpec(
        "hair_darkness", _FACE, "how much darker the top of the head is than the cheeks",
        "percent", 6.0, (), _hair_darkness, _COLOUR,
    ),
    MeasurementSpec(
        "hair_warmth", _FACE, "yellow-blue level at the top of the head",
        "levels", 3.0, (), _hair_warmth, _COLOUR,
    ),
    MeasurementSpec(
        "beard_darkness", _FACE, "how much darker chin and jaw are than the cheeks",
        "percent", 4.0, (), _beard_darkness, _COLOUR,
    ),
    MeasurementSpec(
        "beard_texture", _FACE, "mean strength of coarse structure on chin and jaw",
        "percent", 0.4, (),
        lambda seen: seen.strength(seen.coarse, "chin", *seen.pair("jaw")), _COARSE,
    ),
    MeasurementSpec(
        "moustache_darkness", ("nostrils", "outer_lips"),
        "how much darker the skin over the upper lip is than the cheeks",
        "percent", 4.0, (), _moustache_darkness, _COLOUR,
    ),
    MeasurementSpec(
        "spectacle_rims", ("nose_bridge", "right_eye", "left_eye"),
        "mean strength of coarse structure that runs across the bridge of the nose and the cheeks "
        "under the eyes",
        "percent", 0.5, (),
        lambda seen: seen.strength(seen.coarse_level_lines, "bridge", *seen.pair("rim")), _COARSE,
    ),
    MeasurementSpec(
        "noise_difference", _FACE,
        "base-2 logarithm of the finest structure of the inner face over that of its rim",
        "ratio", 0.2, (), lambda seen: _ratio(seen, seen.residual), _NOISE,
    ),
    MeasurementSpec(
        "sharpness_difference", _FACE,
        "base-2 logarithm of the mean gradient of the inner face over that of its rim",
        "ratio", 0.2, (), lambda seen: _ratio(seen, seen.steepness), _COARSE,
    ),
    MeasurementSpec(
        "colourfulness", _FACE, "mean CIELAB chroma of the inner face",
        "levels", 3.0, (), _colourfulness, _COLOUR,
    ),
    MeasurementSpec(
        "sharpness", _FACE, "mean gradient of the inner face",
        "percent", 0.3, (),
        lambda seen: float(seen.inside(seen.steepness, seen.inner_face, "face").mean()),
    ),
)  # fmt: skip
"""Quantities of the pixels; the ids are stable."""
