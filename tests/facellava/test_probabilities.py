"""Scores of labels against slow references: one row at a time, and enumeration of all answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, ResNetConfig

from facellava import probabilities
from facellava.checkpoint import new_model
from facellava.config import FaceLlavaConfig
from facellava.conversation import FaceCrop, face_conversation
from facellava.label_scorer import LabelScorer
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.probabilities import calibrate
from facellava.processor import EncodedText, FaceLlavaProcessor
from facellava.tasks import TASKS, Verdict

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
UNITS = TASKS["action_units"]
NAMES = TASKS["attributes"].labels


@pytest.fixture
def split_words(tiny_parts: Parts) -> Parts:
    """A model whose tokenizer splits the label words (all but one)."""
    return tiny_parts[0].eval(), tiny_parts[1]


@pytest.fixture
def whole_words(
    tiny_tokenizer: PreTrainedTokenizerFast,
    build_config: Callable[..., FaceLlavaConfig],
    resnet_vision: ResNetConfig,
) -> Parts:
    """A model whose tokenizer holds each label word, and yes and no with their marks, as one."""
    words = [word for task in TASKS.values() for word in task.closed_words]
    marked = [f"{word}{mark}" for word in (" yes", " no") for mark in ",."]
    tiny_tokenizer.add_tokens(list(dict.fromkeys([*words, *marked])))
    config = build_config(resnet_vision, image_size=96)
    config.text_config.vocab_size = len(tiny_tokenizer)
    torch.manual_seed(1)
    model, processor = new_model(config, tiny_tokenizer)
    return model.eval(), processor


def log_probability(parts: Parts, face: FaceCrop, question: str, words: str) -> float:
    """Of an answer's opening words, by a forward pass of its own, token after token."""
    model, processor = parts
    encoded = processor.encode([face_conversation("image", question)], [face])
    ids = processor.tokenizer(words, add_special_tokens=False)["input_ids"]
    prompt = encoded["input_ids"]
    with torch.no_grad():
        logits = model(
            input_ids=torch.cat([prompt, torch.tensor([ids])], dim=1),
            pixel_values=encoded["pixel_values"],
            landmarks=encoded["landmarks"],
        ).logits[0]
    logs = logits[prompt.shape[1] - 1 : -1].log_softmax(dim=-1)
    return float(sum(logs[place, token] for place, token in enumerate(ids)))


def normalised(scores: Sequence[float]) -> list[float]:
    return torch.tensor(scores).softmax(dim=0).tolist()


@pytest.mark.parametrize("task", ["expression", "age", "deepfake"])
def test_exclusive_labels_share_one(
    whole_words: Parts, astronaut_face: FaceCrop, task: str
) -> None:
    words = TASKS[task].scored_words
    question = TASKS[task].canonical_question
    verdict = Verdict(task, 30 if task == "age" else words[0].strip(), "")
    [table] = LabelScorer(*whole_words).score(
        [face_conversation("image", question)], [astronaut_face], [verdict]
    )
    assert list(table) == [word.strip() for word in words]
    assert sum(table.values()) == pytest.approx(1, abs=1e-5)
    some = words if len(words) < 10 else words[::12]
    scores = [
        log_probability(whole_words, astronaut_face, question, f"{TASKS[task].title}:{word}")
        for word in some
    ]
    found = torch.tensor([table[word.strip()] for word in some])
    assert (found / found.sum()).tolist() == pytest.approx(normalised(scores), abs=1e-5)


def test_label_words_of_several_tokens_are_scored_with_their_end(
    split_words: Parts, astronaut_face: FaceCrop
) -> None:
    question = "How old?"
    [table] = LabelScorer(*split_words).score(
        [face_conversation("image", question)], [astronaut_face], [Verdict("age", 3, "")]
    )
    assert len(table) == 117
    assert sum(table.values()) == pytest.approx(1, abs=1e-5)
    some = ["1", "3", "34", "103"]
    leads = [TASKS["age"].lead(int(word)) for word in some]
    scores = [log_probability(split_words, astronaut_face, question, lead) for lead in leads]
    found = torch.tensor([table[word] for word in some])
    assert (found / found.sum()).tolist() == pytest.approx(normalised(scores), abs=1e-5)


