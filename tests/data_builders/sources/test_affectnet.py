"""AffectNet: eight classes or seven, annotations as small numpy files."""

import io

import numpy as np
import pytest

from data_builders.media import Picture
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write


def npy(value) -> bytes:
    data = io.BytesIO()
    np.save(data, value, allow_pickle=True)
    return data.getvalue()


def layout(train, test):
    files = {}
    for folder, values in (("train_set", train), ("val_set", test)):
        for name, value in values.items():
            files[f"{folder}/images/{name}.jpg"] = f"{folder} {name}"
            contents = value if isinstance(value, bytes) else npy(value)
            files[f"{folder}/annotations/{name}_exp.npy"] = contents
            files[f"{folder}/annotations/{name}_val.npy"] = npy("0.5")
    return files


# Text, as it is given out, and numbers.
TRAIN = {0: "0", 2: "1", 10: np.int64(2), 9: np.array(["3"]), 11: 4.0, 12: "5", 13: "6", 14: "7"}


def test_classes_in_the_published_order(tmp_path):
    write(tmp_path, layout(TRAIN, {0: "7", 1: "6"}))
    rows, drops = read("affectnet8", tmp_path)
    assert [(row.key, row.labels["expression"], row.split) for row in rows] == [
        ("train_set-0", "neutral", "train"),
        ("train_set-2", "happiness", "train"),
        ("train_set-9", "surprise", "train"),
        ("train_set-10", "sadness", "train"),
        ("train_set-11", "fear", "train"),
        ("train_set-12", "disgust", "train"),
        ("train_set-13", "anger", "train"),
        ("train_set-14", "contempt", "train"),
        ("val_set-0", "contempt", "test"),
        ("val_set-1", "anger", "test"),
    ]
    assert rows[1].media == Picture(tmp_path / "train_set" / "images" / "2.jpg")
    assert not drops.counts


def test_seven_classes_leave_contempt_out(tmp_path):
    write(tmp_path, layout(TRAIN, {0: "7", 1: "6"}))
    rows, drops = read("affectnet7", tmp_path)
    assert [row.key for row in rows if row.split == "test"] == ["val_set-1"]
    assert len(rows) == 8
    assert drops.to_dict() == {
        "class 7 is not in the protocol": {
            "count": 2, "examples": ["train_set/images/14.jpg", "val_set/images/0.jpg"],
        }
    }  # fmt: skip


def test_what_cannot_be_used_is_counted(tmp_path):
    bad = {
        20: "8", 21: "happy", 22: 1.5, 23: np.array([1, 2]), 24: b"", 25: b"hello",
        26: np.array([object()], dtype=object), 27: npy(np.zeros(400))[:-8], 28: "1",
    }  # fmt: skip
    write(tmp_path, layout(TRAIN | bad, {0: "0"}))
    (tmp_path / "train_set" / "images" / "28.jpg").unlink()
    rows, drops = read("affectnet8", tmp_path)
    assert len(rows) == len(TRAIN) + 1
    assert drops.counts == {
        "annotation cannot be read": 7,
        "class 8 is not in the protocol": 1,
        "picture is missing": 1,
    }


def test_missing_or_empty_folders_are_named(tmp_path):
    write(tmp_path, layout(TRAIN, {0: "0"}))
    annotation = tmp_path / "val_set" / "annotations" / "0_exp.npy"
    annotation.unlink()
    with pytest.raises(BadCorpus, match=r"val_set/annotations' holds no \*_exp.npy file"):
        read("affectnet8", tmp_path)
    for path in annotation.parent.iterdir():
        path.unlink()
    annotation.parent.rmdir()
    with pytest.raises(BadCorpus, match="val_set/annotations' is missing; expected train_set"):
        read("affectnet7", tmp_path)
