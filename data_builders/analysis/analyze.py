"""What the sets of faces in corpora are like: how hard, how general, how alike, and of whom.

The outline is that of the study that :mod:`data_builders.analysis.similarity` names: one
normalisation for all sets, apparent age and gender by a model, three measures. Ours in short:

* normalisation: the corpus' own, the same canonical crop, size and colour for every source;
* embedding of a face: the mean of the image tokens that the model's face encoder gives to the
  language model, behind the region attention, scaled to length 1; of a clip, over all its frames;
* samples: of each set the same number of faces, drawn by lot with a seed.

The encoder was taught on some of these sets (nano's model card says which), so nano finds their
expressions easier than others' of the same kind.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data_builders.analysis.apparent import Guess, guesses, summarised
from data_builders.analysis.comparison import Analysis, DrawnSet, compare
from data_builders.analysis.similarity import LabelledFaces
from data_builders.analysis.tables import analysis_text, similarity_chart
from data_builders.build import space_is_needed
from facellava.corpus import read_shard, shards
from facellava.errors import BadCorpus, BadSample
from facellava.predictor import FaceLlava, embedded_weights
from facellava.records import FaceRecord, from_json

By = Literal["source", "split"]
LIMIT: Final = 2000
ASKED: Final = 64
BATCH: Final = 32
ID_COLUMNS: Final = ("face_id", "source", "split", "labels")

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Candidate:
    """A face of a set; `lot` is a number that only the seed and the face's id decide."""

    lot: int
    shard: Path
    face_id: str


@dataclass
class Draw:
    """Some faces of a set, drawn by lot: of those with an expression, where there are any."""

    limit: int
    faces: int = 0
    labelled: int = 0
    _heaps: dict[bool, list[Candidate]] = field(default_factory=lambda: {True: [], False: []})

    def add(self, candidate: Candidate, *, labelled: bool) -> None:
        self.faces += 1
        self.labelled += labelled
        heap = self._heaps[labelled]
        keep = heapq.heappush if len(heap) < self.limit else heapq.heappushpop
        keep(heap, candidate)

    @property
    def chosen(self) -> list[Candidate]:
        """In an order by lot, so that any first part of it is a draw too."""
        return sorted(self._heaps[self.labelled > 0], reverse=True)


def analyze(
    folders: Sequence[Path],
    out: Path,
    *,
    by: By = "source",
    limit: int = LIMIT,
    asked: int = ASKED,
    seed: int = 0,
    model: Path | None = None,
) -> Analysis:
    """Analyse the sets in corpora and write analysis.json, analysis.md and similarity.png.

    A set is all faces of one source, or of one split of it. Sets without enough faces with an
    expression are told with the apparent age and gender of their people only.

    Args:
        folders: finished corpora. A source that is in several of them is a set in each.
        out: folder for the three files; those of an earlier analysis are replaced.
        by: what makes a set.
        limit: faces that are drawn of each set at most.
        asked: of them, faces whose age and gender the model is asked for; 0 for none.
        seed: of the draws.
        model: checkpoint folder; None is the embedded nano.

    Raises:
        BadCorpus: no corpus, none with faces, or `out` cannot be written.
        BadCheckpoint: the model cannot be loaded.
        BadSample: a setting that cannot be.
    """
    if by not in get_args(By):
        raise BadSample(f"by is {by!r}; a set is a source or a split.")
    if limit < 1 or asked < 0:
        raise BadSample(f"The limit is {limit} and asked is {asked}; give 1 and 0, or more.")
    draws = _draws(folders, by, limit, seed)
    weights = embedded_weights() if model is None else model
    reader = FaceLlava.load(weights)
    with space_is_needed(out):
        out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(len(draw.chosen) for draw in draws.values()), unit="face") as bar:
        sets = {name: _read_set(name, draw, reader, asked, bar) for name, draw in draws.items()}
    analysis = compare(sets, model=weights.resolve().name, by=by, seed=seed)
    text = json.dumps(analysis.to_dict(), ensure_ascii=False, indent=1) + "\n"
    with space_is_needed(out):
        _write(out / "similarity.png", similarity_chart(analysis))
        _write(out / "analysis.md", analysis_text(analysis).encode())
        _write(out / "analysis.json", text.encode())
    return analysis


