import re

import pytest

from eval.report import readme_table, report_markdown
from eval.report_tables import fairness_tables, folds_table, number, percent, spread
from tests.eval.written_results import ATTACK, results_of, usual_results, written_block


@pytest.fixture(scope="module")
def usual():
    return usual_results()


def section(text: str, title: str) -> str:
    """What stands under a heading of the second or third rank."""
    return re.split(r"^#{2,3} ", text.split(f"# {title}\n", 1)[1], flags=re.MULTILINE)[0]


def test_numbers():
    assert number("WAR", 0.65249) == "0.652"
    assert number("MAE", 4.456) == "4.46"
    assert number("n", 12345) == "12,345"
    assert number("AUC", None) == "-"
    assert percent(0.0034) == "0.3%"
    assert spread("MAE", {"value": 4.0, "low": 3.5, "high": 4.5}) == "4.00 [3.50, 4.50]"
    assert spread("AUC", {"value": 0.5, "low": None, "high": None}) == "0.500"
    assert spread("AUC", {"value": None, "low": None, "high": None}) == "-"


def test_a_protocol_in_full():
    text = report_markdown(results_of({"dfew/5-folds": written_block()}))
    assert section(text, "DFEW, five folds") != section(text, "Summary")
    assert "\n## DFEW, five folds\n\n`dfew/5-folds`\n" in text
    for words in (
        "- Model: nano (model)",
        "- Code: facellava 0.1.0, commit 15b6d4b",
        "- Machine: AMD EPYC, 2 cores, 7.8 GiB of memory, no GPU, Python 3.13.5, torch 2.13.0",
        "- Sample: at most 240 faces of each part, chosen by seed 0",
        "| DFEW, five folds<br>dfew/5-folds | 1,200 | WAR 0.500 [0.450, 0.550]<br>UAR 0.400 "
        "[0.350, 0.450] | 0.300<br>0.143 | 0.200<br>0.143 | 2.0% | zero-shot |",
        "- Faces: 1,200 of 30 people",
        "- Training: zero-shot: training saw no face of this dataset",
        "- Majority answer: happiness",
        "- Unreadable: 24 of 1,200 (2.0%). Reasons: refused 20, empty 4. An unreadable answer "
        "counts as wrong. 40 answers do not follow facellava's own grammar.",
        "- Left out: no face 5",
        "| WAR | 0.500 [0.450, 0.550] | 0.300 | 0.200 | 0.510 |",
        "| Fold 2 | 0.480 | 0.380 |",
        "| **Mean over folds** | **0.505** | **0.405** |",
        "| **All faces together** | **0.500** | **0.400** |",
        "| happiness | 360 | 0.900 | - |",
        "| happiness | 324 | 30 | 6 |",
        "| female | 700 | 0.520 [0.470, 0.570] | 0.420 [0.370, 0.470] |",
        "| unknown | 3 (too few) | - | - |",
        "| WAR: best group to worst | 0.050 [0.010, 0.090] | male | - |",
        "| Equalized odds: the same, and to those who have it not | - | - | - |",
        "1,176 answers have probabilities; the likeliest label agrees with the text in 97.0% of "
        "them.",
        "Calibration: raw ECE 0.120, Brier 0.600 (n = 1,176); calibrated ECE 0.040, Brier 0.550 "
        "(n = 1,176).",
        "Claims in 240 answers, measured again: 300 supported (75.0%), 60 contradicted (15.0%), 40 "
        "unmeasurable (10.0%). An answer has 1.7 distinct claims. The same claims on other faces: "
        "200 supported (50.0%), 180 contradicted (45.0%), 20 unmeasurable (5.0%).",
        "JSON beside prose, 60 answers asked in both: the verdict is that of the prose in 0.950 "
        "[0.863, 0.983]; the JSON follows the task's schema in 0.967 [0.886, 0.991]; the prose can "
        "be read in 1.000 [0.940, 1.000]. Cut at the longest that an answer may be: 0.033 [0.009, "
        "0.114] of the JSON and 0.000 [0.000, 0.060] of the prose. Not read: The answer is not "
        "whole JSON 2.",
        "Faithfulness, 90 answers: where the regions that an answer cites are hidden, its "
        "probability falls by 0.120 [0.100, 0.140]; where others are hidden, by 0.050 [0.030, "
        "0.070]; the difference is 0.070 [0.040, 0.100]. The cited ones weigh more in 64.0% of the "
        "answers.",
        "### What the landmarks are worth\n\n| Figure | As they are [95%] | Another face's "
        "landmarks [95%] | Change [95%] | Without FRGCA [95%] | Change [95%] |\n",
        "| WAR | 0.500 [0.440, 0.560] | 0.450 [0.390, 0.510] | -0.050 [-0.081, -0.020] "
        "| 0.300 [0.250, 0.350] | -0.200 [-0.250, -0.150] |",
        "| UAR | 0.400 [0.340, 0.460] | 0.380 | - | 0.200 [0.150, 0.250] "
        "| -0.200 [-0.250, -0.150] |",
        "300 faces, asked about again. A change whose interval holds 0 may be chance",
        "Unreadable answers: as they are 0, another face's landmarks 2, without FRGCA 30.",
        "### Photos of other framing\n\n| Way | Faces found [95%] | Same verdict [95%] | WAR, then "
        "its change [95%] | UAR, then its change [95%] |\n",
        "| as it is | - | - | 0.500 [0.380, 0.620] | 0.400 [0.290, 0.510] |",
        "| in a photo | 0.950 [0.863, 0.983] | 0.912 [0.811, 0.962] | -0.020 [-0.050, +0.010] "
        "| +0.000 [-0.020, +0.020] |",
        "| far away | 0.000 [0.000, 0.060] | - | - | - |",
        "The pictures of 60 faces, each in a blurred surround",
        "are over the faces found. Unreadable answers: 1.",
        "Agreement of the judge's two orders: completeness: 90.0% within one point, kappa 0.710, "
        "shift -0.250.",
    ):
        assert words in text, words


