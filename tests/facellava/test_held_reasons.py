"""Reasons that hold: what may come next in an answer, and what nano writes under that rule."""

from __future__ import annotations

import random

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_builders.annotate import frames
from facellava.answer import verdict_of
from facellava.claims import CLAIMS
from facellava.evidence import find_claims, supported_claims
from facellava.faces import Face, measure
from facellava.held_reasons import HeldReasons, OnlyHeldReasons
from facellava.predictor import FaceLlava
from facellava.tasks import TASKS, Verdict, has_whole_lead
from facellava.tasks.unanswerable import HINTS, KINDS

LEADS = (
    *(TASKS["age"].lead(years) for years in range(117)),
    *(TASKS["expression"].lead(label) for label in TASKS["expression"].labels),
    *(TASKS["deepfake"].lead(label) for label in ("real", "fake")),
)
FRAMES = sorted(
    {
        frame
        for group in (
            *frames.TWO_SIGNS.values(), *frames.ONE_SIGN.values(), *frames.NO_SIGN.values(),
            frames.ONE_CLAUSE, frames.AGAINST, frames.ALTHOUGH, frames.MORE, frames.MORE_BESIDE,
            frames.TWO_UNITS, frames.SAME_UNIT, frames.ONE_UNIT, frames.MORE_UNITS, frames.AGAIN,
            frames.HARD_TO_READ,
        )
        for frame in group
    }
)  # fmt: skip
SMILING = frozenset({"lip_corners_raised", "lips_parted", "teeth_visible"})


@pytest.fixture(scope="module")
def model() -> FaceLlava:
    return FaceLlava.load()


@pytest.fixture(scope="module")
def tokenizer(model: FaceLlava) -> PreTrainedTokenizerBase:
    return model.processor.tokenizer


@pytest.fixture(scope="module")
def reasons(tokenizer: PreTrainedTokenizerBase) -> HeldReasons:
    return HeldReasons(tokenizer)


def barred(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase, text: str, held: frozenset[str]
) -> set[str]:
    return {reasons.text([token]) for token in reasons.barred(text, held)}


@pytest.mark.parametrize(
    ("text", "may", "may_not"),
    [
        ("Age: 30 years. The", {" mouth", " lip", " lips", " face"}, {" jaw", " lashes"}),
        ("Age: 30 years. The lip corners are", {" raised"}, {" level", " lowered"}),
        # Case and line breaks do not matter.
        ("Age: 30 years. THE LIP\n corners  are", {" raised"}, {" level"}),
        ("Age: 30 years. The lips are", {" parted"}, {" full", " thin", " shut"}),
        # A clause behind another one.
        ("Age: 30 years. The lips are parted, and the mouth is", set(), {" closed", " narrow"}),
        # A clause that is whole begins no other one, whatever it ends with.
        ("Age: 30 years. Strands or a brim cross the forehead", {" and"}, set()),
        ("Age: 30 years. Shade lies on the forehead and", {" the"}, {" hair"}),
        # A second space, or a line break, is none.
        ("Age: 30 years. The lip corners are ", {" raised"}, {" level", " lowered"}),
        ("Age: 30 years. The lip corners are\n", {" raised"}, {" level", " lowered"}),
        # "I" is no piece of "is".
        ("Age: 30 years. Of the face", {" I"}, {" looks"}),
        # An opening of other sentences stays one.
        ("Age: 30 years. The", {" face", " picture"}, set()),
        ("Age: 30 years. The face", {" hardly", " is"}, set()),
        ("Age: 30 years. The face is", {" at", " hard"}, {" long", " seen", " neither"}),
        # Once is enough.
        ("Age: 30 years. The lips are parted. The lips are", set(), {" parted"}),
        # Within a claim that holds, another one's first word is none.
        ("Age: 30 years. The", {" teeth"}, set()),
        ("Age: 30 years.", {" The"}, {" Frown", " Lines", " Deep"}),
        ('{"task":"age","label":30,"reasons":["The lips are', {" parted"}, {" full"}),
    ],
)
def test_what_may_come_next(
    reasons: HeldReasons,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    may: set[str],
    may_not: set[str],
) -> None:
    found = barred(reasons, tokenizer, text, SMILING)
    assert not may & found
    assert may_not <= found


