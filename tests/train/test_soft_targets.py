"""Probabilities of a face become probabilities of words, in both forms; and rows made of them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from facellava.tasks import TASKS, Label
from train.face_arrays import ATTRIBUTES, EXPRESSIONS, UNITS, FaceArrays
from train.plain_loss import learned_places
from train.rare_fakes import MixedFakes
from train.resting_faces import RestingFaces
from train.rows import Row
from train.soft_labels import SoftLabels
from train.soft_targets import SoftTargets, Target, Targets, apart_from_targets
from train.twin_rows import naming_row
from train.twins import Choices
from train.verdict_rows import SHARES, drawn_label, verdict_rows

FACES = 6


@pytest.fixture
def processor(new_parts) -> FaceLlavaProcessor:
    return new_parts()[1]


@pytest.fixture
def choices(processor: FaceLlavaProcessor) -> Choices:
    return Choices(processor.tokenizer)


@pytest.fixture
def arrays(mini_arrays: FaceArrays) -> FaceArrays:
    """Six faces with every label but the last, which has none."""
    known = np.arange(FACES) < FACES - 1
    units = np.where(known[:, None], 0, -1).astype(np.int8)
    return replace(
        mini_arrays,
        landmarks=mini_arrays.landmarks[:FACES],
        expression=np.where(known, 3, -1),
        age=np.where(known, 34, -1),
        attributes=np.where(known[:, None], np.zeros((1, 40)), -1).astype(np.int8),
        units=np.repeat(units, len(UNITS), axis=1),
        fake=np.where(known, 1, -1).astype(np.int8),
        source=np.full(FACES, "mini"),
    )


@pytest.fixture
def soft() -> SoftLabels:
    rng = np.random.default_rng(3)
    expression = rng.random((FACES, len(EXPRESSIONS)), np.float32)
    return SoftLabels(
        expression=expression / expression.sum(axis=1, keepdims=True),
        years=rng.uniform(20, 60, FACES).astype(np.float32),
        attributes=rng.random((FACES, 40), np.float32),
        units=rng.random((FACES, len(UNITS)), np.float32) * 0.6,
        fake=rng.random(FACES, np.float32),
    )


@pytest.fixture
def targets(soft: SoftLabels, arrays: FaceArrays, choices: Choices) -> SoftTargets:
    return SoftTargets(soft, arrays, choices)


def row_of(processor: FaceLlavaProcessor, task: str, label: Label, form: str, face: int = 0) -> Row:
    return naming_row(face, task, label, form, processor, random.Random(0))


def said(row: Row, found: tuple[Target, ...], choices: Choices) -> float:
    """The chance of the row's very verdict."""
    chance = 1.0
    for target in found:
        groups = choices.of(target.decision.kind, row.form)
        token = row.text.input_ids[target.decision.place]
        chance *= float(target.chances[(groups == token).any(dim=1).nonzero()[0, 0]])
    return chance


@pytest.mark.parametrize("form", ["prose", "json"])
@pytest.mark.parametrize("active", [(), ("AU1",), ("AU4", "AU12", "AU25"), UNITS])
def test_a_lists_chance_is_that_of_its_units(
    processor: FaceLlavaProcessor,
    choices: Choices,
    targets: SoftTargets,
    soft: SoftLabels,
    active: tuple[str, ...],
    form: str,
) -> None:
    row = row_of(processor, "action_units", active, form)
    each = [p if u in active else 1 - p for u, p in zip(UNITS, soft.units[0], strict=True)]
    found = said(row, targets.of_row(row), choices)
    assert found == pytest.approx(float(np.prod(each)), rel=1e-4)


@pytest.mark.parametrize("form", ["prose", "json"])
def test_a_words_chance_is_the_soft_labels(
    processor: FaceLlavaProcessor,
    choices: Choices,
    targets: SoftTargets,
    soft: SoftLabels,
    form: str,
) -> None:
    for word, chance in zip(EXPRESSIONS, soft.expression[1], strict=True):
        row = row_of(processor, "expression", word, form, 1)
        assert said(row, targets.of_row(row), choices) == pytest.approx(float(chance), rel=1e-5)
    fake = row_of(processor, "deepfake", "fake", form, 1)
    assert said(fake, targets.of_row(fake), choices) == pytest.approx(float(soft.fake[1]))
    one: Label = {ATTRIBUTES[7]: False}
    row = row_of(processor, "attributes", one, form, 1)
    wanted = 1 - float(soft.attributes[1, 7])
    assert said(row, targets.of_row(row), choices) == pytest.approx(wanted, rel=1e-5)


def test_a_year_has_neighbours_around_the_expected_one(
    processor: FaceLlavaProcessor, targets: SoftTargets, soft: SoftLabels
) -> None:
    [target] = targets.of_row(row_of(processor, "age", 34, "prose", 2))
    years = np.arange(len(target.chances))
    assert float(target.chances.sum()) == pytest.approx(1, rel=1e-5)
    assert float(target.chances @ years) == pytest.approx(float(soft.years[2]), abs=0.05)


