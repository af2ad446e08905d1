import json
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import skimage.data

from data_builders.annotate import frames
from data_builders.annotate.grounds import _PLAIN, _TOPICS, grounds_of, held_claims, sides
from data_builders.annotate.measured import Shares, write_samples
from facellava.errors import BadSample
from facellava.evidence import CLAIMS, find_claims, verify
from facellava.faces import Face, canonical_face, find_faces
from facellava.faces.measurements import MEASUREMENTS, measure
from facellava.records import FaceRecord, Sample
from facellava.tasks import TASKS, parse_answer
from facellava.tasks.attribute_table import NAMES
from facellava.tasks.expression import BASIC

PHOTO = skimage.data.astronaut()
FACES = 240
WORD = re.compile(r"[A-Za-z']+")


def moved(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The landmarks with brows, lids, lips and chin moved, a little noise, and the head turned."""
    points = points.copy()
    size = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))

    def shift(indices, low, high):
        points[list(indices), 1] += rng.uniform(low, high) * size

    shift(range(17, 27), -0.12, 0.10)  # brows
    shift([20, 21, 22, 23], -0.08, 0.08)  # their inner ends
    lids = rng.uniform(-0.06, 0.06) * size
    points[[37, 38, 43, 44], 1] -= lids
    points[[40, 41, 46, 47], 1] += lids
    shift([48, 54, 60, 64], -0.20, 0.25)  # corners of the mouth
    shift([55, 56, 57, 58, 59, 65, 66, 67, *range(6, 11)], -0.06, 0.30)  # lower lip and chin
    middle = points[48:68, 0].mean()
    points[48:68, 0] = middle + (points[48:68, 0] - middle) * rng.uniform(0.75, 1.3)
    return points + rng.normal(0, 0.006 * size, points.shape)


def record_of(face: Face, number: int, labels: dict) -> FaceRecord:
    return FaceRecord(
        face_id=f"made-{number}",
        source="made",
        split="train",
        frames=(b"",),
        landmarks=face.landmarks[None],
        box=face.box,
        score=face.score,
        face_source=face.source,
        native_size=face.native_size,
        labels=labels,
        licence="",
        origin="",
    )


def labels_of(rng: random.Random) -> dict:
    """Labels as the sources give them, drawn: most contradict the face, as noisy labels do."""
    drawn = [
        {"expression": rng.choice(BASIC)},
        {"age": rng.randrange(1, 100)},
        {"attributes": {name: rng.random() < 0.3 for name in NAMES}},
        {"deepfake": rng.choice(("real", "fake"))},
    ]
    return rng.choice(drawn) | (rng.choice(drawn) if rng.random() < 0.3 else {})


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    astronaut = find_faces(PHOTO)[0]
    made = []
    for seed in range(FACES):
        rng = np.random.default_rng(seed)
        points = moved(astronaut.photo_landmarks, rng)
        weak = seed % 5 == 0
        made.append(
            canonical_face(
                PHOTO,
                points,
                score=0.3 if weak else 2.0,
                source="dlib_hog_weak" if weak else "dlib_hog",
            )
        )
    return made


@pytest.fixture(scope="module")
def written(faces) -> list[tuple[Face, FaceRecord, list[Sample]]]:
    rows = []
    for number, face in enumerate(faces):
        rng = random.Random(number)
        record = record_of(face, number, labels_of(rng))
        rows.append((face, record, write_samples(record, face, rng)))
    return rows


def answers(rows, **fields) -> list[tuple[Face, FaceRecord, Sample]]:
    return [
        (face, record, sample)
        for face, record, samples in rows
        for sample in samples
        if all(getattr(sample, name) == value for name, value in fields.items())
    ]


def test_every_claim_of_every_turn_is_supported_and_there_are_two(written):
    verdicts = Counter()
    for face, _, sample in answers(written):
        if sample.task == "unanswerable":
            assert not find_claims(sample.answer)
            continue
        turns = [answer for _, answer in sample.history if not answer.startswith("Cannot")]
        for answer in (*turns, sample.answer):
            found = verify(answer, face)
            verdicts.update(item.verdict for item in found)
            assert len({item.measurement for item in found}) >= 2, answer
            assert len({item.claim for item in found}) == len(found), answer
    assert set(verdicts) == {"supported"}
    assert verdicts["supported"] > 1000


def test_every_answer_gives_its_label_back_in_both_forms(written):
    for _, record, sample in answers(written):
        verdict = parse_answer(sample.answer)
        assert verdict.task == sample.task
        label = list(verdict.label) if isinstance(verdict.label, tuple) else verdict.label
        assert label == sample.label
        assert (sample.answer[0] == "{") == (sample.form == "json")
        if sample.task in record.labels and not (sample.task == "attributes" and len(label) == 1):
            assert label == record.labels[sample.task]
        elif sample.task == "attributes":
            assert label.items() <= record.labels["attributes"].items()
    forms = Counter(sample.form for _, _, sample in answers(written))
    assert forms["json"] > 20


def test_json_reasons_are_sentences_of_the_same_kind_of_claims(written):
    for face, _, sample in answers(written, form="json"):
        assert re.search("json", sample.question, re.IGNORECASE)
        if sample.task == "unanswerable":
            continue
        reasons = json.loads(sample.answer)["reasons"]
        assert len(reasons) >= 2
        for reason in reasons:
            assert reason[0].isupper()
            assert reason.endswith(".")
            assert [item.verdict for item in verify(reason, face)] == ["supported"]


def test_the_shares_of_forms_turns_and_refusals(written):
    samples = [sample for _, _, sample in answers(written)]

    def share(chosen) -> float:
        return sum(map(chosen, samples)) / len(samples)

    assert 0.06 < share(lambda sample: sample.form == "json") < 0.15
    assert 0.04 < share(lambda sample: bool(sample.history)) < 0.13
    assert 0.03 < share(lambda sample: sample.task == "unanswerable") < 0.10
    units = answers(written, task="action_units")
    assert 0.2 < len({record.face_id for _, record, _ in units}) / FACES < 0.5
    assert all(sample.weak for _, _, sample in units)
    assert not any(sample.weak for sample in samples if sample.task != "action_units")


def test_second_turns_keep_the_lead_or_turn_to_another_label(faces):
    shares = Shares(measured_units=1.0, follow_up=1.0)
    whys = turns = fresh = 0
    for number, face in enumerate(faces[:40]):
        labels = {"expression": BASIC[number % 7], "age": 30}
        record = record_of(face, number, labels)
        for sample in write_samples(record, face, random.Random(number), shares=shares):
            if not sample.history:
                continue
            first = parse_answer(sample.history[0][1])
            if first.task == sample.task:
                assert first.label == parse_answer(sample.answer).label
                before = {claim.id for claim, _ in find_claims(sample.history[0][1])}
                fresh += bool({claim.id for claim, _ in find_claims(sample.answer)} - before)
                whys += 1
            else:
                assert first.task == "unanswerable" or first.task in (*labels, "action_units")
                turns += 1
    assert whys > 20
    assert turns > 20
    assert fresh / whys > 0.4


def test_the_same_generator_state_gives_the_same_samples(faces):
    labels = {"attributes": {name: len(name) % 2 == 0 for name in NAMES}, "age": 40}
    shares = Shares(1.0, 3, 0.5, 0.5, 0.5)
    first, again, other = (
        write_samples(record_of(faces[3], 3, labels), faces[3], random.Random(seed), shares=shares)
        for seed in (7, 7, 8)
    )
    assert first == again
    assert [sample.answer for sample in first] != [sample.answer for sample in other]
    ids = [sample.sample_id for sample in first]
    assert len(set(ids)) == len(ids)


def test_single_attributes_are_balanced_and_cover_all_forty(faces):
    asked, present = Counter(), 0
    for number, face in enumerate(faces):
        rng = random.Random(number)
        record = record_of(
            face, number, {"attributes": {name: rng.random() < 0.2 for name in NAMES}}
        )
        for sample in write_samples(record, face, rng):
            if sample.task == "attributes" and len(sample.label) == 1 and not sample.history:
                ((name, there),) = sample.label.items()
                asked[name] += 1
                present += there
    assert set(asked) == set(NAMES)
    assert 0.4 < present / asked.total() < 0.6


def test_words_are_few_and_reasons_do_not_repeat_the_label(written):
    vocabulary, lengths = set(), []
    for _, record, sample in answers(written, form="prose"):
        if sample.task == "unanswerable":
            continue
        reasons = parse_answer(sample.answer).reasons
        vocabulary.update(word.lower() for word in WORD.findall(reasons))
        lengths.append(len(WORD.findall(reasons)))
        assert reasons[-1] == "."
        assert not re.search(r"\b(he|she|his|her|him|they|them)\b", reasons, re.IGNORECASE)
        if sample.task in ("expression", "deepfake"):
            assert sample.label not in WORD.findall(reasons.lower())
        assert record.face_id not in reasons
    assert len(vocabulary) < 600
    assert 14 < np.mean(lengths) < 32
    assert max(lengths) < 60


def test_a_face_that_contradicts_its_label_is_not_explained_by_because(faces):
    frown = next(face for face in faces if "lip_corners_lowered" in held_claims(measure(face)))
    ground = grounds_of(TASKS["expression"], "happiness", held_claims(measure(frown)))
    assert "lip_corners_lowered" in [claim.id for claim in ground.against]
    dissent = {claim.id for claim in ground.against}
    said = 0
    for seed in range(300):
        record = record_of(frown, 0, {"expression": "happiness"})
        shares = Shares(0.0, 0, 0.0, 0.0, 0.0)
        for sample in write_samples(record, frown, random.Random(seed), shares=shares):
            for claim, (start, end) in find_claims(sample.answer):
                if claim.id not in dissent:
                    continue
                said += 1
                sentence_start = sample.answer.rfind(". ", 0, start) + 1
                sentence = sample.answer[sentence_start : end + 60]
                assert "because" not in sample.answer[sentence_start:start]
                assert re.search("lthough|yet|mixed|Against|does not fit|other hand", sentence), (
                    sample.answer
                )
    assert said > 30


def test_a_blended_region_is_named_first(faces):
    task, held = TASKS["deepfake"], {"grain_missing": 3, "mouth_colour_differs": 1}
    plain = grounds_of(task, "fake", held).speaking
    near_mouth = grounds_of(task, "fake", held, near=("outer_lips",)).speaking
    assert [claim.id for claim in plain] == ["grain_missing", "mouth_colour_differs"]
    assert [claim.id for claim in near_mouth] == ["mouth_colour_differs", "grain_missing"]


def test_a_face_with_nothing_to_measure_is_dropped_and_counted(faces):
    turned = replace(faces[0], landmarks=np.full((68, 2), 2.0, np.float32) + faces[0].landmarks)
    dropped: Counter[str] = Counter()
    samples = write_samples(
        record_of(turned, 0, {"age": 30}), turned, random.Random(1), dropped=dropped,
        shares=Shares(0.0, 0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    for sample in samples:
        assert all(item.verdict == "supported" for item in verify(sample.answer, turned))
    assert len(samples) + dropped["age: fewer than two measured claims"] == 1


def test_a_label_outside_the_task_is_refused(faces):
    with pytest.raises(BadSample, match="unknown label 'bored'"):
        write_samples(record_of(faces[1], 1, {"expression": "bored"}), faces[1], random.Random(0))


def test_frames_carry_their_clauses_and_no_others():
    clauses = {"a": "the jaw is dropped", "b": "the nose is wide", "x": "the skin is light"}
    pools = [
        *(pool for table in (frames.TWO_SIGNS, frames.ONE_SIGN, frames.NO_SIGN)
          for pool in table.values()),
        frames.ONE_CLAUSE, frames.AGAINST, frames.ALTHOUGH, frames.MORE, frames.MORE_BESIDE,
        frames.TWO_UNITS, frames.SAME_UNIT, frames.ONE_UNIT, frames.MORE_UNITS, frames.AGAIN,
    ]  # fmt: skip
    for frame in (frame for pool in pools for frame in pool):
        text = frames.fill(frame, **clauses, u="AU26", v="AU12")
        wanted = {clause for slot, clause in clauses.items() if f"{{{slot}}}" in frame.lower()}
        found = {text[slice(*span)].lower() for _, span in find_claims(text)}
        assert found == wanted, text
        assert "{" not in text
        assert parse_answer(f"Expression: fear. {text.strip()}").label == "fear"
    for task in ("expression", "age", "attributes", "deepfake"):
        assert len(set(frames.TWO_SIGNS[task])) >= 15


def test_tables_name_measurements_and_claims_that_exist():
    assert set(_TOPICS) | set(_TOPICS.values()) <= set(MEASUREMENTS)
    assert set(_PLAIN) <= set(CLAIMS)
    for task in TASKS.values():
        for word in task.claims_for:
            assert set(task.claims_for[word]) <= set(CLAIMS), (task.name, word)


def test_sides_of_labels_follow_the_tables():
    happy = sides(TASKS["expression"], "happiness")
    assert "lip_corners_raised" in happy.speaking
    assert "lip_corners_lowered" in happy.against
    assert "lip_corners_level" not in happy.against
    units = sides(TASKS["action_units"], ("AU12",))
    assert "lip_corners_raised" in units.speaking
    assert "lips_parted" in units.elsewhere
    everything = {name: name == "smiling" for name in NAMES}
    assert sides(TASKS["attributes"], everything).speaking[0] == "lip_corners_raised"
