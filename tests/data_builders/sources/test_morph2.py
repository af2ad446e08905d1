"""MORPH II: ages from file names, split by picture (published lists or hash) or by person."""

import pytest

from data_builders.media import Picture
from data_builders.raw_face import stable_split
from data_builders.sources import SOURCES
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

NAMES = ("009055_1M54.JPG", "273546_01M22.jpg", "273546_02F23.JPG")
LISTS = {
    "label/RANDOM_80_20/train.txt": "009055_1M54.jpg 54\n",
    "label/RANDOM_80_20/test.txt": "273546_01M22.jpg 22\n",
}


@pytest.mark.parametrize("source", ["morph2_random", "morph2_subjects"])
def test_ages_people_and_gender(tmp_path, source):
    write(tmp_path, {f"Album2/{name}": name for name in NAMES})
    rows, drops = read(source, tmp_path)
    assert [(row.key, row.labels, row.subject, row.demographics) for row in rows] == [
        ("009055_1M54", {"age": 54}, "009055", {"gender": "male"}),
        ("273546_01M22", {"age": 22}, "273546", {"gender": "male"}),
        ("273546_02F23", {"age": 23}, "273546", {"gender": "female"}),
    ]
    assert rows[0].media == Picture(tmp_path / "Album2" / NAMES[0], declared_crop=False)
    assert not drops.counts


def test_odd_names_are_dropped(tmp_path):
    write(tmp_path, dict.fromkeys([*NAMES, "009055_1X54.JPG", "009055_2M154.JPG"], "x"))
    rows, drops = read("morph2_subjects", tmp_path)
    assert len(rows) == 3
    assert drops.to_dict() == {
        "age outside 0..116": {"count": 1, "examples": ["009055_2M154.JPG"]},
        "file name lacks person, photo, sex or age": {
            "count": 1, "examples": ["009055_1X54.JPG"],
        },
    }  # fmt: skip


def test_without_lists_the_picture_decides_and_people_cross(tmp_path):
    write(tmp_path, {f"{number:06d}_{photo}M30.JPG": "x" for number in range(40) for photo in "12"})
    rows, _ = read("morph2_random", tmp_path)
    assert {row.split for row in rows} == {"train", "test"}
    assert 10 <= sum(row.split == "test" for row in rows) <= 24
    assert len({(row.subject, row.split) for row in rows}) > 40
    assert SOURCES["morph2_random"].people_cross_splits


def test_by_person_nobody_crosses(tmp_path):
    write(tmp_path, {f"{number:06d}_{photo}M30.JPG": "x" for number in range(40) for photo in "12"})
    rows, _ = read("morph2_subjects", tmp_path)
    assert {row.split for row in rows} == {"train", "validation", "test"}
    assert {(row.subject, row.split) for row in rows} == {
        (f"{number:06d}", stable_split(f"{number:06d}")) for number in range(40)
    }
    assert not SOURCES["morph2_subjects"].people_cross_splits


def test_published_lists_decide(tmp_path):
    write(tmp_path, LISTS | {f"Album2/{name}": name for name in NAMES})
    rows, drops = read("morph2_random", tmp_path)
    assert [(row.key, row.split) for row in rows] == [
        ("009055_1M54", "train"), ("273546_01M22", "test"),
    ]  # fmt: skip
    assert drops.counts == {"picture is in neither list": 1}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("009055_1M54.JPG 38", "gives '009055_1M54.JPG' the age 38"),
        ("009055.JPG 54", "gives '009055.JPG' the age 54"),
        ("009055_1M54.jpg 54", "is in both lists"),
    ],
)
def test_lists_that_contradict_are_refused(tmp_path, line, fault):
    write(tmp_path, LISTS | {"label/RANDOM_80_20/test.txt": line, NAMES[0]: "x"})
    with pytest.raises(BadCorpus, match=fault):
        read("morph2_random", tmp_path)


def test_folders_without_pictures_or_half_the_lists_are_refused(tmp_path):
    with pytest.raises(BadCorpus, match="holds no .JPG file; expected"):
        read("morph2_random", tmp_path)
    with pytest.raises(BadCorpus, match="is missing; expected"):
        read("morph2_subjects", tmp_path / "nowhere")
    write(tmp_path, {"label/RANDOM_80_20/train.txt": "", NAMES[0]: "x"})
    with pytest.raises(BadCorpus, match="test.txt' is missing"):
        read("morph2_random", tmp_path)
