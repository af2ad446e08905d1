"""Chooses what the report page shows of a corpus: samples to look at, and the faces they need."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from data_builders.leaks import Group
from facellava.corpus import FaceRecord, Sample, read_shard, shard_source, shards

RATINGS: Final = ("rating_label", "rating_face", "rating_text", "rating_overall")
LOW: Final = 4  # a sample with a rating up to it is shown among the low-rated ones


@dataclass(frozen=True)
class Pick:
    """A sample that is shown.

    Attributes:
        group: source and split of its face.
        low: chosen for its low ratings, not by chance.
    """

    group: Group
    sample: Sample
    low: bool


@dataclass
class _Best:
    """The few rows with the least keys."""

    most: int
    rows: list[tuple[Any, Group, Mapping[str, Any]]] = field(default_factory=list)

    def add(self, key: Any, group: Group, row: Mapping[str, Any]) -> None:
        if len(self.rows) < self.most or key < self.rows[-1][0]:
            insort(self.rows, (key, group, row), key=lambda item: item[0])
            del self.rows[self.most :]


def pick_samples(
    folder: Path, seed: int, by_chance: int, low_rated: int, most: int
) -> dict[tuple[str, str], list[Pick]]:
    """A few samples for each source and task.

    Args:
        seed: decides the choice.
        by_chance: of each source and task, among all that there are.
        low_rated: of each source and task, those with the lowest ratings.
        most: in all; where it is too few, each source and task has fewer, and at least one.
    """
    chance: dict[tuple[str, str], _Best] = {}
    low: dict[tuple[str, str], _Best] = {}
    with tqdm(unit="sample", desc="choose samples") as bar:
        for path in shards(folder, "samples"):
            group = shard_source(path), path.name.split("-", 1)[0]
            for row in read_shard(path, "samples"):
                bar.update()
                place = group[0], row["task"]
                drawn = hashlib.sha256(f"{seed}:{row['sample_id']}".encode()).digest()
                chance.setdefault(place, _Best(by_chance)).add(drawn, group, row)
                ratings = [row[name] for name in RATINGS if row[name] is not None]
                if not row["kept"] or min(ratings, default=LOW + 1) <= LOW:
                    key = (row["kept"], sum(ratings), drawn)
                    low.setdefault(place, _Best(low_rated)).add(key, group, row)
    share = max(1, most // max(1, len(chance)))
    return {
        place: _picks(chance[place], low.get(place, _Best(0)), share) for place in sorted(chance)
    }


def _picks(chance: _Best, low: _Best, most: int) -> list[Pick]:
    picks = [Pick(group, Sample.from_row(row), False) for _, group, row in chance.rows]
    shown = {pick.sample.sample_id for pick in picks}
    picks += [
        Pick(group, Sample.from_row(row), True)
        for _, group, row in low.rows
        if row["sample_id"] not in shown
    ]
    return picks[:most]


def faces_by_id(folder: Path, wanted: Mapping[Group, Iterable[str]]) -> dict[str, FaceRecord]:
    """Faces of a corpus.

    Args:
        wanted: source and split to the ids of faces in it.
    """
    found = {}
    for path in shards(folder, "faces"):
        ids = set(wanted.get((shard_source(path), path.name.split("-", 1)[0]), ()))
        if any(row["face_id"] in ids for row in read_shard(path, "faces", ["face_id"])):
            for row in read_shard(path, "faces"):
                if row["face_id"] in ids:
                    found[row["face_id"]] = FaceRecord.from_row(row)
    return found
