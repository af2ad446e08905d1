import random
from dataclasses import replace

import pytest
import skimage.data

from data_builders.rate import Threshold, histogram, keep, rate, rate_samples
from facellava.claims import CLAIMS
from facellava.evidence import holding_claims, verdict
from facellava.faces import Face, find_faces
from facellava.faces.measurements import Measurement, measure
from facellava.records import Sample
from facellava.tasks import TASKS


@pytest.fixture(scope="module")
def astronaut() -> Face:
    return find_faces(skimage.data.astronaut())[0]


@pytest.fixture(scope="module")
def measured(astronaut) -> dict[str, Measurement]:
    return measure(astronaut)


def phrases_by_verdict(measured, wanted: str) -> list[str]:
    """One phrase a measurement, for claims that the face supports or contradicts."""
    found = {}
    for claim in CLAIMS.values():
        if verdict(claim, measured[claim.measurement]) == wanted:
            found.setdefault(claim.measurement, claim.phrases[0])
    return list(found.values())


def sample_of(reasons: str, task: str = "expression", label: object = "happiness") -> Sample:
    return Sample(
        sample_id="a#0",
        face_id="a",
        task=task,
        question="How does she feel?",
        answer=f"{TASKS[task].lead(label)} {reasons}",
        label=label,
    )


def test_a_planted_contradiction_is_found_named_and_dropped(astronaut, measured):
    true, false = (phrases_by_verdict(measured, kind) for kind in ("supported", "contradicted"))
    honest = sample_of(f"I see that {true[0]} and {true[1]}.")
    planted = sample_of(f"I see that {true[0]} and {false[0]}.")
    good, bad = rate(honest, astronaut, {}), rate(planted, astronaut, {})
    assert good.face == 10
    assert bad.face <= 3
    assert not keep(bad)
    assert false[0] in bad.reason
    assert "1 of 2 claims hold" in bad.reason


def test_claims_for_and_against_the_label_move_the_text_rating(astronaut, measured):
    smile = {
        "lip_corner_height": 0.3, "mouth_opening": 0.15, "mouth_width": 1.1,
    }  # fmt: skip
    smiling = measured | {
        name: replace(measured[name], value=value, note="") for name, value in smile.items()
    }
    words = "The lip corners are raised and the mouth is stretched wide."
    as_happiness = rate(sample_of(words), astronaut, {}, smiling)
    as_sadness = rate(sample_of(words, label="sadness"), astronaut, {}, smiling)
    assert as_happiness.face == as_sadness.face == 10
    assert as_happiness.text == 10
    assert as_sadness.text <= 4
    assert "1 against it" in as_sadness.reason


def test_votes_decide_about_the_label_where_there_are_votes(astronaut, measured):
    true = phrases_by_verdict(measured, "supported")
    sample = sample_of(f"I see that {true[0]} and {true[1]}.")
    ratings = {
        votes: rate(
            sample, astronaut, {"expression_votes": {"happiness": votes, "anger": 10 - votes}}
        )
        for votes in (0, 1, 5, 10)
    }
    assert [ratings[votes].label for votes in (0, 10)] == [1, 10]
    assert ratings[1].label < 3 < ratings[5].label
    assert "5 of 10 votes" in ratings[5].reason
    assert keep(ratings[5])
    assert not keep(ratings[1])
    assert keep(ratings[1], Threshold(label=1))


@pytest.mark.parametrize(
    "answer",
    [
        "She looks happy.",
        "Expression: joyful. The mouth is closed.",
        '{"task":"expression","label":"happiness"}',
        "Expression: sadness. The mouth is closed.",
        "Age: 30 years. The mouth is closed.",
    ],
)
def test_text_that_cannot_be_read_or_says_another_label_is_dropped(astronaut, answer):
    sample = replace(sample_of(""), answer=answer)
    ratings = rate(sample, astronaut, {})
    assert (ratings.label, ratings.face, ratings.text, ratings.overall) == (1, 1, 1, 1)
    assert not keep(ratings)


def test_one_claim_said_twice_is_too_little(astronaut, measured):
    claim = holding_claims(measured, 1.0)[0][0]
    ratings = rate(
        sample_of(f"I see that {claim.phrases[0]} and {claim.phrases[1]}."), astronaut, {}
    )
    assert ratings.overall < Threshold().overall
    assert "fewer than two distinct claims" in ratings.reason


def test_a_refusal_claims_nothing_and_is_kept(astronaut):
    sample = Sample(
        sample_id="a#0",
        face_id="a",
        task="unanswerable",
        question="Who is this?",
        answer="Cannot answer: I do not identify people. Ask about the age.",
        label=None,
    )
    assert keep(rate(sample, astronaut, {}))


def test_rate_samples_marks_what_is_kept_and_the_histogram_counts_it(astronaut, measured):
    true, false = (phrases_by_verdict(measured, kind) for kind in ("supported", "contradicted"))
    rng = random.Random(1)
    honest = [sample_of(f"I see that {a} and {b}.") for a, b in [rng.sample(true, 2)] * 3]
    wrong = sample_of(f"I see that {true[0]} and {false[0]}.")
    rated = rate_samples([*honest, wrong], astronaut, {}, Threshold(text=1))
    assert [sample.kept for sample in rated] == [True, True, True, False]
    lines = histogram(rated).splitlines()
    assert lines[-1] == "kept 3 of 4 (75.0%)"
    face = next(line for line in lines if line.startswith("face")).split()
    assert [int(count) for count in face[1:]] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 3]
