"""LFW: people as subjects, the sets of View 2 as folds, and the pairs."""

import pytest

from data_builders.media import Picture
from data_builders.sources.lfw import pairs
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

FIRST = "Abel_Pacheco\t1\t2\nAbel_Pacheco\t1\tAJ_Cook\t1\n"
OTHERS = [f"Person_{n}\t1\t10\nPerson_{n}\t2\tOther_{n}\t1\n" for n in range(2, 11)]
PAIRS = {"pairs.txt": "10\t1\n" + FIRST + "".join(OTHERS)}
PEOPLE = {
    "people.txt": "10\n3\nAbel_Pacheco\t2\nAJ_Cook\t1\nLonely\t1\n"
    + "".join(f"2\nPerson_{n}\t10\nOther_{n}\t1\n" for n in range(2, 11))
}
PICTURES = {
    f"lfw/{name[:-5]}/{name}.jpg": name
    for name in ("AJ_Cook_0001", "Abel_Pacheco_0001", "Abel_Pacheco_0002", "Lonely_0001")
} | {"lfw/Other_10/Other_10_0001.jpg": "x"}


def test_people_and_folds(tmp_path):
    write(tmp_path, PEOPLE | PICTURES)
    rows, drops = read("lfw", tmp_path)
    assert [(row.key, row.subject, row.fold, row.split) for row in rows] == [
        ("AJ_Cook_0001", "AJ_Cook", 1, "train"),
        ("Abel_Pacheco_0001", "Abel_Pacheco", 1, "train"),
        ("Abel_Pacheco_0002", "Abel_Pacheco", 1, "train"),
        ("Lonely_0001", "Lonely", 1, "train"),
        ("Other_10_0001", "Other_10", 10, "train"),
    ]
    assert {str(row.labels) for row in rows} == {"{}"}
    assert rows[0].media == Picture(tmp_path / "lfw" / "AJ_Cook" / "AJ_Cook_0001.jpg")
    assert not drops.counts


def test_without_people_the_pairs_give_the_folds(tmp_path):
    write(tmp_path, PAIRS | PICTURES | {"lfw/Lonely/Lonely_copy.jpg": "x"})
    rows, drops = read("lfw", tmp_path)
    assert {row.subject: row.fold for row in rows} == {
        "AJ_Cook": 1, "Abel_Pacheco": 1, "Lonely": None, "Other_10": 10,
    }  # fmt: skip
    assert drops.to_dict() == {
        "file is not named like its folder": {"count": 1, "examples": ["Lonely_copy.jpg"]}
    }


def test_pairs_name_rows(tmp_path):
    write(tmp_path, PAIRS | PICTURES)
    found = pairs(tmp_path)
    assert len(found) == 20
    assert found[:3] == [
        ("Abel_Pacheco_0001", "Abel_Pacheco_0002", True),
        ("Abel_Pacheco_0001", "AJ_Cook_0001", False),
        ("Person_2_0001", "Person_2_0010", True),
    ]
    keys = {row.key for row in read("lfw", tmp_path)[0]}
    assert {key for pair in found[:2] for key in pair[:2]} <= keys


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "does not start with '10<tab>300'"),
        ("9\t1\n" + FIRST, "does not start with '10<tab>300'"),
        ("10\t1\n" + FIRST, "holds 2 pairs, and its first line says 20"),
        ("10\t1\n" + "Abel_Pacheco\t1\n" * 20, "holds the line .* which is no pair"),
        ("10\t1\n" + "Abel_Pacheco\t1\tAJ_Cook\n" * 20, "holds the line .* which is no pair"),
        ("10\t1\n" + FIRST * 10, "is in two sets"),
    ],
)
def test_other_pairs_are_refused(tmp_path, text, fault):
    write(tmp_path, PICTURES | {"pairs.txt": text})
    with pytest.raises(BadCorpus, match=fault):
        read("lfw", tmp_path)


@pytest.mark.parametrize("cut", [0, 12, -20])
def test_other_people_are_refused(tmp_path, cut):
    write(tmp_path, PICTURES | {"people.txt": PEOPLE["people.txt"][:cut]})
    with pytest.raises(BadCorpus, match="people.txt' is not 10 sets of people"):
        read("lfw", tmp_path)


def test_what_lacks_is_named(tmp_path):
    with pytest.raises(BadCorpus, match="lfw' is missing; expected"):
        read("lfw", tmp_path)
    write(tmp_path, PICTURES)
    with pytest.raises(BadCorpus, match="pairs.txt' is missing; expected"):
        read("lfw", tmp_path)