@pytest.mark.parametrize(
    "text", ["", "Age: 30", "The lips are", '{"task":"age","label":30,', "I cannot tell"]
)
def test_before_the_reasons_nothing_is_barred(reasons: HeldReasons, text: str) -> None:
    assert reasons.barred(text, frozenset()) == []


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("Age: 30 years. The lip corners are", {" raised"}),
        ("Age: 30 years. The face is", {" at", " hard"}),
        ("Age: 30 years. The", set()),
        ("Age: 30 years. The face", set()),
        ("Age: 30 years. The lips are parted", set()),
        ("Cannot answer: I do not identify people. The lip corners are", set()),
    ],
)
def test_a_claim_that_is_begun_is_said_to_its_end(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase, text: str, may: set[str]
) -> None:
    words = {reasons.text([token]) for token in reasons.onward(text, SMILING)}
    # The tokenizer may hold beginnings of the words, too.
    assert may <= words
    assert all(any(word.startswith(piece) for word in may) for piece in words)


@pytest.mark.parametrize("kind", KINDS)
def test_refusals_are_left_as_they_are(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase, kind: str
) -> None:
    for hint in HINTS:
        for refusal in (
            f"Cannot answer: {KINDS[kind].reason}. {hint}",
            f'{{"task":"unanswerable","label":null,"reasons":["{KINDS[kind].reason}.","{hint}"]}}',
        ):
            ids = tokenizer.encode(refusal, add_special_tokens=False)
            for end in range(len(ids)):
                assert reasons.barred(reasons.text(ids[:end]), SMILING) == []


@pytest.mark.parametrize(
    "text",
    ["Age:", "Age: ", "Age: 1", "Age: 11", "Age: 34 ye", "Expression:", "Expression: c",
     "Expression: happiness", f"{TASKS['deepfake'].title}:"],
)  # fmt: skip
def test_a_verdict_of_one_word_is_its_tasks(reasons: HeldReasons, text: str) -> None:
    may = {reasons.text([token]) for token in reasons.verdicts(text)}
    ends = [lead.removeprefix(text) for lead in LEADS if lead.startswith(text)]
    assert all(any(end.startswith(more) for end in ends) for more in may if "." not in more)
    assert all(more.startswith(tuple(ends)) for more in may if "." in more)
    # Each can be said, in one piece or in several.
    assert all(any(end.startswith(more) for more in may) for end in ends)


@pytest.mark.parametrize(
    "text",
    # Lists, refusals and what is further on are the model's own, and so is what cannot be mended.
    [f"{TASKS['action_units'].title}:", "Age: 30 years. Of the face:", "Age: 30 years.", "Age",
     "", "Age: old"],
)  # fmt: skip
def test_other_words_are_no_verdicts(reasons: HeldReasons, text: str) -> None:
    assert reasons.verdicts(text) == []


