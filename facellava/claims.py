"""The written inventory of claims: what an explanation may say about a face, and the rule it meets.

Each claim names one measurement, a side of a threshold (or a band around a centre) and two or
three clauses that say the same thing. The clauses are full ones ("the lip corners are raised"), so
that they fit behind "because" and can be joined by commas and "and". No clause stands inside
another, so that a text has one reading.

Thresholds are population quantities: percentiles over dlib fits of CelebA, UTKFace and FER2013
faces, each set weighted alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from facellava.faces.measurements import MEASUREMENTS


@dataclass(frozen=True)
class Claim:
    """One thing that can be said of a face and measured.

    Attributes:
        id: stable name.
        measurement: key of facellava.faces.measurements.MEASUREMENTS.
        direction: +1 holds above the threshold, -1 below it, 0 within `width` of it.
        threshold: in the measurement's unit; the centre of the band where direction is 0.
        phrases: interchangeable full clauses, lower case.
        action_units: FACS action units that the claim bears on.
        width: half the band's width where direction is 0.
    """

    id: str
    measurement: str
    direction: int
    threshold: float
    phrases: tuple[str, ...]
    action_units: tuple[int, ...] = ()
    width: float = 0.0

    @property
    def dead_band(self) -> float:
        """How far short of the threshold a value neither supports nor contradicts."""
        return MEASUREMENTS[self.measurement].dead_band

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the face regions that the claim is about."""
        return MEASUREMENTS[self.measurement].regions

    @property
    def unit(self) -> str:
        """The measurement's unit."""
        return MEASUREMENTS[self.measurement].unit

    def excess(self, value: float) -> float:
        """How far the value lies inside the claim's side, in dead bands; negative outside."""
        if self.direction == 0:
            return (self.width - abs(value - self.threshold)) / self.dead_band
        return self.direction * (value - self.threshold) / self.dead_band


def _over(
    id: str, measurement: str, threshold: float, *phrases: str, aus: tuple[int, ...] = ()
) -> Claim:
    return Claim(id, measurement, 1, threshold, phrases, aus)


def _under(
    id: str, measurement: str, threshold: float, *phrases: str, aus: tuple[int, ...] = ()
) -> Claim:
    return Claim(id, measurement, -1, threshold, phrases, aus)


def _near(id: str, measurement: str, centre: float, width: float, *phrases: str) -> Claim:
    return Claim(id, measurement, 0, centre, phrases, width=width)


