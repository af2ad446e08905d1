"""`facellava build run`: wrong usage, wrong places."""

from pathlib import Path

import pytest

from tests.facellava.command_line import Facellava


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imdb", "--root", "."], "There is no source 'imdb'"),
        (["agedb=.", "agedb=."], "'agedb' is given twice"),
        (["agedb=.", "--limit", "-1"], "Invalid value for '--limit'"),
        (["agedb=.", "--least-label", "0"], "Invalid value for '--least-label'"),
        (["agedb=.", "--workers", "-1"], "Invalid value for '--workers'"),
        (["agedb=.", "--frames", "0"], "Invalid value for '--frames'"),
        (["agedb=.", "--fold", "0"], "Invalid value for '--fold'"),
        (["dfew=.", "--fold", "9"], "DFEW has the folds 1 to 5, and no fold 9"),
    ],
)
def test_wrong_usage_exits_with_2(
    facellava: Facellava, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = facellava("build", "run", *arguments, "--out", tmp_path / "corpus")
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--concurrency=0", "--per-minute=-1", "--patience=-1"])
def test_an_endpoint_is_asked_in_a_way_that_can_be(
    facellava: Facellava, tmp_path: Path, option: str
) -> None:
    where = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]
    done = facellava("build", "annotate", tmp_path, *where, option)
    assert (done.code, done.out) == (2, "")
    assert f"Invalid value for '{option.partition('=')[0]}'" in done.err


@pytest.mark.parametrize(
    ("source", "contents", "words"),
    [
        ("agedb", b"a list", "AgeDB: '{file}' cannot be read (Not a directory); expected files"),
        ("fer2013", b"emotion,pixels", "'{file}' is no Parquet file; give the dataset's folder"),
        ("fer2013", b"PAR1 cut off", "'{file}' is damaged or cut off; get the file again"),
    ],
)
def test_a_root_that_is_a_file_of_another_kind(
    facellava: Facellava, tmp_path: Path, source: str, contents: bytes, words: str
) -> None:
    file, out = tmp_path / "given", tmp_path / "corpus"
    file.write_bytes(contents)
    done = facellava("build", "run", source, "--root", file, "--workers", 1, "--out", out)
    assert (done.code, done.out) == (1, "")
    assert words.format(file=file) in done.trouble[-1]
    assert list(tmp_path.iterdir()) == [file]


def test_text_of_another_encoding_is_one_sentence(facellava: Facellava, tmp_path: Path) -> None:
    root, out = tmp_path / "fer", tmp_path / "corpus"
    root.mkdir()
    (root / "fer2013.csv").write_bytes("emotion,pixels,Usage\n0,1 2 \xe9,Training".encode("latin1"))
    done = facellava("build", "run", "fer2013", "--root", root, "--workers", 1, "--out", out)
    assert (done.code, done.out) == (1, "")
    assert f"FER2013: a table or list in '{root}' is damaged or not UTF-8" in done.trouble[-1]
    assert not out.exists()