def test_the_papers_rows_stand_beside_ours():
    text = report_markdown(results_of({"dfew/5-folds": written_block()}))
    beside = section(text, "Beside published figures") + text.split("### DFEW, five folds")[1]
    here = "measured here, 1,200 faces; training saw no face of this dataset"
    for words in (
        "were not measured here; their splits, crops and sampling of frames may differ from ours",
        f"| **nano (ours)** | **zero-shot** | **0.500 [0.450, 0.550]** | **0.400 [0.350, 0.450]** "
        f"| **{here}** |",
        "| **nano (ours), mean over folds** | **zero-shot** | **0.505** | **0.405** "
        "| **the same answers** |",
        "| Face-LLaVA | zero-shot | 0.564 | 0.469 | published: Face-LLaVA paper |",
        "| EmoLA | zero-shot | 0.449 | 0.346 | published: Face-LLaVA paper; sees the middle frame "
        "only |",
        "| **nano (ours)** | **6.51 [6.20, 6.83]** | **7.00 [6.70, 7.25]** | **5.50** | **DFEW, "
        "five folds, 100 answers, judge gpt-4o** |",
        "| Face-LLaVA | 7.95 | 8.14 | 7.79 | published: Face-LLaVA paper, Table 10 |",
    ):
        assert words in beside, words


@pytest.mark.parametrize(
    ("trained_on", "word"),
    [("no", "zero-shot"), ("other splits", "fine-tuned"), ("these faces", "INVALID"),
     ("unknown", "unknown")],
)  # fmt: skip
def test_what_training_saw_is_said_and_a_memorised_set_is_shouted(trained_on, word):
    results = results_of({"rafdb/test": written_block() | {"trained_on": trained_on}})
    text = report_markdown(results)
    assert f"| 2.0% | {word} |" in text
    assert f"| **nano (ours)** | **{word}** |" in text
    loud = "> **INVALID: DFEW, five folds (rafdb/test): training saw these very faces, so its"
    assert (loud in text) == (trained_on == "these faces")
    assert readme_table(results).splitlines()[2].endswith(f"| {word} |")


def test_what_is_null_or_empty_leaves_no_trace():
    bare = written_block() | {
        "n_subjects": None, "note": "", "left_out": {}, "published": None, "folds_figures": {},
        "mean_over_folds": {}, "details": {}, "confusion": None, "by_probability": None,
        "calibration": None, "fairness": {}, "claims": None, "worst": [],
        "figures": {"WAR": {"value": None, "low": None, "high": None}},
    }  # fmt: skip
    for name in ("judged", "faithfulness", "forms", "landmarks", "framing"):
        del bare[name]
    text = report_markdown(results_of({"fer2013/public-test": bare}))
    assert "WAR - | 0.300 | 0.200" in text
    for word in (
        "Calibration", "Claims", "Faithfulness", "JSON", "FRGCA", "framing", "Fold", "By ",
        "published", "None",
    ):  # fmt: skip
        assert word not in text, word
    assert folds_table(bare) is None
    assert fairness_tables(bare) == []


def test_a_part_of_the_publishers_faces_is_marked():
    block = written_block() | {"official_n": 2341}
    results = results_of({"dfew/5-folds": block})
    text = report_markdown(results)
    assert "| DFEW, five folds<br>dfew/5-folds | 1,200 of 2,341 | WAR" in text
    assert "- Faces: 1,200 of 30 people; the publisher's part has 2,341" in text
    assert "| 1,200 of 2,341 |" in readme_table(results)


def test_an_auc_without_probabilities_is_explained(usual):
    said = "No answer has a probability, so there is no AUC."
    parts = dict(zip(usual["protocols"], report_markdown(usual).split("\n`")[1:], strict=False))
    assert [key for key, text in parts.items() if said in text] == ["real_fake_faces/test"]


def test_every_table_is_whole_and_nothing_from_outside_is_markup(usual):
    text = report_markdown(usual)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) > 40
    for table in tables:
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(bars) == 1, table
    assert ATTACK not in text
    assert re.findall(r"(?<!\\)\]\(", text) == []
    assert re.findall(r"(?<!\\)<(?!br>)", text) == []
    assert r"\<img src=x onerror=" in text


def test_a_line_a_protocol_for_a_readme(usual):
    lines = readme_table(results_of({"dfew/5-folds": written_block()})).splitlines()
    assert lines == [
        "| Protocol | Faces | Figures [95% interval] | Majority | Training |",
        "|---|--:|---|--:|---|",
        "| DFEW, five folds | 1,200 | WAR 0.500 [0.450, 0.550]<br>UAR 0.400 [0.350, 0.450] "
        "| 0.300<br>0.143 | zero-shot |",
    ]
    assert len(readme_table(usual).splitlines()) == 2 + len(usual["protocols"])
