"""RAF-DB: seven classes with ids from 1, aligned pictures, manual annotations of the person."""

import pytest

from data_builders.media import Picture
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

LABELS = "EmoLabel/list_patition_label.txt"
NAMES = [f"train_{number:05d}" for number in range(1, 6)] + ["test_0001", "test_0002"]
POINTS = "54.4\t67.1\n61.0\t67.0\n57.8\t77.1\n55.2\t85.5\n60.8\t85.4\n"


def layout(folder="basic/"):
    lines = [f"{name}.jpg {class_id}\n" for class_id, name in enumerate(NAMES, start=1)]
    pictures = {f"{folder}Image/aligned/{name}_aligned.jpg": name for name in NAMES}
    return {folder + LABELS: "".join(lines)} | pictures


@pytest.mark.parametrize("folder", ["basic/", ""])
def test_labels_splits_and_pictures(tmp_path, folder):
    write(tmp_path, layout(folder))
    rows, drops = read("rafdb", tmp_path)
    assert [(row.key, row.labels["expression"], row.split) for row in rows] == [
        ("train_00001", "surprise", "train"),
        ("train_00002", "fear", "train"),
        ("train_00003", "disgust", "train"),
        ("train_00004", "happiness", "train"),
        ("train_00005", "sadness", "train"),
        ("test_0001", "anger", "test"),
        ("test_0002", "neutral", "test"),
    ]
    picture = f"{folder}Image/aligned/train_00001_aligned.jpg"
    assert (rows[0].media, rows[0].origin) == (Picture(tmp_path / picture), picture)
    assert rows[0].demographics == {}
    assert not drops.counts


def test_what_the_annotators_said_of_the_person(tmp_path):
    manual = "basic/Annotation/manual/{}_manu_attri.txt"
    write(tmp_path, layout())
    write(
        tmp_path,
        {
            manual.format("train_00001"): POINTS + "0\n2\n4\n",
            manual.format("train_00002"): POINTS + "1\n0 \n2 \n",
            manual.format("test_0001"): POINTS + "2\n1\n0\n",
            manual.format("test_0002"): POINTS + "9\n\n",
        },
    )
    rows, _ = read("rafdb", tmp_path)
    assert {row.key: row.demographics for row in rows if row.demographics} == {
        "train_00001": {"gender": "male", "race": "Asian", "age_group": "70+"},
        "train_00002": {"gender": "female", "race": "Caucasian", "age_group": "20-39"},
        "test_0001": {"race": "African-American", "age_group": "0-3"},
    }


def test_what_cannot_be_used_is_counted(tmp_path):
    files = layout()
    files[f"basic/{LABELS}"] += "train_00006.jpg 8\nval_1.jpg 1\ntrain_00007.jpg 1\n"
    files["basic/Image/aligned/train_00006_aligned.jpg"] = b""
    write(tmp_path, files)
    rows, drops = read("rafdb", tmp_path)
    assert len(rows) == len(NAMES)
    assert drops.to_dict() == {
        "name starts with neither train nor test": {"count": 1, "examples": ["val_1.jpg"]},
        "picture is missing": {"count": 1, "examples": ["train_00007.jpg"]},
        "unknown label '8'": {"count": 1, "examples": ["train_00006.jpg"]},
    }


def test_a_damaged_list_is_refused(tmp_path):
    files = layout()
    files[f"basic/{LABELS}"] += "train_00008.jpg\n"
    write(tmp_path, files)
    with pytest.raises(BadCorpus, match="RAF-DB: line 8 of '.*list_patition_label.txt' is"):
        read("rafdb", tmp_path)
