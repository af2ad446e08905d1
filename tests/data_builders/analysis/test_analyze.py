"""Corpora of made-up faces, read by the embedded model: what is measured, told and refused."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data

from data_builders.analysis.analyze import analyze, face_embeddings
from data_builders.analysis.apparent import Guess, guesses, summarised
from facellava.corpus import write_shard
from facellava.errors import BadCorpus, BadSample
from facellava.faces import find_faces
from facellava.predictor import FaceLlava
from facellava.records import record_of

LOOKS = {"anger": 0, "happiness": 1, "surprise": 2}


@pytest.fixture(scope="module")
def face():
    return find_faces(np.ascontiguousarray(skimage.data.astronaut()[:300, 60:390]))[0]


@pytest.fixture(scope="module")
def nano():
    return FaceLlava.load()


def looking(face, expression: str, rng, dark: float = 1.0):
    """The portrait with a mark for its expression, noise, and a set's own light."""
    crop = face.crop.astype(float)
    place = 40 + 40 * LOOKS[expression]
    cv2.rectangle(crop, (20, place), (170, place + 30), (250, 250, 250), -1)
    crop = (crop + rng.normal(0, 25, crop.shape)) * dark
    return replace(face, crop=np.clip(crop, 0, 255).astype(np.uint8))


def records(face, source: str, each: int, dark: float = 1.0, split: str = "train", **facts):
    """As many faces of each expression."""
    rng = np.random.default_rng(len(source))
    return [
        record_of(
            [looking(face, word, rng, dark)],
            **{
                "face_id": f"{source}/{split}/{word}/{number}",
                "source": source,
                "split": split,
                "labels": {"expression": word},
                "licence": "free",
                "origin": str(number),
                **facts,
            },
        )
        for word in LOOKS
        for number in range(each)
    ]


def write_corpus(folder, *sets):
    for found in sets:
        name = f"{found[0].split}-{found[0].source}-00000.parquet"
        write_shard(folder / "faces" / name, found, "faces")
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def corpus(face, tmp_path_factory):
    """Two sets to measure, one of five faces, one without expressions."""
    known = {"labels": {"age": 30}, "demographics": {"gender": "female"}}
    return write_corpus(
        tmp_path_factory.mktemp("analysed") / "corpus",
        records(face, "bright", 13),
        records(face, "dark", 12, dark=0.5),
        records(face, "tiny", 2)[:5],
        records(face, "silent", 2, **known),
    )


