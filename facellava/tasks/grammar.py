"""A small grammar for questions: templates with slots, and the slips of people who type.

A template holds slots in braces; each is replaced by one of its fillers, which may hold slots too.
Templates are written in lower case; `roughen` gives a drawn question its surface. Everything is
decided by the random generator that the caller passes, so a seed gives the same questions again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SLOT: Final = re.compile(r"\{(\w+)\}")
# An empty filler leaves a space before the end mark.
_SPACE_BEFORE_MARK: Final = re.compile(r" (?=[?.,!])")

# subject, verb be, verb do, possessive, object
_PEOPLE: Final = (
    ("he", "is", "does", "his", "him"),
    ("she", "is", "does", "her", "her"),
    ("they", "are", "do", "their", "them"),
    ("I", "am", "do", "my", "me"),
    ("this person", "is", "does", "this person's", "this person"),
    ("the person", "is", "does", "the person's", "the person"),
    ("that person", "is", "does", "that person's", "that person"),
    ("this man", "is", "does", "this man's", "this man"),
    ("the man", "is", "does", "the man's", "the man"),
    ("this woman", "is", "does", "this woman's", "this woman"),
    ("the woman", "is", "does", "the woman's", "the woman"),
    ("this guy", "is", "does", "this guy's", "this guy"),
    ("the guy", "is", "does", "the guy's", "the guy"),
    ("this girl", "is", "does", "this girl's", "this girl"),
    ("the boy", "is", "does", "the boy's", "the boy"),
    ("this lady", "is", "does", "this lady's", "this lady"),
    ("this gentleman", "is", "does", "this gentleman's", "this gentleman"),
    ("this kid", "is", "does", "this kid's", "this kid"),
    ("the child", "is", "does", "the child's", "the child"),
    ("my friend", "is", "does", "my friend's", "my friend"),
    ("my sister", "is", "does", "my sister's", "my sister"),
    ("my brother", "is", "does", "my brother's", "my brother"),
    ("my mother", "is", "does", "my mother's", "my mother"),
    ("my dad", "is", "does", "my dad's", "my dad"),
    ("my colleague", "is", "does", "my colleague's", "my colleague"),
    ("the subject", "is", "does", "the subject's", "the subject"),
    ("the individual", "is", "does", "the individual's", "the individual"),
    ("the person in the photo", "is", "does", "the photographed person's", "the person shown"),
    ("the person in the picture", "is", "does", "the pictured person's", "the one in the picture"),
)

PEOPLE_SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "he": tuple(subject for subject, *_ in _PEOPLE),
    "is_he": tuple(f"{be} {subject}" for subject, be, *_ in _PEOPLE),
    "he_is": tuple(f"{subject} {be}" for subject, be, *_ in _PEOPLE),
    "does_he": tuple(f"{do} {subject}" for subject, _, do, *_ in _PEOPLE),
    "he_looks": tuple(
        f"{subject} {'looks' if do == 'does' else 'look'}" for subject, _, do, *_ in _PEOPLE
    ),
    "he_has": tuple(f"{s} {'has' if do == 'does' else 'have'}" for s, _, do, *_ in _PEOPLE),
    "has_he": tuple(f"{'has' if do == 'does' else 'have'} {s}" for s, _, do, *_ in _PEOPLE),
    "his": tuple(possessive for *_, possessive, _ in _PEOPLE),
    "him": tuple(thing for *_, thing in _PEOPLE),
    "photo": (
        "photo", "picture", "image", "pic", "photograph", "portrait", "selfie", "shot", "frame",
    ),
    "this_photo": ("this {photo}", "the {photo}", "this", "that {photo}", "my {photo}"),
    # Mostly nothing, so that the questions stay short.
    "here": (
        "", "", "", "", "", " here", " in this {photo}", " in the {photo}", " right now",
        " on the left",
    ),
    "can_you": (
        "can you", "could you", "would you", "will you", "please", "could you please", "can u",
        "can you please", "i want you to", "i'd like you to", "i need you to",
    ),
    "tell": ("tell me", "say", "state", "let me know", "work out", "figure out", "find out"),
    "wonder": (
        "i wonder", "i'm wondering", "i want to know", "i would like to know", "any idea",
        "do you know", "can you see", "can you tell", "tell me", "please say", "guess",
        "what do you think", "i'm curious",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Grammar:
    """Templates and the fillers of their slots; `PEOPLE_SLOTS` are known to every grammar."""

    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]

    def draw(self, rng: random.Random) -> str:
        """One sentence in lower case with its end mark, every slot filled."""
        text = " ".join(self._filled(rng.choice(self.templates), rng).split())
        return _SPACE_BEFORE_MARK.sub("", text)

    def _filled(self, text: str, rng: random.Random) -> str:
        used: set[str] = set()

        def fill(slot: re.Match[str]) -> str:
            name = slot.group(1)
            fillers = self.slots[name] if name in self.slots else PEOPLE_SLOTS[name]
            chosen = rng.choice(fillers)
            # "AU6 or AU6?" asks nothing.
            while chosen in used and len({*fillers} - used) > 0:
                chosen = rng.choice(fillers)
            used.add(chosen)
            return self._filled(chosen, rng)

        return _SLOT.sub(fill, text)


WHY_AGAIN: Final = Grammar(
    templates=(
        "why?", "why do you {think} so?", "why do you {think} that?", "why is that?", "how come?",
        "why {precisely}?", "but why?", "and why?", "what makes you {think} {that}?",
        "what makes you so sure?", "are you {sure}?", "are you {sure} about {that}?", "{sure}?",
        "really?", "how {sure} are you?", "how do you know?", "how do you know {that}?",
        "how can you tell?", "how can you {see} {that}?", "what gives it away?", "says who?",
        "which part of the face {shows} {that}?", "which {region} of the face {shows} {that}?",
        "what {region} {shows} {that}?", "which {region} did you look at?",
        "where in the face do you {see} {that}?", "where do you {see} {that}?",
        "what in the face {shows} {that}?", "what in the {photo} {shows} {that}?",
        "what is your {evidence}?", "what {evidence} do you have?",
        "what is the {evidence} for {that}?", "give me your {evidence}.", "show me the {evidence}.",
        "what are the {signs}?", "which {signs} did you use?", "what {signs} {tell} you {that}?",
        "which {signs} support {that}?", "explain.", "please explain.", "explain {that}.",
        "{can_you} explain {that}?", "explain your answer.", "explain your reasoning.",
        "{can_you} give more {detail}?", "more {detail} please.", "tell me more.", "go on.",
        "justify {that}.", "justify your answer.", "on what basis?", "based on what?",
        "what is {that} based on?", "what led you to {that}?", "i don't believe {that}.",
        "i'm not convinced.", "i doubt {that}.", "that seems wrong.", "you might be wrong.",
        "look again.", "check again.", "{can_you} check again?", "please double check.",
        "could it be something else?", "is {that} certain?", "how confident are you?",
        "how certain is {that}?", "what did you {see}?", "what did you look at?",
        "what exactly did you measure?", "prove it.", "can you prove {that}?",
        "what convinced you?", "what speaks for {that}?", "and what speaks for it?", "reasons?",
        "reason?", "because?", "how so?", "in what way?", "what do you mean?", "sure about it?",
    ),
    slots={
        "think": ("think", "say", "believe", "claim", "conclude", "feel"),
        "that": ("that", "this", "so", "it", "your answer", "this answer", "that answer"),
        "precisely": ("exactly", "precisely", "though", "do you say that", "did you say that"),
        "sure": ("sure", "certain", "really sure", "positive", "absolutely sure", "confident"),
        "shows": (
            "shows", "tells you", "gives away", "points to", "supports", "suggests", "proves",
        ),
        "region": ("part", "area", "region", "feature", "bit", "detail"),
        "see": ("see", "find", "notice", "spot", "read"),
        "evidence": ("evidence", "proof", "reasoning", "reason", "justification", "basis"),
        "signs": ("signs", "clues", "cues", "features", "hints", "indications", "measurements"),
        "tell": ("tell", "show", "give"),
        "detail": ("detail", "details", "information", "reasons", "explanation"),
    },
)  # fmt: skip
"""Questions that keep the last answer's task: asking for reasons, certainty, the region."""

