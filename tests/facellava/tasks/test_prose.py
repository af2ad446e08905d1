"""The lenient parser on prose as other models write it."""

from __future__ import annotations

import pytest

from facellava.errors import UnknownTask, UnreadableAnswer
from facellava.tasks import TASKS
from facellava.tasks.attribute_table import NAMES, OFFICIAL_NAMES
from facellava.tasks.prose import read_prose


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Happy", "happiness"),
        ("**Happiness**", "happiness"),
        ("Expression: happiness.", "happiness"),
        ("The woman in the image appears sad. Her lips rule out happiness.", "sadness"),
        ("The man appears happy, with raised cheeks that could hint at surprise.", "happiness"),
        ("She is not angry, she looks happy.", "happiness"),
        ("He isn\u2019t happy but surprised.", "surprise"),
        ("He looks happy rather than surprised.", "happiness"),
        ("Is he happy or sad? He looks sad.", "sadness"),
        ("The emotion in this face is fear. The wide eyes are also seen in surprise.", "fear"),
        ("The subject displays a neutral expression, with no signs of happiness.", "neutral"),
        ("There is no strong emotion visible.", "neutral"),
        ("The face is neutral against a neutral background.", "neutral"),
        ("He looks unhappy.", "sadness"),
        ("I can't be certain from one photo, but the person seems frightened.", "fear"),
    ],
)
def test_a_clear_expression_is_read(text: str, label: str) -> None:
    assert read_prose("expression", text).label == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "The person is smiling at the camera.",
        "A portrait with a neutral background.",
        "He is not angry.",
        "He is not angry, sad or afraid.",
        "He doesn't seem happy.",
        "The expression is a mix of happiness and surprise.",
        "The emotion shown is anger, fear or disgust.",
        "Happy or sad?",
        "I'm sorry, but I can't determine emotions from faces.",
        "It is hard to say whether she is happy.",
        "The options are anger, disgust, fear, happiness.",
    ],
)
def test_no_clear_expression_is_an_error_and_never_a_default(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_prose("expression", text)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("34", 34),
        ("Age: 1 year.", 1),
        ("22 years old is a reasonable estimation for this person.", 22),
        ("The person appears to be around 30-35 years old.", 33),
        ("I would estimate between 20 and 25.", 23),
        ("She is in her early thirties.", 32),
        ("in his mid-40s", 45),
        ("late 20s to early 30s", 30),
        ("He looks about 34, probably 30-35.", 34),
        ("I cannot determine the exact age, but he appears to be 34 years old.", 34),
        ("From the 2 lines at the eyes I estimate his age to be 52.", 52),
        ("6 months old", 0),
        ("A 7-year-old girl.", 7),
    ],
)
def test_a_clear_age_is_read(text: str, years: int) -> None:
    assert read_prose("age", text).label == years


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The person is over 18.",
        "He is not 40.",
        "34 or maybe 50 years old",
        "between 20 and 60 years old",
        "He is 130 years old.",
        "The image, from 2015, shows 3 people.",
        "A young adult.",
        "About 30-35 years old, at most 52. I would say 52 years.",
        "I cannot estimate age from images.",
    ],
)
def test_no_clear_age_is_an_error(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_prose("age", text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Real.", "real"),
        ("Deepfake: real.", "real"),
        ("This is a deepfake.", "fake"),
        ("This is not a deepfake.", "real"),
        ("Real or fake? Fake.", "fake"),
        ("It does not look real.", "fake"),
        ("The skin looks too smooth to be real.", "fake"),
        ("There are no visible signs of digital manipulation.", "real"),
        ("No signs of blending, tampering or manipulation, so it looks authentic.", "real"),
        ("The face shows no blending artefacts and looks authentic.", "real"),
        ("The grain is not what one sees in real photos. The face is AI-generated.", "fake"),
        ("It is more likely real than fake.", "real"),
    ],
)
def test_a_clear_verdict_on_fakes_is_read(text: str, label: str) -> None:
    assert read_prose("deepfake", text).label == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes.",
        "The photo is realistic.",
        "She wears fake eyelashes.",
        "I cannot determine whether this is real or fake.",
        "It appears to be real, although it could be fake.",
    ],
)
def test_no_clear_verdict_on_fakes_is_an_error(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_prose("deepfake", text)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("AU6, AU12", ("AU6", "AU12")),
        ("AU12+AU6", ("AU6", "AU12")),
        ("AUs 6, 12 and 25 are active.", ("AU6", "AU12", "AU25")),
        ("AU 12 (lip corner puller) is active. AU4 is not active.", ("AU12",)),
        ("The cheek raiser and the lip corner puller are active.", ("AU6", "AU12")),
        ("- AU1: yes\n- AU2: no\n- AU4: absent", ("AU1",)),
        ("No action units are active.", ()),
        ("Action units: none.", ()),
        # A unit outside our set is a clear answer in which ours are not active.
        ("AU45", ()),
    ],
)
def test_action_units_are_read(text: str, units: tuple[str, ...]) -> None:
    assert read_prose("action_units", text).label == units