@pytest.fixture(scope="module")
def analysed(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("analysed") / "out"
    return analyze([corpus], out, asked=3), out


def test_sets_are_measured_on_the_same_number_of_faces(analysed):
    analysis, _ = analysed
    by_name = {each.name: each for each in analysis.sets}
    assert list(by_name) == ["bright", "dark", "silent", "tiny"]
    assert [(each.faces, each.labelled) for each in analysis.sets] == [
        (39, 39), (36, 36), (6, 0), (5, 5),
    ]  # fmt: skip
    assert analysis.model == "nano"
    assert analysis.faces_a_set == 36
    assert sum(by_name["bright"].compared.values()) == 36
    assert by_name["dark"].compared == {"anger": 12, "happiness": 12, "surprise": 12}
    assert by_name["silent"].unmeasured == "no expression labels"
    assert by_name["tiny"].unmeasured == "only 5 faces with an expression, 30 are needed"
    assert by_name["tiny"].local_similarity is None


def test_marked_faces_are_easy_general_and_alike(analysed):
    analysis, _ = analysed
    for each in analysis.measured:
        assert each.local_similarity.value > 0.95
        assert each.own_accuracy > 0.9
    assert analysis.measured[1].halves.value > 0.95
    [pair] = analysis.pairs
    assert (pair.one, pair.other) == ("bright", "dark")
    assert pair.expressions == sorted(LOOKS)
    assert pair.similarity.value > 0.5
    assert analysis.transfer_rank is None


def test_people_are_told_as_guesses_beside_what_the_source_says(analysed):
    analysis, _ = analysed
    [silent] = [each.apparent for each in analysis.sets if each.name == "silent"]
    assert silent.faces == sum(silent.ages.values()) == 3
    assert (silent.age_known, silent.gender_known) == (3, 3)
    assert 0 <= silent.age_error < 60
    # All are said to be women: recall of the two cannot be told.
    assert silent.gender_recall is None
    [bright] = [each.apparent for each in analysis.sets if each.name == "bright"]
    assert (bright.age_known, bright.age_error) == (0, None)


def test_tables_numbers_and_a_picture_are_written(analysed):
    analysis, out = analysed
    assert sorted(path.name for path in out.iterdir()) == [
        "analysis.json", "analysis.md", "similarity.png",
    ]  # fmt: skip
    told = json.loads((out / "analysis.json").read_text("utf-8"))
    assert told == json.loads(json.dumps(analysis.to_dict()))
    text = (out / "analysis.md").read_text("utf-8")
    assert "| tiny | 5 | 5 | not measured: only 5 faces" in text
    assert "Only its abstract was at hand" in text
    assert "Guesses of the model nano" in text
    assert "With 1 pair(s) of sets nothing can be said" in text
    chart = cv2.imread(str(out / "similarity.png"))
    assert chart.shape[0] > 300
    assert chart.std() > 20


def test_the_seed_decides_everything(corpus, tmp_path):
    def written(name: str, seed: int) -> dict[str, bytes]:
        analyze([corpus], tmp_path / name, limit=31, asked=0, seed=seed)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first, second, other = written("first", 1), written("second", 1), written("other", 2)
    assert first == second
    assert first["analysis.json"] != other["analysis.json"]
    assert json.loads(first["analysis.json"])["faces_a_set"] == 31


def test_a_limit_below_what_is_needed_is_told_with_what_there_is(corpus, tmp_path):
    analysis = analyze([corpus], tmp_path, limit=2, asked=0)
    told = {each.name: each.unmeasured for each in analysis.sets}
    assert told["bright"] == "only 2 of 39 faces with an expression drawn, 30 are needed"
    assert told["silent"] == "no expression labels"


def test_splits_and_corpora_can_be_the_sets(face, corpus, tmp_path):
    again = write_corpus(
        tmp_path / "again",
        records(face, "bright", 1),
        records(face, "bright", 1, split="test"),
    )
    by_split = analyze([again], tmp_path / "out", by="split", asked=0)
    assert [each.name for each in by_split.sets] == ["bright/test", "bright/train"]
    by_source = analyze([corpus, again], tmp_path / "out", limit=2, asked=0)
    assert [each.name for each in by_source.sets] == [
        f"bright in {corpus}", f"bright in {again}", "dark", "silent", "tiny",
    ]  # fmt: skip
    assert [each.faces for each in by_source.sets[:2]] == [39, 6]


def test_sets_without_expressions_are_told_by_their_people_only(face, tmp_path):
    silent = write_corpus(tmp_path / "corpus", records(face, "silent", 1, labels={}))
    analysis = analyze([silent], tmp_path / "out", asked=1)
    assert (analysis.measured, analysis.pairs, analysis.faces_a_set) == ([], [], 0)
    text = (tmp_path / "out" / "analysis.md").read_text("utf-8")
    assert "Paired Similarity\n" not in text
    assert "## Apparent age and gender" in text
    assert (tmp_path / "out" / "similarity.png").stat().st_size > 0


def test_embeddings_have_length_one_and_clips_are_the_mean_of_their_frames(face, nano):
    rng = np.random.default_rng(0)
    frames = [looking(face, word, rng) for word in LOOKS]
    facts = {
        "source": "s", "split": "train", "labels": {}, "licence": "free", "origin": "here",
    }  # fmt: skip
    clip = record_of(frames, face_id="clip", **facts)
    photos = [record_of([frame], face_id=str(n), **facts) for n, frame in enumerate(frames)]
    found = face_embeddings(nano, [photos[0], clip, *photos[1:]])
    assert found.shape == (4, nano.model.config.hidden_size)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert found[1] @ found[[0, 2, 3]].mean(axis=0) > 0.9
    moved = replace(photos[0], landmarks=photos[0].landmarks + np.float32(0.1))
    assert not np.allclose(face_embeddings(nano, [moved])[0], found[0], atol=1e-3)
    assert len(guesses(nano.scorer, [clip, photos[0]])) == 2


def test_guesses_are_what_the_model_answers(face, nano):
    record = record_of(
        [face],
        **{"face_id": "a", "source": "s", "split": "train", "labels": {}, "licence": "free"},
        origin="here",
    )
    [guess] = guesses(nano.scorer, [record])
    [answer] = nano.ask_many(record.faces(), ["How old is this person?"])
    assert guess.age == answer.label
    assert 0 <= guess.male <= 1


def test_guesses_are_summed_up_with_their_error(face):
    women, men = (
        records(face, "s", 1, labels={"age": age}, demographics={"gender": gender})
        for age, gender in ((20, "female"), (50, "male"))
    )
    attribute = records(face, "celeba", 1, labels={"attributes": {"male": True}})[:1]
    found = summarised(
        [*women, *men, *attribute],
        [Guess(25, 0.1)] * 2 + [Guess(25, 0.9)] + [Guess(116, 0.8)] * 4,
    )
    assert found.ages == {**dict.fromkeys(range(0, 120, 10), 0), 20: 3, 110: 4}
    assert found.mean_age == pytest.approx((3 * 25 + 4 * 116) / 7)
    assert (found.faces, found.age_known, found.gender_known) == (7, 6, 7)
    assert found.age_error == pytest.approx((3 * 5 + 3 * 66) / 6)
    assert found.male == pytest.approx(5 / 7)
    assert found.gender_recall == pytest.approx((2 / 3 + 1) / 2)


def test_what_cannot_be_analysed_is_told_in_a_sentence(corpus, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    with pytest.raises(BadCorpus, match="There is no corpus folder"):
        analyze([tmp_path / "nowhere"], out)
    with pytest.raises(BadCorpus, match="hold no faces"):
        analyze([tmp_path / "empty"], out)
    with pytest.raises(BadCorpus, match="give each once, at least one"):
        analyze([corpus, corpus], out)
    with pytest.raises(BadCorpus, match="give each once, at least one"):
        analyze([], out)
    with pytest.raises(BadSample, match="a set is a source or a split"):
        analyze([corpus], out, by="fold")
    with pytest.raises(BadSample, match="The limit is 0 and asked is 64"):
        analyze([corpus], out, limit=0)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(BadCorpus, match="out' cannot be written"):
        analyze([corpus], out, limit=1)
    with pytest.raises(BadCorpus, match="cannot be written"):
        analyze([corpus], out / "below", limit=1)
