"""Signs of a fake face: real or fake."""

from __future__ import annotations

from typing import Final

from facellava.tasks.grammar import Grammar
from facellava.tasks.task import Label, Task, check_word, every_claim

LABELS: Final = ("real", "fake")


def _check(label: object) -> Label:
    return check_word(label, LABELS)


def _write(label: Label) -> str:
    return str(label)


def _read(words: str) -> object:
    return words


QUESTIONS: Final = Grammar(
    templates=(
        "is {face} {real}?",
        "is {face} {fake}?",
        "is {face} {real} or {fake}?",
        "is {face} {fake} or {real}?",
        "is {face} really {real}?",
        "is {this_photo} {real}?",
        "is {this_photo} {fake}?",
        "is {this_photo} {real} or {fake}?",
        "is this {a_fake}?",
        "is that {a_fake}?",
        "is this {a_fake} or {a_real}?",
        "is this {a_real}?",
        "is this {a_real} or {a_fake}?",
        "could this be {a_fake}?",
        "might {face} be {fake}?",
        "could {this_photo} be {fake}?",
        "has {face} been {edited}?",
        "was {face} {edited}?",
        "has {this_photo} been {edited}?",
        "was {this_photo} {edited}?",
        "was {this_photo} {edited} with {tool}?",
        "did someone {edit} {face}?",
        "did somebody {edit} {this_photo}?",
        "did they {edit} {this_photo}?",
        "{is_he} real?",
        "{is_he} a real person?",
        "{is_he} an actual human or {a_fake}?",
        "{does_he} really exist or is this {a_fake}?",
        "does {face} look {real} to you?",
        "does {face} look {fake} to you?",
        "does {this_photo} look {real}?",
        "does {this_photo} look {fake}?",
        "does this look {edited}?",
        "do you think {face} is {real}?",
        "do you think {this_photo} is {fake}?",
        "do you think this is {a_fake}?",
        "do you see {signs} of {editing}{here}?",
        "are there {signs} of {editing}{here}?",
        "are there any {signs} of {editing}?",
        "any {signs} of {editing}?",
        "is there anything {strange} about {face}?",
        "is there evidence of {editing}?",
        "can you see {signs} of {editing} in {face}?",
        "{check} {face} for {editing}.",
        "{check} {this_photo} for {editing}.",
        "{check} whether {face} is {real}.",
        "{check} whether {this_photo} is {a_fake}.",
        "{check} if this is {a_fake}.",
        "{can_you} {check} whether {face} is {real}?",
        "{can_you} {check} if {this_photo} is {fake}?",
        "{can_you} {check} {this_photo} for {editing}?",
        "{can_you} {tell} if {face} is {real}?",
        "{can_you} {tell} whether this is {a_fake}?",
        "{tell} whether {face} is {real}.",
        "{tell} if {this_photo} is {real} or {fake}.",
        "{wonder} if {face} is {real}?",
        "{wonder} if {this_photo} is {fake}?",
        "{wonder} whether this is {a_fake}?",
        "{real}?",
        "{fake}?",
        "{real} or {fake}?",
        "{fake} or {real}?",
        "{real} or not?",
        "{a_fake}?",
        "{a_fake} or {a_real}?",
        "{edited}?",
        "{editing}?",
        "{signs} of {editing}?",
        "real face?",
        "fake face?",
        "fake check.",
        "deepfake check please.",
        "deepfake detection please.",
        "run deepfake detection on {this_photo}.",
        "authenticity?",
        "authenticity check.",
        "how authentic is {face}?",
        "assess the authenticity of {face}.",
        "verify the authenticity of {this_photo}.",
        "can i trust {this_photo}?",
        "should i trust {face}?",
        "can i believe {this_photo}?",
        "should i believe {this_photo}?",
        "is {this_photo} to be believed?",
        "is {this_photo} straight from a camera or {edited}?",
        "is {face} made by {tool}?",
        "was this made with {tool}?",
        "did {tool} make {face}?",
        "is it {tool}?",
        "who made this face, a camera or {tool}?",
        "has {his} face been swapped?",
        "is {his} face pasted onto another head?",
        "does the face belong to the head?",
        "is the face blended in?",
        "which parts of {face} look {edited}?",
        "what in {face} looks {fake}?",
        "based on the face, is it {real} or {fake}, and why?",
        "explain whether {face} is {real} or {fake}.",
        "someone sent me this. is it {real}?",
        "i think this is {a_fake}. am i right?",
        "classify as {real} or {fake}.",
        "is {this_photo} legit?",
        "legit?",
        "is anything wrong with the skin texture, as in {a_fake}?",
    ),
    slots={
        "face": (
            "this face", "the face", "that face", "{his} face", "the face in {this_photo}", "it",
            "this",
        ),
        "real": (
            "real", "real", "real", "authentic", "genuine", "original", "unaltered", "untouched",
            "unedited", "natural", "true", "legit", "a real photo",
        ),
        "fake": (
            "fake", "fake", "fake", "a fake", "a deepfake", "ai-generated", "AI generated",
            "manipulated", "edited", "forged", "synthetic", "photoshopped", "computer generated",
            "doctored", "tampered with", "altered", "artificial", "generated", "faked",
        ),
        "a_fake": (
            "a deepfake", "a fake", "a face swap", "a faceswap", "an ai face", "an AI image",
            "a forgery", "a manipulated face", "a fake face", "a fake photo", "a generated face",
            "a synthetic face", "a photoshop job", "an edited photo", "a composite", "a montage",
            "a deep fake", "an AI-generated person", "a GAN face", "a computer-generated face",
        ),
        "a_real": (
            "a real face", "a real photo", "a real person", "an authentic photo", "a genuine photo",
            "an original photo", "a true photo", "the real thing", "a genuine face",
        ),
        "edited": (
            "edited", "manipulated", "altered", "changed", "tampered with", "photoshopped", "faked",
            "swapped", "face-swapped", "generated", "doctored", "retouched", "modified", "forged",
            "airbrushed", "run through a filter", "beautified", "morphed",
            "generated by a computer", "generated by AI", "digitally altered", "messed with",
        ),
        "edit": (
            "edit", "manipulate", "alter", "swap", "fake", "photoshop", "tamper with", "change",
            "forge",
        ),
        "editing": (
            "editing", "manipulation", "tampering", "face swapping", "a face swap", "forgery",
            "blending", "photoshop", "a deepfake", "digital alteration", "ai generation",
            "retouching", "fakery", "image manipulation", "face manipulation", "a fake",
        ),
        "signs": (
            "signs", "traces", "hints", "artefacts", "artifacts", "marks", "evidence", "clues",
        ),
        "strange": ("suspicious", "artificial", "unnatural", "fake", "manipulated", "synthetic"),
        "check": (
            "check", "examine", "inspect", "verify", "test", "determine", "analyse", "analyze",
            "assess", "decide", "find out", "judge", "scan",
        ),
        "tool": (
            "AI", "ai", "photoshop", "a computer", "a neural network", "a GAN", "midjourney",
            "stable diffusion", "an app", "software",
        ),
    },
)  # fmt: skip