@pytest.mark.parametrize("parts", ["whole_words", "split_words"])
@pytest.mark.parametrize("wanted", [NAMES, ("eyeglasses",), ("young",)], ids=["all", "one", "last"])
def test_an_attribute_is_scored_where_its_yes_or_no_stands(
    parts: str, wanted: Sequence[str], astronaut_face: FaceCrop, request: pytest.FixtureRequest
) -> None:
    model_and_processor: Parts = request.getfixturevalue(parts)
    task = TASKS["attributes"]
    label = {name: n % 3 == 0 for n, name in enumerate(wanted)}
    question = "Which attributes?"
    [table] = LabelScorer(*model_and_processor).score(
        [face_conversation("image", question)], [astronaut_face], [Verdict("attributes", label, "")]
    )
    assert list(table) == list(label)
    for name in (wanted[0], wanted[-1]):
        before = f"{task.title}: " + "".join(
            f"{other} {'yes' if label[other] else 'no'}, "
            for other in list(label)[: list(label).index(name)]
        )
        tokenizer = model_and_processor[1].tokenizer
        masses = []
        for word in (" yes", " no"):
            # The tokens that a yes or no may begin with, each by itself.
            firsts = {
                tokenizer(word + mark, add_special_tokens=False)["input_ids"][0]: mark
                for mark in ("", ",", ".")
            }
            scores = []
            for first in firsts:
                piece = tokenizer.convert_tokens_to_string([tokenizer.convert_ids_to_tokens(first)])
                scores.append(
                    log_probability(
                        model_and_processor, astronaut_face, question, f"{before}{name}{piece}"
                    )
                )
            masses.append(float(torch.tensor(scores).logsumexp(0)))
        if parts == "whole_words":
            assert table[name] == pytest.approx(normalised(masses)[0], abs=1e-5)
        else:
            assert 0 < table[name] < 1


def test_attributes_of_split_words_are_read_at_the_letter_that_decides(
    split_words: Parts, astronaut_face: FaceCrop
) -> None:
    """Byte tokens: behind "young" and a space, y against n."""
    model, processor = split_words
    [table] = LabelScorer(model, processor).score(
        [face_conversation("image", "Young?")],
        [astronaut_face],
        [Verdict("attributes", {"young": False}, "")],
    )
    ids = [
        processor.tokenizer(f"Attributes: young {word}", add_special_tokens=False)["input_ids"]
        for word in ("yes", "no")
    ]
    shared = next(n for n, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    written = processor.tokenizer.decode(ids[1][:shared])
    letters = [processor.tokenizer.decode(each[shared : shared + 1]) for each in ids]
    scores = [
        log_probability(split_words, astronaut_face, "Young?", written + letter)
        for letter in letters
    ]
    assert table["young"] == pytest.approx(normalised(scores)[0], abs=1e-5)


class RiggedModel:
    """A language model of the answers "Action units: A, B." over three units, and nothing else.

    What it gives to the next unit depends on the whole list so far.
    """

    def __init__(self, processor: FaceLlavaProcessor, names: Sequence[str]) -> None:
        self.tokenizer, self.names = processor.tokenizer, list(names)
        self.size = len(self.tokenizer)
        self.opening = self.ids(f"{UNITS.title}:")

    def encode_frames(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pixel_values), 1, 1)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def choices(self, taken: Sequence[str]) -> dict[str | None, float]:
        """Probability of each next unit after those taken, None for the end."""
        later = self.names[self.names.index(taken[-1]) + 1 :] if taken else self.names
        weights = {n: 1.0 + (5 * self.names.index(n) + 3 * len(taken)) % 7 for n in later}
        ending: dict[str | None, float] = {**weights, None: 2.0 + len(taken)}
        return {name: weight / sum(ending.values()) for name, weight in ending.items()}

    def next_token(self, ids: Sequence[int]) -> dict[int, float]:
        places = [n for n in range(len(ids)) if ids[n : n + len(self.opening)] == self.opening]
        if not places:
            begun = max(
                k for k in range(len(self.opening)) if k == 0 or ids[-k:] == self.opening[:k]
            )
            return {self.opening[begun]: 1.0}
        words = [self.tokenizer.decode([i]) for i in ids[places[-1] + len(self.opening) :]]
        taken = [word.strip() for word in words if word.strip() in self.names]
        choices = self.choices(taken)
        ended = choices.pop(None)
        comma, stop, none = (self.ids(word)[0] for word in (",", ".", " none"))
        if not words:
            return {none: ended} | {self.ids(f" {n}")[0]: p for n, p in choices.items()}
        if words[-1] == ",":
            return {self.ids(f" {n}")[0]: p / (1 - ended) for n, p in choices.items()}
        if words[-1] in (".", " none"):
            return {stop: 1.0}
        return {comma: 1 - ended, stop: ended} if choices else {stop: 1.0}

    def __call__(self, input_ids: Tensor, logits_to_keep: int, **_: Any) -> SimpleNamespace:
        logits = torch.full((*input_ids.shape, self.size), -1e4)
        for row, ids in enumerate(input_ids.tolist()):
            for place in range(len(ids)):
                for token, probability in self.next_token(ids[: place + 1]).items():
                    logits[row, place, token] = math.log(max(probability, 1e-30))
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])


