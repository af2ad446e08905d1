"""CREMA-D: labels from file names, folds by actor, people and votes where their tables are."""

from collections import Counter

import pytest

from data_builders.media import ClipFile
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from data_builders.sources.crema_d import FOLDS
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

NAMES = (
    "1001_DFA_ANG_XX", "1018_IEO_DIS_LO", "1019_IEO_FEA_HI", "1040_ITH_HAP_X", "1072_MTI_NEU_XX",
    "1091_WSI_SAD_XX",
)  # fmt: skip
PEOPLE = (
    '"ActorID","Age","Sex","Race","Ethnicity"\n'
    '1001,51,"Male","Caucasian","Not Hispanic"\n'
    '1091,29,"Female","Unknown","Hispanic"\n'
)
VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
    '"100001",9,0,0,0,0,1,"1001_DFA_ANG_XX",10,0.9,"A"\n'
    '"200001",5,2,1,0,2,0,"1001_DFA_ANG_XX",10,0.5,"A"\n'
    '"300001",8,1,1,0,0,0,"1001_DFA_ANG_XX",10,0.8,"A"\n'
)


def clips(names=NAMES):
    return {f"VideoFlash/{name}.flv": name for name in names}


def test_labels_actors_and_folds(tmp_path):
    write(tmp_path, clips())
    rows, drops = read("crema_d", tmp_path)
    assert [(row.key, row.labels, row.subject, row.fold) for row in rows] == [
        ("1001_DFA_ANG_XX", {"expression": "anger"}, "1001", 1),
        ("1018_IEO_DIS_LO", {"expression": "disgust"}, "1018", 1),
        ("1019_IEO_FEA_HI", {"expression": "fear"}, "1019", 2),
        ("1040_ITH_HAP_X", {"expression": "happiness"}, "1040", 3),
        ("1072_MTI_NEU_XX", {"expression": "neutral"}, "1072", 4),
        ("1091_WSI_SAD_XX", {"expression": "sadness"}, "1091", 5),
    ]
    assert rows[0].media == ClipFile(tmp_path / "VideoFlash" / "1001_DFA_ANG_XX.flv")
    assert rows[0].demographics == {}
    assert not drops.counts


def test_folds_hold_the_91_actors_once():
    assert sorted(FOLDS) == [str(actor) for actor in range(1001, 1092)]
    assert Counter(FOLDS.values()) == {1: 18, 2: 18, 3: 18, 4: 18, 5: 19}


def test_no_actor_is_in_two_splits_of_a_plan(tmp_path):
    write(tmp_path, clips(f"{actor}_DFA_{word}_XX" for actor in FOLDS for word in ("ANG", "SAD")))
    drops = Drops()
    rows = list(planned_rows(SOURCES["crema_d"], tmp_path, drops, fold=2))
    assert {row.subject for row in rows if row.split == "test"} == {
        str(actor) for actor in range(1019, 1037)
    }
    assert len(rows) == 2 * 91
    assert not drops.counts


def test_people_and_the_votes_of_those_who_saw_the_face_alone(tmp_path):
    write(tmp_path, clips() | {"VideoDemographics.csv": PEOPLE})
    write(tmp_path, {"processedResults/tabulatedVotes.csv": VOTES})
    rows, _ = read("crema_d", tmp_path)
    assert rows[0].demographics == {
        "age": 51, "gender": "male", "race": "Caucasian", "ethnicity": "Not Hispanic",
    }  # fmt: skip
    assert rows[-1].demographics == {"age": 29, "gender": "female", "ethnicity": "Hispanic"}
    assert rows[0].labels == {
        "expression": "anger",
        "expression_votes": {
            "anger": 5, "disgust": 2, "fear": 1, "happiness": 0, "neutral": 2, "sadness": 0,
        },
    }  # fmt: skip
    assert rows[1].labels == {"expression": "disgust"}


def test_other_files_are_counted(tmp_path):
    write(tmp_path, clips([*NAMES, "1001_DFA_BOR_XX", "1092_DFA_ANG_XX", "trailer"]))
    rows, drops = read("crema_d", tmp_path)
    assert len(rows) == len(NAMES)
    assert drops.to_dict() == {
        "actor is in no fold": {"count": 1, "examples": ["1092_DFA_ANG_XX.flv"]},
        "file name lacks actor, sentence, emotion or level": {
            "count": 1, "examples": ["trailer.flv"],
        },
        "unknown label 'BOR'": {"count": 1, "examples": ["1001_DFA_BOR_XX.flv"]},
    }  # fmt: skip


def test_damaged_tables_are_refused(tmp_path):
    write(tmp_path, clips() | {"VideoDemographics.csv": "ActorID,Age\n1001,51\n"})
    with pytest.raises(BadCorpus, match="VideoDemographics.csv' has no column 'Sex'"):
        read("crema_d", tmp_path)
    (tmp_path / "VideoDemographics.csv").unlink()
    write(tmp_path, {"processedResults/tabulatedVotes.csv": VOTES.replace('"200001",5', "200001,")})
    with pytest.raises(BadCorpus, match="tabulatedVotes.csv' has votes that are not whole numbers"):
        read("crema_d", tmp_path)
    (tmp_path / "processedResults" / "tabulatedVotes.csv").unlink()
    for path in (tmp_path / "VideoFlash").iterdir():
        path.unlink()
    with pytest.raises(BadCorpus, match="VideoFlash' holds no .flv file; expected clips named"):
        read("crema_d", tmp_path)