FOLLOW_UPS: Final = Grammar(
    templates=(
        "and is it {real}?", "and is it {fake}?", "and is {face} {real}?", "is it {real} at all?",
        "but is {face} {real}?", "but is it {fake}?", "what about {editing}?",
        "any {signs} of {editing} too?", "also, is {face} {real}?", "also, is this {a_fake}?",
        "ok, and is it {real} or {fake}?", "now check if it is {fake}.", "next: {real} or {fake}?",
        "and {real} or {fake}?", "thanks. is {this_photo} {real}?", "then is it {a_fake}?",
        "could it also be {a_fake}?", "one more thing: is this {a_fake}?",
        "and has it been {edited}?", "was it {edited} too?", "how about authenticity?",
        "and authenticity?", "great, and is it {real}?", "and {fake}?",
    ),
    slots=QUESTIONS.slots,
)  # fmt: skip

CLAIMS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "real": (
        "mouth_colour_matches", "forehead_colour_matches", "noise_even", "grain_strong",
        "picture_sharp", "lashes_sharp", "mouth_even", "brows_even",
    ),
    "fake": (
        "mouth_colour_differs", "forehead_colour_differs", "face_less_noise", "grain_missing",
        "picture_soft", "lashes_soft",
    ),
}  # fmt: skip

DEEPFAKE: Final = Task(
    name="deepfake",
    title="Deepfake",
    labels=LABELS,
    canonical_question="Is this face real or fake?",
    questions=QUESTIONS,
    follow_ups=FOLLOW_UPS,
    label_schema={"type": "string", "enum": list(LABELS)},
    check=_check,
    write=_write,
    read=_read,
    closed_words=(" real", " fake"),
    scored_words=(" real", " fake"),
    claim_ids=every_claim(CLAIMS_FOR),
    claims_for=CLAIMS_FOR,
)
