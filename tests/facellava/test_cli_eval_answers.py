"""`facellava eval verify | faithfulness | forms | landmarks | framing | judge`: of answers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.facellava.command_line import Facellava
from tests.facellava.endpoint_rig import fake_endpoint, reply
from tests.facellava.eval_command import KEY, asked


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
