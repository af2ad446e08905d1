"""Annotating and rating by an endpoint that is a real server on a loopback port."""

import asyncio
import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_builders.annotate.endpoint import (
    Annotation,
    annotation_messages,
    fault_of,
    write_samples,
)
from data_builders.annotate.topics import Shares, Topic, labelled_topics
from data_builders.build import BuildOptions, build
from data_builders.endpoint_stage import (
    AnnotateOptions,
    annotate_corpus,
    estimate_corpus,
    replies_of,
)
from data_builders.finished import write_card_and_manifest
from data_builders.mixture import MixtureEntry
from data_builders.rate import Threshold, keep
from data_builders.rate_endpoint import rate_samples, rating_messages
from data_builders.report import summary
from facellava.corpus import (
    FaceRecord,
    Ratings,
    encode_frame,
    read_faces,
    read_manifest,
    read_samples,
    sha256,
    validate,
    write_shard,
)
from facellava.endpoint import (
    Budget,
    Endpoint,
    EndpointCache,
    EndpointSettings,
    EndpointStopped,
    OutOfBudget,
    Price,
)
from facellava.errors import BadCorpus, BadSample
from facellava.tasks import TASKS, parse_answer
from facellava.tasks.annotation import ANNOTATION, RATING, prompt_version
from facellava.tasks.attribute_table import NAMES
from tests.data_builders.small_corpus import contents
from tests.facellava.endpoint_rig import KEY, fake_endpoint, reply, trouble

REASONS = ["The brows are lowered.", "The lips are pressed"]
FACES = 20  # in two shards
LABELS = (
    {"expression": "anger", "age": 34},
    {"action_units": ["AU4", "AU7"], "deepfake": "real"},
    {"attributes": {name: name == "smiling" for name in NAMES}},
    {"expression": "fear"},
)
PRICES = {"writer": Price(input=1, output=4), "judge": Price(input=1, output=4)}


def record_of(number: int, labels: dict, frames: int = 1) -> FaceRecord:
    rng = np.random.default_rng(number)
    crops = [rng.integers(0, 255, (192, 192, 3), dtype=np.uint8) for _ in range(frames)]
    return FaceRecord(
        face_id=f"made-{number}",
        source="made",
        split="train",
        frames=tuple(encode_frame(crop) for crop in crops),
        landmarks=np.full((frames, 68, 2), 0.5, np.float32),
        box=(0, 0, 10, 10),
        score=1.0,
        face_source="given",
        native_size=200.0,
        labels=labels,
        licence="none",
        origin=str(number),
        media="image" if frames == 1 else "clip",
    )


def written(reasons=REASONS, description="A face."):
    return reply(json.dumps({"description": description, "reasons": reasons}))


def rated(label=9, media=9, consistent=9, overall=9):
    scores = {"label_accuracy": label, "media_consistency": media}
    scores |= {"label_consistency": consistent, "overall": overall}
    return reply(json.dumps({"reason": "As it  looks.", **scores}))


def good(prompt, before, body):
    return written() if body["model"] == "writer" else rated()


def settings(server, model="writer", **more):
    usual = {"api_key": KEY, "first_wait": 0.01, "longest_wait": 0.02, "attempts": 2}
    url = server if isinstance(server, str) else server.url
    return EndpointSettings(url, model, **(usual | more))


def asked(script, act):
    """What `act(endpoint)` gives, and the server."""

    async def run(server, cache):
        async with Endpoint(settings(server), cache, Budget({})) as endpoint:
            return await act(endpoint)

    with fake_endpoint(script) as server, EndpointCache() as cache:
        return asyncio.run(run(server, cache)), server


ALL_FORMS = Shares(json=1.0, unanswerable=1.0)
PROSE = Shares(json=0.0, unanswerable=0.0)


def samples_of(record, script, shares=PROSE):
    dropped = Counter()
    found, server = asked(
        script,
        lambda endpoint: write_samples(
            record, endpoint, random.Random(3), shares=shares, dropped=dropped
        ),
    )
    return found, dropped, server