def test_faces_without_a_label_have_no_units_and_no_origin(
    processor: FaceLlavaProcessor, targets: SoftTargets
) -> None:
    last = FACES - 1
    assert targets.of_row(row_of(processor, "action_units", ("AU4",), "prose", last)) == ()
    assert targets.of_row(row_of(processor, "deepfake", "real", "prose", last)) == ()
    assert len(targets.of_row(row_of(processor, "expression", "fear", "prose", last))) == 1
    assert targets.of_row(Row(0, row_of(processor, "age", 3, "prose").text)) == ()


def test_the_verdicts_come_to_the_soft_labels(
    processor: FaceLlavaProcessor, choices: Choices, targets: SoftTargets, soft: SoftLabels
) -> None:
    """Nothing else is learned at these places, so they are kept for the soft labels' sake."""
    rows = [
        row_of(processor, "action_units", ("AU4", "AU12"), "json", 0),
        row_of(processor, "expression", "fear", "prose", 1),
    ]
    found = [Targets(n, row.form, targets.of_row(row)) for n, row in enumerate(rows)]
    batch = processor.pad([row.text for row in rows], side="right")
    places = [target.decision.place for row in found for target in row.targets]
    keep = learned_places(batch["labels"], places)
    assert set(place - 1 for place in places) <= set(keep.tolist())
    logits = torch.zeros(2, len(keep), len(processor.tokenizer), requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    first = None
    for _ in range(150):
        apart = apart_from_targets(logits, keep, found, choices)
        first = float(apart.detach()) if first is None else first
        optimiser.zero_grad()
        apart.backward()
        optimiser.step()
    assert float(apart.detach()) < 0.01 < first
    at = keep.tolist().index(places[-1] - 1)
    words = choices.of("expression", "prose")[:, 0]
    likely = logits.detach()[1, at, words].softmax(dim=0).numpy()
    wanted = soft.expression[1][[EXPRESSIONS.index(word) for word in choices.expressions]]
    np.testing.assert_allclose(likely, wanted, atol=0.02)


def test_a_unit_that_nobody_coded_is_no_choice(
    processor: FaceLlavaProcessor, choices: Choices, soft: SoftLabels, arrays: FaceArrays
) -> None:
    arrays.units[0, UNITS.index("AU6")] = -1
    row = row_of(processor, "action_units", ("AU4", "AU12"), "prose", 0)
    targets = SoftTargets(soft, arrays, choices).of_row(row)
    batch = processor.pad([row.text], side="right")
    keep = learned_places(batch["labels"], [target.decision.place for target in targets])
    logits = torch.zeros(1, len(keep), len(processor.tokenizer), requires_grad=True)
    apart_from_targets(logits, keep, [Targets(0, "prose", targets)], choices).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    # The first unit also says that there is any.
    at = keep.tolist().index(targets[3].decision.place - 1)
    ids = choices.of("unit", "prose")[:, 0]
    pushed = dict(zip(UNITS, logits.grad[0, at, ids].tolist(), strict=True))
    assert pushed["AU6"] == pytest.approx(0, abs=1e-7)
    assert abs(pushed["AU7"]) > 1e-5


def test_rows_ask_for_every_task_in_both_forms(
    processor: FaceLlavaProcessor, choices: Choices, soft: SoftLabels, arrays: FaceArrays
) -> None:
    arrays = replace(arrays, expression=np.array([3, 6, 6, 3, 3, -1]))
    resting = RestingFaces(arrays, [f"p{n}" for n in range(FACES)])
    rows = verdict_rows(soft, arrays, resting, processor, 400)
    assert Counter((row.task, row.form) for row in rows) == {
        kind: round(400 * share) for kind, share in SHARES.items()
    }
    clips = [row for row in rows if row.frames > 1]
    assert clips
    assert {row.task for row in clips} <= {"expression", "action_units"}
    assert {row.form for row in clips} == {"prose"}
    # The last face has no label.
    about_last = {row.task for row in rows if row.face == FACES - 1}
    assert about_last == {"expression", "age"}
    for row in rows[::7]:
        learned = [label for label in row.text.labels or () if label != IGNORED_LABEL]
        named = processor.tokenizer.decode(learned)
        assert named == f"{TASKS[row.task].title}:" or named.endswith('"label')


def test_no_row_teaches_whether_a_face_of_a_small_set_is_real(
    processor: FaceLlavaProcessor, soft: SoftLabels, arrays: FaceArrays
) -> None:
    """It would have no target; the mixed rows are there for it."""
    sources = ["large"] * (FACES - 3) + ["small"] * 2 + ["large"]
    judged = replace(
        arrays, source=np.array(sources), fake=np.array([0, 1, 1, 0, 1, -1][:FACES], np.int8)
    )
    mixes = MixedFakes(judged)
    rows = verdict_rows(soft, mixes.without(judged), None, processor, 200)
    asked = {row.face for row in rows if row.task == "deepfake"}
    assert asked == set(np.flatnonzero((judged.fake >= 0) & ~mixes.rare).tolist())


def test_lists_are_drawn_by_their_probabilities(soft: SoftLabels) -> None:
    draw = random.Random(0)
    drawn = [drawn_label("action_units", soft, 0, draw) for _ in range(2000)]
    shares = [np.mean([unit in (label or ()) for label in drawn]) for unit in UNITS]
    np.testing.assert_allclose(shares, soft.units[0], atol=0.05)
