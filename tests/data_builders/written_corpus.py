"""A small corpus written by hand: no face is looked for, no sample is made by a builder."""

from collections import Counter
from pathlib import Path

import numpy as np
import skimage.data

from data_builders.finished import counted, file_entry, write_card_and_manifest
from data_builders.report import gathered
from facellava.corpus import CORPUS_VERSION, FaceRecord, Ratings, Sample, record_of, write_shard
from facellava.faces import Face

PERSON = {"title": "T", "licence": "research", "consent": "unknown", "people_cross_splits": False}
SETTINGS = {
    "sources": ["celeba", "dfew"],
    "self_blends": ["celeba"],
    "seed": 0,
    "code_version": "0",
    "annotator": "measured 1",
}


def crop(number: int) -> np.ndarray:
    """A cut of a picture; another for each number, and none like the other."""
    picture = (skimage.data.astronaut(), skimage.data.cat(), skimage.data.coffee())[number % 3]
    top = 3 * number % (picture.shape[0] - 192)
    return np.ascontiguousarray(picture[top : top + 192, 11 * number : 11 * number + 192])


def face(pixels: np.ndarray) -> Face:
    return Face(
        crop=pixels,
        landmarks=np.random.default_rng(int(pixels.sum())).random((68, 2)).astype(np.float32),
        box=(10.1, 20.2, 110.3, 120.4),
        index=0,
        score=1.5,
        source="dlib_hog",
        crop_to_photo=np.array([[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]]),
    )


def record(number: int, split: str = "train", pictures=None, **facts) -> FaceRecord:
    facts = {
        "face_id": f"celeba-{number}/é",
        "source": "celeba",
        "subject": f"p{number}",
        "labels": {"age": 30 + number},
        "demographics": {"gender": "female"},
        "licence": "research only",
        "origin": f"img/{number}.jpg",
    } | facts
    return record_of([face(p) for p in pictures or [crop(number)]], split=split, **facts)


def sample(shown: FaceRecord, number: int = 0, **facts) -> Sample:
    facts = {
        "task": "age",
        "question": "How old is she?",
        "answer": "Age: 31 years. The skin is smooth.",
        "label": 31,
        "annotator": "measured",
        "annotator_version": "1",
        "ratings": Ratings(8, 9, 10, 9, "It fits."),
    } | facts
    return Sample(sample_id=f"{shown.face_id}#{number}", face_id=shown.face_id, **facts)


def write_corpus(folder: Path, faces, samples) -> Path:
    """Write faces and samples as shards by split and source, and the manifest that fits them."""
    counts, files = Counter(), {}
    for split, source in sorted({(item.split, item.source) for item in faces}):
        own = [item for item in faces if (item.split, item.source) == (split, source)]
        ids = {item.face_id for item in own}
        said = [item for item in samples if item.face_id in ids]
        counts += counted(own, said, split)
        for table, rows in (("faces", own), ("samples", said)):
            if rows:
                path = folder / table / f"{split}-{source}-00000.parquet"
                files[f"{table}/{path.name}"] = file_entry(path, write_shard(path, rows, table))
    counts["unwritten/age: fewer than two measured claims"] = 3
    manifest = {
        "version": CORPUS_VERSION,
        "settings": SETTINGS,
        "sources": {name: PERSON for name in SETTINGS["sources"]},
        "files": dict(sorted(files.items())),
        "counts": gathered([dict(sorted(counts.items()))]),
        "dropped": {"celeba": {"no face found": {"count": 2, "examples": ["a", "b"]}}, "dfew": {}},
    }
    write_card_and_manifest(folder, manifest)
    return folder


def usual_corpus(folder: Path) -> Path:
    """Photos in three splits, the self-blends of one, a clip; samples with turns, kept and not."""
    photos = [record(0), record(1), record(2, "validation"), record(3, "test")]
    facts = {"source": "celeba_self_blended", "subject": "p0"}
    blends = [
        record(4, face_id="blend-real", labels={"deepfake": "real"}, **facts),
        record(5, face_id="blend-fake", labels={"deepfake": "fake"}, **facts),
    ]
    clip = record(
        6,
        pictures=[crop(number) for number in (6, 7, 8)],
        face_id="dfew-1",
        source="dfew",
        subject=None,
        labels={"expression": "happiness"},
    )
    low = Ratings(2, 3, 4, 5, "The face contradicts it.")
    earlier = (("What is <image> here?", "Age: 30 years. <video> it is."),)
    samples = [sample(face) for face in photos]
    samples += [
        sample(photos[0], 1, ratings=low, kept=False),
        sample(photos[0], 2, history=earlier, question=r"And <\image>?", ratings=None),
        sample(blends[0], task="deepfake", label="real", answer="Deepfake: real. It is even."),
        sample(clip, task="expression", label="happiness", answer="Expression: happiness. So."),
        sample(clip, 1, task="action_units", label=["AU12"], weak=True, kept=False),
    ]
    return write_corpus(folder, [*photos, *blends, clip], samples)