def test_each_label_is_explained_under_our_lead():
    record = record_of(0, LABELS[0] | LABELS[1] | LABELS[2])
    samples, dropped, server = samples_of(record, lambda *_: written())
    assert [sample.task for sample in samples] == [
        "expression", "action_units", "attributes", "age", "deepfake",
    ]  # fmt: skip
    assert dropped == {}
    first = samples[0]
    assert first.answer == "Expression: anger. The brows are lowered. The lips are pressed."
    assert (first.sample_id, first.face_id, first.form) == ("made-0#0", "made-0", "prose")
    assert (first.annotator, first.annotator_version) == ("writer", "endpoint-1")
    assert first.prompt_version == prompt_version(ANNOTATION["expression"])
    for sample in samples:
        verdict = parse_answer(sample.answer)
        label = list(verdict.label) if isinstance(verdict.label, tuple) else verdict.label
        assert (verdict.task, label) == (sample.task, sample.label)
        assert label == record.labels[sample.task]
        assert (sample.ratings, sample.kept, sample.weak) == (None, True, False)
    system, user = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": ANNOTATION["expression"]}
    picture, words = user["content"]
    assert words["text"] == "The label is: Expression: anger."
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


def test_json_twins_and_refusals_cost_nothing():
    samples, _, server = samples_of(record_of(0, LABELS[0]), lambda *_: written(), ALL_FORMS)
    assert len(server.prompts) == 2
    kinds = [(sample.task, sample.form) for sample in samples if sample.label is not None]
    assert kinds == [
        ("expression", "prose"), ("expression", "json"), ("age", "prose"), ("age", "json"),
    ]  # fmt: skip
    twin = samples[1]
    assert json.loads(twin.answer) == {
        "task": "expression", "label": "anger",
        "reasons": ["The brows are lowered.", "The lips are pressed."],
    }  # fmt: skip
    assert re.search("json", twin.question, re.IGNORECASE)
    refusals = [sample for sample in samples if sample.label is None]
    assert {(sample.task, sample.annotator) for sample in refusals} == {
        ("unanswerable", "measured")
    }
    assert len({sample.sample_id for sample in samples}) == len(samples) == 6


def test_a_clip_is_shown_by_frames_spread_over_it():
    record = record_of(1, {"expression": "fear"}, frames=8)
    shown = [record.frames.index(frame) for frame in record.shown_frames(4)]
    assert shown == [0, 2, 5, 7]
    assert record_of(1, {}).shown_frames(4) == list(record_of(1, {}).frames)
    (topic,) = labelled_topics(record.labels)
    content = annotation_messages(record, topic, 3)[1]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 3 + ["text"]


@pytest.mark.parametrize(
    ("task", "label", "reasons", "fault"),
    [
        ("expression", "anger", ["The brows are lowered.", "No fear is visible."], None),
        ("expression", "anger", ["The face looks happy."], "another label"),
        ("expression", "anger", ["Expression: joy."], "unreadable"),
        ("expression", "anger", ["The lids. Age: 34 years."], "unreadable"),
        ("expression", "anger", ["I'm sorry, I can't describe people."], "refused"),
        ("deepfake", "fake", ["The border of the jaw is blurred."], None),
        ("deepfake", "fake", ["The face is authentic."], "another label"),
        ("age", 34, ["Fine lines fit the mid thirties."], None),
        ("age", 34, ["The person is about 60 years old."], "another label"),
        ("action_units", ("AU4", "AU7"), ["AU4 shows in the lines between the brows."], None),
        ("action_units", ("AU4", "AU7"), ["AU12 pulls the corners up."], "another label"),
        ("action_units", (), ["The face is at rest."], None),
    ],
)
def test_reasons_must_not_speak_for_another_label(task, label, reasons, fault):
    found = fault_of(Topic(TASKS[task], label), Annotation(description="A face.", reasons=reasons))
    assert found == fault


@pytest.mark.parametrize(
    ("said", "reason", "requests"),
    [
        (reply(None, refusal="I can't help with pictures of people."), "refused", 2),
        (written(["I cannot describe people."]), "refused", 1),
        (written(["It looks sad."]), "another label", 1),
        (written([]), "not the asked-for JSON", 2),
        (written(["x" * 500]), "not the asked-for JSON", 2),
        (reply('{"description": "a'), "not the asked-for JSON", 2),
        (reply("{", finish="length"), "cut off", 2),
        (trouble(400), "rejected", 1),
    ],
)
def test_labels_without_an_answer_are_counted_by_reason(said, reason, requests):
    samples, dropped, server = samples_of(record_of(3, LABELS[3]), lambda *_: said)
    assert samples == []
    assert dropped == {f"expression: {reason}": 1}
    assert len(server.prompts) == requests


