"""Attributes: CelebA's 40 as a yes/no list in fixed order, or one of them when one is asked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from facellava.tasks.attribute_table import ATTRIBUTES, NAMES
from facellava.tasks.grammar import Grammar, roughen
from facellava.tasks.task import Label, Task, every_claim

_YES, _NO = "yes", "no"


def _check(label: object) -> Label:
    if not isinstance(label, Mapping):
        raise ValueError(f"{label!r} is not a table of attributes")
    names = list(label)
    for name, value in label.items():
        if name not in ATTRIBUTES:
            raise ValueError(f"unknown attribute {name!r}")
        if not isinstance(value, bool):
            raise ValueError(f"attribute {name!r} is {value!r}, neither true nor false")
    if len(names) != 1 and names != list(NAMES):
        if set(names) == set(NAMES):
            raise ValueError("the attributes are not in CelebA's order")
        raise ValueError(f"{len(names)} attributes where one or all {len(NAMES)} are wanted")
    return dict(label)


def _write(label: Label) -> str:
    if not isinstance(label, dict):
        raise ValueError(f"{label!r} is not a table of attributes")
    return ", ".join(f"{name} {_YES if present else _NO}" for name, present in label.items())


def _read(words: str) -> object:
    label: dict[str, bool] = {}
    for item in words.split(", "):
        name, _, value = item.rpartition(" ")
        if value not in (_YES, _NO):
            raise ValueError(f"attribute item {item!r} ends in neither yes nor no")
        if name in label:
            raise ValueError(f"attribute {name!r} is said twice")
        label[name] = value == _YES
    return label


def _label_schema() -> dict[str, Any]:
    def table(names: tuple[str, ...]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: {"type": "boolean"} for name in names},
            "required": list(names),
            "additionalProperties": False,
        }

    # One branch a name, because guided decoders do not know maxProperties.
    return {"anyOf": [table(NAMES), *(table((name,)) for name in NAMES)]}


_ANY_ATTRIBUTE: Final = (
    "eyeglasses", "hat", "beard", "mustache", "lipstick", "bangs", "smile", "earrings", "makeup",
    "necklace",
)  # fmt: skip

QUESTIONS: Final = Grammar(
    templates=(
        "which {attributes} does {face} have?",
        "what {attributes} does {face} have?",
        "which {attributes} {does_he} have{here}?",
        "what {attributes} {does_he} have{here}?",
        "which {attributes} are {visible}{here}?",
        "what {attributes} are {visible} in {face}?",
        "which {attributes} do you {see}{here}?",
        "what {attributes} can you {see}?",
        "what are the {attributes} of {face}?",
        "what are {his} {attributes}?",
        "what are the {attributes}{here}?",
        "which of the {forty} attributes apply{here}?",
        "which of the {forty} attributes does {face} have?",
        "what do you {see} in {face}?",
        "what {does_he} look like{here}?",
        "what does {face} look like?",
        "how {does_he} look?",
        "how would you describe {face}?",
        "how would you describe {him}?",
        "how would you describe {his} looks?",
        "what is {his} appearance like?",
        "what can you say about {his} appearance?",
        "what can you say about {face}?",
        "what stands out about {his} looks?",
        "what colour is {his} hair?",
        "what color is {his} hair?",
        "what hair colour {does_he} have?",
        "what is {his} hair like?",
        "what kind of hair {does_he} have?",
        "which hair color is this?",
        "hair colour?",
        "hair color?",
        "hair style?",
        "describe {his} hair.",
        "{does_he} have {shade} hair?",
        "is {his} hair {shade}?",
        "describe {his} nose, hair and skin.",
        "describe {his} eyebrows and lips.",
        "what accessories {is_he} wearing?",
        "which accessories do you {see}?",
        "accessories?",
        "{list} the {attributes}{here}.",
        "{list} the {attributes} of {face}.",
        "{list} {his} {attributes}.",
        "{list} all {attributes}{here}.",
        "{list} all {forty} attributes.",
        "{list} every attribute with yes or no.",
        "{list} the attributes as yes or no.",
        "{can_you} {list} the {attributes}{here}?",
        "{can_you} {list} {his} {attributes}?",
        "{can_you} {list} all {attributes} of {face}?",
        "{can_you} describe {face}?",
        "{can_you} describe {him}?",
        "{can_you} describe {his} appearance{here}?",
        "{can_you} {tell} what {he_looks} like?",
        "{tell} what {he_looks} like{here}.",
        "{tell} {his} {attributes}.",
        "{tell} which {attributes} {he_has}.",
        "{wonder} what {he_looks} like?",
        "{wonder} which {attributes} {he_has}?",
        "describe {face}.",
        "describe {him}.",
        "describe {him} to me.",
        "describe {his} looks.",
        "describe {his} appearance{here}.",
        "describe {his} face.",
        "describe how {he_looks}.",
        "describe the {attributes}{here}.",
        "describe the person.",
        "describe the look of {him}.",
        "give me a description of {face}.",
        "give me a description of {him}.",
        "give a full description of {his} face.",
        "give me all {attributes}.",
        "give me a yes or no for each attribute.",
        "go through the {forty} attributes.",
        "{attributes}?",
        "{attributes} please.",
        "{attributes}{here}?",
        "{attributes} of {face}?",
        "{his} {attributes}?",
        "appearance?",
        "looks?",
        "description?",
        "attribute list.",
        "attribute recognition please.",
        "run attribute recognition on {this_photo}.",
        "predict the {attributes}.",
        "predict the {forty} attributes.",
        "look at {face}: which {attributes}?",
        "look at {this_photo}. {list} the {attributes}.",
        "based on the face, which {attributes} apply, and why?",
        "tell me about {his} hair, beard and glasses.",
        "{item}, {item}, {item}: which of these {does_he} have?",
        "check for {item}, {item} and {item}.",
        "what do you notice about {his} looks?",
        "which features make up {face}?",
        "how would a police sketch describe {him}?",
        "make a description of {him} for a profile.",
    ),
    slots={
        "attributes": (
            "attributes", "facial attributes", "attributes", "facial features", "features",
            "visible attributes", "face attributes", "visual attributes", "traits of the face",
            "CelebA attributes", "characteristics", "facial characteristics", "physical features",
            "visible features", "facial traits",
        ),
        "forty": ("forty", "40", "40 CelebA", "CelebA", "usual", "40 facial"),
        "face": ("this face", "the face", "that face", "{his} face", "the face in {this_photo}"),
        "visible": ("visible", "present", "there", "shown", "recognisable", "noticeable"),
        "see": ("see", "recognise", "recognize", "notice", "find", "detect", "observe", "spot"),
        "list": (
            "list", "name", "describe", "give", "identify", "enumerate", "state", "report",
            "write down", "determine", "detect", "classify", "analyse", "analyze", "recognise",
        ),
        "item": _ANY_ATTRIBUTE,
        "shade": ("dark", "light", "light or dark", "black or brown", "blond or brown", "dyed"),
    },
)  # fmt: skip

FOLLOW_UPS: Final = Grammar(
    templates=(
        "and the {attributes}?", "and {his} {attributes}?", "what about the {attributes}?",
        "and what {does_he} look like?", "what about {his} {attributes}?",
        "how about {attributes}?", "also, {list} the {attributes}.", "ok, and the {attributes}?",
        "now the {attributes}.", "now describe {him}.", "next: {attributes}?",
        "thanks. what {does_he} look like?", "then {list} the {attributes}.", "and {his} looks?",
        "and {his} hair colour?", "what about {his} hair?", "and the hair?",
        "and {his} appearance?", "one more thing: which {attributes}?",
        "so what {does_he} look like?", "and all {attributes}?", "great, and the {attributes}?",
        "back to {his} {attributes}.", "and a description?",
    ),
    slots=QUESTIONS.slots,
)  # fmt: skip

_SIDES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # name: (what speaks for yes, what speaks for no)
    "5 o'clock shadow": (("beard_dark", "upper_lip_dark"), ("beard_none", "upper_lip_bare")),
    "arched eyebrows": (("brows_arched",), ("brows_straight",)),
    "bags under the eyes": (
        ("under_eye_bags", "under_eyes_lined"), ("no_under_eye_bags", "under_eyes_smooth"),
    ),
    "bald": (("forehead_bare", "head_top_smooth"), ("forehead_covered", "head_top_strands")),
    "bangs": (("forehead_covered", "forehead_dark"), ("forehead_bare", "forehead_light")),
    "big lips": (("lips_full",), ("lips_thin",)),
    "big nose": (("nose_wide",), ("nose_narrow",)),
    "black hair": (("hair_dark", "hair_not_yellow"), ("hair_light", "hair_yellow")),
    "blond hair": (("hair_yellow", "hair_light"), ("hair_dark", "hair_not_yellow")),
    "blurry photo": (("picture_soft",), ("picture_sharp",)),
    "brown hair": (("hair_dark",), ("hair_light",)),
    "bushy eyebrows": (("brows_dark",), ("brows_faint",)),
    "chubby": (("face_broad",), ("face_long",)),
    "eyeglasses": (("spectacles",), ("no_spectacles",)),
    "goatee": (("beard_dark", "chin_rough"), ("beard_none", "chin_smooth")),
    "gray hair": (("hair_light", "forehead_lined"), ("hair_dark", "forehead_smooth")),
    "heavy makeup": (("lips_red", "lashes_sharp", "cheeks_smooth"), ("lips_pale", "lashes_soft")),
    "male": (("beard_dark", "brows_dark", "upper_lip_dark"), ("beard_none", "lips_red")),
    "mouth slightly open": (("lips_parted", "teeth_visible"), ("mouth_closed",)),
    "mustache": (("upper_lip_dark",), ("upper_lip_bare",)),
    "narrow eyes": (("eyes_narrowed",), ("eyes_wide",)),
    "beardless": (("beard_none", "chin_smooth"), ("beard_dark", "chin_rough")),
    "oval face": (("face_long",), ("face_broad",)),
    "pale skin": (("skin_light", "cheeks_pale"), ("skin_dark", "cheeks_red")),
    "pointy nose": (("nose_narrow",), ("nose_wide",)),
    "receding hairline": (
        ("forehead_bare", "head_top_smooth"), ("forehead_covered", "head_top_strands"),
    ),
    "rosy cheeks": (("cheeks_red",), ("cheeks_pale",)),
    "smiling": (
        ("lip_corners_raised", "teeth_visible", "mouth_stretched", "folds_deep"),
        ("lip_corners_level", "lip_corners_lowered", "mouth_closed"),
    ),
    "wearing a hat": (("forehead_covered", "head_top_smooth"), ("forehead_bare",)),
    "wearing lipstick": (("lips_red", "lips_dark"), ("lips_pale", "lips_faint")),
    "young": (
        ("cheeks_smooth", "forehead_smooth", "eye_corners_smooth", "folds_soft"),
        ("forehead_lined", "eye_corners_lined", "folds_deep", "cheeks_lined"),
    ),
}  # fmt: skip
CLAIMS_FOR: Final[dict[str, tuple[str, ...]]] = {
    f"{name} {word}": ids
    for name, sides in _SIDES.items()
    for word, ids in zip((_YES, _NO), sides, strict=True)
}

ATTRIBUTES_TASK: Final = Task(
    name="attributes",
    title="Attributes",
    labels=NAMES,
    canonical_question="Which attributes does this face have?",
    questions=QUESTIONS,
    follow_ups=FOLLOW_UPS,
    label_schema=_label_schema(),
    check=_check,
    write=_write,
    read=_read,
    closed_words=tuple(f" {word}" for word in (*NAMES, _YES, _NO)),
    scored_words=(f" {_YES}", f" {_NO}"),
    claim_ids=every_claim(CLAIMS_FOR),
    claims_for=CLAIMS_FOR,
)

_THING: Final = (
    "{does_he} have {thing}?", "{does_he} have {thing}{here}?", "{has_he} got {thing}?",
    "has the face {thing}?", "does this face have {thing}?", "do you see {thing}?",
    "do you see {thing}{here}?", "can you see {thing}?", "is there {thing}?",
    "is there {thing} in {this_photo}?", "any {bare}?", "any {bare}{here}?", "{bare}?", "{thing}?",
    "{bare} or not?", "{bare}, yes or no?", "with {thing}?", "would you say {he_has} {thing}?",
    "{wonder} if {he_has} {thing}?", "{can_you} {tell} if {he_has} {thing}?", "check for {bare}.",
    "{can_you} check for {bare}?", "is {thing} visible?", "does {this_photo} show {thing}?",
    "{tell} whether {he_has} {thing}.", "do you notice {thing}?", "tell me about {his} {bare}.",
    "what about {thing}{here}?",
)  # fmt: skip
_WORN: Final = (
    "{does_he} wear {worn}?", "{is_he} wearing {worn}?", "{is_he} wearing {worn}{here}?",
    "is someone wearing {worn}?", "wearing {worn}?", "{does_he} have {worn} on?",
    "{wonder} if {he_is} wearing {worn}?", "{can_you} {tell} if {he_is} wearing {worn}?",
    "do you think {he_is} wearing {worn}?", "{has_he} got {worn} on?",
    "{tell} whether {he_is} wearing {worn}.",
)  # fmt: skip
_QUALITY: Final = (
    "{is_he} {quality}?", "{is_he} {quality}{here}?", "{quality}?",
    "would you say {he_is} {quality}?", "{does_he} look {quality}?",
    "do you think {he_is} {quality}?", "{wonder} if {he_is} {quality}?", "{quality} or not?",
    "{can_you} {tell} if {he_is} {quality}?", "{tell} whether {he_is} {quality}.",
    "{he_is} {quality}, right?", "is the face {quality}?", "is this person {quality}, yes or no?",
)  # fmt: skip
_PART: Final = (
    "{be} {his} {part} {quality}?", "{be} {his} {part} {quality}{here}?",
    "{be} the {part} {quality}?", "{do} {his} {part} look {quality}?", "{part} {quality}?",
    "would you call {his} {part} {quality}?", "{wonder} if {his} {part} {be} {quality}?",
    "{tell} whether {his} {part} {be} {quality}.",
    "{can_you} {tell} if {his} {part} {be} {quality}?",
)  # fmt: skip
_FOLLOW_UP: Final = (
    "what about {phrase}?", "and {phrase}?", "how about {phrase}?", "{phrase} too?",
    "and what about {phrase}?", "also {phrase}?", "ok, and {phrase}?", "{phrase} as well?",
    "or {phrase}?", "now {phrase}.",
)  # fmt: skip


def _bare(phrase: str) -> str:
    """The phrase without its article: "a beard" to "beard"."""
    article, space, rest = phrase.partition(" ")
    return rest if space and article in ("a", "an", "the", "any", "some") else phrase


def single_attribute_question(name: str, rng: random.Random) -> str:
    """A question about one attribute, such as "Does she wear glasses?".

    Raises:
        KeyError: `name` is not one of `facellava.tasks.attribute_table.NAMES`.
    """
    attribute = ATTRIBUTES[name]
    shapes: list[tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = []
    if attribute.things:
        bare = tuple(_bare(thing) for thing in attribute.things)
        shapes.append((_THING, {"thing": attribute.things, "bare": bare}))
    if attribute.worn:
        shapes.append((_WORN, {"worn": attribute.worn}))
    if attribute.qualities:
        shapes.append((_QUALITY, {"quality": attribute.qualities}))
    if attribute.parts:
        part, plural, quality = rng.choice(attribute.parts)
        be, do = ("are", "do") if plural else ("is", "does")
        shapes.append((_PART, {"be": (be,), "do": (do,), "part": (part,), "quality": (quality,)}))
    if attribute.others:
        shapes.append((attribute.others, {}))
    weights = [min(len(templates), 12) for templates, _ in shapes]
    templates, slots = rng.choices(shapes, weights)[0]
    return roughen(Grammar(templates, slots).draw(rng), rng)


def attribute_follow_up(name: str, rng: random.Random) -> str:
    """A question inside a conversation about one attribute, such as "What about a hat?"."""
    attribute = ATTRIBUTES[name]
    phrases = attribute.things + attribute.worn + attribute.qualities or (f"a {name}",)
    return roughen(Grammar(_FOLLOW_UP, {"phrase": phrases}).draw(rng), rng)


def canonical_attribute_question(name: str) -> str:
    """The fixed question about one attribute that eval asks."""
    if name not in ATTRIBUTES:
        raise KeyError(name)
    return f"Is this attribute present: {name}?"
