from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_builders.leaks import RADIUS, Leak, Prints, find_leaks, near_pairs, perceptual_hash
from facellava.corpus import FaceRecord, encode_frame
from tests.data_builders.written_corpus import crop, record, usual_corpus, write_corpus


def altered(number: int, side: int = 96, quality: int = 60, gain: float = 1.2) -> np.ndarray:
    """The picture brighter, smaller and compressed, as another dataset would hold it."""
    small = cv2.resize(crop(number), (side, side), interpolation=cv2.INTER_AREA)
    brighter = np.clip(small * gain, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", brighter, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (192, 192))


def elsewhere(shown: FaceRecord, split: str, source: str = "dfew", **facts) -> FaceRecord:
    facts = {"face_id": f"{source}-{shown.face_id}-{split}", "subject": None} | facts
    return replace(shown, source=source, split=split, **facts)


def leaks_of(folder: Path, *faces: FaceRecord) -> list[Leak]:
    return find_leaks(write_corpus(folder, faces, []))


def test_a_corpus_without_leaks_has_none(tmp_path):
    assert find_leaks(usual_corpus(tmp_path)) == []


def test_the_same_picture_in_another_dataset_and_split(tmp_path):
    first = record(0)
    [leak] = leaks_of(tmp_path, first, record(1), elsewhere(first, "test"))
    assert leak == Leak(
        "picture", ("dfew", "test"), ("celeba", "train"), 1,
        [(0, "dfew-celeba-0/é-test", "celeba-0/é")],
    )  # fmt: skip
    assert leak.crosses_splits


def test_a_picture_twice_in_one_split_is_told_for_two_datasets_only(tmp_path):
    first = record(0)
    again = replace(first, face_id="again")
    [leak] = leaks_of(tmp_path, first, again, elsewhere(first, "train"))
    assert (leak.kind, leak.count, leak.crosses_splits) == ("picture", 1, False)


def test_near_copies_are_found_across_splits_and_other_faces_are_not(tmp_path):
    copy = record(1, "test", pictures=[altered(1)], face_id="copy", subject=None)
    [leak] = leaks_of(tmp_path, *[record(n) for n in range(12)], copy)
    assert (leak.kind, leak.count) == ("near-copy", 1)
    [(distance, *ids)] = leak.examples
    assert set(ids) == {"copy", "celeba-1/é"}
    assert 0 < distance <= RADIUS


@pytest.mark.parametrize("changes", [{"quality": 30}, {"side": 64}, {"gain": 0.7}, {"gain": 1.4}])
def test_a_copy_is_near_and_another_picture_far(changes):
    own, copy, other = (
        perceptual_hash(encode_frame(pixels))
        for pixels in (crop(2), altered(2, **changes), crop(5))
    )
    assert np.bitwise_count(own ^ copy).sum() <= RADIUS
    assert np.bitwise_count(own ^ other).sum() > 2 * RADIUS


def test_people_are_compared_within_a_source_and_its_blends(tmp_path):
    facts = {"source": "celeba_self_blended", "face_id": "b", "subject": "p0"}
    leaks = leaks_of(
        tmp_path,
        record(0),
        record(1),
        record(2, "validation", subject="p1"),
        record(3, "test", **facts),
        record(4, "test", source="dfew", face_id="d", subject="p1"),
    )
    assert [(leak.kind, leak.first, leak.second, leak.count) for leak in leaks] == [
        ("person", ("celeba", "train"), ("celeba", "validation"), 1),
        ("person", ("celeba_self_blended", "test"), ("celeba", "train"), 1),
    ]


def test_blends_of_the_same_split_are_no_leak(tmp_path):
    blend = elsewhere(record(0), "train", "celeba_self_blended", subject="p0")
    assert leaks_of(tmp_path, record(0), blend) == []


def test_of_a_clip_the_middle_frame_counts(tmp_path):
    clip = record(0, "test", pictures=[crop(3), crop(1), crop(4)], face_id="clip", subject=None)
    [leak] = leaks_of(tmp_path, record(0), record(1), clip)
    assert leak.examples == [(0, "clip", "celeba-1/é")]


def random_prints(count: int, parts: int) -> Prints:
    """Hashes of which many are close to one another."""
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.random((count // 10, 256)) < 0.5, 10, axis=0)
    bits ^= rng.random(bits.shape) < rng.choice([0.01, 0.04, 0.08], (count, 1))
    return Prints(
        None,
        [("s", "train")] * parts,
        rng.integers(0, parts, count, dtype=np.int32),
        np.packbits(bits, axis=1).view(np.uint64),
        np.arange(1, count + 1, dtype=np.uint64),
        np.zeros(count, np.uint64),
    )


def test_every_pair_within_31_bits_is_found_once(monkeypatch):
    monkeypatch.setattr("data_builders.leaks.CHUNK", 100)
    prints = random_prints(600, 3)
    wanted = ~np.eye(3, dtype=bool)
    found = [
        (min(pair), max(pair), int(apart))
        for left, right, distances in near_pairs(prints, wanted, 31)
        for *pair, apart in zip(left.tolist(), right.tolist(), distances, strict=True)
    ]
    first, second = np.triu_indices(600, 1)
    apart = np.bitwise_count(prints.hashes[first] ^ prints.hashes[second]).sum(axis=1)
    near = (apart <= 31) & (prints.group[first] != prints.group[second])
    brute = list(
        zip(first[near].tolist(), second[near].tolist(), apart[near].tolist(), strict=True)
    )
    assert len(brute) > 500
    assert sorted(found) == sorted(brute)