def test_ratings_decide_what_is_kept():
    record = record_of(0, LABELS[0])
    samples, _, _ = samples_of(record, lambda *_: written(), ALL_FORMS)
    scripts = {"Expression": rated(label=2, media=10), "Age": rated()}

    def judge(prompt, *_):
        return scripts[re.match(r"The label is: (\w+):", prompt)[1]]

    def rate(rule, threshold):
        async def act(endpoint):
            return await rate_samples(samples, record, endpoint, rule=rule, threshold=threshold)

        return asked(judge, act)

    found, server = rate("each", Threshold(5, 5, 5, 5))
    kept = {(sample.task, sample.form): sample.kept for sample in found}
    assert kept == {
        ("expression", "prose"): False, ("expression", "json"): False, ("age", "prose"): True,
        ("age", "json"): True, ("unanswerable", "prose"): True,
    }  # fmt: skip
    assert found[0].ratings == Ratings(2, 10, 9, 9, "As it looks.")
    assert [sample.answer for sample in found] == [sample.answer for sample in samples]
    # Both forms of an answer say the same and are rated once.
    assert len(server.prompts) == 2
    assert server.prompts[0] == (
        "The label is: Expression: anger.\n"
        "The text is: Expression: anger. The brows are lowered. The lips are pressed."
    )
    assert server.bodies[0]["messages"] == rating_messages(record, samples[0], 4)
    found, _ = rate("mean", Threshold(7, 7, 7, 7))
    assert all(sample.kept for sample in found)


def test_the_rule_is_each_rating_or_their_mean():
    ratings = Ratings(3, 9, 9, 9, "")
    assert not keep(ratings, Threshold(5, 5, 5, 5))
    assert keep(ratings, Threshold(5, 5, 5, 5), "mean")
    assert keep(ratings, Threshold(8, 7, 8, 7), "mean")
    assert not keep(ratings, Threshold(8, 8, 8, 7), "mean")


def test_what_is_not_rated_is_not_kept_and_counted():
    record, dropped = record_of(3, LABELS[3]), Counter()
    samples, _, _ = samples_of(record, lambda *_: written())
    found, _ = asked(
        lambda *_: reply('{"overall": 11}'),
        lambda endpoint: rate_samples(samples, record, endpoint, dropped=dropped),
    )
    assert found == [replace(samples[0], kept=False)]
    assert dropped == {"rating of expression: not the asked-for JSON": 1}


