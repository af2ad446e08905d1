"""Lists that benchmarks publish: a name and a label in each line, in one file for each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data_builders.raw_face import Drops
from facellava.errors import BadCorpus

Pairs = Sequence[tuple[str, str]]
"""Name and label, as they are written."""


@dataclass(frozen=True)
class FoldClip:
    """A clip of a benchmark with folds.

    Attributes:
        label: the source's own word or id.
        fold: the one in which the clip is tested, counted from 1.
    """

    name: str
    label: str
    fold: int


def read_pairs(path: Path, dataset: str) -> list[tuple[str, str]]:
    """The lines of a list such as ``00025.mp4 happiness``; empty lines are passed over.

    Raises:
        BadCorpus: a line that is not two words.
    """
    pairs = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise BadCorpus(
                f"{dataset}: line {number} of '{path}' is {line!r}; a name and a label are "
                "expected."
            )
        pairs.append((words[0], words[1]))
    return pairs


def clips_of_folds(
    dataset: str, lists: Sequence[tuple[Pairs, Pairs]], drops: Drops
) -> Iterator[FoldClip]:
    """The clips that one fold tests and all others train on, by name.

    Args:
        lists: the train and the test list of each fold, the first fold first.
        drops: counts the clips on which the lists do not agree.

    Raises:
        BadCorpus: a train list holds a clip of its own test list.
    """
    labels: dict[str, set[str]] = {}
    folds: dict[str, list[int]] = {}
    trained: Counter[str] = Counter()
    for fold, (train, test) in enumerate(lists, start=1):
        for name, label in chain(train, test):
            labels.setdefault(name, set()).add(label)
        train_names, test_names = {name for name, _ in train}, {name for name, _ in test}
        leaked = sorted(train_names & test_names)
        if leaked:
            raise BadCorpus(
                f"{dataset}: {len(leaked)} clips, such as '{leaked[0]}', are in the train list "
                f"and in the test list of fold {fold}; get the lists again."
            )
        trained.update(train_names)
        for name in test_names:
            folds.setdefault(name, []).append(fold)
    for name in sorted(labels):
        tested = folds.get(name, [])
        if not tested:
            drops.add("clip is in no test list", name)
        elif len(tested) > 1:
            drops.add("clip is in several test lists", name)
        elif len(labels[name]) > 1:
            drops.add("clip has several labels", name)
        elif trained[name] < len(lists) - 1:
            drops.add("clip is missing in a train list", name)
        else:
            yield FoldClip(name, labels[name].pop(), tested[0])
