"""Questions: many, the same for a seed, and no wording that two tasks would both answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from facellava.tasks import ANSWERABLE, TASKS, ask_for_json, parse_answer
from facellava.tasks.attribute_table import NAMES
from facellava.tasks.attributes import (
    attribute_follow_up,
    canonical_attribute_question,
    single_attribute_question,
)
from facellava.tasks.grammar import Grammar
from facellava.tasks.unanswerable import KINDS, refusal, refusal_reasons, unanswerable_question


def plain(question: str) -> str:
    """A question as nobody can tell apart by case, marks or spaces."""
    return " ".join(re.sub(r"[^a-z0-9+*/ -]", "", question.lower()).split())


def distinct(draw: Callable[[random.Random], str], draws: int, seed: int = 7) -> set[str]:
    rng = random.Random(seed)
    return {plain(draw(rng)) for _ in range(draws)}


@pytest.mark.parametrize("task", list(TASKS))
def test_each_task_has_hundreds_of_wordings(task: str) -> None:
    assert len(distinct(TASKS[task].questions.draw, 2000)) >= 1000
    assert len(TASKS[task].questions.templates) >= 20
    assert len(distinct(TASKS[task].follow_up, 500)) >= 100
    assert len(distinct(lambda rng: TASKS[task].follow_up(rng, after=task), 500)) >= 100


def test_each_attribute_and_each_refusal_has_hundreds_of_wordings() -> None:
    for name in NAMES:
        assert len(distinct(lambda rng, n=name: single_attribute_question(n, rng), 600)) >= 200
        assert len(distinct(lambda rng, n=name: attribute_follow_up(n, rng), 300)) >= 30
    for kind in KINDS:
        assert len(distinct(lambda rng, k=kind: unanswerable_question(k, rng), 800)) >= 300


def test_a_seed_gives_the_same_questions_again() -> None:
    for task in TASKS.values():
        first, again = random.Random(3), random.Random(3)
        assert [task.question(first) for _ in range(50)] == [
            task.question(again) for _ in range(50)
        ]


def test_no_slot_is_left_open_and_no_question_is_empty() -> None:
    rng = random.Random(11)
    for _ in range(1500):
        for task in TASKS.values():
            for text in (task.question(rng), task.follow_up(rng), task.follow_up(rng, task.name)):
                assert text.strip() == text != ""
                assert not re.search(r"[{}]|  ", text)
    for name in NAMES:
        for _ in range(100):
            text = single_attribute_question(name, rng) + attribute_follow_up(name, rng)
            assert not re.search(r"[{}]|  ", text)


def test_questions_vary_in_length_case_and_end_mark() -> None:
    rng = random.Random(5)
    questions = [TASKS["age"].question(rng) for _ in range(800)]
    assert any(len(question.split()) == 1 for question in questions)
    assert any(len(question.split()) >= 9 for question in questions)
    for share in (
        sum(question.endswith("?") for question in questions),
        sum(question[-1].isalnum() for question in questions),
        sum(question.islower() for question in questions),
        sum(question[0].isupper() for question in questions),
    ):
        assert 0.1 < share / len(questions) < 0.9


def test_no_two_tasks_share_a_wording() -> None:
    wordings = {
        name: distinct(task.questions.draw, 3000) | {plain(task.canonical_question)}
        for name, task in TASKS.items()
    }
    wordings["one attribute"] = {
        wording
        for name in NAMES
        for wording in distinct(lambda rng, n=name: single_attribute_question(n, rng), 200)
    }
    names = list(wordings)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert not wordings[name] & wordings[other], (name, other)


def test_the_canonical_questions_are_fixed_and_distinct() -> None:
    canonical = [TASKS[name].canonical_question for name in ANSWERABLE]
    canonical += [canonical_attribute_question(name) for name in NAMES]
    assert len(set(canonical)) == 45
    assert canonical[3] == "How old is this person?"
    with pytest.raises(KeyError):
        canonical_attribute_question("monocle")


def test_json_is_asked_for_in_many_ways_and_the_question_stays() -> None:
    rng = random.Random(2)
    asked = [ask_for_json("How old is she?", rng) for _ in range(300)]
    assert len(set(asked)) >= 40
    for text in asked:
        assert "json" in text.lower()
        assert "how old is she" in text.lower()


def test_refusals_say_why_and_what_can_be_asked() -> None:
    rng = random.Random(4)
    for kind in KINDS:
        verdict = parse_answer(refusal(kind, rng))
        assert (verdict.task, verdict.label) == ("unanswerable", None)
        assert verdict.reasons.startswith(f"{KINDS[kind].reason}. ")
        assert len(verdict.reasons) > len(KINDS[kind].reason) + 30
        body = TASKS["unanswerable"].write_json(None, refusal_reasons(kind, rng))
        assert parse_answer(body).reasons.startswith(KINDS[kind].reason)


def test_one_template_does_not_say_the_same_twice() -> None:
    grammar = Grammar(templates=("is it {code} or {code}?",), slots={"code": ("AU4", "AU6")})
    drawn = {grammar.draw(random.Random(seed)) for seed in range(20)}
    assert drawn == {"is it AU4 or AU6?", "is it AU6 or AU4?"}
