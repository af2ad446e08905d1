"""FaceForensics++: both orders of a pair are fakes, compressions are sources, splits disjoint."""

import pytest

from data_builders.media import ClipFile
from facellava.errors import BadCorpus
from tests.data_builders.sources.layouts import PAIRS, faceforensics_clips, faceforensics_lists
from tests.data_builders.sources.miniatures import read, write


def test_labels_splits_and_both_orders(tmp_path):
    write(
        tmp_path,
        faceforensics_lists() | faceforensics_clips() | faceforensics_clips(["Deepfakes"], "c40"),
    )
    rows, drops = read("faceforensics_c23", tmp_path)
    assert [row.split for row in rows] == ["train"] * 12 + ["validation"] * 12 + ["test"] * 12
    tested = {row.key: row for row in rows if row.split == "test"}
    assert list(tested) == [
        "youtube-000", "youtube-003", "Deepfakes-000_003", "Deepfakes-003_000",
        "Face2Face-000_003", "Face2Face-003_000", "FaceSwap-000_003", "FaceSwap-003_000",
        "NeuralTextures-000_003", "NeuralTextures-003_000", "FaceShifter-000_003",
        "FaceShifter-003_000",
    ]  # fmt: skip
    assert tested["youtube-003"].labels == {"deepfake": "real", "compression": "c23"}
    fake = tested["Face2Face-003_000"]
    assert fake.labels == {"deepfake": "fake", "method": "Face2Face", "compression": "c23"}
    assert fake.subject == tested["youtube-003"].subject == "003"
    assert fake.media == ClipFile(tmp_path / fake.origin)
    assert fake.origin == "manipulated_sequences/Face2Face/c23/videos/003_000.mp4"
    assert not drops.counts


def test_missing_methods_and_clips_are_counted(tmp_path):
    files = faceforensics_lists(folder="splits") | faceforensics_clips(
        ["Deepfakes", "FaceSwap"], "c40"
    )
    del files["manipulated_sequences/FaceSwap/c40/videos/000_003.mp4"]
    write(tmp_path, files)
    rows, drops = read("faceforensics_c40", tmp_path)
    assert {row.labels["compression"] for row in rows} == {"c40"}
    assert len(rows) == 3 * (2 + 2 * 2) - 1
    assert drops.to_dict() == {
        "clip is missing": {"count": 1, "examples": ["FaceSwap-000_003"]},
        "folder of a method is missing": {
            "count": 3, "examples": ["Face2Face/c40", "NeuralTextures/c40", "FaceShifter/c40"],
        },
    }  # fmt: skip


@pytest.mark.parametrize("again", [["000", "003"], ["003", "500"]])
def test_a_clip_in_two_splits_is_refused(tmp_path, again):
    write(tmp_path, faceforensics_clips() | faceforensics_lists(PAIRS | {"train": [again]}))
    with pytest.raises(BadCorpus, match="clip 00[03] of .*test.json' is in two pairs"):
        read("faceforensics_c23", tmp_path)


@pytest.mark.parametrize("pairs", [{"a": 1}, [["000"]], [["000", 3]], [["../x", "003"]]])
def test_lists_of_another_form_are_refused(tmp_path, pairs):
    write(tmp_path, faceforensics_clips() | faceforensics_lists(PAIRS | {"val": pairs}))
    with pytest.raises(BadCorpus, match="val.json' holds .*; expected a list of pairs"):
        read("faceforensics_c23", tmp_path)
    write(tmp_path, {"dataset/splits/val.json": "[["})
    with pytest.raises(BadCorpus, match="val.json' is not JSON"):
        read("faceforensics_c23", tmp_path)


def test_what_lacks_is_named(tmp_path):
    with pytest.raises(BadCorpus, match="youtube/c40/videos' is missing; expected .*/c40/"):
        read("faceforensics_c40", tmp_path)
    write(tmp_path, faceforensics_clips([]))
    with pytest.raises(BadCorpus, match="Deepfakes/c23/videos' is missing; expected"):
        read("faceforensics_c23", tmp_path)
    write(tmp_path, faceforensics_clips())
    with pytest.raises(BadCorpus, match="splits/train.json' is missing; expected"):
        read("faceforensics_c23", tmp_path)
