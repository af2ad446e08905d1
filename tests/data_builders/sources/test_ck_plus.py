"""CK+: the peak of each labelled sequence and its neutral start, ten folds by subject."""

from collections import Counter

import pytest

from data_builders.media import Picture
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from data_builders.sources.ck_plus import FOLDS
from facellava.errors import BadCorpus
from facellava.tasks.expression import LABEL_SETS
from tests.data_builders.sources.miniatures import read, write


def sequence(subject, number, frames, emotion=None, facs=None):
    """A sequence's files; its emotion and its action units belong to the last picture."""
    folder = f"{subject}/{number}"
    stems = [f"{subject}_{number}_{frame:08d}" for frame in range(1, frames + 1)]
    files = {f"cohn-kanade-images/{folder}/{stem}.png": stem for stem in stems}
    if emotion is not None:
        files[f"Emotion/{folder}/{stems[-1]}_emotion.txt"] = emotion
    if facs is not None:
        files[f"FACS/{folder}/{stems[-1]}_facs.txt"] = facs
    return files


def test_emotions_in_the_published_order():
    assert {number: LABEL_SETS["ck_plus"].label_of(number) for number in range(8)} == {
        0: "neutral", 1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness",
        6: "sadness", 7: "surprise",
    }  # fmt: skip
    with pytest.raises(ValueError, match="class 8 is not in"):
        LABEL_SETS["ck_plus"].label_of(8)


def test_peaks_and_neutral_starts(tmp_path):
    facs = "   9.0000000e+00   4.0000000e+00\n   1.7000000e+01   2.0000000e+00\n"
    write(
        tmp_path,
        sequence("S005", "001", 11, "   3.0000000e+00\n", facs)
        | sequence("S010", "002", 14, "   7.0000000e+00\n")
        | sequence("S010", "003", 5)  # without an emotion
        | sequence("S999", "001", 1, "   1.0000000e+00\n", "\n"),
    )
    rows, drops = read("ck_plus", tmp_path)
    assert [(row.key, row.labels, row.subject, row.fold) for row in rows] == [
        ("S005_001_00000001", {"expression": "neutral"}, "S005", 1),
        (
            "S005_001_00000011",
            {"expression": "disgust", "action_units": ["AU9", "AU17"]},
            "S005",
            1,
        ),
        ("S010_002_00000001", {"expression": "neutral"}, "S010", 2),
        ("S010_002_00000014", {"expression": "surprise"}, "S010", 2),
        ("S999_001_00000001", {"expression": "anger", "action_units": []}, "S999", 8),
    ]
    path = "cohn-kanade-images/S005/001/S005_001_00000011.png"
    assert rows[1].media == Picture(tmp_path / path, declared_crop=False)
    assert rows[1].origin == path
    assert not drops.counts


def test_units_that_answers_cannot_name_are_left_out(tmp_path):
    # AU12 whose intensity was not given, AU2 before AU1, and two that no answer holds.
    facs = "1.2000000e+01 0.0\n2.0e+00 1.0\n1.0e+00 1.0\n5.0e+00 1.0\n2.7e+01 3.0\n"
    write(tmp_path, sequence("S011", "001", 2, "7.0", facs))
    rows, _ = read("ck_plus", tmp_path)
    assert rows[1].labels["action_units"] == ["AU1", "AU2", "AU12"]


def test_folds_take_every_tenth_of_the_sorted_subjects():
    assert len(FOLDS) == 118
    assert [FOLDS[subject] for subject in sorted(FOLDS)] == [place % 10 + 1 for place in range(118)]
    assert sorted(Counter(FOLDS.values()).values()) == [11, 11] + [12] * 8


def test_nobody_is_in_two_splits_of_a_plan(tmp_path):
    for subject in FOLDS:
        write(tmp_path, sequence(subject, "001", 2, "5.0") | sequence(subject, "002", 2))
    drops = Drops()
    rows = list(planned_rows(SOURCES["ck_plus"], tmp_path, drops, fold=10))
    assert len(rows) == 2 * 118
    assert {row.subject for row in rows if row.split == "test"} == {
        "S034", "S053", "S063", "S073", "S083", "S093", "S105", "S115", "S129", "S139", "S160",
    }  # fmt: skip
    assert not drops.counts


def test_what_cannot_be_used_is_counted(tmp_path):
    write(
        tmp_path,
        sequence("S005", "001", 2, "8.0")
        | sequence("S010", "001", 2, "3.5")
        | sequence("S011", "001", 2, "")
        | sequence("S014", "001", 2, "1.0", "nine\n")
        | sequence("S022", "001", 2, "1.0", "1.5e+00 0.0\n")
        | sequence("S052", "001", 2, "1.0")  # a subject of fold 9 whose peak is gone
        | sequence("S777", "001", 2, "1.0")
        | {"Emotion/S005/002/notes_emotion.txt": "1.0"},
    )
    (tmp_path / "cohn-kanade-images" / "S052" / "001" / "S052_001_00000002.png").unlink()
    rows, drops = read("ck_plus", tmp_path)
    assert rows == []
    assert {reason: found["examples"] for reason, found in drops.to_dict().items()} == {
        "action units cannot be read": ["S014_001_00000002", "S022_001_00000002"],
        "emotion is not a number from 0 to 7": [
            "S005_001_00000002", "S010_001_00000002", "S011_001_00000002",
        ],
        "file name lacks subject, sequence or frame": ["notes_emotion.txt"],
        "picture is missing": ["S052_001_00000002"],
        "subject is in no fold": ["S777_001_00000002"],
    }  # fmt: skip


def test_missing_folders_are_named(tmp_path):
    write(tmp_path, sequence("S005", "001", 2))
    with pytest.raises(BadCorpus, match="CK.: '.*Emotion' is missing; expected Emotion/S005/001"):
        read("ck_plus", tmp_path)
    (tmp_path / "Emotion").mkdir()
    with pytest.raises(BadCorpus, match=r"Emotion' holds no \*_emotion.txt file"):
        read("ck_plus", tmp_path)
