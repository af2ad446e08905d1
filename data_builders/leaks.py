"""Finds what two parts of a corpus share: people, pictures, near-copies of pictures.

A near-copy is the same photo, compressed, resized or brightened again, perhaps by another dataset.
Its hash is the perceptual hash of the library imagehash, 256 bits, of the crop's middle (144 of 192
pixels: a margin of padding makes different people alike). Pairs up to :data:`RADIUS` bits apart are
told. Measured on canonical crops, with the faces of the copies found anew, which moves the crops:

* Different people: none of 2.4 million pairs of 2200 faces of UTKFace, FER2013 and CelebA. The 14
  pairs that were told were looked at, and are copies within these datasets, and one photo that
  FER2013 and CelebA share. Nearest of different people: 56 bits. The count of pairs falls about
  4 times every 4 bits, so that among 10^6 faces some thousand pairs may be told wrongly: look.
* Copies found, in percent (120 of UTKFace of 200 pixels, 60 of CelebA of 178x218, 60 of FER2013 of
  48 pixels, whose copies are most unlike):

  ==============================  =======  ======  =======
  copy                            UTKFace  CelebA  FER2013
  ==============================  =======  ======  =======
  JPEG, quality 95                     98      98       95
  JPEG, quality 60                     98      93       80
  JPEG, quality 30                     97      95       75
  half size                            98      88       70
  one and a half size                  98      98       93
  brightness x 1.3                     96      95       83
  brightness x 0.7                     93      98       82
  contrast x 1.3                       96      95       90
  grey                                 95      98       97
  4% cut off at each side              88      93       77
  ==============================  =======  ======  =======

The 64-bit hash of the whole crop cannot do it: different people come as near as 4 bits, and copies
of FER2013 are up to 34 apart.

No loop over all pairs: a hash is cut into 16 words of 16 bits, and only pairs with a word that
differs by one bit at most are compared. Up to 31 bits apart, one word must be so near (pigeonhole
principle); of the measured copies between 32 and :data:`RADIUS` bits, all had one. That is
about 1% of all pairs: 16 s of one core for 3 x 10^5 faces, and 600 bytes a face.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import Final, Literal

import imagehash
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data_builders.finished import parent_source
from facellava.corpus import decode_frame, read_shard, shard_source, shards

RADIUS: Final = 44  # bits of 256
MARGIN: Final = 24  # pixels of the crop that are left out at each side
HASH_SIDE: Final = 16
WORDS: Final = HASH_SIDE
WORD_BITS: Final = 16
CHUNK: Final = 1 << 20  # pairs that are compared at once
EXAMPLES_KEPT: Final = 4

Kind = Literal["person", "picture", "near-copy"]
Group = tuple[str, str]
"""Source and split."""
Example = tuple[int, str, str]
"""Bits apart, and the ids of the two faces."""


@dataclass
class Leak:
    """What two parts of a corpus share.

    Attributes:
        first, second: source and split of the parts.
        count: people; pictures; or pairs of near-copies.
        examples: a few of them, the nearest first.
    """

    kind: Kind
    first: Group
    second: Group
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def crosses_splits(self) -> bool:
        """Whether a test, or validation, is spoilt by it; otherwise a face is there twice."""
        return self.first[1] != self.second[1]

    def add(self, count: int, examples: Sequence[Example]) -> None:
        """Count more, and keep the nearest examples."""
        self.count += count
        self.examples = nsmallest(EXAMPLES_KEPT, [*self.examples, *examples])


@dataclass(frozen=True, eq=False)
class Prints:
    """What faces are compared by, N of them; of a clip, its middle frame.

    Attributes:
        ids: of the faces.
        groups: source and split of each part of the corpus.
        group: (N,) place of the face's part in `groups`.
        hashes: (N, 4) uint64, the perceptual hash.
        pictures: (N,) uint64, of the frame's bytes, which all went through one encoder.
        people: (N,) uint64, of source and person; 0 where the person is not known.
    """

    ids: pa.ChunkedArray
    groups: Sequence[Group]
    group: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    pictures: NDArray[np.uint64]
    people: NDArray[np.uint64]


def find_leaks(folder: Path) -> list[Leak]:
    """What the parts of a corpus share: worst kind first, then the greatest count.

    People are compared within a source; its self-blends are faces of it. Pictures are compared
    across splits and across sources; self-blends are like the faces that they were made of, so
    within one split these are not told.

    Raises:
        BadCorpus: there is no finished corpus.
    """
    prints = take_prints(folder)
    names = [parent_source(source) for source, _ in prints.groups]
    splits = [split for _, split in prints.groups]
    same_source = np.equal.outer(names, names)
    same_split = np.equal.outer(splits, splits)
    found: dict[tuple[Kind, int, int], Leak] = {}

    def leak(kind: Kind, first: int, second: int) -> Leak:
        first, second = sorted((first, second))
        new = Leak(kind, prints.groups[first], prints.groups[second])
        return found.setdefault((kind, first, second), new)

    apart = ~(same_source & same_split)
    for first, second, example in _equal(prints, prints.people, same_source & ~same_split):
        leak("person", first, second).add(1, [example])
    for first, second, example in _equal(prints, prints.pictures, apart):
        leak("picture", first, second).add(1, [example])
    for left, right, distances in near_pairs(prints, apart):
        pairs = np.sort(np.stack([prints.group[left], prints.group[right]], axis=1), axis=1)
        for first, second in np.unique(pairs, axis=0).tolist():
            own = np.flatnonzero((pairs == (first, second)).all(axis=1))
            nearest = own[np.argsort(distances[own], kind="stable")[:EXAMPLES_KEPT]]
            examples = [_example(prints, left[n], right[n], distances[n]) for n in nearest]
            leak("near-copy", first, second).add(len(own), examples)
    order: dict[Kind, int] = {"person": 0, "picture": 1, "near-copy": 2}
    return sorted(
        found.values(),
        key=lambda one: (not one.crosses_splits, order[one.kind], -one.count, one.first),
    )


def take_prints(folder: Path) -> Prints:
    """Prints of all faces of a corpus."""
    groups: list[Group] = []
    ids, group, hashes, pictures, people = [], [], [], [], []
    with tqdm(unit="face", desc="prints") as bar:
        for path in shards(folder, "faces"):
            source, split = shard_source(path), path.name.split("-", 1)[0]
            if (source, split) not in groups:
                groups.append((source, split))
            rows = list(read_shard(path, "faces", ["face_id", "subject", "frames"]))
            frames = [row["frames"][len(row["frames"]) // 2] for row in rows]
            names = [_person(source, row["subject"]) for row in rows]
            ids.append(pa.array([row["face_id"] for row in rows], pa.string()))
            group.append(np.full(len(rows), groups.index((source, split)), np.int32))
            hashes.append(np.stack([perceptual_hash(frame) for frame in frames]))
            pictures.append(np.array([_digest(frame) for frame in frames], np.uint64))
            people.append(np.array(names, np.uint64))
            bar.update(len(rows))
    return Prints(
        pa.chunked_array(ids),
        groups,
        np.concatenate(group),
        np.concatenate(hashes),
        np.concatenate(pictures),
        np.concatenate(people),
    )


def perceptual_hash(frame: bytes) -> NDArray[np.uint64]:
    """(4,) uint64 of a frame of the corpus.

    Raises:
        BadCorpus: the frame is damaged.
    """
    middle = decode_frame(frame)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    bits = imagehash.phash(Image.fromarray(middle), hash_size=HASH_SIDE).hash
    return np.packbits(bits).view(np.uint64)


def _person(source: str, subject: str | None) -> int:
    return 0 if subject is None else _digest(f"{parent_source(source)}:{subject}".encode())


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _example(prints: Prints, first: int, second: int, distance: int) -> Example:
    return int(distance), prints.ids[int(first)].as_py(), prints.ids[int(second)].as_py()


def _equal(
    prints: Prints, values: NDArray[np.uint64], wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, int, Example]]:
    """Each value that two wanted parts share: the parts, and one face of each; 0 is no value."""
    order = np.lexsort((prints.group, values))
    order = order[values[order] != 0]
    if not len(order):
        return
    value, group = values[order], prints.group[order]
    is_first = np.ones(len(order), bool)  # the first face of its value and part
    is_first[1:] = (value[1:] != value[:-1]) | (group[1:] != group[:-1])
    order, value = order[is_first], value[is_first]
    is_new = np.ones(len(value), bool)
    is_new[1:] = value[1:] != value[:-1]
    starts = np.flatnonzero(is_new)
    stops = np.append(starts[1:], len(value))
    for start, stop in zip(starts, stops, strict=True):
        for place in range(start, stop - 1):
            for other in range(place + 1, stop):
                first, second = prints.group[order[place]], prints.group[order[other]]
                if wanted[first, second]:
                    yield int(first), int(second), _example(prints, order[place], order[other], 0)


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def near_pairs(prints: Prints, wanted: NDArray[np.bool_], radius: int = RADIUS) -> Iterator[Pairs]:
    """Pairs of faces of wanted parts whose hashes are near, and whose pictures are not the same.

    Args:
        wanted: (parts, parts) symmetric.

    Yields:
        Places of the first and of the second faces, and the bits between them. A pair comes once.
    """
    words = _words(prints.hashes)
    for word, left, right in _candidates(words):
        here = wanted[prints.group[left], prints.group[right]]
        left, right = left[here], right[here]
        apart = np.bitwise_count(prints.hashes[left] ^ prints.hashes[right]).sum(1, dtype=np.int64)
        here = (apart <= radius) & (prints.pictures[left] != prints.pictures[right])
        # A pair with several words alike was there before.
        before = np.bitwise_count(words[left[here], :word] ^ words[right[here], :word]) <= 1
        here[here] = ~before.any(axis=1)
        if here.any():
            yield left[here], right[here], apart[here]


def _words(hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """(N, 16) the bits of the hashes, neighbours in different words.

    Neighbouring bits are coefficients of like frequency, which all faces have nearly alike: a word
    of them would be the same for too many.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    mixed = bits[:, np.arange(WORDS * WORD_BITS) * 97 % (WORDS * WORD_BITS)]
    return np.ascontiguousarray(np.packbits(mixed, axis=1)).view(np.uint16)