@pytest.fixture
def three_units(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The task of action units with three of them."""
    names = UNITS.labels[:3]
    words = tuple(f" {name}" for name in (*names, "none"))
    small = replace(UNITS, labels=names, scored_words=words)
    monkeypatch.setitem(probabilities.TASKS, "action_units", small)
    return names


@pytest.mark.parametrize("by_text", [False, True])
def test_action_units_against_enumeration_of_all_answers(
    whole_words: Parts,
    three_units: tuple[str, ...],
    astronaut_face: FaceCrop,
    monkeypatch: pytest.MonkeyPatch,
    by_text: bool,
) -> None:
    processor = whole_words[1]
    rigged = RiggedModel(processor, three_units)

    def probability(answer: tuple[str, ...]) -> float:
        steps = [rigged.choices(answer[:n])[name] for n, name in enumerate((*answer, None))]
        return math.prod(steps)

    answers = [answer for n in range(4) for answer in itertools.combinations(three_units, n)]
    assert sum(map(probability, answers)) == pytest.approx(1)
    scorer = LabelScorer(rigged, processor)  # type: ignore[arg-type]
    if by_text:
        monkeypatch.setattr(probabilities._Planner, "_single_ids", lambda self, words: None)
    for given in answers:
        [table] = scorer.score(
            [face_conversation("image", "Which?")],
            [astronaut_face],
            [Verdict("action_units", given, "")],
        )
        for place, name in enumerate(three_units):
            agreed = [
                other
                for other in answers
                if set(other) & set(three_units[:place]) == set(given) & set(three_units[:place])
            ]
            wanted = sum(probability(a) for a in agreed if name in a) / sum(
                map(probability, agreed)
            )
            assert table[name] == pytest.approx(wanted, abs=1e-5), (given, name)


def test_scores_do_not_depend_on_the_company(
    whole_words: Parts, astronaut_face: FaceCrop, other_face: FaceCrop
) -> None:
    scorer = LabelScorer(*whole_words)
    asked = [
        (astronaut_face, "Age?", Verdict("age", 30, "")),
        (
            other_face,
            "What is the expression of this face, please tell me?",
            Verdict("expression", "anger", ""),
        ),
        ([astronaut_face, other_face], "Fake?", Verdict("deepfake", "real", "")),
        (other_face, "Units?", Verdict("action_units", ("AU4", "AU12"), "")),
        (astronaut_face, "Weather?", Verdict("unanswerable", None, "No.")),
    ]
    conversations = [
        face_conversation("video" if isinstance(item, list) else "image", question)
        for item, question, _ in asked
    ]
    items, verdicts = [item for item, _, _ in asked], [verdict for *_, verdict in asked]
    together = scorer.score(conversations, items, verdicts)
    assert together[-1] == {}
    for conversation, item, verdict, table in zip(
        conversations, items, verdicts, together, strict=True
    ):
        [alone] = scorer.score([conversation], [item], [verdict])
        assert alone == pytest.approx(table, abs=1e-5)


def test_padding_on_the_right_changes_no_logits(
    whole_words: Parts, astronaut_face: FaceCrop
) -> None:
    model, processor = whole_words
    encoded = processor.encode([face_conversation("image", "Age?")], [astronaut_face])
    prompt = encoded["input_ids"][0].tolist()
    rows = processor.pad(
        [EncodedText(prompt), EncodedText(prompt + processor.tokenizer(" 34 years")["input_ids"])],
        side="right",
    )
    with torch.no_grad():
        features = model.face_encoder.encode_pixels(encoded["pixel_values"])
        logits = model(
            **rows,
            image_features=features.repeat(2, 1, 1),
            landmarks=encoded["landmarks"].repeat(2, 1, 1),
        ).logits[:, : len(prompt)]
    assert torch.allclose(logits[0], logits[1], atol=1e-4)


def test_nothing_to_score_gives_no_tables(whole_words: Parts) -> None:
    assert LabelScorer(*whole_words).score([], [], []) == []


def test_calibration_flattens_and_keeps_order() -> None:
    table = {"real": 0.9, "fake": 0.1}
    assert calibrate(table, 1.0, exclusive=True) == pytest.approx(table)
    flat = calibrate(table, 2.0, exclusive=True)
    # Odds 9 to the power of a half.
    assert flat == pytest.approx({"real": 0.75, "fake": 0.25})
    each = calibrate({"bald": 0.9, "young": 0.0}, 2.0, exclusive=False)
    assert each["bald"] == pytest.approx(0.75)
    assert 0 < each["young"] < 1e-4
    assert calibrate({}, 2.0, exclusive=True) == {}
