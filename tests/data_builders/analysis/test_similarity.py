"""The measures on points whose answers are known."""

import numpy as np
import pytest

from data_builders.analysis.similarity import (
    LabelledFaces,
    Measure,
    global_similarity,
    halves,
    local_similarity,
    own_accuracy,
    paired_similarity,
    rank_correlation,
    shared_expressions,
    transfer,
)
from facellava.errors import BadSample

WORDS = ("anger", "fear", "happiness", "neutral")
WIDTH = 24


def faces(
    seed: int, *, each: int = 40, apart: float = 1.0, noise: float = 0.15, words=WORDS, offset=0.0
) -> LabelledFaces:
    """Clouds of unit vectors, one a word: word n lies along axis n, `apart` long."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.array(words), each)
    points = rng.normal(0, noise, (len(labels), WIDTH))
    points[:, -1] += 1.0 + offset
    for word in words:
        points[labels == word, WORDS.index(word)] += apart
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return LabelledFaces(points.astype(np.float32), labels)


def relabelled(found: LabelledFaces, swaps: dict[str, str]) -> LabelledFaces:
    labels = np.array([swaps.get(word, word) for word in found.labels.tolist()])
    return LabelledFaces(found.embeddings, labels)


def shuffled(found: LabelledFaces) -> LabelledFaces:
    return LabelledFaces(found.embeddings, np.random.default_rng(3).permutation(found.labels))


def test_clouds_far_apart_are_easy():
    found = local_similarity(faces(0))
    assert found == Measure(1.0, 1.0, 1.0, pytest.approx(39 / 159))
    assert own_accuracy(faces(0)) == 1.0


def test_labels_by_lot_bring_local_similarity_to_chance():
    found = local_similarity(shuffled(faces(0, each=100)))
    assert found.chance == pytest.approx(99 / 399)
    assert found.value == pytest.approx(found.chance, abs=0.05)
    assert found.low < found.value < found.high


def test_a_neighbour_of_another_expression_counts_by_its_share():
    angles = np.array([*np.linspace(0, 0.1, 7), *np.linspace(1, 1.1, 6), 0.05])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array(["anger"] * 7 + ["fear"] * 7)
    found = local_similarity(LabelledFaces(points, labels))
    # One fear lies upon the middle anger: it has no neighbour of its own, the other six only such.
    fear = 6 / 7
    # And it is one of the five nearest of each anger.
    anger = 4 / 5
    assert found.value == pytest.approx((fear + anger) / 2)


def test_expressions_count_alike_however_many_faces_they_have():
    many, few = faces(0, each=90, words=("anger",)), faces(1, each=10, words=("fear", "neutral"))
    both = LabelledFaces(
        np.concatenate([many.embeddings, few.embeddings]),
        np.concatenate([many.labels, few.labels]),
    )
    mixed = relabelled(both, {"neutral": "fear"})
    lost = LabelledFaces(mixed.embeddings, np.where(np.arange(110) < 45, "fear", mixed.labels))
    assert local_similarity(mixed).value == 1.0
    # Half of anger's cloud is now called fear: both words suffer, and neither by its size alone.
    assert local_similarity(lost).value < 0.75


def test_rare_expressions_are_left_out():
    labels = faces(0).labels.astype("U10")
    labels[:5] = "disgust"
    found = LabelledFaces(faces(0).embeddings, labels)
    assert shared_expressions(found) == sorted(WORDS)
    assert shared_expressions(found, faces(1, words=("fear", "neutral"))) == ["fear", "neutral"]
    assert local_similarity(found) == local_similarity(found.showing(WORDS))


def test_global_similarity_is_high_where_the_centres_hold_elsewhere():
    found = global_similarity(faces(0), [faces(1), faces(2, offset=0.5)])
    assert found == Measure(1.0, 1.0, 1.0, 0.25)
    by_lot = global_similarity(shuffled(faces(0, each=200)), [faces(1), faces(2)])
    assert by_lot is not None
    assert by_lot.value < 0.7
    swapped = relabelled(faces(1), {"anger": "fear", "fear": "anger"})
    half = global_similarity(faces(0), [swapped])
    assert half == Measure(0.5, 0.5, 0.5, 0.25)


def test_global_similarity_needs_another_set_with_two_of_the_expressions():
    assert global_similarity(faces(0), []) is None
    assert global_similarity(faces(0), [faces(1, words=("fear",))]) is None


def test_halves_of_a_set_are_alike_and_more_so_than_another_set():
    # Noise that hides the directions of single faces, but not of many.
    one, other = faces(0, noise=0.5, each=30), faces(1, noise=0.5, each=30, apart=1.0)
    turned = LabelledFaces(np.roll(other.embeddings, 1, axis=1), other.labels)
    own = paired_similarity(*halves(one))
    assert own is not None
    assert own.value > 0.9
    assert paired_similarity(one, other).value > 0.9
    assert paired_similarity(one, turned).value < own.low
    assert own.low <= own.value <= own.high <= 1.0


def test_paired_similarity_does_not_depend_on_the_number_of_faces():
    """Without the correction, eight faces an expression would give about 0.7."""
    values = [
        paired_similarity(faces(n, each=8, noise=0.6), faces(99 - n, each=200, noise=0.6)).value
        for n in range(12)
    ]
    assert np.mean(values) == pytest.approx(1.0, abs=0.07)


def test_paired_similarity_has_no_direction_and_no_offset():
    one, other = faces(0), faces(1, offset=2.0)
    there, back = paired_similarity(one, other), paired_similarity(other, one)
    assert there.value == pytest.approx(back.value)
    assert there.value > 0.98


def test_contradicting_labels_lower_paired_similarity_below_zero():
    words = ("anger", "fear")
    one, other = faces(0, words=words), faces(1, words=words)
    swapped = relabelled(other, {"anger": "fear", "fear": "anger"})
    assert paired_similarity(one, swapped).value < -0.98


def test_paired_similarity_is_not_told_where_expressions_lie_as_close_as_chance_has_them():
    found = [paired_similarity(faces(0), faces(n, apart=0.0)) for n in range(1, 9)]
    assert None in found
    assert paired_similarity(faces(0), faces(1, words=("fear",))) is None


def test_halves_share_every_expression_and_no_face():
    one, other = halves(faces(0, each=7), seed=5)
    assert [list(np.unique(half.labels, return_counts=True)[1]) for half in (one, other)] == [
        [3] * 4,
        [4] * 4,
    ]
    rows = {row.tobytes() for row in one.embeddings} & {row.tobytes() for row in other.embeddings}
    assert rows == set()


def test_transfer_has_a_direction():
    sharp, vague = faces(0), faces(1, noise=0.6)
    assert transfer(vague, sharp) > transfer(sharp, shuffled(sharp))
    assert transfer(sharp, faces(2)) == 1.0
    assert transfer(sharp, faces(2, words=("fear",))) is None


def test_the_seed_decides_the_intervals():
    vague = faces(0, noise=0.6)
    assert local_similarity(vague, seed=1) == local_similarity(vague, seed=1)
    assert local_similarity(vague, seed=1).low != local_similarity(vague, seed=2).low


def test_rank_correlation_needs_three_different_pairs():
    assert rank_correlation([0.1, 0.5, 0.9], [1, 2, 3]) == pytest.approx(1.0)
    assert rank_correlation([0.1, 0.5, 0.9], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([0.1, 0.5], [1, 2]) is None
    assert rank_correlation([1.0, 1.0, 1.0], [1, 2, 3]) is None


@pytest.mark.parametrize("found", [faces(0, each=5), faces(0, words=("fear",))])
def test_too_few_faces_or_expressions_are_refused(found):
    with pytest.raises(BadSample, match="two are needed, so give more faces"):
        local_similarity(found)
    with pytest.raises(BadSample, match="two are needed"):
        own_accuracy(found)


def test_labels_must_fit_the_embeddings():
    with pytest.raises(BadSample, match=r"do not fit; give \(faces, width\)"):
        LabelledFaces(np.zeros((3, 2), np.float32), np.array(["fear"]))
