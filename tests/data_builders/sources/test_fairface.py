"""FairFace: age groups, gender and race as demographics, and no task."""

import pytest

from data_builders.media import Picture
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

HEAD = "file,age,gender,race,service_test\n"
TRAIN = "train/1.jpg,3-9,Male,East Asian,False\ntrain/2.jpg,more than 70,Female,Black,True\n"
VAL = "val/1.jpg,50-59,Female,Latino_Hispanic,True\n"


def tables(train=TRAIN, val=VAL):
    return {"fairface_label_train.csv": HEAD + train, "fairface_label_val.csv": HEAD + val}


@pytest.mark.parametrize("folder", ["", "fairface-img-margin125-trainval/"])
def test_demographics_and_splits(tmp_path, folder):
    pictures = [f"{folder}{name}" for name in ("train/1.jpg", "train/2.jpg", "val/1.jpg")]
    write(tmp_path, tables() | {name: name for name in pictures})
    rows, drops = read("fairface", tmp_path)
    assert [(row.key, row.split, row.labels, row.demographics) for row in rows] == [
        ("train-1", "train", {}, {"age_group": "3-9", "gender": "male", "race": "East Asian"}),
        ("train-2", "train", {}, {"age_group": "70+", "gender": "female", "race": "Black"}),
        (
            "val-1", "validation", {},
            {"age_group": "50-59", "gender": "female", "race": "Latino_Hispanic"},
        ),
    ]  # fmt: skip
    assert rows[1].media == Picture(tmp_path / pictures[1], declared_crop=False)
    assert rows[1].origin == pictures[1]
    assert not drops.counts


def test_unknown_words_and_missing_pictures_are_dropped(tmp_path):
    train = TRAIN + "train/3.jpg,20s,Male,Black,True\ntrain/4.jpg,0-2,Male,Asian,True\n"
    write(tmp_path, tables(train + "train/5.jpg,0-2,0,Black,True\n"))
    write(tmp_path, {"train/2.jpg": "x", "val/1.jpg": "y"})
    rows, drops = read("fairface", tmp_path)
    assert [row.key for row in rows] == ["train-2", "val-1"]
    assert drops.counts == {
        "picture is missing": 1,
        "unknown age '20s'": 1,
        "unknown race 'Asian'": 1,
        "unknown gender '0'": 1,
    }


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(BadCorpus, match="fairface_label_train.csv' is missing; expected"):
        read("fairface", tmp_path)
    write(tmp_path, tables())
    with pytest.raises(BadCorpus, match="train' is missing; expected"):
        read("fairface", tmp_path)
    write(tmp_path, {"train/1.jpg": "x", "val/1.jpg": "y", "fairface_label_val.csv": "file,age\n"})
    with pytest.raises(BadCorpus, match="fairface_label_val.csv' has no column 'gender'"):
        read("fairface", tmp_path)