def test_a_verdict_that_is_begun_in_pieces_ends_as_one(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Whatever else the model would rather say."""
    spelled = {reasons.text([token]): token for token in range(len(tokenizer))}
    for start, liked in (
        ("Age:", [" ", "h", "a"]),
        ("Age:", [" 1", "9", "9"]),
        ("Expression:", [" c", "o", "o", "l"]),
    ):
        written = tokenizer.encode(start, add_special_tokens=False)
        while not has_whole_lead(reasons.text(written)):
            scores = torch.zeros(len(tokenizer))
            if liked:
                scores[spelled[liked.pop(0)]] = 1.0
            reasons.keep(scores, written, [])
            written.append(int(scores.argmax()))
            assert len(written) < 40
        assert reasons.text(written).startswith(LEADS)


def test_what_was_said_before_is_no_age(model: FaceLlava, found_face: Face) -> None:
    """Nano would say "Age: happiness" here, now and then."""
    expression = TASKS["expression"].canonical_question
    turns = [(expression, f"Expression: {word}.") for word in TASKS["expression"].labels]
    ages = [TASKS["age"].canonical_question] * len(turns)
    answers = model.ask_many([found_face] * len(turns), ages, [[turn] for turn in turns])
    assert [answer.unreadable for answer in answers] == [None] * len(turns)
    assert sum(answer.task == "age" for answer in answers) > len(turns) / 2


def test_of_a_face_without_any_claim_other_things_can_be_said(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    for text, may in (
        ("Age: 30 years.", {" The", " No", " Nothing"}),
        ("Age: 30 years. The", {" face", " facial", " picture"}),
    ):
        assert not may & barred(reasons, tokenizer, text, frozenset())


def test_tokenizers_of_other_making() -> None:
    """Pieces of sentences, line breaks as bytes, and an added token with numbers left out."""
    pieces = ["<unk>", "▁Age", ":", "▁30", "▁years", ".", "<0x0A>", "The", "▁lips", "▁are"]
    pieces += ["▁full", "▁parted", "▁par", "▁fu", "▁full.", "▁In", "▁the"]
    numbers = {piece: number for number, piece in enumerate(pieces)} | {"▁shut": 40}
    words = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
    made = HeldReasons(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"))
    text = made.text([numbers[piece] for piece in pieces[1:10]])
    assert text == " Age: 30 years.\nThe lips are"
    kept = {numbers[piece] for piece in ("▁full", "▁fu", "▁shut", "▁full.")}
    assert set(made.barred(text, SMILING)) == kept
    # Also where no claim need be meant.
    begun = made.text([numbers[piece] for piece in (*pieces[1:6], "▁In", "▁the", "▁lips", "▁are")])
    assert set(made.barred(begun, SMILING)) == kept


def test_everything_that_holds_may_be_said_in_all_its_words(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Token by token, alone and behind another clause, as sentence and in its middle."""
    for claim in CLAIMS.values():
        other = CLAIMS["head_level" if claim.id == "lips_parted" else "lips_parted"]
        held = frozenset({claim.id, other.id})
        for phrase in claim.phrases:
            for said in (phrase, f"{phrase[0].upper()}{phrase[1:]}"):
                answer = f"Age: 30 years. See: {other.phrases[0]}, and {said}."
                ids = tokenizer.encode(answer, add_special_tokens=False)
                for end in range(len(ids)):
                    before = reasons.text(ids[:end])
                    assert ids[end] not in reasons.barred(before, held)
                    assert ids[end] in (reasons.onward(before, held) or [ids[end]])


def test_every_sentence_that_the_annotator_writes_can_be_said(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Where no other claims hold than those in it: "I read this from the picture. The lips ..."."""
    said = {"a": "lips_parted", "b": "head_level", "x": "facing_camera"}
    clauses = {slot: CLAIMS[claim].phrases[0] for slot, claim in said.items()}
    held = frozenset({*said.values(), "lip_corners_raised"})
    for frame in FRAMES:
        written = frames.fill(frame, **clauses, u="AU6", v="AU12")
        before = " The lip corners are raised." if frame.startswith(" ") else " "
        ids = tokenizer.encode(f"Age: 30 years.{before}{written}", add_special_tokens=False)
        for end in range(len(ids)):
            text = reasons.text(ids[:end])
            assert ids[end] not in reasons.barred(text, held), text
            assert ids[end] in (reasons.onward(text, held) or [ids[end]]), text


def test_nothing_that_does_not_hold_can_be_said_whole(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    for claim in CLAIMS.values():
        held = frozenset(CLAIMS) - {claim.id}
        for phrase in claim.phrases:
            ids = tokenizer.encode(f"Age: 30 years. See: {phrase}.", add_special_tokens=False)
            stopped = [
                end
                for end in range(len(ids))
                if ids[end] in reasons.barred(reasons.text(ids[:end]), held)
            ]
            assert stopped, phrase


@torch.inference_mode()
@pytest.mark.parametrize("task", [name for name in TASKS if TASKS[name].scored_words])
def test_whatever_holds_the_model_says_no_other_claim(
    model: FaceLlava, reasons: HeldReasons, found_face: Face, task: str
) -> None:
    """Drawn at random, so that it says more than the likeliest."""
    draw = random.Random(0)
    question = TASKS[task].canonical_question
    held = [frozenset(draw.sample(sorted(CLAIMS), 30)) for _ in range(8)]
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    encoded = model.processor.encode([turns] * 8, [found_face] * 8)
    start = encoded["input_ids"].shape[1]
    torch.manual_seed(0)
    ids = model.model.generate(
        **encoded,
        do_sample=True,
        temperature=1.1,
        max_new_tokens=200,
        logits_processor=[OnlyHeldReasons(reasons, start, held)],
        pad_token_id=model.processor.tokenizer.pad_token_id,
    )
    texts = model.processor.tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
    # Words that are no answer have no reasons either.
    read = [
        (verdict.reasons, allowed)
        for verdict, allowed in zip(map(verdict_of, texts), held, strict=True)
        if isinstance(verdict, Verdict)
    ]
    said = [({claim.id for claim, _ in find_claims(text)}, allowed) for text, allowed in read]
    assert sum(bool(claims) for claims, _ in said) >= 4
    assert all(claims <= allowed for claims, allowed in said)


def test_asked_as_users_ask_every_claim_is_supported(model: FaceLlava, found_face: Face) -> None:
    questions = [TASKS[name].canonical_question for name in TASKS if TASKS[name].scored_words]
    questions += [f"{question} Answer in JSON." for question in questions]
    for answer in model.ask_many([found_face] * len(questions), questions):
        assert answer.evidence
        assert {item.verdict for item in answer.evidence} == {"supported"}


def test_free_reasons_are_the_models_own(
    model: FaceLlava, found_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face of which nothing is supported: only a free model makes claims about it."""
    monkeypatch.setattr("facellava.predictor.supported_claims", lambda measured: frozenset())
    question = TASKS["expression"].canonical_question
    free = FaceLlava(model.model, model.processor, free_reasons=True)
    [kept], [own] = (each.ask_many([found_face], [question]) for each in (model, free))
    assert own.evidence
    assert kept.evidence == ()
    assert kept.label == own.label


def test_what_a_face_supports(found_face: Face) -> None:
    measured = measure(found_face)
    held = supported_claims(measured)
    assert "lip_corners_raised" in held
    assert "lip_corners_lowered" not in held
    for claim_id in held:
        value = measured[CLAIMS[claim_id].measurement].value
        assert value is not None
        assert CLAIMS[claim_id].excess(value) >= 0


def test_a_reason_in_json_is_a_claim(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    begun = '{"task":"age","label":30,"reasons":["The'
    onward = {reasons.text([token]) for token in reasons.onward(begun, SMILING)}
    assert {" lip", " lips", " mouth", " teeth"} <= onward
    assert not {" signs", " face", " rest"} & onward
    assert reasons.onward("Age: 30 years. The", SMILING) == []
    assert reasons.onward(f"{begun} lips are parted, a", SMILING) == []


@pytest.mark.parametrize("leading", ["The main sign is that", "I say so because", "The lips, and"])
def test_what_leads_to_a_claim_leads_to_no_other_words(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase, leading: str
) -> None:
    begun = f"Expression: happiness. {leading} the"
    onward = {reasons.text([token]) for token in reasons.onward(begun, SMILING)}
    assert {" lip", " lips", " mouth"} <= onward
    assert not {" wide", " face", " rest", " eyes"} & onward
    assert reasons.onward("Expression: happiness. For the", SMILING) == []


def test_a_list_of_reasons_ends_where_nothing_is_left_to_say(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase
) -> None:
    said = '{"task":"age","label":30,"reasons":["The lips are parted'
    further = '.","'
    assert further in barred(reasons, tokenizer, said, frozenset({"lips_parted"}))
    assert further not in barred(reasons, tokenizer, said, SMILING)


@pytest.mark.parametrize(
    ("likely", "left"),
    [
        # A claim is begun, so that nothing but its end is left.
        ([" raised", " lowered", " nice"], [" raised"]),
        # Nothing else could be said, as under a grammar.
        ([" lowered", " nice"], [" lowered", " nice"]),
    ],
)
def test_which_of_the_likely_tokens_are_left(
    reasons: HeldReasons, tokenizer: PreTrainedTokenizerBase, likely: list[str], left: list[str]
) -> None:
    written = tokenizer.encode("Age: 30 years. The lip corners are", add_special_tokens=False)
    numbers = [tokenizer.encode(word, add_special_tokens=False)[0] for word in likely]
    scores = torch.full((len(tokenizer),), float("-inf"))
    scores[numbers] = 1.0
    reasons.keep(scores, written, SMILING)
    found = [word for word, number in zip(likely, numbers, strict=True) if scores[number] == 1.0]
    assert found == left
    assert scores.isfinite().sum() == len(left)
