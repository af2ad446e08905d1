"""Which rows are twins: a JSON answer beside the prose one, a clip beside its expressive photo.

A clip's verdict is that of the frame that shows most. Its other frames are faces at rest, the same
person's where the corpus has them. A face without a label for its expression has twins as well:
what its photo is said to show, its clip is to be said to show.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN
from facellava.conversation import face_conversation
from facellava.processor import IGNORED_LABEL, EncodedText, FaceLlavaProcessor
from facellava.tasks import ANSWERABLE, TASKS, Label, ask_for_json
from train.instruct import Twins, learning_only, naming_places
from train.resting_faces import RestingFaces
from train.rows import Row
from train.twins import Choices

# Frames of a clip of which one shows something: four, as a clip is sampled, or some other number.
FRAMES = (2, 3, 4, 4, 5, 5, 7, 9)
SHOWN = ("expression", "action_units")


def twins_of(first: Row, second: Row, choices: Choices) -> Twins | None:
    """The pair, unless one of them decides something that the other does not."""
    decided = tuple(
        tuple(choices.decisions(row.text, row.naming.stop, row.task, row.form))
        for row in (first, second)
    )
    kinds = [[decision.kind for decision in decisions] for decisions in decided]
    if not kinds[0] or kinds[0] != kinds[1]:
        return None
    return Twins(first, second, (decided[0], decided[1]))


def json_twins(rows: Sequence[Row], choices: Choices) -> tuple[list[Row], list[Twins]]:
    """Each JSON row with a prose row of the same face and label; the rows that are left are first.

    A prose row stays among the rows, too: there are several times as many.
    """
    prose: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        if row.form == "prose" and row.first and row.frames == 1:
            prose.setdefault(_said(row), row)
    left, pairs = [], []
    for row in rows:
        beside = prose.get(_said(row)) if row.form == "json" and row.frames == 1 else None
        pair = None if beside is None else twins_of(beside, row, choices)
        if pair is None:
            left.append(row)
        else:
            pairs.append(pair)
    return left, pairs


def _said(row: Row) -> tuple[int, str, str]:
    return row.face, row.task, json.dumps(row.label)


def further_json_twins(
    rows: Sequence[Row],
    processor: FaceLlavaProcessor,
    choices: Choices,
    count: int,
    seed: int = 0,
) -> list[Twins]:
    """Prose answers, each beside a JSON answer that teaches its task's name and is its twin.

    A corpus has few JSON answers, and it takes many to learn where a long list or one of a hundred
    years falls in another form.

    Args:
        count: of pairs; fewer where the corpus has no more rows that ask for a whole label.
    """
    draw = random.Random(seed)
    asked = [
        row
        for row in rows
        if (row.task in ANSWERABLE and row.form == "prose" and row.first and row.frames == 1)
        and (not isinstance(row.label, dict) or len(row.label) == len(TASKS[row.task].labels))
    ]
    pairs = []
    for prose in draw.sample(asked, min(count, len(asked))):
        row = naming_row(prose.face, prose.task, prose.label, "json", processor, draw)
        if (pair := twins_of(prose, row, choices)) is not None:
            pairs.append(pair)
    return pairs


def clip_twins(
    rows: Sequence[Row],
    resting: RestingFaces,
    processor: FaceLlavaProcessor,
    choices: Choices,
    count: int,
    seed: int = 0,
) -> list[Twins]:
    """Photos of faces that show something, each beside a clip with faces at rest.

    Two in three are rows of expressions and action units; the others ask for the expression of
    faces whose expression nobody labelled.

    Args:
        count: of pairs; none where the corpus has no such rows.
    """
    draw = random.Random(seed)
    known = defaultdict(list)
    for row in rows:
        if (row.task in SHOWN and row.form == "prose" and row.first and row.frames == 1) and (
            resting.expressive[row.face]
        ):
            known[row.task].append(row)
    tasks = [task for task in SHOWN if known[task]]
    expressions = {row.face for row in known["expression"]}
    asked = [row for row in known["action_units"] if row.face not in expressions]
    if not tasks:
        return []
    pairs: list[Twins] = []
    for number in range(count):
        if number % 3 == 2 and asked:
            words = TASKS["expression"].labels[0]
            photo = naming_row(
                draw.choice(asked).face, "expression", words, "prose", processor, draw
            )
        else:
            photo = draw.choice(known[tasks[number % len(tasks)]])
        clip = as_clip(photo, processor.clip_length(draw.choice(FRAMES)), processor)
        if (pair := twins_of(photo, clip, choices)) is not None:
            pairs.append(pair)
    return pairs


def naming_row(
    face: int,
    task: str,
    label: Label,
    form: str,
    processor: FaceLlavaProcessor,
    draw: random.Random,
) -> Row:
    """A question and an answer without reasons, of which the task's name alone is learned.

    What else its verdict teaches is for twins and soft labels to say.
    """
    asked = TASKS[task]
    question = asked.question(draw)
    answer = asked.lead(label)
    if form == "json":
        question, answer = ask_for_json(question, draw), asked.write_json(label, ())
    messages = face_conversation("image", question, (), answer)
    text = processor.encode_text(messages, [1], training=True)
    naming = naming_places(answer, text, processor.tokenizer)
    return Row(face, learning_only(text, naming), 1, naming, task, form, label)


def as_clip(row: Row, frames: int, processor: FaceLlavaProcessor) -> Row:
    """A row about a photo as one about a clip, all of whose frames but one are at rest."""
    tokenizer: PreTrainedTokenizerBase = processor.tokenizer
    image, video = (tokenizer.convert_tokens_to_ids(token) for token in (IMAGE_TOKEN, VIDEO_TOKEN))
    ids = row.text.input_ids
    start, length = ids.index(image), ids.count(image)
    places = processor.clip_tokens(frames)
    labels = list(row.text.labels or ())
    behind = start + length
    text = EncodedText(
        [*ids[:start], *[video] * places, *ids[behind:]],
        [*labels[:start], *[IGNORED_LABEL] * places, *labels[behind:]],
    )
    moved = places - length
    naming = range(row.naming.start + moved, row.naming.stop + moved)
    return replace(row, text=text, frames=frames, naming=naming, at_rest=frames - 1)
