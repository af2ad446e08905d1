"""DFEW: single-labelled clips, five official folds, clips as files or as frames."""

import pytest

from data_builders.media import ClipFile, FrameFiles
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from facellava.errors import BadCorpus
from tests.data_builders.sources.layouts import dfew_lists
from tests.data_builders.sources.miniatures import read, write

# Clip to label and the fold that tests it.
CLIPS = {
    1: (1, 1), 2: (2, 1), 30: (3, 2), 404: (4, 3), 5005: (5, 4), 16000: (6, 5), 16001: (7, 5),
}  # fmt: skip


def frames(name, count=12):
    return {f"Clip/clip_224x224/{name}/{number}.jpg": b"jpeg" for number in range(1, count + 1)}


def test_labels_folds_and_clips_of_every_layout(tmp_path):
    write(tmp_path, dfew_lists(CLIPS))
    write(tmp_path, frames("00001"))
    write(tmp_path, {"Clip/clip_224x224/00002.mp4": b"2", "Clip/original/1.mp4": b"1"})
    write(tmp_path, {f"Clip/original/{name}.mp4": b"clip" for name in (30, 404, "05005", 16000)})
    write(tmp_path, {"Clip/jpg_256/16001/00001.jpg": b"a", "Clip/jpg_256/16001/readme.txt": b""})
    rows, drops = read("dfew", tmp_path)
    assert [(row.key, row.labels, row.fold) for row in rows] == [
        ("00001", {"expression": "happiness"}, 1),
        ("00002", {"expression": "sadness"}, 1),
        ("00030", {"expression": "neutral"}, 2),
        ("00404", {"expression": "anger"}, 3),
        ("05005", {"expression": "surprise"}, 4),
        ("16000", {"expression": "disgust"}, 5),
        ("16001", {"expression": "fear"}, 5),
    ]
    assert {row.split for row in rows} == {"train"}
    clips = tmp_path / "Clip"
    ten = [clips / "clip_224x224" / "00001" / f"{number}.jpg" for number in range(1, 13)]
    assert [row.media for row in rows] == [
        FrameFiles(tuple(ten)),  # in the order of their numbers, and before the original
        ClipFile(clips / "clip_224x224" / "00002.mp4"),
        ClipFile(clips / "original" / "30.mp4"),
        ClipFile(clips / "original" / "404.mp4"),
        ClipFile(clips / "original" / "05005.mp4"),
        ClipFile(clips / "original" / "16000.mp4"),
        FrameFiles((clips / "jpg_256" / "16001" / "00001.jpg",)),
    ]
    assert rows[0].origin == "test(single-labeled)/set_1.csv:00001"
    assert not drops.counts


def test_the_chosen_fold_becomes_the_test_split(tmp_path):
    write(tmp_path, dfew_lists(CLIPS))
    write(tmp_path, {f"Clip/original/{name:05d}.mp4": str(name) for name in CLIPS})
    drops = Drops()
    rows = planned_rows(SOURCES["dfew"], tmp_path, drops, fold=5)
    assert [(row.key, row.split) for row in rows if row.split == "test"] == [
        ("16000", "test"), ("16001", "test"),
    ]  # fmt: skip
    assert not drops.counts


def test_what_cannot_be_used_is_counted(tmp_path):
    write(tmp_path, dfew_lists(CLIPS | {7: (0, 1), 8: (8, 2), 9: ("", 3)}))
    write(tmp_path, {f"Clip/original/{name:05d}.mp4": b"" for name in CLIPS if name != 30})
    write(tmp_path, {"Clip/clip_224x224/00030/notes.txt": b"no frames"})
    rows, drops = read("dfew", tmp_path)
    assert len(rows) == len(CLIPS) - 1
    assert drops.to_dict() == {
        "clip is missing or has no frames": {"count": 1, "examples": ["00030"]},
        "unknown label ''": {"count": 1, "examples": ["00009"]},
        "unknown label '0'": {"count": 1, "examples": ["00007"]},
        "unknown label '8'": {"count": 1, "examples": ["00008"]},
    }


def test_other_layouts_are_refused(tmp_path):
    files = dfew_lists(CLIPS)
    gone = files.pop("EmoLabel_DataSplit/test(single-labeled)/set_4.csv")
    write(tmp_path, files)
    with pytest.raises(BadCorpus, match=r"DFEW: .*test\(single-labeled\)/set_4.csv' is missing"):
        read("dfew", tmp_path)
    write(tmp_path, {"EmoLabel_DataSplit/test(single-labeled)/set_4.csv": gone})
    with pytest.raises(BadCorpus, match="Clip/clip_224x224' is missing; expected"):
        read("dfew", tmp_path)
    write(tmp_path, {"EmoLabel_DataSplit/test(single-labeled)/set_4.csv": "name,label\n"})
    with pytest.raises(BadCorpus, match=r"set_4.csv' has the columns \['name', 'label'\]"):
        read("dfew", tmp_path)


def test_a_clip_of_the_test_list_in_its_train_list_is_refused(tmp_path):
    files = dfew_lists(CLIPS)
    files["EmoLabel_DataSplit/train(single-labeled)/set_2.csv"] += "00030,3\n"
    write(tmp_path, files)
    write(tmp_path, frames("00001"))
    with pytest.raises(BadCorpus, match="'00030', are in the train list and in the test list of f"):
        read("dfew", tmp_path)
