"""BP4D: twelve units, unknown codes left out, three folds, pictures by number however padded."""

from collections import Counter

import pytest

from data_builders.media import Picture
from data_builders.sources.bp4d import FOLD_OF
from facellava.errors import BadCorpus
from tests.data_builders.sources.layouts import BP4D_HEADER, bp4d_line, bp4d_table, write_bp4d
from tests.data_builders.sources.miniatures import read, write

UNITS = ["AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24"]


@pytest.fixture
def whole(tmp_path):
    write_bp4d(tmp_path)
    return tmp_path


def coded(root, *lines, task="T1", person="F001"):
    write(root, bp4d_table(person, task, lines))


def test_codes_folds_people_and_padding(whole):
    absent = dict.fromkeys(UNITS, 0)
    coded(
        whole,
        bp4d_line(7, **absent | {"AU6": 1, "AU24": 1, "AU5": 1}),
        bp4d_line(2440, **absent | {"AU1": 9, "AU10": 1, "AU23": 9}),
    )
    coded(whole, bp4d_line(12, **absent), person="M018", task="T8")
    write(whole, {"F001/T1/0007.jpg": "a", "F001/T1/2440.jpg": "b", "M018/T8/012.jpg": "c"})
    rows, drops = read("bp4d", whole)
    assert [(row.key, row.subject, row.fold, row.split) for row in rows] == [
        ("F001-T1-0007", "F001", 3, "train"), ("F001-T1-2440", "F001", 3, "train"),
        ("M018-T8-0012", "M018", 2, "train"),
    ]  # fmt: skip
    assert rows[0].labels == {"action_units": ["AU6", "AU24"], "action_units_coded": UNITS}
    assert rows[1].labels == {
        "action_units": ["AU10"],
        "action_units_coded": [unit for unit in UNITS if unit not in ("AU1", "AU23")],
    }
    assert [row.demographics for row in rows[1:]] == [{"gender": "female"}, {"gender": "male"}]
    assert rows[0].media == Picture(whole / "F001" / "T1" / "0007.jpg", declared_crop=False)
    assert not drops.counts


def test_the_folds_are_the_published_ones():
    assert Counter(FOLD_OF.values()) == {3: 14, 2: 14, 1: 13}
    assert Counter(person[0] for person in FOLD_OF) == {"F": 23, "M": 18}
    assert [FOLD_OF[person] for person in ("F007", "M011", "M007")] == [1, 2, 3]


def test_frames_of_which_nothing_is_known_or_without_picture_are_dropped(whole):
    coded(whole, bp4d_line(1), bp4d_line(2, AU1=1), bp4d_line(3, AU1=1, AU2=7))
    write(whole, {"F001/T1/1.jpg": "a", "F001/T1/3.jpg": "b", "AUCoding/AU_OCC/F099_T1.csv": ""})
    [row], drops = read("bp4d", whole)
    assert row.labels == {"action_units": ["AU1"], "action_units_coded": ["AU1"]}
    assert drops.to_dict() == {
        "a code other than 0, 1 and 9, no row lost: taken as unknown": {
            "count": 1, "examples": ["F001-T1-0003"],
        },
        "no action unit is coded": {"count": 1, "examples": ["F001-T1-0001"]},
        "picture is missing": {"count": 1, "examples": ["F001-T1-0002"]},
        "the person or task is in no fold": {"count": 1, "examples": ["F099_T1"]},
    }  # fmt: skip


def test_other_tables_are_refused(whole):
    table = whole / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    table.write_text("0,1,2,4,6,7,10,12,14,15,17,23\n")
    with pytest.raises(BadCorpus, match=r"F001_T1.csv' has no column '24' for AU24"):
        read("bp4d", whole)
    table.write_text(f"{BP4D_HEADER}\n1,0,0\n")
    with pytest.raises(BadCorpus, match="line 2 of .*F001_T1.csv' does not fit its header"):
        read("bp4d", whole)


def test_a_missing_task_is_named(whole):
    (whole / "AUCoding" / "AU_OCC" / "M018_T8.csv").unlink()
    with pytest.raises(BadCorpus, match="M018_T8.csv' is missing; expected"):
        read("bp4d", whole)
    with pytest.raises(BadCorpus, match="AU_OCC' is missing; expected"):
        read("bp4d", whole / "nowhere")
