"""Facial expression: the seven basic words, the benchmarks' larger sets and their published orders.

The seven are the six basic emotions of Ekman plus neutral. A label set names a benchmark's own
order and words, because a swapped order is the most common way to get a wrong figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from facellava.tasks.grammar import Grammar
from facellava.tasks.task import Label, Task, check_word, every_claim

BASIC: Final = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
WIDER: Final = ("contempt", "anxiety", "helplessness", "disappointment")
LABELS: Final = BASIC + WIDER


@dataclass(frozen=True)
class LabelSet:
    """The classes of one benchmark.

    Attributes:
        source: Which distribution uses this order.
        words: The source's own words, in the source's order.
        labels: Our words in the same order.
        first_id: The id that the source gives to its first class.
    """

    source: str
    words: tuple[str, ...]
    labels: tuple[str, ...]
    first_id: int = 0

    def label_of(self, class_id: int) -> str:
        """Our word for the source's class id; ValueError when the source has no such class."""
        place = class_id - self.first_id
        if not 0 <= place < len(self.labels):
            last = self.first_id + len(self.labels) - 1
            raise ValueError(f"class {class_id} is not in {self.first_id}..{last} of {self.source}")
        return self.labels[place]


_OURS: Final = {
    "angry": "anger", "anger": "anger", "ang": "anger",
    "disgust": "disgust", "dis": "disgust",
    "fear": "fear", "fea": "fear",
    "happy": "happiness", "happiness": "happiness", "hap": "happiness",
    "neutral": "neutral", "neu": "neutral",
    "sad": "sadness", "sadness": "sadness",
    "surprise": "surprise",
    "contempt": "contempt", "anxiety": "anxiety", "helplessness": "helplessness",
    "disappointment": "disappointment",
}  # fmt: skip


def _label_set(source: str, words: str, first_id: int = 0) -> LabelSet:
    order = tuple(words.split())
    return LabelSet(source, order, tuple(_OURS[word.lower()] for word in order), first_id)


LABEL_SETS: Final[dict[str, LabelSet]] = {
    "basic": LabelSet("facellava", BASIC, BASIC),
    "fer2013": _label_set("fer2013.csv, emotion", "Angry Disgust Fear Happy Sad Surprise Neutral"),
    "ferplus": _label_set(
        "fer2013new.csv, vote columns",
        "neutral happiness surprise sadness anger disgust fear contempt",
    ),
    "affectnet8": _label_set(
        "AffectNet *_exp.npy", "Neutral Happy Sad Surprise Fear Disgust Anger Contempt"
    ),
    "affectnet7": _label_set(
        "AffectNet *_exp.npy", "Neutral Happy Sad Surprise Fear Disgust Anger"
    ),
    "rafdb": _label_set(
        "RAF-DB basic list_patition_label.txt",
        "Surprise Fear Disgust Happiness Sadness Anger Neutral",
        first_id=1,
    ),
    "dfew": _label_set(
        "DFEW single-labeled set_N.csv",
        "happy sad neutral angry surprise disgust fear",
        first_id=1,
    ),
    "crema_d": _label_set("CREMA-D file names", "ANG DIS FEA HAP NEU SAD"),
    "ferv39k": _label_set("FERV39k *_All.csv", "Happy Sad Neutral Angry Surprise Disgust Fear"),
    "mafw11": _label_set(
        "MAFW single",
        "anger disgust fear happiness neutral sadness surprise contempt anxiety helplessness "
        "disappointment",
    ),
    "ck_plus": _label_set(
        "CK+ *_emotion.txt", "neutral anger contempt disgust fear happy sadness surprise"
    ),
}


def _check(label: object) -> Label:
    return check_word(label, LABELS)


def _write(label: Label) -> str:
    return str(label)


def _read(words: str) -> object:
    return words


_FEELINGS: Final = (
    "happy", "sad", "angry", "afraid", "scared", "surprised", "disgusted", "neutral", "upset",
    "joyful", "furious", "unhappy", "annoyed", "shocked", "frightened", "cheerful", "worried",
    "in a good mood", "in a bad mood", "depressed-looking", "excited", "bored", "calm", "anxious",
    "disappointed", "contemptuous", "emotional", "relaxed", "irritated", "pleased", "terrified",
    "amazed", "gloomy", "grumpy", "serious", "mad", "frustrated", "nervous", "glad", "tense",
)  # fmt: skip

