"""The faces of an optimiser study: shares, balance, determinism, and corpora that will not do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from facellava.errors import BadCorpus, BadSettings
from tests.train.fairness_corpus import made_up_corpus
from train.fairness_faces import drawn_faces, write_split
from train.fairness_split import SplitSettings, make_study_folder, read_split

BOTH = ("gender-by-race", "smiling-by-gender")


def drawn(path: Path) -> Counter[tuple[str, str, bool]]:
    """Faces by part, group and answer."""
    rows = pq.read_table(path).to_pylist()
    return Counter((row["part"], row["group"], row["label"]) for row in rows)


def test_one_group_has_its_share_and_answers_are_balanced(tmp_path: Path) -> None:
    corpus = made_up_corpus(tmp_path / "corpus", faces=40, sources=("utkface",))
    write_split(corpus, tmp_path / "f", SplitSettings(BOTH[:1], share=0.8, faces=1000, size=16))
    expected = {
        (part, group, label): {"White": 20, "Black": 5}.get(group, 0)
        for part in ("train", "validation")
        for group in ("White", "Black")
        for label in (False, True)
    }
    # The test part is what the corpus has.
    expected |= {("test", g, yes): 20 for g in ("White", "Black") for yes in (False, True)}
    assert drawn(tmp_path / "f") == expected


def test_the_most_faces_are_kept_to(tmp_path: Path) -> None:
    corpus = made_up_corpus(tmp_path / "corpus", faces=12, sources=("celeba",))
    write_split(corpus, tmp_path / "f", SplitSettings(BOTH[1:], share=0.75, faces=16, size=16))
    counts = drawn(tmp_path / "f")
    assert counts["train", "female", True] == counts["train", "female", False] == 6
    assert counts["train", "male", True] == counts["train", "male", False] == 2


def test_a_split_is_the_same_again_and_reads_back(tmp_path: Path) -> None:
    corpus = made_up_corpus(tmp_path / "corpus", faces=12)
    settings = SplitSettings(BOTH, share=0.7, size=16)
    for name in ("one", "two"):
        write_split(corpus, tmp_path / name, settings)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    split = read_split(tmp_path / "one")
    assert split.settings == settings
    assert list(split.parts) == list(BOTH)
    test = split.parts["gender-by-race"]["test"]
    assert test.pixels.shape == (24, 16, 16, 3)
    assert test.counts() == {"Black": 12, "White": 12}
    # In the made-up faces a woman's is red and a man's blue.
    redder = test.pixels[..., 0].mean(axis=(1, 2)) > test.pixels[..., 2].mean(axis=(1, 2))
    assert np.array_equal(redder, test.labels)


def test_corpora_that_lack_faces_are_refused(tmp_path: Path) -> None:
    corpus = made_up_corpus(tmp_path / "corpus", faces=12)
    with pytest.raises(BadCorpus, match="would hold 0 faces of group Black; take a larger"):
        write_split(corpus, tmp_path / "f", SplitSettings(share=0.99, size=16))
    one_group = made_up_corpus(tmp_path / "white", faces=12, races=("White",))
    with pytest.raises(BadCorpus, match="has no two such groups"):
        write_split(one_group, tmp_path / "f", SplitSettings(size=16))
    without = made_up_corpus(tmp_path / "utkface", faces=12, sources=("utkface",))
    with pytest.raises(BadCorpus, match="needs faces of celeba, which the corpus .* lacks"):
        write_split(without, tmp_path / "f", SplitSettings(share=0.7, size=16))
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"tasks": ("age-by-mood",)}, "There is no fairness task age-by-mood; use some of gender"),
        ({"share": 1.0}, "The share 1.0 is not between 0 and 1"),
        ({"size": 0}, "4000 faces of 0 pixels cannot be drawn"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict, sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        SplitSettings(**wrong)


def test_another_file_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("faces")
    with pytest.raises(BadCorpus, match="is not a whole faces.parquet of an optimiser study"):
        read_split(tmp_path / "other")


def test_no_folder_is_left_of_a_corpus_that_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "study"
    with pytest.raises(BadCorpus):
        drawn_faces(tmp_path / "nothing", out, SplitSettings())
    assert not out.exists()
    out.write_text("a file")
    for place in (out, out / "under"):
        with pytest.raises(BadSettings, match=r"cannot be a folder \('.*study' is a file\); give"):
            drawn_faces(tmp_path / "nothing", place, SplitSettings())
    with pytest.raises(BadSettings, match="cannot be a folder"):
        make_study_folder(out)
