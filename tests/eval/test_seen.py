"""Zero-shot or fine-tuned: what the training manifest proves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.protocols import PROTOCOLS
from eval.seen import seen_in_training, training_data
from facellava.checkpoint import TRAINING_FILE
from facellava.errors import FacellavaError
from facellava.predictor import embedded_weights
from train import model_card

TRAINED = {
    "fold": 2,
    "sources": {
        "celeba": {"train": 10}, "celeba_self_blended": {"train": 20}, "fer2013": {},
        "rafdb": {"train": 5, "test": 5}, "dfew": {"train": 9}, "morph2_random": {"train": 9},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "fold", "seen"),
    [
        ("celeba/test", None, "other splits"),
        ("self_blended/test", None, "other splits"),
        ("real_fake_faces/test", None, "no"),
        ("fer2013/private-test", None, "no"),
        ("rafdb/test", None, "these faces"),
        # All folds: four of five were trained on. The one that was kept out may be asked about.
        ("dfew/5-folds", None, "these faces"),
        ("dfew/5-folds", 1, "these faces"),
        ("dfew/5-folds", 2, "other splits"),
        ("morph2/random-80-20", None, "other splits"),
        # The other protocol of the dataset: its test faces may be among those trained on.
        ("morph2/subject-exclusive", None, "these faces"),
    ],
)
def test_what_training_saw(key: str, fold: int | None, seen: str) -> None:
    assert seen_in_training(PROTOCOLS[key], TRAINED, fold) == seen


def test_without_a_manifest_nothing_is_claimed(tmp_path: Path) -> None:
    assert training_data(tmp_path) is None
    assert seen_in_training(PROTOCOLS["rafdb/test"], None, None) == "unknown"
    (tmp_path / TRAINING_FILE).write_text("{")
    with pytest.raises(FacellavaError, match="is damaged"):
        training_data(tmp_path)


def test_the_embedded_model_says_what_it_saw() -> None:
    found = training_data(embedded_weights())
    assert found is not None
    assert seen_in_training(PROTOCOLS["fer2013/public-test"], found, None) == "other splits"
    assert seen_in_training(PROTOCOLS["ict_facekit/test"], found, None) == "other splits"
    # One dataset, but only its test part holds crops of DFDC.
    assert seen_in_training(PROTOCOLS["real_fake_faces/test"], found, None) == "other splits"
    assert seen_in_training(PROTOCOLS["real_fake_faces/dfdc"], found, None) == "no"


def test_training_writes_what_evaluation_reads(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    counts = {"faces": {"celeba": {"train": 3, "test": 2}, "lfw": {"test": 1}}}
    manifest = {"settings": {"fold": 1}, "counts": counts}
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    model_card.write_training_data(tmp_path, corpus)
    found = training_data(tmp_path)
    assert found is not None
    assert found["sources"] == {"celeba": {"train": 3}}