QUESTIONS: Final = Grammar(
    templates=(
        "what is {his} {emotion}{here}?",
        "what's {his} {emotion}{here}?",
        "what {emotion} {is_he} {showing}{here}?",
        "what {emotion} {does_he} {show}{here}?",
        "which {emotion} {does_he} {show}{here}?",
        "which {emotion} {is_he} {showing}{here}?",
        "what {emotion} is {shown}{here}?",
        "which {emotion} is {shown}{here}?",
        "what is the {emotion} {of_face}?",
        "what's the {emotion} {of_face}?",
        "what is the {main} {emotion} {of_face}?",
        "which {emotion} is on {his} face?",
        "what {emotion} do you {see}{here}?",
        "what {emotion} can you {see} in {his} face?",
        "what {emotion} does {face} {show}?",
        "which {emotion} does {face} {show}?",
        "what does {face} {show} emotionally?",
        "what kind of {emotion} is this?",
        "what sort of {emotion} {does_he} {show}?",
        "what kind of mood {is_he} in{here}?",
        "what mood {is_he} in?",
        "how {is_he} feeling{here}?",
        "how {does_he} feel{here}?",
        "how might {he} be feeling{here}?",
        "how would you describe {his} {emotion}?",
        "how would you label this {emotion}?",
        "how {does_he} seem to feel?",
        "what {is_he} feeling{here}?",
        "what {does_he} feel?",
        "{is_he} {feeling}{here}?",
        "{is_he} {feeling} or {feeling}?",
        "{is_he} {feeling}, {feeling} or {feeling}?",
        "{does_he} look {feeling}{here}?",
        "{does_he} look {feeling} or {feeling}?",
        "{does_he} seem {feeling}{here}?",
        "{does_he} appear {feeling}?",
        "{does_he} feel {feeling}?",
        "would you say {he_is} {feeling}?",
        "would you call this face {feeling}?",
        "is this a {feeling} face?",
        "is that a {feeling} look?",
        "is {face} {feeling}?",
        "does {face} look {feeling}?",
        "is {his} {emotion} {feeling}?",
        "is this {word} or {word}?",
        "is there any {word} in {his} face?",
        "do you see {word} in {face}?",
        "{identify} {his} {emotion}.",
        "{identify} the {emotion} {of_face}.",
        "{identify} the {main} {emotion}{here}.",
        "{can_you} {identify} {his} {emotion}?",
        "{can_you} {identify} the {emotion} {of_face}?",
        "{can_you} {tell} how {he_is} feeling?",
        "{can_you} {tell} what {emotion} {he_is} {showing}?",
        "{tell} how {he_is} feeling{here}.",
        "{tell} which {emotion} {face} {shows}.",
        "{wonder} how {he_is} feeling{here}?",
        "{wonder} what {emotion} this is?",
        "{wonder} what {he_is} feeling?",
        "{wonder} if {he_is} {feeling}?",
        "{wonder} whether {he_looks} {feeling}?",
        "{emotion}?",
        "{his} {emotion}?",
        "{emotion} {of_face}?",
        "{feeling}?",
        "{feeling} or {feeling}?",
        "{feeling} or not?",
        "the {emotion}?",
        "{emotion} please.",
        "feelings?",
        "how's he feeling?",
        "what's with {his} face?",
        "what's the vibe{here}?",
        "what is going on in {his} face emotionally?",
        "{emotion} recognition please.",
        "run {emotion} recognition on {this_photo}.",
        "classify the {emotion}.",
        "classify this face by {emotion}.",
        "which of the seven basic emotions is this?",
        "which basic emotion is {shown}{here}?",
        "pick the {emotion}: {word}, {word}, {word} or {word}?",
        "look at {face}: what {emotion} is it?",
        "look at {this_photo}. what is {his} {emotion}?",
        "what do {his} facial features say about {his} {emotion}?",
        "explain {his} {emotion}{here}.",
        "describe {his} {emotion}{here}.",
        "what emotional state {is_he} in?",
        "what feeling comes across{here}?",
        "what {is_he} expressing?",
        "based on the face, what {emotion} {is_he} {showing}, and why?",
        "what {emotion} is this and which facial cues support it?",
        "{is_he} in a good mood?",
        "why {does_he} look so {feeling}?",
        "how {feeling} {does_he} look?",
        "read {his} face.",
        "{is_he} {enjoying}?",
        "{does_he} look like {he_is} {enjoying}?",
        "is everything okay with {him}, emotionally?",
        "read {his} {emotion}.",
        "{can_you} read {his} {emotion}?",
        "what is {face} telling us about {his} {emotion}?",
        "what would you call this {emotion}?",
        "what's {he_short} feeling?",
        "how's {his} mood{here}?",
        "{does_he} look more {feeling} or more {feeling}?",
        "positive or negative {emotion}?",
        "is the {emotion} positive or negative?",
    ),
    slots={
        "emotion": (
            "expression", "emotion", "mood", "feeling", "facial expression", "emotional state",
            "emotion", "expression", "facial emotion", "emotional expression", "affect",
            "emotional tone", "sentiment", "state of mind",
        ),
        "enjoying": (
            "enjoying it", "having fun", "having a good time", "having a bad day", "about to cry",
            "enjoying the moment", "in distress", "under stress", "in shock",
        ),
        "he_short": ("he", "she", "this guy", "the woman", "the man", "this person"),
        "showing": (
            "showing", "expressing", "displaying", "conveying", "wearing on the face", "feeling",
        ),
        "show": ("show", "express", "display", "convey", "reveal", "communicate", "have"),
        "shows": ("shows", "expresses", "displays", "conveys", "reveals", "has"),
        "shown": ("shown", "visible", "displayed", "expressed", "present", "on display", "seen"),
        "of_face": ("of {face}", "on {face}", "in {face}", "{here}", "of {him}", "in {this_photo}"),
        "face": ("this face", "the face", "that face", "{his} face", "this facial expression"),
        "main": ("main", "dominant", "primary", "overall", "strongest", "most likely", "basic"),
        "see": ("see", "read", "detect", "recognise", "recognize", "notice", "observe"),
        "identify": (
            "identify", "name", "recognise", "recognize", "classify", "describe", "determine",
            "detect", "read", "interpret", "analyse", "analyze", "label", "give", "guess", "state",
        ),
        "feeling": _FEELINGS,
        "word": LABELS + ("joy", "happiness", "sadness", "anger", "fear"),
    },
)  # fmt: skip

