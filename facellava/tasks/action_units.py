"""Action units of the Facial Action Coding System: names, muscles, the sets of DISFA and BP4D.

Names and muscles: Ekman, Friesen and Hager, Facial Action Coding System (2002). Sets: DISFA's eight
and BP4D's twelve as scored in the literature; answers use their union, in ascending order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from facellava.tasks.grammar import Grammar
from facellava.tasks.task import Label, Task, every_claim

DISFA: Final = ("AU1", "AU2", "AU4", "AU6", "AU9", "AU12", "AU25", "AU26")
BP4D: Final = (
    "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24",
)  # fmt: skip


@dataclass(frozen=True)
class ActionUnit:
    """One action unit: FACS name and the muscles that make it."""

    code: str
    name: str
    muscles: tuple[str, ...]

    @property
    def number(self) -> int:
        """The FACS number: 12 of AU12."""
        return int(self.code[2:])


ACTION_UNITS: Final[dict[str, ActionUnit]] = {
    unit.code: unit
    for unit in (
        ActionUnit("AU1", "inner brow raiser", ("frontalis, inner part",)),
        ActionUnit("AU2", "outer brow raiser", ("frontalis, outer part",)),
        ActionUnit(
            "AU4",
            "brow lowerer",
            ("corrugator supercilii", "depressor supercilii", "depressor glabellae"),
        ),
        ActionUnit("AU6", "cheek raiser", ("orbicularis oculi, outer part",)),
        ActionUnit("AU7", "lid tightener", ("orbicularis oculi, inner part",)),
        ActionUnit("AU9", "nose wrinkler", ("levator labii superioris alaeque nasi",)),
        ActionUnit("AU10", "upper lip raiser", ("levator labii superioris",)),
        ActionUnit("AU12", "lip corner puller", ("zygomaticus major",)),
        ActionUnit("AU14", "dimpler", ("buccinator",)),
        ActionUnit("AU15", "lip corner depressor", ("depressor anguli oris",)),
        ActionUnit("AU17", "chin raiser", ("mentalis",)),
        ActionUnit("AU23", "lip tightener", ("orbicularis oris",)),
        ActionUnit("AU24", "lip pressor", ("orbicularis oris",)),
        ActionUnit(
            "AU25",
            "lips part",
            ("depressor labii inferioris", "mentalis, relaxed", "orbicularis oris, relaxed"),
        ),
        ActionUnit(
            "AU26",
            "jaw drop",
            ("masseter, relaxed", "temporalis, relaxed", "medial pterygoid, relaxed"),
        ),
    )
}
UNION: Final = tuple(ACTION_UNITS)

_NONE: Final = "none"
_UNIT: Final = re.compile(r"AU[1-9][0-9]?")


def _check(label: object) -> Label:
    if isinstance(label, str) or not isinstance(label, Sequence):
        raise ValueError(f"{label!r} is not a list of action units")
    units: list[str] = []
    for unit in label:
        if not isinstance(unit, str) or unit not in ACTION_UNITS:
            raise ValueError(f"unknown action unit {unit!r}, allowed are {', '.join(UNION)}")
        units.append(unit)
    places = [UNION.index(unit) for unit in units]
    if any(later <= earlier for earlier, later in zip(places, places[1:], strict=False)):
        raise ValueError(f"the action units {', '.join(units)} are not in ascending order")
    return tuple(units)


def _write(label: Label) -> str:
    if not isinstance(label, tuple):
        raise ValueError(f"{label!r} is not a tuple of action units")
    return ", ".join(label) or _NONE


def _read(words: str) -> object:
    if words == _NONE:
        return ()
    units = words.split(", ")
    for unit in units:
        if _UNIT.fullmatch(unit) is None:
            raise ValueError(f"{unit!r} in the list of action units is not a unit such as AU12")
    return tuple(units)


QUESTIONS: Final = Grammar(
    templates=(
        "which {units} are {active}{here}?",
        "what {units} are {active}{here}?",
        "which {units} do you {see}{here}?",
        "what {units} can you {see} in {face}?",
        "which {units} does {face} {show}?",
        "which {units} {is_he} {using}?",
        "what {units} {is_he} {using}{here}?",
        "which {units} {does_he} {show}{here}?",
        "which {units} are {active} in {face}?",
        "what {units} are {active} on {face}?",
        "what are the {active} {units}{here}?",
        "what are the {units} of {face}?",
        "which {muscles} are {working}{here}?",
        "which {muscles} are {working} in {face}?",
        "what {muscles} are {working}?",
        "which {muscles} {is_he} {using}{here}?",
        "what {muscles} {does_he} {use}?",
        "which {muscles} does {face} {use}?",
        "which facial movements do you {see}{here}?",
        "what facial movements does {face} {show}?",
        "what movements are {active} in {face}?",
        "how are {his} {muscles} moving?",
        "what is moving in {his} face?",
        "what {is_he} doing with {his} face?",
        "{list} the {units}{here}.",
        "{list} the {active} {units}.",
        "{list} all {units} in {face}.",
        "{list} the {units} of {face}.",
        "{list} every {active} {unit}.",
        "{list} the {muscles} that are {working}.",
        "{list} the facial movements.",
        "{can_you} {list} the {units}{here}?",
        "{can_you} {list} the {active} {units} in {face}?",
        "{can_you} {tell} which {units} are {active}?",
        "{can_you} {tell} which {muscles} are {working}?",
        "{can_you} do a {facs} of {face}?",
        "{tell} which {units} are {active}{here}.",
        "{wonder} which {units} are {active}?",
        "{wonder} which {muscles} are {working}?",
        "{wonder} if {code} is {active}?",
        "give me the {facs} of {face}.",
        "give me the {facs}{here}.",
        "{facs} please.",
        "{facs}?",
        "do a {facs}.",
        "run {unit} detection on {this_photo}.",
        "{unit} detection please.",
        "code {face} with FACS.",
        "FACS code {face}.",
        "what is the {facs} of {face}?",
        "what would a FACS coder write down{here}?",
        "how would a FACS expert code {face}?",
        "describe {face} in {units}.",
        "describe {his} expression in terms of {units}.",
        "describe {his} expression with FACS.",
        "break {his} expression down into {units}.",
        "translate {his} expression into {units}.",
        "explain {his} expression by its {units}.",
        "is {code} {active}{here}?",
        "is {code} on?",
        "is {code} {active} in {face}?",
        "are {code} and {code} {active}?",
        "is it {code} or {code}?",
        "do you {see} {code}{here}?",
        "do you {see} {code} or {code}?",
        "does {face} {show} {code}?",
        "{does_he} {show} {code}{here}?",
        "any {code}?",
        "any {units}?",
        "any {units} {active}?",
        "{code}?",
        "{code} and {code}?",
        "{code} {active}?",
        "is the {name} {active}?",
        "is the {name} {active} in {face}?",
        "do you {see} the {name}?",
        "is there a {name} action?",
        "is {code}, the {name}, {active}?",
        "does {face} {show} a {name}?",
        "{units}?",
        "{units} please.",
        "{his} {units}?",
        "{units} of {face}?",
        "{units}{here}?",
        "{active} {units}?",
        "{muscles}?",
        "{muscles} please.",
        "facial movements?",
        "based on the face, which {units} are {active}, and why?",
        "look at {face}: which {units}?",
        "look at {this_photo}. {list} the {units}.",
        "how many {units} are {active}?",
        "are any {units} {active}{here}?",
        "which brow {units} are {active}?",
        "which mouth {units} are {active}?",
        "which {units} around the eyes are {active}?",
        "which muscle pulls {his} lip corners?",
        "which muscle moves {his} brows?",
        "is {his} {muscle} {working}?",
        "are {his} {moved_parts}?",
        "are the {moved_parts}?",
        "are {his} {moved_parts}{here}?",
        "is {his} {moved_part}?",
        "is the {moved_part}{here}?",
        "{is_he} {moving}?",
        "{is_he} {moving}{here}?",
        "{moving}?",
        "{wonder} if {he_is} {moving}?",
        "do you {see} that {his} {moved_part}?",
    ),
    slots={
        "units": (
            "action units", "action units", "action units", "AUs", "AUs", "aus",
            "facial action units", "FACS action units", "FACS units", "FACS codes", "facs aus",
            "AU codes",
        ),
        "unit": ("action unit", "AU", "FACS unit", "facial action unit", "au"),
        "muscles": (
            "facial muscles", "face muscles", "muscles", "muscles in the face",
            "facial muscle groups",
        ),
        "muscle": (
            "zygomaticus", "zygomaticus major", "corrugator", "frontalis", "orbicularis oculi",
            "mentalis", "buccinator",
        ),
        "active": (
            "active", "active", "present", "activated", "visible", "engaged", "on", "detectable",
            "triggered", "involved", "shown", "firing",
        ),
        "working": (
            "active", "working", "contracted", "moving", "engaged", "tensed", "being used",
            "flexed",
        ),
        "using": ("using", "showing", "activating", "displaying", "contracting", "moving"),
        "moved_parts": (
            "eyebrows raised", "brows raised", "brows lowered", "eyebrows pulled down",
            "cheeks raised", "cheeks lifted", "lips pressed together", "lips tightened",
            "lip corners pulled up", "lip corners pulled down", "mouth corners down",
            "eyelids tightened", "inner brows raised", "outer brows raised", "lids tense",
            "eyebrows drawn together", "brows furrowed", "lip corners raised",
        ),
        "moved_part": (
            "nose wrinkled", "jaw dropped", "upper lip raised", "brow furrowed", "brow lowered",
            "forehead tense", "upper lip curled", "jaw lowered", "inner brow raised",
            "jaw clenched",
        ),
        "moving": (
            "frowning", "raising the eyebrows", "wrinkling the nose", "pressing the lips together",
            "dropping the jaw", "squinting", "furrowing the brow", "pursing the lips",
            "lifting the upper lip", "lowering the brows", "raising the cheeks", "scowling",
            "tightening the lids", "pulling the lip corners down",
        ),
        "use": ("use", "move", "contract", "activate", "tense"),
        "show": ("show", "display", "contain", "exhibit", "have"),
        "see": (
            "see", "detect", "find", "spot", "recognise", "recognize", "identify", "observe",
            "notice",
        ),
        "face": (
            "this face", "the face", "that face", "{his} face", "this expression", "{this_photo}",
        ),
        "list": (
            "list", "name", "identify", "give", "detect", "find", "enumerate", "state",
            "write down", "determine", "report", "analyse", "analyze", "tell me", "label",
            "recognise",
        ),
        "facs": (
            "FACS coding", "FACS code", "FACS analysis", "facs", "FACS", "action unit analysis",
            "AU analysis", "AU coding", "facial action coding",
        ),
        "code": (
            *UNION, "AU5", "AU20", "AU43", "au12", "au 6", "AU 4", "AU 1", "action unit 12",
            "action unit 4", "action unit 6", "action unit 25", "AU 26", "au25",
        ),
        "name": tuple(unit.name for unit in ACTION_UNITS.values()),
    },
)  # fmt: skip

FOLLOW_UPS: Final = Grammar(
    templates=(
        "and the {units}?", "and {his} {units}?", "and which {units} are {active}?",
        "what about the {units}?", "what about {units}?", "how about {units}?",
        "also, which {units} are {active}?", "and {code}?", "what about {code}?",
        "how about {code}?", "is {code} {active} too?", "ok, and the {units}?", "now the {units}.",
        "now {list} the {units}.", "next: {units}?", "thanks. which {units}?",
        "then which {units} are {active}?", "so which {muscles} are {working}?",
        "and the {muscles}?", "what about the {muscles}?", "one more thing: {units}?",
        "and in {units}?", "and in FACS terms?", "in {units}, please.",
    ),
    slots=QUESTIONS.slots,
)  # fmt: skip

_UNIT_WORDS: Final = tuple(f" {code}" for code in (*UNION, _NONE))

CLAIMS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "AU1": ("inner_brows_raised", "brows_slope_outwards", "brows_raised", "forehead_lined"),
    "AU2": ("outer_brows_raised", "brows_raised", "brows_arched", "forehead_lined"),
    "AU4": (
        "brows_lowered", "brows_drawn_together", "glabella_lined", "inner_brows_lowered",
        "brows_slope_inwards",
    ),
    "AU6": ("eye_corners_lined", "under_eyes_lined", "eyes_narrowed"),
    "AU7": ("eyes_narrowed", "under_eyes_lined"),
    "AU9": ("upper_lip_raised", "folds_deep", "inner_brows_lowered"),
    "AU10": ("upper_lip_raised", "folds_deep"),
    "AU12": ("lip_corners_raised", "mouth_stretched", "folds_deep", "teeth_visible"),
    "AU14": ("right_lip_corner_higher", "left_lip_corner_higher"),
    "AU15": ("lip_corners_lowered",),
    "AU17": ("jaw_raised", "mouth_closed"),
    "AU23": ("lips_thin", "mouth_narrow"),
    "AU24": ("lips_thin", "mouth_closed"),
    "AU25": ("lips_parted", "mouth_wide_open", "teeth_visible", "mouth_dark_inside"),
    "AU26": ("jaw_dropped", "mouth_wide_open", "mouth_dark_inside"),
    _NONE: (
        "brows_at_rest", "eyes_usual", "lip_corners_level", "mouth_closed", "mouth_even",
        "glabella_smooth", "forehead_smooth", "folds_soft", "eye_corners_smooth",
    ),
}  # fmt: skip

ACTION_UNITS_TASK: Final = Task(
    name="action_units",
    title="Action units",
    labels=UNION,
    canonical_question="Which action units are active in this face?",
    questions=QUESTIONS,
    follow_ups=FOLLOW_UPS,
    label_schema={"type": "array", "items": {"type": "string", "enum": list(UNION)}},
    check=_check,
    write=_write,
    read=_read,
    closed_words=_UNIT_WORDS,
    scored_words=_UNIT_WORDS,
    claim_ids=every_claim(CLAIMS_FOR, "eyes_wide", "under_eyes_smooth"),
    claims_for=CLAIMS_FOR,
)
