"""The answer grammar: what a lead says is what is read back, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from facellava.errors import BadSample, FacellavaError, UnknownTask, UnreadableAnswer
from facellava.tasks import ANSWERABLE, TASKS, Label, Verdict, closed_set_words, find_task
from facellava.tasks import parse_answer as parse
from facellava.tasks.action_units import UNION
from facellava.tasks.age import AGES
from facellava.tasks.attribute_table import NAMES
from facellava.tasks.deepfake import LABELS as REAL_AND_FAKE
from facellava.tasks.expression import LABELS as EXPRESSIONS
from facellava.tasks.unanswerable import KINDS

REASONS = "the lip corners are raised. Also, the teeth are visible at a value of 0.3."
ALTERNATING = {name: place % 2 == 0 for place, name in enumerate(NAMES)}


def every_label() -> list[tuple[str, Label]]:
    """Each label of each task; of lists the empty, every single, pairs and the whole."""
    units: list[tuple[str, ...]] = [(), UNION, *((unit,) for unit in UNION)]
    units += list(zip(UNION, UNION[1:], strict=False))
    tables = [ALTERNATING, dict.fromkeys(NAMES, True), dict.fromkeys(NAMES, False)]
    tables += [{name: value} for name in NAMES for value in (True, False)]
    return [
        *(("expression", word) for word in EXPRESSIONS),
        *(("action_units", label) for label in units),
        *(("attributes", table) for table in tables),
        *(("age", years) for years in AGES),
        *(("deepfake", word) for word in REAL_AND_FAKE),
    ]


def test_every_label_is_read_back_from_prose_and_from_json() -> None:
    for task, label in every_label():
        prose = f"{TASKS[task].lead(label)} {REASONS}"
        assert parse(prose) == Verdict(task, label, REASONS)
        text = TASKS[task].write_json(label, ["First reason.", 'Second "reason".'])
        assert parse(text) == Verdict(task, label, 'First reason. Second "reason".')


def test_leads_read_as_documented() -> None:
    assert TASKS["expression"].lead("happiness") == "Expression: happiness."
    assert TASKS["age"].lead(34) == "Age: 34 years."
    assert TASKS["age"].lead(1) == "Age: 1 year."
    assert TASKS["action_units"].lead(("AU6", "AU12")) == "Action units: AU6, AU12."
    assert TASKS["action_units"].lead(()) == "Action units: none."
    assert TASKS["attributes"].lead({"eyeglasses": False}) == "Attributes: eyeglasses no."
    assert TASKS["deepfake"].lead("fake") == "Deepfake: fake."
    whole = TASKS["attributes"].lead(ALTERNATING)
    assert whole.startswith("Attributes: 5 o'clock shadow yes, arched eyebrows no, ")
    assert whole.endswith(", young no.")
    assert whole.count(",") == 39


def test_json_is_compact_and_in_order() -> None:
    text = TASKS["expression"].write_json("happiness", ["The lip corners are raised."])
    expected = '{"task":"expression","label":"happiness","reasons":["The lip corners are raised."]}'
    assert text == expected
    assert json.loads(TASKS["action_units"].write_json(("AU4",), ["a"]))["label"] == ["AU4"]
    assert json.loads(TASKS["attributes"].write_json(ALTERNATING, ["a"]))["label"] == ALTERNATING


def test_a_refusal_has_no_label_and_keeps_its_reason() -> None:
    for kind in KINDS.values():
        verdict = parse(f"Cannot answer: {kind.reason}. You can ask about the age.")
        expected = f"{kind.reason}. You can ask about the age."
        assert verdict == Verdict("unanswerable", None, expected)
    text = TASKS["unanswerable"].write_json(None, ["I do not identify people."])
    assert parse(text) == Verdict("unanswerable", None, "I do not identify people.")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("The man looks happy.", "no task's lead"),
        ("happiness", "no task's lead"),
        ("I think: Expression: happiness.", "no task's lead"),
        ("expression: happiness.", "no task's lead"),
        ("Expression: happiness", "does not end"),
        ("Expression: happy.", "unknown label 'happy'"),
        ("Expression: .", "unknown label ''"),
        ("Expression: happiness, surprise.", "unknown label"),
        ("Expression: Happiness.", "unknown label"),
        ("Expression: happiness. Because. Age: 34 years.", "second lead"),
        ("Expression: happiness. Because. Expression: sadness.", "second lead"),
        ("Age: 34.", "not a number of years"),
        ("Age: 034 years.", "not a number of years"),
        ("Age: 1 years.", "not a number of years"),
        ("Age: 34 year.", "not a number of years"),
        ("Age: 34.5 years.", "does not end"),
        ("Age: -3 years.", "not a number of years"),
        ("Age: 117 years.", "unknown label 117"),
        ("Age: thirty years.", "not a number of years"),
        ("Action units: AU12, AU6.", "ascending"),
        ("Action units: AU6, AU6.", "ascending"),
        ("Action units: AU6, AU12", "does not end"),
        ("Action units: AU6, AU.", "not a unit"),
        ("Action units: AU6,AU12.", "not a unit"),
        ("Action units: AU5.", "unknown action unit 'AU5'"),
        ("Action units: none, AU6.", "not a unit"),
        ("Action units: .", "not a unit"),
        ("Deepfake: real or fake.", "unknown label"),
        ("Deepfake: maybe.", "unknown label"),
        ("Attributes: eyeglasses.", "neither yes nor no"),
        ("Attributes: eyeglasses maybe.", "neither yes nor no"),
        ("Attributes: monocle yes.", "unknown attribute 'monocle'"),
        ("Attributes: eyeglasses yes, eyeglasses yes.", "twice"),
        ("Attributes: eyeglasses yes, goatee no.", "2 attributes"),
        ("Cannot answer: .", "no reason"),
        ("{", "not whole JSON"),
        ('{"task":"age","label":34,"reasons":["a"]', "not whole JSON"),
        ('{"task":"age","label":34}', "keys"),
        ('{"task":"age","label":34,"reasons":["a"],"more":1}', "keys"),
        ('{"task":"age","label":34,"label":35,"reasons":["a"]}', "not whole JSON"),
        ('{"task":"weight","label":34,"reasons":["a"]}', "unknown task"),
        ('{"task":["age"],"label":34,"reasons":["a"]}', "unknown task"),
        ('{"task":"age","label":"34","reasons":["a"]}', "unknown label"),
        ('{"task":"age","label":true,"reasons":["a"]}', "unknown label"),
        ('{"task":"age","label":34.0,"reasons":["a"]}', "unknown label"),
        ('{"task":"age","label":34,"reasons":"a"}', "not a list of strings"),
        ('{"task":"age","label":34,"reasons":[1]}', "not a list of strings"),
        ('{"task":"expression","label":null,"reasons":["a"]}', "unknown label None"),
        ('{"task":"action_units","label":"AU6","reasons":["a"]}', "not a list"),
        ('{"task":"action_units","label":["AU12","AU6"],"reasons":["a"]}', "ascending"),
        ('{"task":"attributes","label":{"eyeglasses":"no"},"reasons":["a"]}', "neither true"),
        ('{"task":"attributes","label":{},"reasons":["a"]}', "0 attributes"),
        ('{"task":"unanswerable","label":"age","reasons":["a"]}', "only null"),
        ('{"task":"unanswerable","label":null,"reasons":[]}', "no reason"),
    ],
)
def test_text_outside_the_grammar_is_an_error_never_a_label(text: str, complaint: str) -> None:
    with pytest.raises(UnreadableAnswer, match=complaint) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_list_of_attributes_cut_anywhere_is_unreadable() -> None:
    whole = TASKS["attributes"].lead(ALTERNATING)
    for end in range(len(whole)):
        with pytest.raises(UnreadableAnswer):
            parse(whole[:end])


def test_attributes_out_of_order_are_unreadable_in_both_forms() -> None:
    swapped = dict(sorted(ALTERNATING.items(), reverse=True))
    items = ", ".join(f"{name} {'yes' if value else 'no'}" for name, value in swapped.items())
    with pytest.raises(UnreadableAnswer, match="order"):
        parse(f"Attributes: {items}.")
    body = {"task": "attributes", "label": swapped, "reasons": ["a"]}
    with pytest.raises(UnreadableAnswer, match="order"):
        parse(json.dumps(body))


def test_deep_json_is_unreadable_and_not_a_crash() -> None:
    with pytest.raises(UnreadableAnswer, match="not whole JSON"):
        parse('{"task":' + "[" * 100_000)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("expression", "happy"),
        ("age", 200),
        ("age", True),
        ("age", "34"),
        ("action_units", ("AU12", "AU6")),
        ("action_units", "AU6"),
        ("attributes", {"eyeglasses": 1}),
        ("attributes", {"eyeglasses": True, "young": True}),
        ("deepfake", None),
        ("unanswerable", "identity"),
    ],
)
def test_a_label_that_is_not_the_tasks_cannot_be_written(task: str, label: Label) -> None:
    with pytest.raises(BadSample, match=task):
        TASKS[task].lead(label)
    with pytest.raises(BadSample, match=task):
        TASKS[task].write_json(label, ["a"])


def fits(schema: dict, value: object) -> bool:
    """Whether a value fits a schema: exactly the keywords that the tasks' schemas use."""
    if "anyOf" in schema:
        return any(fits(branch, value) for branch in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
        "integer": int,
    }  # fmt: skip
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool)):
        return False
    if isinstance(value, dict):
        assert schema["additionalProperties"] is False
        properties = schema["properties"]
        return (
            set(schema["required"]) <= set(value)
            and set(value) <= set(properties)
            and all(fits(properties[key], part) for key, part in value.items())
        )
    if isinstance(value, list):
        long_enough = len(value) >= schema.get("minItems", 0)
        return long_enough and all(fits(schema["items"], part) for part in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(schema["minimum"] <= value <= schema["maximum"])
    return True


def test_the_schema_admits_every_json_answer_and_only_its_own_task() -> None:
    for task, label in every_label():
        body = json.loads(TASKS[task].write_json(label, ["a"]))
        admitted = [name for name in TASKS if fits(TASKS[name].json_schema(), body)]
        assert admitted == [task]
    for name in TASKS:
        schema = TASKS[name].json_schema()
        assert list(schema["properties"]) == ["task", "label", "reasons"]
        assert not fits(schema, {"task": name, "label": "other", "reasons": ["a"]})


def test_task_names() -> None:
    assert ANSWERABLE == ("expression", "action_units", "attributes", "age", "deepfake")
    with pytest.raises(UnknownTask, match="choose one of expression, action_units"):
        find_task("gender")
    assert issubclass(UnknownTask, FacellavaError)


def test_closed_words_stand_in_the_leads_with_their_space() -> None:
    seen = " ".join(TASKS[task].lead(label) for task, label in every_label())
    for task in ANSWERABLE:
        words = closed_set_words(task)
        assert len(words) == len(set(words))
        assert set(TASKS[task].scored_words) <= set(words)
        for word in words:
            assert word.startswith(" ")
            assert word in seen
    assert closed_set_words("unanswerable") == []