FOLLOW_UPS: Final = Grammar(
    templates=(
        "and {his} {emotion}?", "and the {emotion}?", "what about the {emotion}?",
        "what about {his} {emotion}?", "how about {his} {emotion}?", "and how {is_he} feeling?",
        "and how {does_he} feel?", "also, what is {his} {emotion}?", "now the {emotion}.",
        "now tell me the {emotion}.", "and what {emotion} {does_he} show?",
        "{does_he} also look {feeling}?", "and {is_he} {feeling}?", "ok, and {his} {emotion}?",
        "thanks. what {emotion} is it?", "next: {emotion}?", "one more thing: {is_he} {feeling}?",
        "so {is_he} {feeling}?", "back to {his} {emotion}.", "then what is the {emotion}?",
        "but {is_he} {feeling}?", "great, and the {emotion}?", "and {his} mood?",
        "what about feelings?",
    ),
    slots=QUESTIONS.slots,
)  # fmt: skip

CLAIMS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "anger": (
        "brows_lowered", "brows_drawn_together", "glabella_lined", "inner_brows_lowered",
        "brows_slope_inwards", "lips_thin", "eyes_narrowed", "mouth_closed", "lip_corners_lowered",
    ),
    "disgust": (
        "upper_lip_raised", "folds_deep", "brows_lowered", "eyes_narrowed", "glabella_lined",
        "lip_corners_lowered", "inner_brows_lowered", "brows_drawn_together",
    ),
    "fear": (
        "eyes_wide", "inner_brows_raised", "brows_raised", "mouth_wide_open", "lips_parted",
        "forehead_lined", "mouth_stretched", "brows_slope_outwards", "mouth_dark_inside",
    ),
    "happiness": (
        "lip_corners_raised", "teeth_visible", "mouth_stretched", "folds_deep", "eye_corners_lined",
        "under_eyes_lined", "eyes_narrowed", "lips_parted", "upper_lip_raised",
    ),
    "neutral": (
        "lip_corners_level", "mouth_closed", "brows_at_rest", "eyes_usual", "mouth_even",
        "glabella_smooth", "folds_soft", "forehead_smooth", "eye_corners_smooth",
    ),
    "sadness": (
        "lip_corners_lowered", "brows_slope_outwards", "inner_brows_raised", "mouth_closed",
        "glabella_lined", "brows_drawn_together", "eyes_narrowed", "head_lowered",
    ),
    "surprise": (
        "eyes_wide", "brows_raised", "mouth_wide_open", "jaw_dropped", "brows_arched",
        "forehead_lined", "outer_brows_raised", "inner_brows_raised", "mouth_dark_inside",
        "lips_parted",
    ),
    "contempt": (
        "right_lip_corner_higher", "left_lip_corner_higher", "mouth_closed", "eyes_narrowed",
    ),
    "anxiety": (
        "inner_brows_raised", "brows_drawn_together", "eyes_wide", "forehead_lined", "lips_thin",
    ),
    "helplessness": (
        "inner_brows_raised", "brows_slope_outwards", "lip_corners_lowered", "head_lowered",
    ),
    "disappointment": (
        "lip_corners_lowered", "brows_slope_outwards", "mouth_closed", "lips_thin", "head_lowered",
    ),
}  # fmt: skip

EXPRESSION: Final = Task(
    name="expression",
    title="Expression",
    labels=LABELS,
    canonical_question="What is the expression of this face?",
    questions=QUESTIONS,
    follow_ups=FOLLOW_UPS,
    label_schema={"type": "string", "enum": list(LABELS)},
    check=_check,
    write=_write,
    read=_read,
    closed_words=tuple(f" {word}" for word in LABELS),
    scored_words=tuple(f" {word}" for word in BASIC),
    claim_ids=every_claim(
        CLAIMS_FOR,
        *("jaw_raised", "mouth_narrow", "outer_brows_low", "brows_straight", "brows_apart"),
        *("under_eyes_smooth", "head_raised", "facing_camera"),
    ),
    claims_for=CLAIMS_FOR,
)