JSON_REQUEST: Final = "Answer in JSON."
_JSON_AFTER: Final = (
    "answer in JSON.", "answer as JSON.", "reply in JSON.", "reply in JSON only.",
    "as JSON please.", "return JSON.", "give me JSON.", "give the answer as JSON.", "output JSON.",
    "JSON only.", "respond with JSON.", "respond with a JSON object.", "format: JSON.",
    "in JSON format please.", "use JSON.", "JSON please.", "output as a JSON object.",
    "please answer with valid JSON only.", "return a JSON object.",
    "write the answer as a JSON object.", "I need the result as JSON.", "your answer must be JSON.",
    "only JSON, no prose.", "return the result in json format.",
)  # fmt: skip
_JSON_TAIL: Final = (
    ", as json",
    " as json",
    " in json",
    " (json)",
    ", json please",
    " - json",
    ", in JSON format",
)
_JSON_BEFORE: Final = (
    "JSON: ",
    "Answer in JSON: ",
    "In JSON, ",
    "As JSON: ",
    "Return JSON. ",
    "json pls: ",
)


def ask_for_json(question: str, rng: random.Random) -> str:
    """The question with a request for a JSON answer added, mostly behind it."""
    place = rng.random()
    if place < 0.15:
        return rng.choice(_JSON_BEFORE) + question
    if place < 0.4:
        end = question[-1] if question[-1] in "?." else ""
        return question.rstrip("?. ") + rng.choice(_JSON_TAIL) + end
    request = rng.choice(_JSON_AFTER)
    if rng.random() < 0.3:
        return f"{question} {request.lower().rstrip('.')}"
    return f"{question} {request[0].upper()}{request[1:]}"


