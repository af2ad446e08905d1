"""The written inventory of claims: what an explanation may say about a face, and the rule it meets.

Each claim names one measurement, a side of a threshold (or a band around a centre) and two or
three clauses that say the same thing. The clauses are full ones ("the lip corners are raised"), so
that they fit behind "because" and can be joined by commas and "and". No clause stands inside
another, so that a text has one reading.

Thresholds are population quantities: percentiles of 1,800 CelebA, 1,800 UTKFace and 2,200 FER2013
training faces (dlib fits, the three sets weighted alike), mostly the 20th and the 80th; bands reach
from about the 30th to the 70th. Claims that compare two patches in words ("as light as the cheeks")
have the literal threshold. Nothing here knows what is usual for one person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from facellava.faces.measurements import MEASUREMENTS

OVER: Final = 1
UNDER: Final = -1
NEAR: Final = 0


@dataclass(frozen=True)
class Claim:
    """One thing that can be said of a face and measured.

    Attributes:
        id: stable name.
        measurement: key of facellava.faces.measurements.MEASUREMENTS.
        direction: OVER (+1) holds above the threshold, UNDER (-1) below it, NEAR (0) within
            `width` of it.
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
        if self.direction == NEAR:
            return (self.width - abs(value - self.threshold)) / self.dead_band
        return self.direction * (value - self.threshold) / self.dead_band