def faces_corpus(folder: Path) -> Path:
    """A finished corpus of faces only, in the form in which `build` leaves it."""
    manifest = {"version": 2, "sources": {}, "dropped": {}, "counts": {"faces": {}}, "files": {}}
    manifest["settings"] = {
        "sources": ["made"], "annotator": None, "seed": 0, "self_blends": [], "code_version": "1",
    }  # fmt: skip
    manifest["counts"] = {"faces": {"made": {"train": FACES}}}
    records = [record_of(number, LABELS[number % 4]) for number in range(FACES)]
    for number in range(2):
        path = folder / "faces" / f"train-made-{number:05d}.parquet"
        rows = write_shard(path, records[number * FACES // 2 : (number + 1) * FACES // 2], "faces")
        manifest["files"][f"faces/{path.name}"] = {
            "sha256": sha256(path), "bytes": path.stat().st_size, "rows": rows,
        }  # fmt: skip
    (folder / "README.md").write_text("Faces.")
    write_card_and_manifest(folder, manifest)
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    return faces_corpus(tmp_path / "corpus")


def options_of(server, **more):
    usual = {"rater": settings(server, "judge"), "prices": PRICES}
    return AnnotateOptions(settings(server), **(usual | more))


REQUESTS = 2 * FACES * 6 // 4  # labels, each annotated and rated


def test_a_corpus_of_faces_is_completed(corpus, capsys):
    with fake_endpoint(good) as server:
        manifest = annotate_corpus(corpus, options_of(server))
        assert len(server.prompts) == REQUESTS
        # Once more, nothing is left to do.
        assert annotate_corpus(corpus, options_of(server)) == read_manifest(corpus) == manifest
        assert len(server.prompts) == REQUESTS
    samples = list(read_samples(corpus))
    assert validate(corpus) == {"faces": FACES, "samples": len(samples)}
    labelled = [sample for sample in samples if sample.label is not None]
    prose = [sample for sample in labelled if sample.form == "prose"]
    assert len(prose) == REQUESTS // 2
    assert all(sample.ratings == Ratings(9, 9, 9, 9, "As it looks.") for sample in labelled)
    told = manifest["endpoint"]
    assert told["annotator"]["model"] == "writer"
    assert told["rater_prompts"]["age"] == prompt_version(RATING["age"])
    assert told["usage"]["judge"]["replies"] == REQUESTS // 2
    assert told["usage"]["writer"]["dollars"] == pytest.approx(
        REQUESTS / 2 * (100 * 1 + 20 * 4) / 1e6
    )
    assert told["prices"]["writer"] == {"input": 1.0, "output": 4.0, "cached": None}
    assert manifest["settings"]["annotator"] is None
    assert KEY not in json.dumps(manifest)
    counts = manifest["counts"]
    assert counts["faces"] == {"made": {"train": FACES}}
    assert sum(counts["ratings"]["overall"].values()) == len(samples)
    assert "Samples kept" in summary(corpus)
    assert sorted(path.name for path in corpus.iterdir()) == [
        "README.md", "faces", "manifest.json", "samples",
    ]  # fmt: skip
    assert (corpus.parent / "corpus.replies.sqlite").is_file()
    assert "answers" in capsys.readouterr().err


def test_other_options_are_refused_and_cost_nothing_when_begun_anew(corpus, tmp_path):
    with fake_endpoint(good) as server:
        annotate_corpus(corpus, options_of(server))
        stricter = options_of(server, threshold=Threshold(10, 10, 10, 10))
        with pytest.raises(BadCorpus, match=r"other options \(threshold\)"):
            annotate_corpus(corpus, stricter)
        cache = tmp_path / "corpus.replies.sqlite"
        again = faces_corpus(tmp_path / "again")
        manifest = annotate_corpus(again, replace(stricter, cache=cache))
        assert len(server.prompts) == REQUESTS
    assert sum(counts["train"] for counts in manifest["counts"]["low_rated"].values()) > 20
    assert {sample.task for sample in read_samples(again)} <= {"unanswerable"}


def test_failures_are_in_the_manifest_and_the_report(corpus):
    def script(prompt, before, body):
        if body["model"] == "judge" and "Age" in prompt:
            return reply("I'm sorry, no.")
        return reply("?") if "Deepfake" in prompt else good(prompt, before, body)

    with fake_endpoint(script) as server:
        manifest = annotate_corpus(corpus, options_of(server, shares=PROSE))
    assert manifest["counts"]["unwritten"] == {
        "deepfake: not the asked-for JSON": FACES // 4,
        "rating of age: refused": FACES // 4,
    }
    assert manifest["counts"]["unrated"] == {"age": {"train": FACES // 4}}
    assert "deepfake: not the asked-for JSON" in summary(corpus)
    assert all(sample.task != "age" for sample in read_samples(corpus))


def test_a_run_without_one_sample_leaves_the_corpus_open(corpus):
    before = contents(corpus)
    refused = reply(None, refusal="I can't help with pictures of people.")

    def script(prompt, *_):
        return trouble(400) if "Deepfake" in prompt else refused

    with fake_endpoint(script) as server:
        for sent in (30 + 25, 5):  # new attempts; then only what was no reply is asked for again
            server.prompts.clear()
            with pytest.raises(EndpointStopped) as caught:
                annotate_corpus(corpus, options_of(server))
            assert len(server.prompts) == sent
            assert contents(corpus) == before
        other = replace(options_of(server), annotator=settings(server, "judge"))
        server.script = lambda prompt, before, body: (
            written() if body["messages"][0]["content"] in ANNOTATION.values() else rated()
        )
        manifest = annotate_corpus(corpus, other)
    assert str(caught.value) == (
        f"None of the 30 labels in '{corpus}' got an answer that can be used, most often (25) for "
        "the reason 'refused'; the corpus is as before and all replies are kept, so try another "
        "model."
    )
    assert manifest["endpoint"]["annotator"]["model"] == "judge"
    assert manifest["endpoint"]["usage"]["writer"]["replies"] == 50
    assert validate(corpus)["samples"] >= 30


def test_a_corpus_without_labels_is_done_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.data_builders.annotate.test_endpoint.LABELS", ({},) * 4)
    corpus = faces_corpus(tmp_path / "corpus")
    assert "endpoint" in annotate_corpus(corpus, options_of("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("frames", [0, -3])
def test_a_model_is_shown_a_picture(frames):
    with pytest.raises(BadSample, match=f"frames shown are {frames}; there must be at least 1"):
        options_of("http://127.0.0.1:1/v1", frames=frames)


def test_replies_lie_beside_a_corpus_however_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "corpus" / "faces").mkdir(parents=True)
    for inside, name in (("corpus", "."), ("corpus/faces", ".."), ("", "corpus")):
        monkeypatch.chdir(tmp_path / inside)
        assert replies_of(Path(name)) == tmp_path / "corpus.replies.sqlite"
    options = options_of("http://127.0.0.1:1/v1", cache=Path("mine"))
    assert options.cache_of(Path(".")) == Path("mine")


def test_a_corpus_that_cannot_be_written_is_told(corpus):
    (corpus / ".annotate").write_text("in the way")
    with fake_endpoint(good) as server, pytest.raises(BadCorpus, match="annotate' cannot be writ"):
        annotate_corpus(corpus, options_of(server))


def test_the_budget_stops_a_run_that_then_goes_on(corpus):
    with fake_endpoint(good) as server:
        with pytest.raises(OutOfBudget, match="raise the cap"):
            annotate_corpus(corpus, options_of(server, max_cost=0.012))
        stopped_at = len(server.prompts)
        assert 2 < stopped_at < REQUESTS
        assert validate(corpus) == {"faces": FACES, "samples": 0}
        manifest = annotate_corpus(corpus, options_of(server, max_cost=10.0))
        assert len(server.prompts) == REQUESTS
    assert sum(used["dollars"] for used in manifest["endpoint"]["usage"].values()) < 0.012


def test_a_dry_run_sends_nothing_and_counts_what_a_run_sends(corpus):
    with fake_endpoint(good) as server:
        text = estimate_corpus(corpus, options_of(server))
        assert server.prompts == []
        annotate_corpus(corpus, options_of(server))
        sent = len(server.prompts)
        assert "nothing would be sent" in estimate_corpus(corpus, options_of(server))
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["writer", "judge"]
    assert sum(int(re.search(r"(\d+) requests", line)[1]) for line in lines) == sent == REQUESTS
    assert not (corpus / ".annotate").exists()


def test_an_endpoint_that_refuses_the_key_stops_with_a_sentence(corpus, caplog):
    with (
        fake_endpoint(lambda *_: trouble(401, f"bad key {KEY}")) as server,
        pytest.raises(EndpointStopped, match=r"refuses the key \(status 401: bad key \*\*\*\)"),
    ):
        annotate_corpus(corpus, options_of(server))
    gc.collect()
    assert caplog.records == []  # no task complains that nobody heard its error


def test_a_corpus_with_samples_is_refused(corpus):
    manifest = read_manifest(corpus)
    manifest["settings"]["annotator"] = "measured 1"
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadCorpus, match=r"already holds samples \(measured 1\)"):
        annotate_corpus(corpus, options_of("http://127.0.0.1:1/v1"))


RUN = """
import sys
from pathlib import Path
from data_builders.endpoint_stage import annotate_corpus
from tests.data_builders.annotate.test_endpoint import options_of
annotate_corpus(Path(sys.argv[2]), options_of(sys.argv[1]))
"""


def test_a_killed_run_goes_on_and_gives_the_same_corpus(corpus, tmp_path):
    def slow(prompt, before, body):
        return replace(good(prompt, before, body), delay=0.1)

    with fake_endpoint(slow) as server:
        command = [sys.executable, "-c", RUN, server.url, str(corpus)]
        run = subprocess.Popen(
            command, cwd=Path(__file__).resolve().parents[3], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while len(server.prompts) < REQUESTS * 3 // 4:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(0.2)
        with EndpointCache(tmp_path / "corpus.replies.sqlite") as cache:
            kept = sum(found.replies for found in cache.totals().values())
        assert (corpus / ".annotate" / "train-made-00000.json").is_file()
        assert len(list(read_faces(corpus))) == FACES
        before = len(server.prompts)
        server.script = good
        annotate_corpus(corpus, options_of(server))
        assert len(server.prompts) == before + REQUESTS - kept
        straight = faces_corpus(tmp_path / "straight")
        annotate_corpus(straight, options_of(server))
    assert list(read_samples(corpus)) == list(read_samples(straight))
    name = "samples/train-made-00001.parquet"
    assert (corpus / name).read_bytes() == (straight / name).read_bytes()


def test_build_leaves_such_a_corpus_and_knows_it_afterwards(tmp_path):
    import skimage.data
    from PIL import Image

    raw = tmp_path / "raw"
    raw.mkdir()
    Image.fromarray(skimage.data.astronaut()[10:200, 125:315]).save(raw / "20_1_0_20170001.jpg")
    options = BuildOptions(measured=False, self_blends=())
    sources = [MixtureEntry(name="utkface", root=raw)]
    build(sources, tmp_path / "c", options, workers=1)
    with fake_endpoint(good) as server:
        manifest = annotate_corpus(tmp_path / "c", options_of(server, rater=None))
    assert build(sources, tmp_path / "c", options, workers=1) == manifest
    (sample, *_) = read_samples(tmp_path / "c")
    assert sample.answer == "Age: 20 years. The brows are lowered. The lips are pressed."
    assert (sample.ratings, sample.kept) == (None, True)
