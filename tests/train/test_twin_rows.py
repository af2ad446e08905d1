"""Which rows become pairs, and what a batch shows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facellava.corpus import read_samples
from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from facellava.records import Sample
from facellava.tasks import TASKS
from train.face_arrays import EXPRESSIONS, UNITS, FaceArrays
from train.features import FeatureCache
from train.instruct import CachedCollator, InstructionRows, encode_rows
from train.resting_faces import RestingFaces
from train.rows import Row
from train.twin_rows import as_clip, clip_twins, further_json_twins, json_twins, twins_of
from train.twins import Choices

REASONS = ("The mouth is closed.", "The head is held level.")


@pytest.fixture
def processor(new_parts) -> FaceLlavaProcessor:
    return new_parts()[1]


@pytest.fixture
def choices(processor: FaceLlavaProcessor) -> Choices:
    return Choices(processor.tokenizer)


def sample_of(like: Sample, face: int, task: str, label, form: str = "prose") -> Sample:
    prose = f"{TASKS[task].lead(label)} {' '.join(REASONS)}"
    answer = prose if form == "prose" else TASKS[task].write_json(label, REASONS)
    return replace(
        like,
        sample_id=f"{face}-{task}-{form}",
        face_id=f"mini-{face}",
        task=task,
        question=TASKS[task].canonical_question,
        answer=answer,
        label=label,
        form=form,
        history=(),
    )


@pytest.fixture
def rows(mini_corpus: Path, processor: FaceLlavaProcessor) -> list[Row]:
    like = next(read_samples(mini_corpus))
    samples = [
        sample_of(like, 0, "age", 20),  # the first of each CLIP_EVERY is shown as a clip
        sample_of(like, 1, "age", 34),
        sample_of(like, 1, "age", 34, "json"),
        sample_of(like, 2, "expression", "happiness"),
        sample_of(like, 2, "expression", "happiness", "json"),
        sample_of(like, 3, "age", 50, "json"),
        sample_of(like, 4, "action_units", ("AU4",)),
        sample_of(like, 5, "action_units", ()),
    ]
    return encode_rows(samples, {f"mini-{n}": n for n in range(6)}, processor)


@pytest.fixture
def arrays(mini_arrays: FaceArrays) -> FaceArrays:
    """Six faces: two with an age, a smile, a neutral face, one with AU4, one that moves none."""
    expression = np.full(6, -1)
    expression[2:4] = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")
    units = np.full((6, len(UNITS)), -1, np.int8)
    units[4:] = 0
    units[4, UNITS.index("AU4")] = 1
    return replace(
        mini_arrays,
        landmarks=mini_arrays.landmarks[:6],
        expression=expression,
        units=units,
        source=np.array(["a", "a", "b", "b", "c", "c"]),
    )


@pytest.fixture
def resting(arrays: FaceArrays) -> RestingFaces:
    return RestingFaces(arrays, ["p", "q", "r", "s", "t", "t"])


def numbered(arrays: FaceArrays) -> FeatureCache:
    """Features of which every number is the face's own number."""
    features = np.broadcast_to(np.arange(6, dtype=np.float16)[None, :, None, None], (1, 6, 36, 16))
    return FeatureCache(features, arrays.landmarks[None])


def test_a_json_row_goes_with_the_prose_row_that_says_the_same(
    rows: list[Row], choices: Choices
) -> None:
    left, pairs = json_twins(rows, choices)
    assert [(pair.first.face, pair.second.face) for pair in pairs] == [(1, 1), (2, 2)]
    assert [pair.first.form for pair in pairs] == ["prose", "prose"]
    assert [pair.second.form for pair in pairs] == ["json", "json"]
    # Nobody says in prose that the fourth face is 50; prose rows stay.
    assert left == [rows[n] for n in (0, 1, 3, 5, 6, 7)]


def test_prose_rows_get_further_json_twins(
    rows: list[Row], choices: Choices, processor: FaceLlavaProcessor
) -> None:
    asked = next(row for row in rows if row.form == "prose" and row.frames == 1)
    refusal = replace(asked, task="unanswerable", label=None)
    assert len(further_json_twins([*[refusal] * 9, asked], processor, choices, 1)) == 1
    pairs = further_json_twins([*rows, refusal], processor, choices, 100)
    whole = {row.task for row in rows if row.form == "prose" and row.first and row.frames == 1}
    assert {pair.first.task for pair in pairs} == whole
    for pair in pairs:
        assert (pair.first.form, pair.second.form) == ("prose", "json")
        assert (pair.second.face, pair.second.label) == (pair.first.face, pair.first.label)
        said = processor.tokenizer.decode(pair.second.text.input_ids)
        assert TASKS[pair.first.task].write_json(pair.first.label, ()) in said
        learned = [label for label in pair.second.text.labels or () if label != IGNORED_LABEL]
        assert processor.tokenizer.decode(learned).endswith('"label')
    assert len(further_json_twins(rows, processor, choices, 1)) == 1


