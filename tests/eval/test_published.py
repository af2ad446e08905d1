import pytest
from pydantic import ValidationError

from eval.protocols import PROTOCOLS
from eval.published import PublishedRow, RatedRow, published
from facellava.tasks import TASKS


def test_every_protocol_that_names_published_figures_has_some():
    named = {protocol.published for protocol in PROTOCOLS.values() if protocol.published}
    assert set(published().protocols) == named


def test_figures_bear_our_names_and_are_in_their_range():
    for protocol in PROTOCOLS.values():
        if protocol.published is None:
            continue
        for row in published().protocols[protocol.published].rows:
            assert row.figures
            assert set(row.figures) <= set(protocol.figures)
            for name, value in row.figures.items():
                assert 1 < value < 10 if name == "MAE" else 0 < value < 1, (row, name)


def figures_of(key: str, model: str, setting: str) -> list[dict[str, float]]:
    rows = published().protocols[key].rows
    return [dict(row.figures) for row in rows if (row.model, row.setting) == (model, setting)]


def test_face_llava_as_in_its_tables():
    zero_shot, fine_tuned = (
        {key: figures_of(key, "Face-LLaVA", setting) for key in published().protocols}
        for setting in ("zero-shot", "fine-tuned")
    )
    assert zero_shot == {
        "dfew": [{"UAR": 0.469, "WAR": 0.564}],
        "crema_d": [{"UAR": 0.582, "WAR": 0.681}],
        "rafdb": [{"WAR": 0.780}],
        "disfa": [],  # not published where we could read it
        "bp4d": [],
        "celeba": [{"mAcc": 0.868}],
        "utkface": [{"MAE": 4.89}],
        "morph2": [{"MAE": 3.34}],
        "faceforensics": [{"accuracy": 0.845}],
    }
    assert fine_tuned["dfew"] == [{"UAR": 0.625, "WAR": 0.745}]
    assert fine_tuned["faceforensics"] == [{"accuracy": 0.888}]


def test_anchors_of_action_units_and_a_figure_that_was_measured_twice():
    assert figures_of("disfa", "ME-GraphAU", "supervised") == [{"mean_F1": 0.631}]
    assert figures_of("bp4d", "ME-GraphAU", "supervised") == [{"mean_F1": 0.655}]
    assert figures_of("dfew", "Emotion-LLaMA", "zero-shot") == [
        {"UAR": 0.456, "WAR": 0.594},
        {"UAR": 0.302, "WAR": 0.378},
    ]


def test_ratings_are_those_of_the_task():
    reasoning = published().reasoning
    assert set(reasoning.tasks) == {*TASKS, "all"} - {"unanswerable"}
    units = reasoning.ratings("action_units")
    assert units["Face-LLaVA"] == {"reason_media": 6.9, "reason_label": 6.68, "completeness": 6.62}
    assert "EmoLA" in units
    assert "Emotion-LLaMA" not in units
    assert reasoning.ratings("all")["ground-truth text"]["reason_label"] == 9.51


def test_a_slip_in_the_data_is_caught():
    row = {"model": "x", "setting": "zero-shot", "figures": {"WAR": 0.5}, "source": "y"}
    for wrong in ({"setting": "zero shot"}, {"figures": {"WAR": float("nan")}}, {"cavaet": ""}):
        with pytest.raises(ValidationError):
            PublishedRow.model_validate(row | wrong)
    with pytest.raises(ValidationError):
        RatedRow(model="x", reason_media=(11.0,), reason_label=(1.0,), completeness=(1.0,))
