"""Label tables against the orders that the datasets publish."""

from __future__ import annotations

import pytest

from facellava.tasks.action_units import ACTION_UNITS, BP4D, DISFA, UNION
from facellava.tasks.attribute_table import NAMES, OFFICIAL_NAMES
from facellava.tasks.expression import BASIC, LABEL_SETS, LABELS


@pytest.mark.parametrize(
    ("name", "table"),
    [
        # fer2013.csv
        (
            "fer2013",
            {0: "anger", 1: "disgust", 2: "fear", 3: "happiness", 4: "sadness", 5: "surprise",
             6: "neutral"},
        ),
        # AffectNet annotation files
        (
            "affectnet8",
            {0: "neutral", 1: "happiness", 2: "sadness", 3: "surprise", 4: "fear", 5: "disgust",
             6: "anger", 7: "contempt"},
        ),
        # RAF-DB readme: ids start at 1
        (
            "rafdb",
            {1: "surprise", 2: "fear", 3: "disgust", 4: "happiness", 5: "sadness", 6: "anger",
             7: "neutral"},
        ),
        # DFEW: ids start at 1
        (
            "dfew",
            {1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust",
             7: "fear"},
        ),
        (
            "crema_d",
            {0: "anger", 1: "disgust", 2: "fear", 3: "happiness", 4: "neutral", 5: "sadness"},
        ),
        (
            "ferv39k",
            {0: "happiness", 1: "sadness", 2: "neutral", 3: "anger", 4: "surprise", 5: "disgust",
             6: "fear"},
        ),
        (
            "mafw11",
            {0: "anger", 1: "disgust", 2: "fear", 3: "happiness", 4: "neutral", 5: "sadness",
             6: "surprise", 7: "contempt", 8: "anxiety", 9: "helplessness", 10: "disappointment"},
        ),
        (
            "ferplus",
            {0: "neutral", 1: "happiness", 2: "surprise", 3: "sadness", 4: "anger", 5: "disgust",
             6: "fear", 7: "contempt"},
        ),
    ],
)  # fmt: skip
def test_label_sets_follow_the_published_order(name: str, table: dict[int, str]) -> None:
    label_set = LABEL_SETS[name]
    assert {class_id: label_set.label_of(class_id) for class_id in table} == table
    for outside in (min(table) - 1, max(table) + 1):
        with pytest.raises(ValueError, match="is not in"):
            label_set.label_of(outside)


def test_every_label_set_maps_to_distinct_labels_that_answers_can_hold() -> None:
    for label_set in LABEL_SETS.values():
        assert len(set(label_set.labels)) == len(label_set.words)
        assert set(label_set.labels) <= set(LABELS)
    assert BASIC == (
        "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise",
    )  # fmt: skip


def test_action_unit_sets() -> None:
    assert [int(code[2:]) for code in DISFA] == [1, 2, 4, 6, 9, 12, 25, 26]
    assert [int(code[2:]) for code in BP4D] == [1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24]
    assert set(UNION) == set(DISFA) | set(BP4D)
    numbers = [unit.number for unit in ACTION_UNITS.values()]
    assert numbers == sorted(numbers)
    assert ACTION_UNITS["AU12"].name == "lip corner puller"
    assert ACTION_UNITS["AU12"].muscles == ("zygomaticus major",)
    assert ACTION_UNITS["AU15"].muscles == ("depressor anguli oris",)


def test_attributes_have_celebas_names_in_celebas_order() -> None:
    published = [
        "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
        "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair",
        "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
        "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
        "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline",
        "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
        "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
    ]  # fmt: skip
    assert list(OFFICIAL_NAMES) == published
    assert tuple(OFFICIAL_NAMES.values()) == NAMES
    assert len(set(NAMES)) == 40
    # The list is cut at ", " and each item at its last space.
    assert not any("," in name or "." in name or name.endswith((" yes", " no")) for name in NAMES)
