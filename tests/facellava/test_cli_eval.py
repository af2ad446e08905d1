"""`facellava eval` as a user meets it: from raw files to the report, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.facellava.command_line import Facellava
from tests.facellava.endpoint_rig import fake_endpoint, reply


@pytest.fixture
def packs(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """A folder of datasets with FER2013 as Parquet: three happy faces and a sad one to ask about,
    and one of another part."""
    rows = []
    for number, label in enumerate([3, 3, 3, 4, 3]):
        crop = Image.fromarray(astronaut[60 + number : 190, 100:230]).resize((96, 96)).convert("L")
        buffer = io.BytesIO()
        crop.save(buffer, format="PNG")
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": None},
                "label": label,
                "split": "validation" if number < 4 else "test",
                "pixel_md5": f"{number:032d}",
            }
        )
    folder = tmp_path / "packs" / "fer2013"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "fer.parquet")
    return folder.parent


KEY = "fer2013/public-test"


def asked(packs: Path, out: Path, *more: object) -> list[object]:
    return ["eval", "run", KEY, "--root", packs, "--out", out, "--workers", 1, *more]


def test_a_run_leaves_answers_figures_and_reports(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = facellava(*asked(packs, run, "--model", reciting_checkpoint))
    assert done.code == 0, done.err
    # The model always says happiness, and so does the majority.
    assert "WAR 0.750" in done.out
    results = json.loads((run / "results.json").read_text())
    block = results["protocols"][KEY]
    assert (block["n"], block["unreadable"]["count"]) == (4, 0)
    values = {name: figure["value"] for name, figure in block["figures"].items()}
    assert values == block["baselines"]["majority"]["figures"] == {"WAR": 0.75, "UAR": 0.5}
    assert block["trained_on"] == "unknown"
    assert results["engine"]["kind"] == "model"
    assert len(results["engine"]["weights_sha256"]) == 64
    assert KEY in (run / "report.md").read_text()
    page = (run / "report.html").read_text()
    # The one mistake is shown with its picture and its words.
    assert "data:image/jpeg;base64," in page
    assert "happiness" in page


def test_scoring_again_needs_no_model_and_gives_the_same(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    before = (run / "results.json").read_bytes()
    answers = next((run / "answers").iterdir()).read_bytes()
    done = facellava("eval", "score", run)
    assert done.code == 0, done.err
    assert (run / "results.json").read_bytes() == before
    # Going on with a finished run asks nothing.
    again = facellava(*asked(packs, run, "--model", reciting_checkpoint))
    assert again.code == 0, again.err
    assert next((run / "answers").iterdir()).read_bytes() == answers


def test_two_runs_are_compared_on_the_same_faces(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    one, two, fewer = (tmp_path / name for name in ("one", "two", "fewer"))
    facellava(*asked(packs, one, "--model", reciting_checkpoint))
    facellava(*asked(packs, two, "--model", reciting_checkpoint, "--label-only"))
    done = facellava("eval", "compare", one, two, "--json", tmp_path / "found.json")
    assert done.code == 0, done.err
    assert "WAR" in done.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["protocols"][KEY]["figures"]["WAR"]["difference"] == 0
    facellava(*asked(packs, fewer, "--model", reciting_checkpoint, "--limit", 2))
    refused = facellava("eval", "compare", one, fewer)
    assert (refused.code, refused.out) == (1, "")
    assert "are not the same" in refused.trouble[-1]


def test_reasons_are_measured_again_and_covered(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    done = facellava("eval", "verify", run)
    assert done.code == 0, done.err
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]
    claims = block["claims"]
    assert claims["n_answers"] == 4
    assert sum(claims[kind] for kind in ("supported", "contradicted", "unmeasurable")) == 8
    for method in ("move", "occlude"):
        words = ["eval", "faithfulness", run, "--method", method]
        refused = facellava(*words)
        assert (refused.code, refused.out) == (1, "")
        assert "give that checkpoint with --model" in refused.trouble[-1]
        done = facellava(*words, "--model", reciting_checkpoint)
        assert done.code == 0, done.err
        assert method in done.out
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]
    assert set(block["faithfulness"]) == {"move", "occlude"}
    assert block["claims"] == claims
    assert "Faithfulness" in (run / "report.md").read_text()


def test_a_sheet_shows_faces_of_a_run(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run, page = tmp_path / "run", tmp_path / "sheet.html"
    refused = facellava("eval", "sheet", run, "--out", page)
    assert (refused.code, refused.out) == (1, "")
    assert "is not there or is damaged" in refused.trouble[-1]
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    done = facellava("eval", "sheet", run, "--out", page, "--faces", 3, "--seed", 5)
    assert done.code == 0, done.err
    assert str(page) in done.out
    text = page.read_text()
    assert text.count('<article class="card"') == 3
    assert "3 of 4 answers, by chance alone, with seed 5" in text
    again = tmp_path / "again.html"
    facellava("eval", "sheet", run, "--out", again, "--faces", 3, "--seed", 5)
    assert again.read_bytes() == page.read_bytes()


def test_the_same_faces_are_asked_in_json(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    refused = facellava("eval", "forms", run)
    assert (refused.code, refused.out) == (1, "")
    assert "give that checkpoint with --model" in refused.trouble[-1]
    done = facellava("eval", "forms", run, "--model", reciting_checkpoint, "--sample", 3)
    assert done.code == 0, done.err
    assert "same verdict" in done.out
    found = json.loads((run / "results.json").read_text())["protocols"][KEY]["forms"]
    # The model recites prose, whatever it is asked for.
    assert (found["n"], found["same"]["value"], found["prose_read"]["value"]) == (3, 0, 1)
    assert found["unread"] == {"The answer is not whole JSON": 3}
    assert "JSON beside prose, 3 answers" in (run / "report.md").read_text()
    facts = json.loads((run / "run.json").read_text())
    facts["engine"] |= {"kind": "endpoint", "name": "gpt-x"}
    (run / "run.json").write_text(json.dumps(facts))
    refused = facellava("eval", "forms", run)
    assert (refused.code, refused.out) == (1, "")
    assert "gpt-x (endpoint), which cannot be asked here" in refused.trouble[-1]


def test_what_landmarks_are_worth_stands_in_the_reports(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    refused = facellava("eval", "landmarks", run)
    assert (refused.code, refused.out) == (1, "")
    assert "give that checkpoint with --model" in refused.trouble[-1]
    words = ["eval", "landmarks", run, "--model", reciting_checkpoint]
    alone = facellava(*words, "--sample", 1)
    assert (alone.code, alone.out) == (1, "")
    assert "landmarks are shuffled between two or more" in alone.trouble[-1]
    done = facellava(*words, "--sample", 3)
    assert done.code == 0, done.err
    # This model looks at no face.
    assert "+0.000 [+0.000, +0.000]" in done.out
    found = json.loads((run / "results.json").read_text())["protocols"][KEY]["landmarks"]
    assert found["n"] == 3
    assert found["shuffled"]["figures"] == found["as_they_are"]["figures"]
    for report in ("report.md", "report.html"):
        assert "What the landmarks are worth" in (run / report).read_text()
    with fake_endpoint(lambda *_: reply("Expression: sadness.")) as server:
        facellava(*asked(packs, tmp_path / "api", "--endpoint", server.url, "--name", "gpt-x"))
    refused = facellava("eval", "landmarks", tmp_path / "api")
    assert (refused.code, refused.out) == (1, "")
    assert "landmarks needs a run of a checkpoint in this process" in refused.trouble[-1]


def test_photos_of_other_framing_stand_in_the_reports(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "found.json"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    nowhere = facellava("eval", "framing", run)
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "Say where the datasets lie" in " ".join(nowhere.err.split())
    refused = facellava("eval", "framing", run, "--root", packs)
    assert (refused.code, refused.out) == (1, "")
    assert "give that checkpoint with --model" in refused.trouble[-1]
    words = ["eval", "framing", run, "--model", reciting_checkpoint, "--sample", 1, "--root"]
    empty = tmp_path / "other" / "fer2013"
    empty.mkdir(parents=True)
    lost = facellava(*words, empty.parent)
    assert (lost.code, lost.out) == (1, "")
    assert "fer2013.csv" in lost.trouble[-1]
    done = facellava(*words, packs, "--json", out)
    assert done.code == 0, done.err
    assert "in a photo" in done.out
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]["framing"]
    assert json.loads(out.read_text()) == {"protocols": {KEY: block}}
    assert block["n"] == 1
    # This model looks at no face.
    seen = block["ways"]["in_a_photo"]
    assert (seen["found"]["value"], seen["same"]["value"]) == (1, 1)
    assert seen["figures"]["WAR"]["difference"] == 0
    for report in ("report.md", "report.html"):
        assert "Photos of other framing" in (run / report).read_text()
    # All is kept: nothing is looked at again.
    (packs / "fer2013" / "fer.parquet").write_bytes(b"")
    again = facellava(*words, packs)
    assert again.code == 0, again.err
    assert again.out == done.out


def test_reasons_are_judged_in_two_orders_and_paid_for_once(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    said = {"reason": "It fits.", "reason_media": 8, "reason_label": 6, "completeness": 4}
    prices = tmp_path / "prices.toml"
    prices.write_text('["judge-x"]\ninput = 1.0\noutput = 2.0\n')
    with fake_endpoint(lambda *_: reply(json.dumps(said))) as server:
        words = [
            "eval", "judge", run, "--endpoint", server.url, "--name", "judge-x", "--prices", prices,
        ]  # fmt: skip
        dry = facellava(*words, "--dry-run")
        assert dry.code == 0, dry.err
        assert "8 requests to send" in dry.out
        assert server.prompts == []
        assert facellava(*words, "--max-cost", "0.0000001").code == 1
        for _ in range(2):
            done = facellava(*words)
            assert done.code == 0, done.err
        assert len(server.prompts) == 8
    assert "8.000 [8.000, 8.000]" in done.out
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]
    assert block["judged"]["n"] == 4
    assert block["judged"]["ratings"]["completeness"]["mean"] == 4
    assert block["judged"]["agreement"]["reason_media"]["equal"] == 1
    [rows] = (run / "extras").glob("*.jsonl")
    assert len(rows.read_text().splitlines()) == 8
    assert "two orders" in (run / "report.md").read_text()


def test_any_endpoint_is_asked_with_the_closed_set_and_its_price_is_known_before(
    facellava: Facellava, packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    prices = tmp_path / "prices.toml"
    prices.write_text('["gpt-x"]\ninput = 1.0\noutput = 2.0\n')
    run = tmp_path / "run"
    with fake_endpoint(lambda *_: reply("Expression: sadness. The mouth is closed.")) as server:
        words = asked(
            packs, run, "--prompt", "closed", "--endpoint", server.url, "--name", "gpt-x",
            "--prices", prices, "--max-cost", "1",
        )  # fmt: skip
        dry = facellava(*words, "--dry-run")
        assert dry.code == 0, dry.err
        assert "4 requests to send" in dry.out
        assert server.prompts == []
        done = facellava(*words)
        assert done.code == 0, done.err
        assert facellava(*words).code == 0
    assert len(server.prompts) == 4
    assert "X is one of: anger, disgust, fear, happiness" in server.prompts[0]
    results = json.loads((run / "results.json").read_text())
    assert results["engine"]["prompt"] == "closed"
    block = results["protocols"][KEY]
    assert "X is one of: anger" in block["question"]
    assert block["figures"]["WAR"]["value"] == 0.25
    assert block["calibration"] is None
    spent = json.loads((run / "run.json").read_text())["spent"]
    assert spent["gpt-x"] > 0
    left = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"sk-secret-of-mine" not in left


def test_an_endpoint_that_talks_nonsense_gives_failures_not_figures(
    facellava: Facellava, packs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with fake_endpoint(lambda *_: reply("<script>alert(1)</script> lorem ipsum")) as server:
        done = facellava(*asked(packs, run, "--endpoint", server.url, "--name", "m"))
    assert done.code == 0, done.err
    block = json.loads((run / "results.json").read_text())["protocols"][KEY]
    assert block["unreadable"]["share"] == 1
    assert block["figures"]["WAR"]["value"] == 0
    assert "<script>alert" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["eval", "run", "lfw", "--root", "PACKS", "--out", "RUN"], 2, "or suite 'lfw'"),
        (["eval", "run", "--root", "PACKS", "--out", "RUN"], 2, "Name protocols, or a --suite"),
        (["eval", "run", KEY, "--out", "RUN"], 2, "Say where the datasets lie"),
        (["eval", "run", "rafdb/test", "--root", "PACKS", "--out", "RUN"], 1, "No folder of rafdb"),
        (["eval", "run", KEY, "--root", "PACKS/absent", "--out", "RUN"], 1, "There is no folder"),
        (["eval", "run", "--suite", "packs", "--root", "PACKS", "--out", "RUN"], 1, "of utkface"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--fold", "2"], 2, "has 0 folds"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--limit", "-3"], 2, "--limit"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--model", "no"], 1, "no"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "PACKS"], 1, "holds other files"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--name", "x"], 2, "go together"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--dry-run"], 2, "go together"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--model", "a", "--api", "b"], 2,
         "Give one of --model, --api and --endpoint"),
        (["eval", "run", KEY, "--root", "PACKS", "--out", "RUN", "--label-only", "--api", "b"], 2,
         "--label-only goes with"),
        (["eval", "score", "RUN"], 1, "is not there or is damaged"),
        (["eval", "compare", "RUN", "RUN"], 1, "is not there or is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    facellava: Facellava, packs: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    run = tmp_path / "run"
    places = {"PACKS": str(packs), "RUN": str(run), "PACKS/absent": str(packs / "absent")}
    done = facellava(*(places.get(word, word) for word in words))
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())
    assert not (run / "results.json").exists()


def test_a_run_without_a_finished_protocol_is_told(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"protocols": {}}))
    for verb in (["score", run], ["verify", run], ["export", run, "--out", tmp_path / "out"]):
        done = facellava("eval", *verb)
        assert (done.code, done.out) == (1, "")
        assert "No protocol of the run" in done.trouble[-1]
    for odd in ({"made": None}, {"protocols": {KEY: {}}}, {"engine": 3}):
        (run / "run.json").write_text(json.dumps(facts | odd))
        done = facellava("eval", "score", run)
        assert (done.code, done.out) == (1, "")
        assert "holds no run that this facellava reads" in done.trouble[-1]
    (run / "run.json").write_text(json.dumps(facts | {"wanted": [KEY, "rafdb/test"]}))
    done = facellava("eval", "score", run)
    assert done.code == 0
    assert "Not finished, and left out: rafdb/test." in done.err


def test_a_mistyped_root_leaves_the_folder_free(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["eval", "run", KEY, "--out", run, "--model", reciting_checkpoint, "--workers", 1]
    assert facellava(*words, "--root", f"fer2013={tmp_path / 'absent'}").code == 1
    done = facellava(*words, "--root", packs, "--limit", 3)
    assert done.code == 0, done.err


def test_another_run_in_the_folder_is_not_mixed_with(
    facellava: Facellava, packs: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    facellava(*asked(packs, run, "--model", reciting_checkpoint))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for more in (["--limit", "2"], ["--prompt", "closed"], ["--label-only"]):
        done = facellava(*asked(packs, run, "--model", reciting_checkpoint, *more))
        assert (done.code, done.out) == (1, "")
        assert "give another --out" in done.trouble[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_server_and_this_process_agree(
    facellava: Facellava, packs: Path, tmp_path: Path, api: str
) -> None:
    out, where = tmp_path / "parity", ["--root", packs, "--api", f"{api}/v1"]
    done = facellava("eval", "parity", KEY, *where, "--out", out)
    assert done.code == 0, done.err
    [found] = json.loads((out / "parity.json").read_text())["protocols"]
    assert found["same_label"] == found["same_text"] == found["n"] == 4
    there = facellava(*asked(packs, tmp_path / "run", "--api", f"{api}/v1"))
    assert there.code == 0, there.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    figures = results["protocols"][KEY]["figures"]
    assert {k: v["value"] for k, v in figures.items()} == found["served"] == found["in_process"]


def test_protocols_are_listed(facellava: Facellava) -> None:
    told = facellava("eval", "protocols").out
    assert "morph2/random-80-20" in told
    facts = json.loads(facellava("eval", "protocols", "--json").out)
    assert facts["disfa/3-folds"]["folds"] == 3
    assert "paper" in facts["disfa/3-folds"]["suites"]


def test_a_killed_run_goes_on_and_asks_nothing_twice(packs: Path, tmp_path: Path) -> None:
    """kill -9 while the endpoint is asked: the end is that of a run that was left alone."""
    delays: dict[str, Any] = {"delay": 0.0}

    def script(prompt: str, before: int, body: dict[str, Any]) -> Any:
        return reply("Expression: happiness. The mouth is closed.", **delays)

    runs = {name: tmp_path / name / "run" for name in ("whole", "killed")}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def command(run: Path, url: str) -> list[str]:
        return [
            sys.executable, "-m", "facellava",
            *map(str, asked(packs, run, "--endpoint", url, "--name", "m", "--concurrency", "1")),
        ]  # fmt: skip

    with fake_endpoint(script) as server:
        subprocess.run(command(runs["whole"], server.url), check=True, env=environment,
                       capture_output=True, timeout=120)  # fmt: skip
        assert len(server.prompts) == 4
        delays["delay"] = 0.5
        process = subprocess.Popen(
            command(runs["killed"], server.url), env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(server.prompts) < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(command(runs["killed"], server.url), check=True, env=environment,
                       capture_output=True, timeout=120)  # fmt: skip
        # What was under way when it died may have been paid for; nothing that had come was.
        assert 8 <= len(server.prompts) <= 9
    whole, killed = (
        json.loads((run / "results.json").read_text())["protocols"] for run in runs.values()
    )
    assert killed == whole