# fmt: off
_INVENTORY: Final = (
    # mouth
    _over("lip_corners_raised", "lip_corner_height", 0.10,
          "the lip corners are raised", "the corners of the mouth turn upwards",
          "the mouth corners are pulled up", aus=(12,)),
    _near("lip_corners_level", "lip_corner_height", 0.055, 0.03,
          "the lip corners are level", "the corners of the mouth lie level with the lips"),
    _under("lip_corners_lowered", "lip_corner_height", 0.025,
           "the lip corners are lowered", "the corners of the mouth turn downwards",
           "the mouth corners are pulled down", aus=(15,)),
    _under("mouth_closed", "mouth_opening", 0.03,
           "the mouth is closed", "the lips are shut", "the lips touch each other"),
    _over("lips_parted", "mouth_opening", 0.08,
          "the lips are parted", "the mouth stands open", "a gap shows between the lips",
          aus=(25,)),
    _over("mouth_wide_open", "mouth_opening", 0.22,
          "the mouth is wide open", "the mouth gapes", "the lips are far apart", aus=(25, 26)),
    _over("mouth_stretched", "mouth_width", 0.96,
          "the mouth is stretched wide", "the lips are drawn out to the sides", aus=(12, 20)),
    _under("mouth_narrow", "mouth_width", 0.77,
           "the mouth is narrow", "the lips are drawn in from the sides"),
    _under("upper_lip_raised", "nose_to_lip", 0.16,
           "the upper lip is raised", "the upper lip lies close to the nose", aus=(10, 12)),
    _over("upper_lip_low", "nose_to_lip", 0.225,
          "the upper lip hangs low", "the upper lip lies far from the nose"),
    _over("lips_full", "lip_thickness", 0.265,
          "the lips are full", "the red of the lips is broad"),
    _under("lips_thin", "lip_thickness", 0.205,
           "the lips are thin", "the red of the lips is slim", aus=(23, 24)),
    _over("right_lip_corner_higher", "lip_corner_asymmetry", 0.035,
          "the right lip corner is higher than the left one",
          "the mouth is pulled up on the person's right"),
    _under("left_lip_corner_higher", "lip_corner_asymmetry", -0.035,
           "the left lip corner is higher than the right one",
           "the mouth is pulled up on the person's left"),
    _near("mouth_even", "lip_corner_asymmetry", 0.0, 0.025,
          "the mouth is even on both sides", "both lip corners are at the same height"),
    _over("jaw_dropped", "jaw_drop", 1.08,
          "the jaw is dropped", "the chin is far below the nose", aus=(26,)),
    _under("jaw_raised", "jaw_drop", 0.90,
           "the jaw is held up", "the chin is close to the nose"),
    _over("teeth_visible", "teeth_brightness", 30.0,
          "the teeth are visible", "teeth shine between the lips", aus=(12, 25)),
    _over("mouth_dark_inside", "mouth_darkness", 15.0,
          "the inside of the mouth is dark", "the open mouth shows a dark hollow", aus=(25, 26)),
    _over("lips_red", "lip_redness", 8.0,
          "the lips are redder than the cheeks", "the lips have a strong red colour"),
    _under("lips_pale", "lip_redness", 3.0,
           "the lips have the colour of the cheeks", "the lips are hardly redder than the skin"),
    # brows
    _over("brows_raised", "brow_height_mean", 0.34,
          "the brows are raised", "the eyebrows are lifted", "the brows sit high over the eyes",
          aus=(1, 2)),
    _near("brows_at_rest", "brow_height_mean", 0.31, 0.03,
          "the brows rest at their usual height", "the eyebrows are relaxed"),
    _under("brows_lowered", "brow_height_mean", 0.27,
           "the brows are lowered", "the eyebrows are pulled down",
           "the brows sit low over the eyes",
           aus=(4,)),
    _over("inner_brows_raised", "inner_brow_height", 0.335,
          "the inner brow ends are raised", "the inner brows are lifted", aus=(1,)),
    _under("inner_brows_lowered", "inner_brow_height", 0.26,
           "the inner brow ends are pulled down", "the inner brows sink towards the nose",
           aus=(4,)),
    _over("outer_brows_raised", "outer_brow_height", 0.33,
          "the outer brow ends are raised", "the outer brows are lifted", aus=(2,)),
    _under("outer_brows_low", "outer_brow_height", 0.24,
           "the outer brow ends sit low", "the outer brows come down to the eyes"),
    _over("brows_slope_outwards", "brow_slant", 0.05,
          "the brows slope down towards the temples", "the eyebrows are highest near the nose",
          aus=(1,)),
    _under("brows_slope_inwards", "brow_slant", -0.025,
           "the brows slope down towards the nose", "the eyebrows are highest near the temples",
           aus=(4,)),
    _under("brows_drawn_together", "brow_gap", 0.33,
           "the brows are drawn together", "the gap between the brows is small", aus=(4,)),
    _over("brows_apart", "brow_gap", 0.43,
          "the brows are far apart", "the gap between the brows is wide"),
    _over("brows_arched", "brow_arch", 0.117,
          "the brows are arched", "the eyebrows form a high curve"),
    _under("brows_straight", "brow_arch", 0.09,
           "the brows are straight", "the eyebrows form a flat line"),
    _over("brows_dark", "brow_darkness", 33.0,
          "the brows are dark and dense", "the eyebrows stand out darkly"),
    _under("brows_faint", "brow_darkness", 15.0,
           "the brows are faint", "the eyebrows hardly stand out from the skin"),
    # eyes
    _over("eyes_wide", "eye_opening_mean", 0.35,
          "the eyes are wide open", "the upper and lower lids are far apart", aus=(5,)),
    _near("eyes_usual", "eye_opening_mean", 0.305, 0.03,
          "the eyes are open to a usual degree", "the eyelids are relaxed"),
    _under("eyes_narrowed", "eye_opening_mean", 0.255,
           "the eyes are narrowed", "the eyelids are drawn close together", aus=(6, 7)),
    _over("lids_dark", "lid_darkness", 50.0,
          "the eyelids are dark", "the lashes and lids are strongly shaded"),
    _under("lids_bright", "lid_darkness", 33.0,
           "the eyelids are light", "the lashes and lids are hardly shaded"),
    _over("under_eyes_shadowed", "under_eye_shadow", 11.0,
          "the skin under the eyes is shadowed", "dark rings lie under the eyes"),
    _under("under_eyes_bright", "under_eye_shadow", 1.0,
           "the skin under the eyes is as light as the cheeks", "no shadow lies under the eyes"),
    _over("under_eyes_lined", "under_eye_lines", 3.2,
          "fine lines run under the eyes", "the skin under the eyes is creased", aus=(6, 7)),
    _under("under_eyes_smooth", "under_eye_lines", 1.7,
           "the skin under the eyes is smooth", "no lines run under the eyes"),
    _over("eye_corners_lined", "eye_corner_lines", 6.0,
          "lines fan out from the eye corners", "the outer eye corners are wrinkled", aus=(6,)),
    _under("eye_corners_smooth", "eye_corner_lines", 3.2,
           "the skin beside the eyes is smooth", "the outer eye corners show no lines"),
    _over("spectacles", "spectacle_rims", 5.0,
          "the rims of spectacles show around the eyes", "spectacle frames cross the nose"),
    _under("no_spectacles", "spectacle_rims", 2.8,
           "no spectacle rims show", "the bridge of the nose is free of frames"),
    # forehead, nose and skin
    _over("forehead_lined", "forehead_lines", 2.6,
          "lines cross the forehead", "the forehead is wrinkled", aus=(1, 2)),
    _under("forehead_smooth", "forehead_lines", 1.7,
           "the forehead is smooth", "the forehead shows no lines"),
    _over("glabella_lined", "glabella_lines", 3.0,
          "the skin between the brows is creased", "frown lines stand between the brows", aus=(4,)),
    _under("glabella_smooth", "glabella_lines", 1.5,
           "the skin between the brows is smooth", "no frown lines are visible"),
    _over("forehead_dark", "forehead_darkness", 15.0,
          "the forehead is darker than the cheeks", "hair or shade darkens the forehead"),
    _under("forehead_bright", "forehead_darkness", 0.0,
           "the forehead is at least as light as the cheeks", "the forehead is bare and light"),
    _over("nose_wide", "nose_width", 0.465,
          "the nose is wide", "the nostrils are broad"),
    _under("nose_narrow", "nose_width", 0.40,
           "the nose is slim", "the nostrils are close together"),
    _over("folds_deep", "nose_cheek_folds", 5.6,
          "deep folds run from the nose to the mouth", "the folds beside the nose are strong",
          aus=(10, 12)),
    _under("folds_soft", "nose_cheek_folds", 2.8,
           "the folds beside the nose are soft", "hardly any fold runs from the nose to the mouth"),
    _over("cheeks_rough", "cheek_texture", 2.2,
          "the skin of the cheeks is rough", "the cheeks show fine texture"),
    _under("cheeks_smooth", "cheek_texture", 0.95,
           "the skin of the cheeks is smooth", "the cheeks are without texture"),
    _over("skin_light", "skin_brightness", 192.0,
          "the skin is light", "the cheeks are bright"),
    _under("skin_dark", "skin_brightness", 150.0,
           "the skin is dark", "the cheeks are dim"),
    _over("cheeks_red", "cheek_redness", 20.0,
          "the cheeks are reddish", "the skin has a warm red tone"),
    _under("cheeks_pale", "cheek_redness", 11.0,
           "the cheeks are pale", "the skin has little red in it"),
    # hair
    _over("hair_dark", "hair_darkness", 30.0,
          "the top of the head is much darker than the face", "dark hair frames the forehead"),
    _under("hair_light", "hair_darkness", 5.0,
           "the top of the head is as light as the face", "the hairline is light or out of sight"),
    _over("beard_dark", "beard_darkness", 22.0,
          "the chin and jaw are darker than the cheeks", "beard growth darkens the jaw"),
    _under("beard_none", "beard_darkness", 6.0,
           "the chin and jaw are as light as the cheeks", "the jaw is free of beard growth"),
    _over("upper_lip_dark", "moustache_darkness", 14.0,
          "the skin above the upper lip is dark", "moustache growth darkens the upper lip"),
    _under("upper_lip_bare", "moustache_darkness", 3.0,
           "the skin above the upper lip is bare", "no moustache can be seen"),
    # shape and pose
    _over("face_long", "face_length_ratio", 0.91, "the face is long",
          "the face is narrow and tall"),
    _under("face_round", "face_length_ratio", 0.82, "the face is broad",
           "the face is short and wide"),
    _over("turned_left", "yaw", 14.0,
          "the head is turned to the person's left", "the face looks towards the person's left"),
    _under("turned_right", "yaw", -14.0,
           "the head is turned to the person's right", "the face looks towards the person's right"),
    _near("facing_camera", "yaw", 0.0, 10.0,
          "the head faces the camera", "the face is seen from the front"),
    _over("head_raised", "pitch", 9.0, "the head is tipped back", "the chin is lifted"),
    _under("head_lowered", "pitch", -8.0, "the head is bent forward", "the chin is lowered"),
    # what gives a manipulated picture away
    _under("forehead_colour_matches", "cheek_forehead_difference", 14.0,
           "the forehead and the cheeks have the same colour",
           "the colour does not change between cheeks and forehead"),
    _over("forehead_colour_differs", "cheek_forehead_difference", 30.0,
          "the forehead and the cheeks differ in colour",
          "the colour changes between cheeks and forehead"),
    _under("rim_colour_matches", "inner_face_rim_difference", 8.0,
           "the inner face has the colour of its rim",
           "the skin colour runs on past the face's edge"),
    _over("rim_colour_differs", "inner_face_rim_difference", 14.0,
          "the inner face differs in colour from its rim",
          "the skin colour breaks at the face's edge"),
    _under("mouth_colour_matches", "mouth_surround_difference", 14.0,
           "the skin around the mouth has the colour of the cheeks",
           "the colour around the mouth fits the face"),
    _over("mouth_colour_differs", "mouth_surround_difference", 30.0,
          "the skin around the mouth differs in colour from the cheeks",
          "the colour around the mouth does not fit the face"),
    _near("sharpness_even", "sharpness_difference", 0.5, 0.3,
          "the inner face is as sharp as its rim", "the sharpness is even over the face"),
    _under("inner_face_blurred", "sharpness_difference", 0.1,
           "the inner face is more blurred than its rim",
           "the features are softer than the face's edge"),
    _near("noise_even", "noise_difference", 0.6, 0.35,
          "the fine noise is even over the face", "inner face and rim have the same grain"),
    _under("inner_face_smoothed", "noise_difference", 0.1,
           "the inner face has less grain than its rim",
           "the fine noise is missing in the inner face"),
    _over("picture_sharp", "sharpness", 6.6, "the picture of the face is sharp",
          "the facial detail is crisp"),
    _under("picture_soft", "sharpness", 4.7, "the picture of the face is soft",
           "the facial detail is washed out"),
)
# fmt: on

CLAIMS: Final[dict[str, Claim]] = {claim.id: claim for claim in _INVENTORY}
"""Every claim by its id, grouped by region."""
