"""A small dataset of real and generated faces: seen more often, and as means of two of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from facellava.processor import IGNORED_LABEL, EncodedText
from train.face_arrays import FaceArrays
from train.features import FeatureCache
from train.instruct import CachedCollator, InstructionRows
from train.rare_fakes import MixedFakes, rare_fakes
from train.rows import Row
from train.soft_labels import SoftLabels
from train.soft_targets import SoftTargets
from train.twins import Choices
from train.verdict_rows import mixed_rows

BLENDS, GENERATED = range(36), range(36, 44)
REAL, FAKE = {36, 37, 38, 39, 40, 41}, {42, 43}
FACES = 46  # the last two have ages


@pytest.fixture
def arrays(mini_arrays: FaceArrays) -> FaceArrays:
    source = ["blends"] * 36 + ["generated"] * 8 + ["ages"] * 2
    fake = [number % 2 for number in BLENDS] + [0] * 6 + [1] * 2 + [-1] * 2
    return replace(
        mini_arrays,
        source=np.array(source),
        fake=np.array(fake, np.int8),
        units=np.full((FACES, mini_arrays.units.shape[1]), -1, np.int8),
    )


@pytest.fixture
def mixes(arrays: FaceArrays) -> MixedFakes:
    return MixedFakes(arrays)


def soft_labels() -> SoftLabels:
    """That say 0.5 of everything."""
    half = {"expression": 7, "attributes": 40, "units": 15}
    lists = {name: np.full((FACES, width), 0.5, np.float32) for name, width in half.items()}
    alone = np.full(FACES, 0.5, np.float32)
    return SoftLabels(**lists, years=60 * alone, fake=alone)


def test_a_small_set_of_fakes_is_repeated_beside_a_large_one(arrays: FaceArrays) -> None:
    text = EncodedText([1], [1])
    rows = [Row(face, text, task="deepfake") for face in range(40)] + [Row(44, text, task="age")]
    assert rare_fakes(rows, arrays.source) == [row for row in rows[36:40] for _ in range(2)]
    assert rare_fakes(rows[:36], arrays.source) == []
    assert rare_fakes([], arrays.source) == []


def test_only_small_sets_with_both_labels_are_mixed(arrays: FaceArrays, mixes: MixedFakes) -> None:
    assert np.flatnonzero(mixes.rare).tolist() == list(GENERATED)
    of_blends = np.where(arrays.source == "generated", "generated_self_blended", arrays.source)
    assert not MixedFakes(replace(arrays, source=of_blends)).rare.any()
    one_label = replace(arrays, fake=np.where(arrays.source == "generated", 1, arrays.fake))
    assert not MixedFakes(one_label).rare.any()


def test_mixed_rows_are_about_real_and_generated_faces_alike(
    arrays: FaceArrays, mixes: MixedFakes, new_parts
) -> None:
    processor = new_parts()[1]
    rows = mixed_rows(mixes, processor, 60)
    assert Counter(row.label for row in rows) == {"real": 30, "fake": 30}
    assert {row.form for row in rows} == {"prose", "json"}
    assert {row.face for row in rows} == REAL | FAKE
    assert all((row.face in FAKE) == (row.label == "fake") and row.mixed for row in rows)
    nobody = MixedFakes(replace(arrays, fake=np.full(FACES, -1, np.int8)))
    assert mixed_rows(nobody, processor, 60) == []


def test_a_mixed_row_shows_a_mean_and_learns_the_mean_of_the_labels(
    arrays: FaceArrays, mixes: MixedFakes, new_parts
) -> None:
    """Each face's feature is its own number, so that a mean tells whose it is and how much."""
    processor = new_parts()[1]
    numbers = np.zeros((1, FACES, 36, 16), np.float16)
    numbers[0, :, 0, 0] = np.arange(FACES)
    numbers[0, sorted(FAKE), 1, 1] = 1
    marks = np.zeros((1, FACES, 68, 2), np.float32)
    marks[0, :, 0, 0] = np.arange(FACES)
    choices = Choices(processor.tokenizer)
    soft = SoftTargets(soft_labels(), arrays, choices, mixes.rare)
    rows = mixed_rows(mixes, processor, 40)
    cache = FeatureCache(numbers, marks)
    shown = InstructionRows(rows, cache, arrays.units, 1.0, (), None, soft, mixes)
    torch.manual_seed(0)
    between = set()
    for number in range(len(shown)):
        [item] = shown[number]
        [target] = item["targets"]
        words = choices.of(target.decision.kind, item["form"])
        said = rows[number].text.input_ids[target.decision.place]
        place = int((words == said).any(dim=1).nonzero()[0, 0])
        own = float(target.chances[place])
        fake = own if rows[number].label == "fake" else 1 - own
        generated = float(item["image_features"][0, 1, 1])
        assert fake == pytest.approx(0.03 + 0.94 * generated, abs=2e-3)
        assert float(target.chances.sum()) == pytest.approx(1)
        mean = float(item["image_features"][0, 0, 0])
        assert min(GENERATED) <= mean <= max(GENERATED)
        assert float(item["landmarks"][0, 0, 0]) == pytest.approx(mean, abs=0.05)
        between.add(round(mean, 3))
        # Nothing but the name of the task and the share is learned.
        learned = [token for token in item["text"].labels if token != IGNORED_LABEL]
        assert processor.tokenizer.decode(learned).endswith((":", '"label'))
    assert len(between) > 30
    batch = CachedCollator(processor)([shown[0], shown[1]])
    assert [row.row for row in batch["targets"]] == [0, 1]


def test_soft_labels_say_nothing_of_small_sets(
    arrays: FaceArrays, mixes: MixedFakes, new_parts
) -> None:
    processor = new_parts()[1]
    soft = SoftTargets(soft_labels(), arrays, Choices(processor.tokenizer), mixes.rare)
    row = mixed_rows(mixes, processor, 1)[0]
    assert soft.of_row(row) == ()
    assert len(soft.of_row(replace(row, face=0))) == 1