# fmt: off
_INVENTORY: Final = (
    # mouth
    Claim("lip_corners_raised", "lip_corner_height", OVER, 0.075,
          ("the lip corners are raised", "the corners of the mouth turn upwards",
           "the mouth corners are pulled up"), action_units=(12,)),
    Claim("lip_corners_level", "lip_corner_height", NEAR, 0.035,
          ("the lip corners are level",
           "the corners of the mouth lie in line with the lips"), width=0.025),
    Claim("lip_corners_lowered", "lip_corner_height", UNDER, 0.0,
          ("the lip corners are lowered", "the corners of the mouth turn downwards",
           "the mouth corners are pulled down"), action_units=(15,)),
    Claim("mouth_closed", "mouth_opening", UNDER, 0.02,
          ("the mouth is closed", "the lips are shut", "the lips touch each other")),
    Claim("lips_parted", "mouth_opening", OVER, 0.09,
          ("the lips are parted", "the mouth stands open",
           "a gap shows between the lips"), action_units=(25,)),
    Claim("mouth_wide_open", "mouth_opening", OVER, 0.22,
          ("the mouth is wide open", "the mouth gapes",
           "the lips are far apart"), action_units=(25, 26)),
    Claim("mouth_stretched", "mouth_width", OVER, 1.0,
          ("the mouth is stretched wide",
           "the lips are drawn out to the sides"), action_units=(12, 20)),
    Claim("mouth_narrow", "mouth_width", UNDER, 0.77,
          ("the mouth is narrow", "the lips are drawn in from the sides")),
    Claim("upper_lip_raised", "nose_to_lip", UNDER, 0.15,
          ("the upper lip is raised",
           "the upper lip lies close to the nose"), action_units=(10, 12)),
    Claim("upper_lip_low", "nose_to_lip", OVER, 0.24,
          ("the upper lip hangs low", "the upper lip lies far from the nose")),
    Claim("lips_full", "lip_thickness", OVER, 0.27,
          ("the lips are full", "the red of the lips is broad")),
    Claim("lips_thin", "lip_thickness", UNDER, 0.2,
          ("the lips are thin", "the red of the lips is slim"), action_units=(23, 24)),
    Claim("right_lip_corner_higher", "lip_corner_asymmetry", OVER, 0.03,
          ("the right lip corner is higher than the left one",
           "the mouth is pulled up on the person's right")),
    Claim("left_lip_corner_higher", "lip_corner_asymmetry", UNDER, -0.03,
          ("the left lip corner is higher than the right one",
           "the mouth is pulled up on the person's left")),
    Claim("mouth_even", "lip_corner_asymmetry", NEAR, 0.0,
          ("the mouth is even on both sides",
           "both lip corners are at the same height"), width=0.018),
    Claim("jaw_dropped", "jaw_drop", OVER, 1.08,
          ("the jaw is dropped", "the chin is far below the nose"), action_units=(26,)),
    Claim("jaw_raised", "jaw_drop", UNDER, 0.905,
          ("the jaw is held up", "the chin is close to the nose")),
    Claim("teeth_visible", "teeth_brightness", OVER, 45.0,
          ("the teeth are visible", "teeth shine between the lips"), action_units=(12, 25)),
    Claim("mouth_dark_inside", "mouth_darkness", OVER, 20.0,
          ("the inside of the mouth is dark",
           "the open mouth shows a dark hollow"), action_units=(25, 26)),
    Claim("lips_red", "lip_redness", OVER, 8.0,
          ("the lips are much redder than the skin", "the lips have a strong red colour")),
    Claim("lips_pale", "lip_redness", UNDER, 2.0,
          ("the lips are hardly redder than the skin", "the lips have little colour of their own")),
    Claim("lips_dark", "lip_contrast", OVER, 36.0,
          ("the lips stand out darkly from the skin", "the outline of the lips is strong")),
    Claim("lips_faint", "lip_contrast", UNDER, 8.0,
          ("the lips hardly stand out from the skin", "the outline of the lips is faint")),
    # brows
    Claim("brows_raised", "brow_height_mean", OVER, 0.345,
          ("the brows are raised", "the eyebrows are lifted",
           "the brows sit high over the eyes"), action_units=(1, 2)),
    Claim("brows_at_rest", "brow_height_mean", NEAR, 0.305,
          ("the brows rest at their usual height", "the eyebrows are relaxed"), width=0.027),
    Claim("brows_lowered", "brow_height_mean", UNDER, 0.262,
          ("the brows are lowered", "the eyebrows are pulled down",
           "the brows sit low over the eyes"), action_units=(4,)),
    Claim("inner_brows_raised", "inner_brow_height", OVER, 0.34,
          ("the inner brow ends are raised", "the inner brows are lifted"), action_units=(1,)),
    Claim("inner_brows_lowered", "inner_brow_height", UNDER, 0.253,
          ("the inner brow ends are pulled down",
           "the inner brows sink towards the nose"), action_units=(4,)),
    Claim("outer_brows_raised", "outer_brow_height", OVER, 0.33,
          ("the outer brow ends are raised", "the outer brows are lifted"), action_units=(2,)),
    Claim("outer_brows_low", "outer_brow_height", UNDER, 0.228,
          ("the outer brow ends sit low", "the outer brows come down to the eyes")),
    Claim("brows_slope_outwards", "brow_slant", OVER, 0.055,
          ("the brows slope down towards the temples",
           "the eyebrows are highest near the nose"), action_units=(1,)),
    Claim("brows_slope_inwards", "brow_slant", UNDER, -0.02,
          ("the brows slope down towards the nose",
           "the eyebrows are highest near the temples"), action_units=(4,)),
    Claim("brows_drawn_together", "brow_gap", UNDER, 0.32,
          ("the brows are drawn together",
           "the gap between the brows is small"), action_units=(4,)),
    Claim("brows_apart", "brow_gap", OVER, 0.443,
          ("the brows are far apart", "the gap between the brows is wide")),
    Claim("right_brow_higher", "brow_height_asymmetry", OVER, 0.022,
          ("the right brow is higher than the left one",
           "the person's right eyebrow is lifted alone")),
    Claim("left_brow_higher", "brow_height_asymmetry", UNDER, -0.028,
          ("the left brow is higher than the right one",
           "the person's left eyebrow is lifted alone")),
    Claim("brows_even", "brow_height_asymmetry", NEAR, -0.003,
          ("both brows are at the same height", "the eyebrows are even"), width=0.014),
    Claim("brows_arched", "brow_arch", OVER, 0.133,
          ("the brows are arched", "the eyebrows form a high curve")),
    Claim("brows_straight", "brow_arch", UNDER, 0.088,
          ("the brows are straight", "the eyebrows form a flat line")),
    Claim("brows_dark", "brow_darkness", OVER, 36.0,
          ("the brows are dark and dense", "the eyebrows stand out darkly")),
    Claim("brows_faint", "brow_darkness", UNDER, 10.5,
          ("the brows are faint", "the eyebrows hardly stand out from the skin")),
    # eyes
    Claim("eyes_wide", "eye_opening_mean", OVER, 0.355,
          ("the eyes are wide open", "the upper and lower lids are far apart"), action_units=(5,)),
    Claim("eyes_usual", "eye_opening_mean", NEAR, 0.305,
          ("the eyes are open to a usual degree", "the eyelids are relaxed"), width=0.035),
    Claim("eyes_narrowed", "eye_opening_mean", UNDER, 0.245,
          ("the eyes are narrowed", "the eyelids are drawn close together"), action_units=(6, 7)),
    Claim("lashes_sharp", "lid_structure", OVER, 7.5,
          ("the lashes and lids stand out sharply", "the eyes have strong dark outlines")),
    Claim("lashes_soft", "lid_structure", UNDER, 4.4,
          ("the lashes and lids are soft", "the eyes have no strong outlines")),
    Claim("under_eye_bags", "under_eye_folds", OVER, 1.4,
          ("a fold lies under the eyes", "bags show under the eyes"), action_units=(6,)),
    Claim("no_under_eye_bags", "under_eye_folds", UNDER, 0.05,
          ("the skin under the eyes is without a fold", "no bags show under the lids")),
    Claim("under_eyes_lined", "under_eye_lines", OVER, 31.0,
          ("fine lines run under the eyes",
           "the skin under the eyes is creased"), action_units=(6, 7)),
    Claim("under_eyes_smooth", "under_eye_lines", UNDER, 16.0,
          ("the skin under the eyes is smooth", "the lower lids show no lines")),
    Claim("eye_corners_lined", "eye_corner_lines", OVER, 30.0,
          ("lines fan out from the eye corners",
           "the outer eye corners are wrinkled"), action_units=(6,)),
    Claim("eye_corners_smooth", "eye_corner_lines", UNDER, 14.0,
          ("the skin beside the eyes is smooth", "the outer eye corners show no lines")),
    Claim("spectacles", "spectacle_edges", OVER, 3.0,
          ("the frame of spectacles crosses the nose", "spectacle edges show between the eyes")),
    Claim("no_spectacles", "spectacle_edges", UNDER, 1.2,
          ("the bridge of the nose is bare", "nothing like a frame crosses the nose")),
    # forehead, nose and skin
    Claim("forehead_lined", "forehead_lines", OVER, 15.0,
          ("lines cross the forehead", "the forehead is wrinkled"), action_units=(1, 2)),
    Claim("forehead_smooth", "forehead_lines", UNDER, 5.3,
          ("the forehead is smooth", "the forehead shows no lines")),
    Claim("glabella_lined", "glabella_lines", OVER, 28.0,
          ("the skin between the brows is creased",
           "frown lines stand between the brows"), action_units=(4,)),
    Claim("glabella_smooth", "glabella_lines", UNDER, 12.8,
          ("the skin between the brows is smooth", "no frown lines are visible")),
    Claim("forehead_dark", "forehead_darkness", OVER, 8.0,
          ("the forehead is darker than the cheeks", "shade lies on the forehead")),
    Claim("forehead_light", "forehead_darkness", UNDER, 0.0,
          ("the forehead is at least as light as the cheeks", "no shade lies on the brow")),
    Claim("forehead_covered", "forehead_cover", OVER, 4.5,
          ("hair or headwear covers the forehead", "strands or a brim cross the forehead")),
    Claim("forehead_bare", "forehead_cover", UNDER, 1.5,
          ("the forehead is bare", "nothing covers the forehead")),
    Claim("nose_wide", "nose_width", OVER, 0.49,
          ("the nose is wide", "the nostrils are broad")),
    Claim("nose_narrow", "nose_width", UNDER, 0.395,
          ("the nose is slim", "the nostrils are close together")),
    Claim("folds_deep", "nose_mouth_folds", OVER, 2.8,
          ("deep folds run from the nose to the mouth",
           "the folds beside the nose are strong"), action_units=(10, 12)),
    Claim("folds_soft", "nose_mouth_folds", UNDER, 0.33,
          ("the folds beside the nose are soft",
           "hardly any fold runs from the nose to the mouth")),
    Claim("cheeks_lined", "cheek_lines", OVER, 25.0,
          ("the skin of the cheeks is rough", "the cheeks show fine lines")),
    Claim("cheeks_smooth", "cheek_lines", UNDER, 8.5,
          ("the skin of the cheeks is smooth", "the cheeks are without lines")),
    Claim("skin_light", "skin_brightness", OVER, 198.0,
          ("the skin is light", "the cheeks are bright")),
    Claim("skin_dark", "skin_brightness", UNDER, 140.0,
          ("the skin is dark in this light", "the cheeks are dim")),
    Claim("cheeks_red", "cheek_redness", OVER, 23.0,
          ("the cheeks are reddish", "the skin has a warm red tone")),
    Claim("cheeks_pale", "cheek_redness", UNDER, 11.5,
          ("the cheeks are pale", "the skin has little red in it")),
    Claim("colours_strong", "colourfulness", OVER, 28.0,
          ("the skin colours are strong", "the colours of the face are full")),
    Claim("colours_muted", "colourfulness", UNDER, 13.0,
          ("the skin colours are muted", "the face has hardly any colour")),
    # hair
    Claim("head_top_strands", "head_top_structure", OVER, 9.5,
          ("strands structure the top of the head", "the top of the head is full of hair")),
    Claim("head_top_smooth", "head_top_structure", UNDER, 2.7,
          ("the top of the head is smooth", "no strands show at the top of the head")),
    Claim("hair_light", "hair_lightness", OVER, 145.0,
          ("the area of the hair is light", "bright hair or ground frames the head")),
    Claim("hair_dark", "hair_lightness", UNDER, 62.0,
          ("the area of the hair is dark", "dark hair or ground frames the head")),
    Claim("hair_yellow", "hair_yellowness", OVER, 20.0,
          ("the area of the hair is yellowish", "a golden tone frames the head")),
    Claim("hair_not_yellow", "hair_yellowness", UNDER, 3.0,
          ("the area of the hair has no yellow in it", "a cool tone frames the head")),
    Claim("beard_dark", "beard_darkness", OVER, 18.0,
          ("the chin is darker than the cheeks", "beard growth darkens the chin")),
    Claim("beard_none", "beard_darkness", UNDER, 0.0,
          ("the chin is at least as light as the cheeks", "the chin is free of shade")),
    Claim("chin_rough", "beard_structure", OVER, 2.6,
          ("the skin of the chin is rough", "stubble or hair structures the chin")),
    Claim("chin_smooth", "beard_structure", UNDER, 0.93,
          ("the skin of the chin is smooth", "nothing structures the chin")),
    Claim("upper_lip_dark", "moustache_darkness", OVER, 16.0,
          ("the skin above the upper lip is dark", "a moustache or shade lies above the mouth")),
    Claim("upper_lip_bare", "moustache_darkness", UNDER, 0.0,
          ("the skin above the upper lip is as light as the cheeks", "the upper lip is bare")),
    # shape and pose
    Claim("face_long", "face_length_ratio", OVER, 0.92,
          ("the face is long", "the face is narrow and tall")),
    Claim("face_broad", "face_length_ratio", UNDER, 0.815,
          ("the face is broad", "the face is short and wide")),
    Claim("turned_left", "yaw", OVER, 14.0,
          ("the head is turned to the person's left", "the face looks towards the person's left")),
    Claim("turned_right", "yaw", UNDER, -14.0,
          ("the head is turned to the person's right",
           "the face looks towards the person's right")),
    Claim("facing_camera", "yaw", NEAR, 0.0,
          ("the head faces the camera", "the face is seen from the front"), width=9.0),
    Claim("head_raised", "pitch", OVER, 10.0,
          ("the head is tipped back", "the chin is lifted")),
    Claim("head_lowered", "pitch", UNDER, -6.5,
          ("the head is bent forward", "the chin is lowered")),
    Claim("head_level", "pitch", NEAR, 1.5,
          ("the head is held level", "the face is neither lifted nor bowed"), width=5.0),
    # what may give a manipulated picture away
    Claim("forehead_colour_matches", "cheek_forehead_step", UNDER, 3.0,
          ("the forehead and the cheeks have the same colour",
           "the colour does not change between cheeks and forehead")),
    Claim("forehead_colour_differs", "cheek_forehead_step", OVER, 8.5,
          ("the forehead and the cheeks differ in colour",
           "the colour changes between cheeks and forehead")),
    Claim("mouth_colour_matches", "mouth_cheek_step", UNDER, 8.0,
          ("the skin around the mouth has the colour of the cheeks",
           "the colour around the mouth fits the face")),
    Claim("mouth_colour_differs", "mouth_cheek_step", OVER, 36.0,
          ("the skin around the mouth differs in colour from the cheeks",
           "the colour around the mouth does not fit the face")),
    Claim("grain_missing", "grain", UNDER, 12.0,
          ("the fine grain of the skin is missing", "the face looks smoothed over")),
    Claim("grain_strong", "grain", OVER, 22.0,
          ("the fine grain of the skin is strong", "the face is full of fine noise")),
    Claim("noise_even", "noise_step", NEAR, -0.2,
          ("the noise runs on past the edge of the face",
           "face and surround have the same grain"), width=0.2),
    Claim("face_less_noise", "noise_step", UNDER, -0.55,
          ("the face has less noise than its surround", "the noise drops inside the face")),
    Claim("face_more_noise", "noise_step", OVER, 0.1,
          ("the face has more noise than its surround", "the noise rises inside the face")),
    Claim("picture_sharp", "detail", OVER, 58.0,
          ("the picture of the face is sharp", "the facial detail is crisp")),
    Claim("picture_soft", "detail", UNDER, 36.0,
          ("the picture of the face is soft", "the facial detail is washed out")),
)
# fmt: on

CLAIMS: Final[dict[str, Claim]] = {claim.id: claim for claim in _INVENTORY}
"""Every claim by its id, grouped by the part of the face."""
