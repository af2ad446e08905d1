"""The commands on a corpus that is built: what they say, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data_builders.written_corpus import usual_corpus
from tests.facellava.command_line import Facellava


def test_a_root_beside_a_mixture_file_is_refused(facellava: Facellava, tmp_path: Path) -> None:
    mixture = tmp_path / "m.toml"
    mixture.write_text(f'[[source]]\nname = "fer2013"\nroot = "{tmp_path}"\n')
    done = facellava("build", "run", mixture, "--root", tmp_path, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert "--root goes with the name of one source" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("frames", ["0", "-3"])
def test_no_frames_are_wrong_usage(facellava: Facellava, tmp_path: Path, frames: str) -> None:
    where = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "m"]
    done = facellava("build", "annotate", tmp_path, *where, "--frames", frames)
    assert (done.code, done.out) == (2, "")
    assert "--frames" in done.err


def test_replies_that_a_removal_leaves_behind_are_told(
    facellava: Facellava, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = usual_corpus(tmp_path / "corpus")
    monkeypatch.chdir(corpus)
    done = facellava("build", "remove", ".", "--subject", "celeba:p1")
    assert (done.code, json.loads(done.out)) == (0, {"faces": 1, "samples": 1})
    assert "sqlite" not in done.err
    replies = tmp_path / "corpus.replies.sqlite"
    replies.write_bytes(b"replies")
    done = facellava("build", "remove", ".", "--source", "celeba")
    assert (done.code, json.loads(done.out)) == (0, {"faces": 5, "samples": 6})
    assert f"'{replies}' still holds an endpoint's replies" in done.trouble[-1]
    assert "delete that file" in done.trouble[-1]


def test_a_report_counts_only_what_is_there(facellava: Facellava, tmp_path: Path) -> None:
    corpus = usual_corpus(tmp_path / "corpus")
    done = facellava("build", "report", corpus, "--no-page")
    assert (done.code, done.trouble) == (0, [])
    assert "celeba " in done.out
    (corpus / "faces" / "train-dfew-00000.parquet").unlink()
    done = facellava("build", "report", corpus)
    assert (done.code, done.out) == (1, "")
    [sentence] = done.trouble
    assert "lost 1 of the 10 files" in sentence
    (corpus / "manifest.json").write_text("{}")
    done = facellava("build", "report", corpus)
    assert (done.code, done.out) == (1, "")
    assert "has the form None" in done.trouble[0]
