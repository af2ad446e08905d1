"""AgeDB: person, age and gender from the file name, split by person."""

import pytest

from data_builders.media import Picture
from data_builders.raw_face import stable_split
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write


def test_facts_and_splits(tmp_path):
    names = ["0_MariaCallas_35_f.jpg", "1_MariaCallas_40_f.jpg", "16000_Tom_Jones_101_m.jpg"]
    write(tmp_path, {f"AgeDB/{name}": name for name in [*names, "7_NoAge_m.jpg", "notes.txt"]})
    write(tmp_path, {"AgeDB/8_TooOld_117_m.jpg": "x"})
    rows, drops = read("agedb", tmp_path)
    assert [(row.subject, row.labels, row.demographics, row.split) for row in rows] == [
        ("MariaCallas", {"age": 35}, {"gender": "female"}, stable_split("MariaCallas")),
        ("Tom_Jones", {"age": 101}, {"gender": "male"}, stable_split("Tom_Jones")),
        ("MariaCallas", {"age": 40}, {"gender": "female"}, stable_split("MariaCallas")),
    ]
    assert rows[0].key == "0_MariaCallas_35_f"
    assert rows[0].media == Picture(tmp_path / "AgeDB" / names[0], declared_crop=False)
    assert drops.to_dict() == {
        "age outside 0..116": {"count": 1, "examples": ["8_TooOld_117_m.jpg"]},
        "file name lacks number, name, age or sex": {"count": 1, "examples": ["7_NoAge_m.jpg"]},
    }


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(BadCorpus, match="holds no .jpg file; expected"):
        read("agedb", tmp_path)
    with pytest.raises(BadCorpus, match="is missing; expected"):
        read("agedb", tmp_path / "nowhere")
