"""The study of optimisers: what it measures, how it chooses rates, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facellava.errors import BadCheckpoint, BadSettings
from tests.train.fairness_corpus import made_up_corpus
from train import fairness_study as module
from train.fairness_faces import drawn_faces
from train.fairness_report import interval
from train.fairness_split import Part, Split, SplitSettings
from train.fairness_study import StudySettings, run_study, unit_figures
from train.fairness_training import (
    DevicePart,
    TrainingSettings,
    answers,
    moved,
    normalised,
    train_network,
)

QUICK = StudySettings(("adamw", "sgd"), seeds=2, training=TrainingSettings(epochs=2, batch=16))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("fairness")
    corpus = made_up_corpus(folder / "corpus", faces=20)
    settings = SplitSettings(("gender-by-race",), share=0.75, size=16)
    return drawn_faces(corpus, folder / "study", settings)


@pytest.fixture
def few_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RATES", {"adamw": (1e-7, 3e-3), "sgd": (1e-7, 3e-2)})


def test_the_figures_of_answers_counted_by_hand() -> None:
    part = Part(
        pixels=np.zeros((8, 1, 1, 3), np.uint8),
        labels=np.array([True, True, False, False] * 2),
        groups=("a",) * 4 + ("b",) * 4,
    )
    said = np.array([True, True, True, False, True, False, False, False])
    found = unit_figures(part, said)
    assert found["figures"] == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "worst_group": 0.75,
        "equalized_odds": 0.5,
        "equal_opportunity": 0.5,
        "demographic_parity": 0.5,
    }
    assert found["groups"] == {
        "a": {
            "accuracy": 0.75,
            "true_positive_rate": 1.0,
            "false_positive_rate": 0.5,
            "answered_yes": 0.75,
        },
        "b": {
            "accuracy": 0.75,
            "true_positive_rate": 0.5,
            "false_positive_rate": 0.0,
            "answered_yes": 0.25,
        },
    }


def test_a_gap_that_is_not_defined_is_null() -> None:
    part = Part(np.zeros((3, 1, 1, 3), np.uint8), np.array([True, False, False]), ("a", "a", "b"))
    found = unit_figures(part, np.array([True, False, True]))
    assert found["figures"]["equal_opportunity"] is None
    assert found["figures"]["demographic_parity"] == 0.5
    assert found["groups"]["b"]["true_positive_rate"] is None


def test_intervals_are_students() -> None:
    # Mean 2, deviation 1, t(0.975, 2) = 4.303.
    found = interval([1.0, 2.0, 3.0])
    assert found == pytest.approx({"mean": 2.0, "low": 2 - 2.4841, "high": 2 + 2.4841}, abs=1e-4)
    assert interval([0.5]) == {"mean": 0.5, "low": None, "high": None}
    assert interval([None]) == {"mean": None, "low": None, "high": None}


def test_pictures_are_mirrored_and_shifted_with_their_edges() -> None:
    picture = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(3, 3, 3, 3)
    shifts = torch.tensor([[0, 0], [1, 0], [0, -1]])
    found = moved(picture, torch.tensor([True, False, False]), shifts)[:, 0].tolist()
    assert found == [
        [[2, 1, 0], [5, 4, 3], [8, 7, 6]],
        [[0, 1, 2], [0, 1, 2], [3, 4, 5]],
        [[1, 2, 2], [4, 5, 5], [7, 8, 8]],
    ]
    assert normalised(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_a_network_learns_and_the_seed_decides(split: Split) -> None:
    parts = split.parts["gender-by-race"]
    train = DevicePart.of(parts["train"], torch.device("cpu"))
    test = DevicePart.of(parts["test"], torch.device("cpu"))
    settings = TrainingSettings(epochs=40, batch=16)
    said = answers(train_network(train, "rmsprop", 1e-3, 0, settings), test)
    assert np.mean(said.numpy() == parts["test"].labels) > 0.9
    first, again, other = (
        train_network(train, "sgd", 1e-2, seed, TrainingSettings(1, 16)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.1.weight"], other["classifier.1.weight"])


@pytest.mark.usefixtures("few_rates")
def test_a_study_chooses_rates_compares_and_goes_on(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_study(split, tmp_path / "s", QUICK)
    text = (tmp_path / "s" / "results.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(results))
    task = results["tasks"]["gender-by-race"]
    assert task["faces"]["train"] == {"Black": 6, "White": 20}
    assert task["parity_gap_of_the_truth"] == 0
    for name, found in task["optimisers"].items():
        tried = {point["learning_rate"]: point["validation_accuracy"] for point in found["grid"]}
        assert tried[found["learning_rate"]] == max(tried.values()), name
        assert len(found["seeds"]) == 2
    minus = task["optimisers"]["sgd"]["minus_adamw"]["accuracy"]
    sides = [task["optimisers"][name]["figures"]["accuracy"] for name in ("sgd", "adamw")]
    assert minus["mean"] == pytest.approx(sides[0]["mean"] - sides[1]["mean"])
    table = (tmp_path / "s" / "results.md").read_text()
    assert "Training faces: Black 6, White 20." in table
    assert "Minus adamw, seed by seed" in table
    assert (tmp_path / "s" / "gaps.svg").read_text().startswith("<?xml")

    # What a stop had left out is trained again, alone, with the same result.
    (tmp_path / "s" / "units" / "gender-by-race" / "sgd-1.json").unlink()
    for name in ("results.json", "results.md", "gaps.svg"):
        (tmp_path / "s" / name).unlink()
    trained: list[tuple[Any, ...]] = []

    def counted(*arguments: Any) -> Any:
        trained.append(arguments[1:4])
        return train_network(*arguments)

    monkeypatch.setattr(module, "train_network", counted)
    assert run_study(split, tmp_path / "s", QUICK) == results
    assert trained == [("sgd", task["optimisers"]["sgd"]["learning_rate"], 1)]


@pytest.mark.usefixtures("few_rates")
def test_a_folder_holds_one_study(split: Split, tmp_path: Path) -> None:
    once = StudySettings(("sgd",), seeds=1, training=TrainingSettings(epochs=1, batch=16))
    found = run_study(split, tmp_path, once)["tasks"]["gender-by-race"]["optimisers"]["sgd"]
    assert "minus_adamw" not in found
    with pytest.raises(BadSettings, match="holds a study of other faces or settings"):
        run_study(split, tmp_path, QUICK)
    (tmp_path / "units" / "gender-by-race" / "sgd-0.json").write_text('{"figures')
    with pytest.raises(BadCheckpoint, match=r"sgd-0\.json' is damaged .*; remove it, and the same"):
        run_study(split, tmp_path, once)
    with pytest.raises(BadSettings, match="There is no optimiser lion; use some of adamw, adam"):
        StudySettings(("lion",))
    with pytest.raises(BadSettings, match="whole numbers from 1"):
        StudySettings(seeds=0)


def test_faces_are_drawn_once(tmp_path: Path) -> None:
    corpus = made_up_corpus(tmp_path / "corpus", faces=8)
    settings = SplitSettings(("smiling-by-gender",), share=0.5, size=16)
    split = drawn_faces(corpus, tmp_path / "s", settings)
    assert drawn_faces(tmp_path / "gone", tmp_path / "s", settings).sha256 == split.sha256
    with pytest.raises(BadSettings, match="faces that were drawn by other settings"):
        drawn_faces(corpus, tmp_path / "s", SplitSettings(share=0.6))
