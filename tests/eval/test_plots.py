import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from eval.plots import DARK, LIGHT, plots_of
from tests.eval.written_results import ATTACK, scored_block, written_block

PHONE = 345  # CSS pixels


def words_of(block) -> dict[str, str]:
    return {plot.title: plot.words for plot in plots_of(block)}


def test_words_say_what_stands_out():
    assert words_of(written_block()) == {
        "Truth and answer": "Confusion matrix. Most frequent mistake: sadness answered as "
        "happiness, 72.9% of 840 faces.",
        "Recall by class": "Recall by class, from 0.250 (sadness) to 0.900 (happiness). The "
        "majority answer gets 0.143 on average.",
        "Confidence and correctness": "Reliability diagram: raw ECE 0.120; calibrated ECE 0.040.",
        "By gender: WAR": "WAR by gender: female 0.520, male 0.470.",
    }


def test_units_stand_beside_what_the_majority_answer_gets():
    rows = {"AU1": {"n": 10, "positives": 6, "F1": 0.7},
            "AU2": {"n": 10, "positives": 2, "F1": 0.0},
            "AU4": {"n": 0, "positives": 0, "F1": None}}  # fmt: skip
    block = written_block() | {"kind": "units", "details": rows, "confusion": None,
                               "calibration": None, "fairness": {}}  # fmt: skip
    # Saying AU1 of every face has F1 12/16: above 0.7. AU2 is never said: F1 0.
    block["baselines"] = {"majority": {"answer": {"AU1": True, "AU2": False, "AU4": False},
                                       "figures": {"mean_F1": 0.375}}}  # fmt: skip
    assert words_of(block) == {
        "F1 by action unit": "F1 by action unit, from 0.000 (AU2) to 0.700 (AU1). 0 of 2 are above "
        "what the majority answer gets."
    }


def test_ages_by_group():
    rows = {"3-9": {"n": 4, "MAE": 2.5, "CS5": 1.0, "bias": 0.5},
            "70+": {"n": 2, "MAE": None, "CS5": 0.0, "bias": None}}  # fmt: skip
    block = written_block() | {"kind": "years", "details": rows, "confusion": None,
                               "calibration": None, "fairness": {}}  # fmt: skip
    block["baselines"] = {"majority": {"answer": 33, "figures": {"MAE": 9.5}}}
    assert words_of(block) == {
        "MAE by age group": "MAE by age group, from 2.50 (3-9) to 2.50 (3-9). The majority answer "
        "gets 9.50 on average."
    }


def test_what_is_not_known_is_not_drawn():
    bare = {"details": {}, "confusion": None, "calibration": None, "fairness": {}}
    assert plots_of(written_block() | bare) == []
    few = {"gender": {"groups": {"female": {"n": 2, "figures": {}, "note": "too few"}}, "gaps": {}}}
    assert plots_of(written_block() | bare | {"fairness": few}) == []


@pytest.mark.parametrize("key", ["dfew/5-folds", "celeba/test"])
def test_each_fits_a_phone(key):
    for plot in plots_of(scored_block(key, 0)):
        root = ET.fromstring(plot.image())
        width = float(root.attrib["width"].removesuffix("pt")) * 96 / 72
        assert width == pytest.approx(PHONE, abs=1)


def test_a_drawing_comes_out_the_same_again():
    matrix, *_ = plots_of(written_block())
    assert matrix.image(LIGHT) == matrix.image(LIGHT) != matrix.image(DARK)


def test_many_classes_make_a_wider_matrix():
    labels = [f"class {place}" for place in range(11)]
    found = {"labels": labels, "columns": [*labels, "unreadable"],
             "counts": np.eye(11, 12, dtype=int).tolist()}  # fmt: skip
    matrix = plots_of(written_block() | {"confusion": found})[0]
    assert matrix.words == "Confusion matrix without a mistake."
    [width] = re.findall(rb'width="([\d.]+)pt"', matrix.image())
    assert float(width) * 96 / 72 > PHONE + 100


def test_a_label_is_never_a_formula():
    block = written_block()
    groups = block["fairness"]["gender"]["groups"]
    block["fairness"] = {ATTACK: {"groups": {f"$x^2$ {ATTACK}": groups["female"]}, "gaps": {}}}
    plot = plots_of(block)[-1]
    ET.fromstring(plot.image())
    pixels = cv2.imdecode(np.frombuffer(plot.image(form="png"), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1] == pytest.approx(3.59 * 200, abs=1)
    assert (pixels[0, 0] == 255).all()
