"""Which reasons are learned: those that the tokens bear out, up to the first that they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facellava.claims import CLAIMS
from facellava.conversation import face_conversation
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import IGNORED_LABEL, FaceLlavaProcessor
from train.face_arrays import MEASURED
from train.sure_reasons import Readings, deviations, learning_sure_reasons

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
RAISED, LEVEL, LOWERED = (CLAIMS[f"lip_corners_{name}"] for name in ("raised", "level", "lowered"))


def readings(**values: float) -> Readings:
    """One face: the named measurements read as given and two hundredths off, others unknown."""
    read = np.array([[values.get(name, 0.0) for name in MEASURED]], np.float32)
    known = [0.02 if name in values else np.nan for name in MEASURED]
    return Readings(read, np.array(known, np.float32))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.2, "raised"), (0.035, "level"), (-0.1, "lowered"), (0.068, None), (0.005, None)],
)
def test_a_claim_is_borne_out_where_the_reading_is_well_inside(
    value: float, said: str | None
) -> None:
    told = readings(lip_corner_height=value)
    borne_out = {
        name: told.bear_out(0, claim, 0.1)
        for name, claim in (("raised", RAISED), ("level", LEVEL), ("lowered", LOWERED))
    }
    assert borne_out == {name: name == said for name in borne_out}


def test_what_nobody_could_measure_is_not_borne_out() -> None:
    told = readings(lip_corner_height=0.2)
    assert told.bear_out(0, RAISED, 0.03)
    assert not told.bear_out(0, CLAIMS["brows_raised"], 1.0)


def test_a_reading_that_is_far_off_bears_out_less() -> None:
    near = readings(lip_corner_height=0.11)
    far = Readings(near.read, near.off * 5)
    assert near.bear_out(0, RAISED, 0.03)
    assert not far.bear_out(0, RAISED, 0.03)
    assert far.bear_out(0, RAISED, 0.5)


def test_readings_are_off_by_their_root_mean_square() -> None:
    read = np.array([[1.0, 0.0, 5.0], [3.0, 0.0, 5.0]], np.float32)
    measured = np.array([[0.0, np.nan, 5.0], [0.0, 2.0, np.nan]], np.float32)
    assert deviations(read, measured) == pytest.approx([np.sqrt(5), 2.0, 0.0])
    assert np.isnan(deviations(read, np.full((2, 3), np.nan))).all()


def test_readings_come_back_from_disk(tmp_path: Path) -> None:
    told = readings(yaw=3.0)
    told.save(tmp_path / "readings.safetensors")
    again = Readings.load(tmp_path / "readings.safetensors")
    np.testing.assert_array_equal(again.read, told.read)
    np.testing.assert_array_equal(again.off, told.off)
    assert [path.name for path in tmp_path.iterdir()] == ["readings.safetensors"]


def learned(parts: Parts, answer: str, told: Readings, earlier: str = "") -> str:
    """The words that are still learned."""
    processor = parts[1]
    turns = [("How old is she?", earlier)] if earlier else []
    messages = face_conversation("image", "What does the face show?", turns, answer)
    text = processor.encode_text(messages, [1], training=True)
    cut = learning_sure_reasons(text, 0, told, 0.03, processor.tokenizer)
    assert cut.input_ids == text.input_ids
    assert cut.labels is not None
    places = zip(cut.input_ids, cut.labels, strict=True)
    return processor.tokenizer.decode([token for token, label in places if label != IGNORED_LABEL])


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (
            "Expression: happiness. The lips are parted and the lip corners are raised.",
            "Expression: happiness. ",
        ),
        (
            "Expression: happiness. The lip corners are raised, and the lips are parted.",
            "Expression: happiness. The lip corners are raised, and ",
        ),
        (
            '{"task":"expression","label":"happiness","reasons":["The lip corners are raised.",'
            '"The lips are parted."]}',
            '{"task":"expression","label":"happiness","reasons":["The lip corners are raised.","',
        ),
        ("Expression: happiness. I see it so.", "Expression: happiness. I see it so.</s>"),
    ],
)
def test_an_answer_is_learned_up_to_what_the_tokens_do_not_tell(
    new_parts: Callable[[], Parts], answer: str, kept: str
) -> None:
    words = learned(new_parts(), answer, readings(lip_corner_height=0.2))
    assert words.rstrip() == kept.rstrip()


def test_an_earlier_answer_is_cut_by_itself(new_parts: Callable[[], Parts]) -> None:
    words = learned(
        new_parts(),
        "Expression: happiness. The lip corners are raised.",
        readings(lip_corner_height=0.2),
        earlier="Age: 30 years. The head is held level.",
    )
    assert "Age: 30 years." in words
    assert "held level" not in words
    assert "The lip corners are raised.</s>" in words