def test_rows_that_decide_different_things_are_no_pair(rows: list[Row], choices: Choices) -> None:
    assert twins_of(rows[1], rows[4], choices) is None
    assert twins_of(rows[6], rows[7], choices) is None
    assert twins_of(rows[1], rows[2], choices) is not None


def test_a_clip_says_the_same_of_more_frames(
    rows: list[Row], processor: FaceLlavaProcessor
) -> None:
    photo = rows[3]
    clip = as_clip(photo, 4, processor)
    tokenizer = processor.tokenizer
    video = tokenizer.convert_tokens_to_ids("<video>")
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert clip.text.input_ids.count(video) == 4 * 36
    assert image not in clip.text.input_ids
    assert (clip.frames, clip.at_rest) == (4, 3)
    words = [token for token in photo.text.input_ids if token != image]
    assert [token for token in clip.text.input_ids if token != video] == words
    for row in (photo, clip):
        named = [row.text.input_ids[place] for place in row.naming]
        assert tokenizer.decode(named) == "Expression:"
        learned = [token for token in row.text.labels or () if token != IGNORED_LABEL]
        assert tokenizer.decode(learned).startswith("Expression: happiness. The mouth")


def test_clips_of_faces_that_show_something(
    rows: list[Row], resting: RestingFaces, processor: FaceLlavaProcessor, choices: Choices
) -> None:
    pairs = clip_twins(rows, resting, processor, choices, 60)
    shown = {(pair.first.task, pair.first.face) for pair in pairs}
    # Nobody labelled the expression of the face with AU4: its clip is to go with its photo.
    assert shown == {("expression", 2), ("action_units", 4), ("expression", 4)}
    assert {pair.second.frames for pair in pairs} == {2, 3, 4, 5, 7, 9}
    for pair in pairs:
        assert pair.first.frames == 1
        assert pair.second.at_rest == pair.second.frames - 1
        learned = [token for token in pair.first.text.labels or () if token != IGNORED_LABEL]
        taught = processor.tokenizer.decode(learned)
        if (pair.first.task, pair.first.face) == ("expression", 4):
            assert taught == "Expression:"
        else:
            assert taught.startswith(("Expression: happiness.", "Action units: AU4."))
    assert pairs == clip_twins(rows, resting, processor, choices, 60)
    assert clip_twins(rows[:3], resting, processor, choices, 60) == []


def test_a_batch_shows_the_clip_beside_faces_at_rest(
    rows: list[Row],
    arrays: FaceArrays,
    resting: RestingFaces,
    processor: FaceLlavaProcessor,
    choices: Choices,
) -> None:
    cache = numbered(arrays)
    clips = clip_twins(rows, resting, processor, choices, 30)
    clip = next(p for p in clips if p.second.frames == 4 and p.first.task == "action_units")
    pairs = [clip, json_twins(rows, choices)[1][0]]
    data = InstructionRows([rows[1]], cache, arrays.units, 0.0, pairs, resting)
    assert len(data) == 3
    lengths = [len(row.text.input_ids) for row in (rows[1], clip.second, pairs[1].second)]
    assert data.usable.lengths.tolist() == lengths
    torch.manual_seed(0)
    places = set()
    for _ in range(20):
        batch = CachedCollator(processor)([data[n] for n in range(3)])
        frames = batch["image_features"][:, 0, 0].int().tolist()
        # One row, the photo and the clip of face 4 (face 5 is at rest), the pair of face 1.
        assert frames[:2] == [1, 4]
        assert sorted(frames[2:6]) == [4, 5, 5, 5]
        assert frames[6:] == [1, 1]
        places.add(frames[2:6].index(4))
    assert places == {0, 1, 2, 3}
    assert batch["input_ids"].shape[0] == 5
    assert torch.equal(batch["uncoded"][1], batch["uncoded"][2])
    rows_of = [(first.row, second.row) for first, second in batch["twins"]]
    assert rows_of == [(1, 2), (3, 4)]
    for pair in batch["twins"]:
        for verdicts in pair:
            for decision in verdicts.decisions:
                token = int(batch["input_ids"][verdicts.row, decision.place])
                assert token in choices.members[decision.kind, verdicts.form]


def test_a_clip_shown_with_another_face_shows_nobody_else(
    rows: list[Row],
    choices: Choices,
    processor: FaceLlavaProcessor,
    arrays: FaceArrays,
    resting: RestingFaces,
) -> None:
    cache = numbered(arrays)
    clips = clip_twins(rows, resting, processor, choices, 30)
    clip = next(pair.second for pair in clips if pair.second.frames == 4)
    data = InstructionRows([clip], cache, arrays.units, 1.0, (), resting)
    for _ in range(20):
        [shown] = data[0]
        assert len(set(shown["image_features"][:, 0, 0].tolist())) == 1
