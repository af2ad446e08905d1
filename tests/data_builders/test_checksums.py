"""Pinned files: what is not what it was is refused."""

import hashlib

import pytest

from data_builders.checksums import SUMS, check_sums
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from facellava.errors import BadCorpus


def sums(root, **files):
    for name, text in files.items():
        (root / f"{name}.csv").write_text(text)
    lines = [
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}.csv" for name, text in files.items()
    ]
    (root / SUMS).write_text("\n".join(lines) + "\n")


def test_files_as_they_were_are_taken(tmp_path):
    assert check_sums(tmp_path, "DFEW") == 0
    sums(tmp_path, set_1="a", set_2="b")
    assert check_sums(tmp_path, "DFEW") == 2


@pytest.mark.parametrize("change", ["other", None])
def test_a_changed_or_missing_fold_file_is_named(tmp_path, change):
    sums(tmp_path, set_1="a", set_2="b")
    if change is None:
        (tmp_path / "set_2.csv").unlink()
    else:
        (tmp_path / "set_2.csv").write_text(change)
    with pytest.raises(BadCorpus, match=r"DFEW: '.*set_2.csv' is not the file of SHA256SUMS"):
        check_sums(tmp_path, "DFEW")


@pytest.mark.parametrize("line", ["hello", f"{'0' * 64}  ../passwd", f"{'0' * 63}  set_1.csv"])
def test_lines_that_are_no_checksums_are_refused(tmp_path, line):
    (tmp_path / SUMS).write_text(line + "\n")
    with pytest.raises(BadCorpus, match="line 1 of .* is no checksum with a file below"):
        check_sums(tmp_path, "DFEW")


def test_a_pinned_fold_file_is_looked_at_before_anything_is_read(tmp_path):
    sums(tmp_path, set_1="a")
    (tmp_path / "set_1.csv").write_text("b")
    with pytest.raises(BadCorpus, match="set_1.csv' is not the file of SHA256SUMS"):
        planned_rows(SOURCES["utkface"], tmp_path, Drops())
