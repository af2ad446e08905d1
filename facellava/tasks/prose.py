"""A second, lenient parser, for the free prose of models that do not know our answer grammar.

It is conservative: one clear statement is read, and nothing, two statements or a refusal raise
`UnreadableAnswer`. No keyword never becomes a label. Used by eval only; facellava's own answers go
through the strict `facellava.tasks.parse_answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from facellava.errors import UnreadableAnswer
from facellava.tasks import find_task, parse_json
from facellava.tasks.action_units import ACTION_UNITS, UNION
from facellava.tasks.attribute_table import ATTRIBUTES, NAMES
from facellava.tasks.clauses import clauses, clean, is_denied, stated_words
from facellava.tasks.prose_age import read_age
from facellava.tasks.task import Label, Verdict


def read_prose(task: str, text: str, *, attribute: str | None = None) -> Verdict:
    """Reads the label of `task` from another model's text.

    Args:
        task: One of `facellava.tasks.ANSWERABLE`.
        text: What the model said: prose, Markdown, or a JSON answer of our schema.
        attribute: For ``attributes``, the one that was asked; None when all 40 were asked.

    Returns:
        The verdict; its reasons are the whole text.

    Raises:
        UnknownTask: There is no such task.
        UnreadableAnswer: The text states no label, several, or declines.
    """
    find_task(task)
    if task not in _READERS:
        raise UnreadableAnswer(f"Prose is not read for the task {task!r}.")
    plain = clean(text)
    if plain.startswith("{"):
        verdict = parse_json(clean_json(text))
        if verdict.task != task:
            raise UnreadableAnswer(f"The JSON answer is of task {verdict.task!r}, not {task!r}.")
        return verdict
    statements = clauses(plain)
    if not statements:
        raise UnreadableAnswer(f"The prose states nothing that could be a label of {task}.")
    if task == "attributes" and attribute is not None:
        return Verdict(task, {attribute: _one_attribute(statements, attribute)}, plain)
    return Verdict(task, _READERS[task](statements), plain)


def clean_json(text: str) -> str:
    """The JSON object inside a Markdown fence, or the text itself."""
    return re.sub(r"^\s*```(?:json)?|```\s*$", "", text).strip()


# Expression -----------------------------------------------------------------------------------

_EXPRESSION_WORDS: Final = {
    "happiness": "happy happiness joy joyful cheerful delighted delight pleased amused amusement",
    "sadness": "sad sadness unhappy sorrow sorrowful melancholy gloomy miserable",
    "anger": "anger angry furious enraged rage irritated outraged",
    "fear": "fear fearful afraid scared frightened terrified terror",
    "disgust": "disgust disgusted revulsion repulsed",
    "surprise": "surprise surprised astonished astonishment shocked shock amazed amazement",
    "neutral": "neutral expressionless emotionless",
    "contempt": "contempt contemptuous disdain scorn",
    "anxiety": "anxiety anxious",
    "helplessness": "helplessness helpless",
    "disappointment": "disappointment disappointed",
}
_EXPRESSION_OF: Final = {
    word: label for label, words in _EXPRESSION_WORDS.items() for word in words.split()
}
_EXPRESSION: Final = re.compile(
    rf"\b(?:{'|'.join(_EXPRESSION_OF)})\b"
    r"(?!\s+(?:background|backdrop|lighting|light|colou?rs?|tones?|makeup|gr[ae]y|clothing))",
    re.IGNORECASE,
)
_NO_EMOTION: Final = re.compile(
    r"\bno (?:\w+ ){0,2}(?:emotion|expression)\b|\blacks? (?:any |of )?emotion\b", re.IGNORECASE
)
_VERDICT_HEAD: Final = re.compile(
    r"\b(?:(?:expression|emotion|mood|feeling|label|answer|verdict|prediction|category)\b.*?"
    r"(?:\bis\b|\bas\b|:|=|\bappears?\b|\bseems?\b|\bwould be\b|\bof\b|\bshows?\b)"
    r"|(?:person|man|woman|he|she|they|face|individual|subject|girl|boy|child|baby|lady|guy)\s+"
    r"(?:\w+\s+)?(?:is|are|looks?|appears?|seems?|feels?|shows?|expresses|displays))",
    re.IGNORECASE,
)
_GROUNDS: Final = re.compile(
    r",?\s+\b(?:with|because|since|given|due to|which|based on"
    r"|(?:as )?(?:indicated|evidenced|shown|suggested|seen) (?:by|in))\b",
    re.IGNORECASE,
)


def _expression(statements: list[str]) -> Label:
    said: list[str] = []
    decided: list[str] = []
    for clause in statements:
        grounds = _GROUNDS.search(clause)
        head = _VERDICT_HEAD.search(clause)
        for found in _EXPRESSION.finditer(clause):
            if is_denied(clause, found.start(), found.end()):
                continue
            label = _EXPRESSION_OF[found.group().lower()]
            said.append(label)
            before_grounds = grounds is None or found.start() < grounds.start()
            if head is not None and head.end() <= found.start() and before_grounds:
                decided.append(label)
        if _NO_EMOTION.search(clause):
            said.append("neutral")
    return _only(decided or said, "the expressions")


def _only(labels: list[str], what: str) -> str:
    distinct = sorted(set(labels))
    if not distinct:
        raise UnreadableAnswer(f"The prose names none of {what}.")
    if len(distinct) > 1:
        raise UnreadableAnswer(f"The prose names several of {what}: {', '.join(distinct)}.")
    return distinct[0]


# Deepfake -------------------------------------------------------------------------------------

_BOTH: Final = re.compile(
    r"\b(?:real|authentic|genuine) (?:or|vs\.?|versus) (?:a )?(?:deep)?fake\b"
    r"|\b(?:deep)?fake (?:or|vs\.?|versus) (?:real|authentic|genuine)\b"
    r"|\b(?:fake|false) (?:eyelashes|lashes|tan|nails|hair|smile)\b"
    r"|\bdeep ?fakes? (?:detection|analysis|check)\b|\bdeep ?fake\s*(?=[:=])"
    r"|\breal[- ](?:life|time|world)\b"
    r"|\b(?:in|from|for|than|unlike) (?:an? )?(?:real|authentic|genuine) \w+",
    re.IGNORECASE,
)
_REAL: Final = re.compile(
    r"\b(?:real|authentic|genuine|unaltered|unedited|unmanipulated|untouched)\b", re.IGNORECASE
)
_FAKE: Final = re.compile(
    r"\b(?:deep ?fakes?|fakes?|faked|fabricated|manipulated|manipulation|tamper(?:ed|ing)|forged"
    r"|forgery|synthetic|doctored|photoshopped|face[- ]swap(?:ped)?"
    r"|(?:ai|computer)[- ]generated|generated (?:by|with) (?:ai|a computer|software))\b",
    re.IGNORECASE,
)


def _deepfake(statements: list[str]) -> Label:
    labels: list[str] = []
    for clause in statements:
        # The words name the question there, not the verdict.
        stated = _BOTH.sub(" ", clause)
        for pattern, label, opposite in ((_REAL, "real", "fake"), (_FAKE, "fake", "real")):
            for found in pattern.finditer(stated):
                # "no artefacts, looks authentic": a comma shields "authentic"; but it does not
                # shield the second word of "no signs of blending, tampering".
                begin = stated.rfind(",", 0, found.start()) + 1 if label == "real" else 0
                denied = is_denied(stated[begin:], found.start() - begin, found.end() - begin)
                labels.append(opposite if denied else label)
    return _only(labels, "the words real and fake")


# Action units ---------------------------------------------------------------------------------

_NAMED_UNITS: Final = {unit.name: code for code, unit in ACTION_UNITS.items()}
_UNIT: Final = re.compile(
    rf"\bAUs?[ _-]?\d{{1,2}}\b|\b(?:{'|'.join(_NAMED_UNITS)})\b", re.IGNORECASE
)
# "AUs 6, 12 and 25" and "AU6+12": the word stands once before several numbers.
_UNIT_LIST: Final = re.compile(
    r"\b(?:AUs?|action units?)[ :]*(\d{1,2}(?:(?:\s*[,+/&]\s*|,?\s+and\s+)\d{1,2})*)\b",
    re.IGNORECASE,
)
_NO_UNITS: Final = re.compile(
    r"\bno (?:\w+ ){0,2}(?:action units?|AUs?)\b(?! ?\d)"
    r"|(?:action units?|AUs?)\s*:\s*none\b|^none$",
    re.IGNORECASE,
)


def _action_units(statements: list[str]) -> Label:
    codes: set[str] = set()
    none_said = False
    any_unit = False
    for clause in statements:
        spelled = _UNIT_LIST.sub(
            lambda found: " ".join(f"AU{number}" for number in re.findall(r"\d+", found.group(1))),
            clause,
        )
        if _UNIT.search(spelled):
            any_unit = True
        elif _NO_UNITS.search(spelled):
            none_said = True
        for word in stated_words(spelled, _UNIT):
            codes.add(_NAMED_UNITS.get(word) or "AU" + re.sub(r"\D", "", word))
    if none_said and codes:
        raise UnreadableAnswer("The prose says that no action unit is active and names some.")
    if not none_said and not codes:
        fault = "only denies action units" if any_unit else "names no action unit"
        raise UnreadableAnswer(f"The prose {fault}.")
    return tuple(code for code in UNION if code in codes)


# Attributes -----------------------------------------------------------------------------------

_STATED: Final = re.compile(r"^\W*(.+?)\W+(yes|no|true|false|present|absent)\W*$", re.IGNORECASE)
_OPENING: Final = re.compile(r"^\W*(yes|no|true|false)\s*(?:[,:;-]|$)", re.IGNORECASE)
_TRUE: Final = ("yes", "true", "present")


def _name_key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower().replace("o'clock", "o clock")).strip()


_NAME_OF: Final = {
    key: name
    for name, attribute in ATTRIBUTES.items()
    for key in (_name_key(name), _name_key(attribute.official))
}


def _all_attributes(statements: list[str]) -> Label:
    said: dict[str, bool] = {}
    for clause in statements:
        for item in clause.split(","):
            found = _STATED.match(re.sub(r"^\s*(?:attributes:|\d+[.)])\s*", "", item, flags=re.I))
            name = _NAME_OF.get(_name_key(found.group(1))) if found else None
            if found is None or name is None:
                continue
            value = found.group(2).lower() in _TRUE
            if said.setdefault(name, value) != value:
                raise UnreadableAnswer(f"The prose says both yes and no of {name!r}.")
    missing = [name for name in NAMES if name not in said]
    if missing:
        raise UnreadableAnswer(
            f"The prose says yes or no of {len(said)} attributes, {len(NAMES)} are wanted; "
            f"{missing[0]!r} is missing."
        )
    return {name: said[name] for name in NAMES}


def _one_attribute(statements: list[str], name: str) -> bool:
    attribute = ATTRIBUTES[name]
    # Alone, "yes" answers the question as it was put: about the attribute's own name.
    opening = _OPENING.match(statements[0])
    said = {opening.group(1).lower() in _TRUE} if opening else set()
    keys = {name, attribute.official.replace("_", " "), *attribute.worn}
    item = _STATED.match(statements[0])
    if item is not None and _NAME_OF.get(_name_key(item.group(1))) == name:
        return item.group(2).lower() in _TRUE
    phrases = [re.escape(key) for key in sorted(keys, key=len, reverse=True) if "{" not in key]
    pattern = re.compile(rf"\b(?:{'|'.join(phrases)})\b", re.IGNORECASE)
    for clause in statements:
        for found in pattern.finditer(clause):
            said.add(not is_denied(clause, found.start(), found.end()))
    if len(said) != 1:
        fault = "says both yes and no" if said else "says neither yes nor no"
        raise UnreadableAnswer(f"The prose {fault} of {name!r}.")
    return said.pop()


_READERS: Final[dict[str, Callable[[list[str]], Label]]] = {
    "expression": _expression,
    "action_units": _action_units,
    "attributes": _all_attributes,
    "age": read_age,
    "deepfake": _deepfake,
}