def _draws(folders: Sequence[Path], by: By, limit: int, seed: int) -> dict[str, Draw]:
    """Faces to look at, by set; only ids and labels are read."""
    paths = [path.resolve() for path in folders]
    if not paths or len(set(paths)) != len(paths):
        raise BadCorpus(
            f"The corpora are {[str(p) for p in folders]}; give each once, at least one."
        )
    found: dict[tuple[str, Path], Draw] = {}
    for folder in paths:
        for shard in shards(folder, "faces"):
            for row in read_shard(shard, "faces", ID_COLUMNS):
                labels = from_json(row["labels"], f"The labels of face {row['face_id']}", dict)
                name = row["source"] if by == "source" else f"{row['source']}/{row['split']}"
                digest = hashlib.sha256(f"{seed}/{row['face_id']}".encode()).digest()
                found.setdefault((name, folder), Draw(limit)).add(
                    Candidate(int.from_bytes(digest[:8], "big"), shard, row["face_id"]),
                    labelled="expression" in labels,
                )
    if not found:
        raise BadCorpus("The corpora hold no faces; build them from a source that has some.")
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name} in {folder}": draw
        for (name, folder), draw in found.items()
    }


def _read_set(name: str, draw: Draw, reader: FaceLlava, asked: int, bar: tqdm) -> DrawnSet:
    """Embed the drawn faces, and ask for age and gender of the first of them."""
    bar.set_description(name)
    places = {candidate.face_id: place for place, candidate in enumerate(draw.chosen)}
    embeddings: dict[int, NDArray[np.float32]] = {}
    expressions: dict[int, str] = {}
    told: dict[int, tuple[FaceRecord, Guess]] = {}
    for batch in _batches(_records(draw.chosen)):
        known = {places[record.face_id]: record for record in batch}
        embeddings.update(zip(known, face_embeddings(reader, batch), strict=True))
        for place, record in known.items():
            if "expression" in record.labels:
                expressions[place] = str(record.labels["expression"])
        persons = {place: record for place, record in known.items() if place < asked}
        if persons:
            found = guesses(reader.scorer, list(persons.values()))
            told.update(zip(persons, zip(persons.values(), found, strict=True), strict=True))
        bar.update(len(batch))
    labelled = sorted(expressions)
    width = reader.model.config.hidden_size
    return DrawnSet(
        faces=draw.faces,
        labelled=draw.labelled,
        drawn=LabelledFaces(
            np.array([embeddings[place] for place in labelled], np.float32).reshape(-1, width),
            np.array([expressions[place] for place in labelled], np.str_),
        ),
        apparent=summarised(*zip(*told.values(), strict=True)) if told else None,
    )


@torch.inference_mode()
def face_embeddings(reader: FaceLlava, records: Sequence[FaceRecord]) -> NDArray[np.float32]:
    """Each record's mean enriched image token, of length 1: (records, width)."""
    items = [record.faces() for record in records]
    encoded = reader.processor.encode_faces(items)
    tokens = reader.model.get_image_features(encoded["pixel_values"], encoded["landmarks"])
    frames = tokens.float().mean(dim=1).split([len(item) for item in items])
    means = torch.stack([part.mean(dim=0) for part in frames])
    return np.asarray(torch.nn.functional.normalize(means, dim=1), np.float32)


def _records(chosen: Sequence[Candidate]) -> Iterator[FaceRecord]:
    """The chosen faces, shard by shard."""
    for shard, faces in groupby(sorted(chosen, key=_shard), key=_shard):
        wanted = {candidate.face_id for candidate in faces}
        for row in read_shard(shard, "faces"):
            if row["face_id"] in wanted:
                yield FaceRecord.from_row(row)


def _shard(candidate: Candidate) -> Path:
    return candidate.shard


def _batches(items: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _write(path: Path, contents: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(contents)
    partial.replace(path)
