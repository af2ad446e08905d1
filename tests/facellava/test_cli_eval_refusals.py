"""`facellava eval` says in one sentence what cannot be, and leaves the folder as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.facellava.command_line import Facellava
from tests.facellava.eval_command import KEY, asked


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["eval", "run", "lfw", "--root", "PACKS", "--out", "RUN"], 2, "or suite 'lfw'"),
        (["eval", "run", "--root", "PACKS", "--out", "RUN"], 2, "Name protocols, or a --suite"),
        (["eval", "run", KEY, "--out", "RUN"], 2, "Say where the datasets lie"),
        (["eval", "run", "rafdb/test", "--root", "PACKS", "--out", "RUN"], 1, "No folder of rafdb"),
        (["eval", "run", KEY, "--root", "PACKS/absent", "--out", "RUN"], 1, "There is no folder"),
        (["eval", "run", "--suite", "packs", "--root", "PACKS", "--out", "RUN"], 1, "of utkface"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--fold", "2"], 2, "has 0 folds"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--limit", "-3"], 2, "--limit"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--model", "no"], 1, "no"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "PACKS"], 1, "holds other files"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--name", "x"], 2, "go together"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--dry-run"], 2, "go together"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--model", "a", "--api", "b"], 2,
         "Give one of --model, --api and --endpoint"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--label-only", "--api", "b"], 2,
         "--label-only goes with"),
        (["eval", "score", "RUN"], 1, "is not there or is damaged"),
        (["eval", "compare", "RUN", "RUN"], 1, "is not there or is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    facellava: Facellava, packs: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    run = tmp_path / "run"
    places = {"PACKS": str(packs), "RUN": str(run), "PACKS/absent": str(packs / "absent")}
    done = facellava(*(places.get(word, word) for word in words))
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())
    assert not (run / "results.json").exists()


def test_a_run_without_a_finished_protocol_is_told(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"protocols": {}}))
    for verb in (["score", run], ["verify", run], ["export", run, "--out", tmp_path / "out"]):
        done = facellava("eval", *verb)
        assert (done.code, done.out) == (1, "")
        assert "No protocol of the run" in done.trouble[-1]
    for odd in ({"made": None}, {"protocols": {KEY: {}}}, {"engine": 3}):
        (run / "run.json").write_text(json.dumps(facts | odd))
        done = facellava("eval", "score", run)
        assert (done.code, done.out) == (1, "")
        assert "holds no run that this facellava reads" in done.trouble[-1]
    (run / "run.json").write_text(json.dumps(facts | {"wanted": [KEY, "rafdb/test"]}))
    done = facellava("eval", "score", run)
    assert done.code == 0
    assert "Not finished, and left out: rafdb/test." in done.err


def test_a_mistyped_root_leaves_the_folder_free(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["eval", "run", KEY, "--out", run, "--model", reciting_checkpoint, "--workers", 1]
    assert facellava(*words, "--root", f"fer2013={tmp_path / 'absent'}").code == 1
    done = facellava(*words, "--root", packs, "--limit", 3)
    assert done.code == 0, done.err


def test_another_run_in_the_folder_is_not_mixed_with(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for more in (["--limit", "2"], ["--prompt", "closed"], ["--label-only"]):
        done = facellava(*asked(packs, run, "--model", reciting_checkpoint, *more))
        assert (done.code, done.out) == (1, "")
        assert "give another --out" in done.trouble[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