@pytest.mark.parametrize("text", ["", "He is smiling.", "AU4 is absent.", "None that I can see?"])
def test_no_action_unit_named_is_an_error(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_prose("action_units", text)


def test_all_attributes_are_read_in_any_order_and_with_official_names() -> None:
    table = {name: place % 3 == 0 for place, name in enumerate(NAMES)}
    lines = [
        f"{place}. **{official}**: {'Yes' if table[name] else 'No'}"
        for place, (official, name) in enumerate(reversed(OFFICIAL_NAMES.items()), start=1)
    ]
    verdict = read_prose("attributes", "Here is the list:\n" + "\n".join(lines))
    assert verdict.label == table
    assert isinstance(verdict.label, dict)
    assert list(verdict.label) == list(NAMES)
    assert read_prose("attributes", TASKS["attributes"].lead(table)).label == table


def test_attributes_that_are_missing_or_contradictory_are_an_error() -> None:
    lines = [f"{name}: yes" for name in NAMES]
    with pytest.raises(UnreadableAnswer, match="39 attributes.*'young' is missing"):
        read_prose("attributes", "\n".join(lines[:-1]))
    with pytest.raises(UnreadableAnswer, match="both yes and no of 'young'"):
        read_prose("attributes", "\n".join([*lines, "young: no"]))


@pytest.mark.parametrize(
    ("name", "text", "present"),
    [
        ("eyeglasses", "Yes", True),
        ("eyeglasses", "Yes, he is wearing glasses.", True),
        ("eyeglasses", "No, he is not wearing glasses.", False),
        ("eyeglasses", "No eyeglasses are visible.", False),
        ("eyeglasses", "The man wears glasses.", True),
        ("beardless", "No beard is visible.", True),
        ("beardless", "no beard: no", False),
        ("beardless", "He is not beardless.", False),
    ],
)
def test_one_attribute_is_read(name: str, text: str, present: bool) -> None:
    assert read_prose("attributes", text, attribute=name).label == {name: present}


@pytest.mark.parametrize("text", ["Maybe.", "", "Yes. Then again, no glasses are visible."])
def test_one_attribute_left_open_is_an_error(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_prose("attributes", text, attribute="eyeglasses")


def test_guided_json_of_another_model_is_read_strictly() -> None:
    body = TASKS["expression"].write_json("fear", ["The eyes are wide open."])
    assert read_prose("expression", f"```json\n{body}\n```").label == "fear"
    with pytest.raises(UnreadableAnswer, match="of task 'expression', not 'age'"):
        read_prose("age", body)


def test_tasks_without_prose() -> None:
    with pytest.raises(UnknownTask):
        read_prose("gender", "male")
    with pytest.raises(UnreadableAnswer):
        read_prose("unanswerable", "I do not identify people.")
