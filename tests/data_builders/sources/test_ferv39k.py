"""FERV39k: seven classes, fixed split, frames cut to the face."""

import pytest

from data_builders.media import FrameFiles
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

LISTS = "4_setups/All_scenes"
TRAIN = (
    "Action/Happy/0267 Happy\nAction/Sad/0010 Sad\nCrime/Neutral/1 Neutral\n"
    "Crime/Angry/0002 Angry\n"
)
TEST = "War/Surprise/0003 Surprise\nWar/Disgust/0004 Disgust\nWar/Fear/0005 Fear\n"


def layout(train=TRAIN, test=TEST):
    frames = {
        f"2_ClipsforFaceCrop/{line.split()[0]}/{number:02d}.jpg": b"jpeg"
        for line in (train + test).splitlines()
        for number in range(3)
    }
    return {f"{LISTS}/train_All.csv": train, f"{LISTS}/test_All.csv": test} | frames


def test_labels_splits_and_frames(tmp_path):
    write(tmp_path, layout())
    rows, drops = read("ferv39k", tmp_path)
    assert [(row.key, row.labels["expression"], row.split) for row in rows] == [
        ("Action-Happy-0267", "happiness", "train"),
        ("Action-Sad-0010", "sadness", "train"),
        ("Crime-Neutral-1", "neutral", "train"),
        ("Crime-Angry-0002", "anger", "train"),
        ("War-Surprise-0003", "surprise", "test"),
        ("War-Disgust-0004", "disgust", "test"),
        ("War-Fear-0005", "fear", "test"),
    ]
    folder = tmp_path / "2_ClipsforFaceCrop" / "Action" / "Happy" / "0267"
    assert rows[0].media == FrameFiles(tuple(folder / f"0{number}.jpg" for number in range(3)))
    assert rows[0].origin == "2_ClipsforFaceCrop/Action/Happy/0267"
    assert not drops.counts


def test_what_cannot_be_used_is_counted(tmp_path):
    train = TRAIN + "War/Fear/0005 Fear\nWar/Fear/6 Fear\nWar/Fear/6 Sad\nWar/Bored/7 Bored\n"
    write(tmp_path, layout(train))
    for path in (tmp_path / "2_ClipsforFaceCrop" / "Action" / "Sad" / "0010").iterdir():
        path.unlink()
    rows, drops = read("ferv39k", tmp_path)
    assert len(rows) == 6
    assert [row.key for row in rows if row.split == "test"][-1] == "War-Fear-0005"
    assert drops.to_dict() == {
        "clip has several labels": {"count": 2, "examples": ["War/Fear/6", "War/Fear/6"]},
        "clip is in the test list too": {"count": 1, "examples": ["War/Fear/0005"]},
        "clip is missing or has no frames": {"count": 1, "examples": ["Action/Sad/0010"]},
        "unknown label 'Bored'": {"count": 1, "examples": ["War/Bored/7"]},
    }


@pytest.mark.parametrize("missing", [f"{LISTS}/train_All.csv", f"{LISTS}/test_All.csv"])
def test_a_missing_list_is_named(tmp_path, missing):
    files = layout()
    del files[missing]
    write(tmp_path, files)
    with pytest.raises(BadCorpus, match=f"FERV39k: '.*{missing}' is missing; expected 4_setups"):
        read("ferv39k", tmp_path)