def _candidates(
    words: NDArray[np.uint16],
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs that have one word alike, or one bit of it different; the word, and their places."""
    flips = [0, *(1 << bit for bit in range(WORD_BITS))]
    with tqdm(total=WORDS * len(flips), desc="near-copies", unit="pass") as bar:
        for word in range(WORDS):
            order = np.argsort(words[:, word], kind="stable")
            value = words[order, word].astype(np.int64)
            starts = np.searchsorted(value, np.arange((1 << WORD_BITS) + 1))
            places = np.arange(len(value))
            for flip in flips:
                other = value ^ flip
                # Each pair once: with the later ones of its own value; from 0 to 1 of the bit.
                first = starts[other] if flip else places + 1
                count = np.where(value & flip, 0, starts[other + 1] - first)
                for left, right in _spread(count, first):
                    yield word, order[left], order[right]
                bar.update()


def _spread(
    count: NDArray[np.int64], first: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each place n with first[n], first[n] + 1 ... count[n] of them, a chunk after the other."""
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(CHUNK, total[-1] + CHUNK, CHUNK))
    start = 0
    for cut in cuts:
        part = slice(start, min(int(cut) + 1, len(count)))
        start = part.stop
        left = np.repeat(np.arange(part.start, part.stop), count[part])
        if len(left):
            run = np.arange(len(left)) - np.repeat(
                np.cumsum(count[part]) - count[part], count[part]
            )
            yield left, first[left] + run
