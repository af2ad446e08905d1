"""DISFA: eight units active from intensity 2, three folds of nine people, frames of one clip."""

from collections import Counter

import pytest

from data_builders.media import ClipFrame
from data_builders.sources.disfa import FOLD_OF
from facellava.errors import BadCorpus
from tests.data_builders.sources.layouts import DISFA_UNITS, disfa_labels, disfa_whole
from tests.data_builders.sources.miniatures import read, write


def test_units_intensities_folds_and_frames_in_order(tmp_path):
    intensities = dict(zip(DISFA_UNITS, (1, 2, 3, 4, 5, 0, 2, 1), strict=True))
    moved = {disfa_labels("SN001", unit): f"2,{n}\r\n1,0\r\n" for unit, n in intensities.items()}
    write(tmp_path, disfa_whole() | moved | {disfa_labels("SN001", 5): "1,5\n2,5\n"})
    rows, drops = read("disfa", tmp_path)
    assert len(rows) == 2 * 27
    assert rows[0].labels["action_units"] == []
    row = rows[1]
    assert (row.key, row.subject, row.fold, row.split) == ("SN001-0002", "SN001", 3, "train")
    assert row.labels == {
        "action_units": ["AU2", "AU4", "AU6", "AU9", "AU25"],
        "action_units_coded": ["AU1", "AU2", "AU4", "AU6", "AU9", "AU12", "AU25", "AU26"],
        "action_unit_intensity": {
            "AU1": 1, "AU2": 2, "AU4": 3, "AU6": 4, "AU9": 5, "AU12": 0, "AU25": 2, "AU26": 1,
        },
    }  # fmt: skip
    clip = tmp_path / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi"
    assert [row.media for row in rows[:2]] == [ClipFrame(clip, 0), ClipFrame(clip, 1)]
    assert row.origin == "Videos_LeftCamera/LeftVideoSN001_comp.avi:2"
    assert [row.subject for row in rows] == sorted(row.subject for row in rows)
    assert not drops.counts


def test_the_folds_are_the_published_ones():
    assert Counter(FOLD_OF.values()) == {1: 9, 2: 9, 3: 9}
    assert [FOLD_OF[person] for person in ("SN003", "SN013", "SN002")] == [1, 2, 3]


def test_a_unit_without_file_is_not_active_and_counted(tmp_path):
    files = disfa_whole("leftVideo{}_Comp.avi")
    del files[disfa_labels("SN004", 9)]
    write(tmp_path, files)
    rows, drops = read("disfa", tmp_path)
    assert len(rows) == 2 * 27
    assert {row.labels["action_unit_intensity"]["AU9"] for row in rows} == {0}
    assert drops.to_dict() == {
        "no file of AU9, no row lost: taken as not active in the clip": {
            "count": 1, "examples": ["SN004"],
        }
    }  # fmt: skip


def test_frames_that_one_unit_lacks_and_strangers_are_dropped(tmp_path):
    write(
        tmp_path,
        disfa_whole() | {disfa_labels("SN001", 12): "2,5\n", disfa_labels("SN040", 1): "1,0\n"},
    )
    rows, drops = read("disfa", tmp_path)
    assert len(rows) == 2 * 27 - 1
    assert drops.to_dict() == {
        "frame is not in the file of every action unit": {"count": 1, "examples": ["SN001-0001"]},
        "the person is in no fold": {"count": 1, "examples": ["SN040"]},
    }


@pytest.mark.parametrize("line", ["0,1", "3,6", "3", "3,1,1", "a,1"])
def test_other_lines_are_refused(tmp_path, line):
    write(tmp_path, disfa_whole() | {disfa_labels("SN001", 4): f"1,0\n{line}\n"})
    with pytest.raises(BadCorpus, match=f"line 2 of .*SN001_au4.txt' is '{line}'; a frame from 1"):
        read("disfa", tmp_path)


@pytest.mark.parametrize(
    ("lost", "missing"),
    [
        ("ActionUnit_Labels/SN018", "ActionUnit_Labels/SN018' is missing"),
        ("Videos_LeftCamera/LeftVideoSN018_comp.avi", "LeftVideoSN018_comp.avi' is missing"),
        ("", "ActionUnit_Labels' is missing"),
    ],
)
def test_what_lacks_is_named(tmp_path, lost, missing):
    write(
        tmp_path, {name: text for name, text in disfa_whole().items() if not name.startswith(lost)}
    )
    with pytest.raises(BadCorpus, match=f"{missing}; expected"):
        read("disfa", tmp_path)
