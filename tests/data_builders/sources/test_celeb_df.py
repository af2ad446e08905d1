"""Celeb-DF v2: 1 is real in the test list, the rest trains, the target is the subject."""

import pytest

from data_builders.media import ClipFile
from data_builders.sources import SOURCES
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

TESTED = "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
CLIPS = {
    name: name
    for name in (
        "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0003.mp4", "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0003.mp4",
    )
}  # fmt: skip
LIST = "List_of_testing_videos.txt"


def test_labels_splits_and_people(tmp_path):
    write(tmp_path, CLIPS | {LIST: TESTED})
    rows, drops = read("celeb_df", tmp_path)
    assert [(row.key, row.labels, row.split, row.subject) for row in rows] == [
        ("Celeb-real-id0_0000", {"deepfake": "real"}, "train", "id0"),
        ("Celeb-real-id1_0003", {"deepfake": "real"}, "train", "id1"),
        ("YouTube-real-00170", {"deepfake": "real"}, "test", None),
        ("Celeb-synthesis-id0_id1_0000", {"deepfake": "fake"}, "test", "id0"),
        ("Celeb-synthesis-id1_id0_0003", {"deepfake": "fake"}, "train", "id1"),
    ]
    assert rows[2].media == ClipFile(tmp_path / "YouTube-real" / "00170.mp4")
    assert SOURCES["celeb_df"].people_cross_splits
    assert not drops.counts


def test_a_listed_clip_that_is_missing_is_counted(tmp_path):
    write(tmp_path, CLIPS | {LIST: TESTED + "\n1 Celeb-real/id9_0000.mp4\n"})
    rows, drops = read("celeb_df", tmp_path)
    assert len(rows) == len(CLIPS)
    assert drops.to_dict() == {
        "clip of the test list is missing": {"count": 1, "examples": ["Celeb-real/id9_0000.mp4"]}
    }


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0 YouTube-real/00170.mp4", "calls YouTube-real/00170.mp4 fake, which its folder"),
        ("1 Celeb-synthesis/id0_id1_0000.mp4", "calls Celeb-synthesis/.* real, which its folder"),
        ("2 Celeb-real/id0_0000.mp4", "holds the line '2 Celeb-real/id0_0000.mp4'"),
        ("1 Other/id0_0000.mp4", "holds the line '1 Other/id0_0000.mp4'"),
        ("Celeb-real/id0_0000.mp4", "a name and a label are expected"),
    ],
)
def test_lists_that_contradict_are_refused(tmp_path, line, fault):
    write(tmp_path, CLIPS | {LIST: TESTED + line})
    with pytest.raises(BadCorpus, match=fault):
        read("celeb_df", tmp_path)


def test_what_lacks_is_named(tmp_path):
    with pytest.raises(BadCorpus, match="List_of_testing_videos.txt' is missing; expected"):
        read("celeb_df", tmp_path)
    write(tmp_path, {LIST: TESTED, "Celeb-real/id0_0000.mp4": "x"})
    with pytest.raises(BadCorpus, match="YouTube-real' is missing; expected"):
        read("celeb_df", tmp_path)
    (tmp_path / "YouTube-real").mkdir()
    with pytest.raises(BadCorpus, match="YouTube-real' holds no .mp4 file; expected"):
        read("celeb_df", tmp_path)