_BEFORE: Final = (
    "hey, ", "hi, ", "hello, ", "ok, ", "so ", "please, ", "quick question: ", "um, ", "well, ",
    "hi there, ", "dear assistant, ", "question: ", "now ", "just curious, ", "honestly, ",
)  # fmt: skip
_AFTER: Final = (
    " please",
    " thanks",
    ", please",
    ", do you think",
    ", thanks",
    " pls",
    ", roughly",
    " :)",
)


def roughen(text: str, rng: random.Random) -> str:
    """The surface of a typed question: a greeting, case, end marks, apostrophes, a slip."""
    if rng.random() < 0.06:
        text = rng.choice(_BEFORE) + text
    end = text[-1] if text[-1] in "?.!" else ""
    body = text[: len(text) - len(end)]
    if rng.random() < 0.06:
        body += rng.choice(_AFTER)
    if rng.random() < 0.08:
        body = _slip(body, rng)
    if rng.random() < 0.10:
        body = body.replace("'", "")
    case = rng.random()
    if case < 0.62:
        body = body[0].upper() + body[1:]
    elif case < 0.98:
        body = body.lower()
    else:
        body = body.upper()
    mark = rng.random()
    if mark < 0.28:
        end = ""
    elif mark < 0.32 and end:
        end = rng.choice(("??", "?!", " ?", "...", "!"))
    return body + end


def _slip(text: str, rng: random.Random) -> str:
    """One typing slip in a word of at least four letters, if there is one: its ends stay."""
    words = [word for word in re.finditer(r"[A-Za-z]{4,}", text)]
    if not words:
        return text
    word = rng.choice(words)
    at = word.start() + rng.randrange(1, len(word.group()) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
