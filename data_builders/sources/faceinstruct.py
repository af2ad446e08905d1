"""FaceInstruct-1M (Chaubey et al., WACV 2026): questions about faces, and answers with reasons.

Layout: the published JSON files, in the folder or in its subfolder ``json_files``, and the face
crops of 256x256 pixels that they name by their paths from the folder. The publishers give out the
texts alone. A record of ``disfa.json``::

    {"id": 0,
     "conversations": [
       {"from": "human", "value": "<image>\\nWhich facial action units appear in this image?"},
       {"from": "gpt", "value": "AU12 (Lip corner puller) is active, as the corners ..."}],
     "image": "DISFA/SN001_0001.png",           or "video": "DFEW/1.mp4"
     "landmarks_2d": "DISFA/SN001_0001.npy"}    (68, 2), or (frames, 68, 2) of a video, in pixels

The label is read from the answer, once the file's name has told the task. Where that cannot be done
for sure the record is dropped and counted: so are most descriptions of CelebA's faces, which do not
go through the 40 attributes. All records are training data. They come from other datasets, whose
tests are not zero-shot for who trains on this.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_builders.media import ClipFile, Look, Media, Picture, Unusable
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus, BadMedia, BadModelInput, UnreadableAnswer
from facellava.faces import Face, canonical_face, read_photo
from facellava.faces.clips import FrameReader
from facellava.records import FaceRecord, Sample
from facellava.regions import N_LANDMARKS
from facellava.tasks import TASKS, Label, parse_prose
from facellava.tasks.prose import read_prose

NAME: Final = "FaceInstruct-1M"
LICENCE: Final = "FaceInstruct-1M: Apache-2.0 for the texts; each picture under its dataset's terms"
CROP_SIDE: Final = 256  # pixels, of the crops that the landmarks belong to
# A part of a file's name, and the task of its records.
TASK_OF: Final = {
    "cremad": "expression", "dfew": "expression", "mafw": "expression", "ferv39k": "expression",
    "affectnet": "expression", "rafdb": "expression",
    "disfa": "action_units", "bp4d": "action_units",
    "celeba": "attributes",
    "utk": "age", "morph": "age",
    "faceforensics": "deepfake", "ffpp": "deepfake", "deepfake": "deepfake",
}  # fmt: skip
SPEAKERS: Final = ("human", "gpt")
MARK: Final = re.compile(r"\s*([\[,\]])\s*")
PLACEHOLDER: Final = re.compile(r"<(?:image|video)>\s*")
LAYOUT: Final = (
    "the published files such as json_files/disfa.json, and the media that they name in 'image' or "
    "'video' and 'landmarks_2d'"
)


class _Dropped(Exception):
    """Why a record is left out."""


@dataclass(frozen=True)
class LandmarkedMedia:
    """A face crop, or a clip of them, with the landmarks that the dataset brings.

    Attributes:
        path: a 256x256 picture, or a clip of such frames.
        landmarks: .npy, (68, 2) or (T, 68, 2) for all T frames, pixels.
        clip: `path` is a clip.
    """

    path: Path
    landmarks: Path
    clip: bool

    def digest(self) -> bytes:
        both = Picture(self.path).digest() + Picture(self.landmarks).digest()
        return hashlib.sha256(both).digest()

    def face(self, look: Look) -> tuple[Face, ...]:
        points = _read_landmarks(self.landmarks)
        places = _places(points, look) if self.clip else [0]
        chosen = points[places]
        if not (np.abs(chosen - CROP_SIDE / 2) <= CROP_SIDE).all():
            raise Unusable("landmarks are not those of a face")
        try:
            photos = self._photos(places, len(points))
            return tuple(map(canonical_face, photos, chosen))
        except BadMedia as error:
            raise Unusable("picture or clip cannot be read") from error
        except BadModelInput as error:
            raise Unusable("landmarks are not those of a face") from error

    def _photos(self, places: list[int], count: int) -> list[NDArray[np.uint8]]:
        if self.clip:
            reader = FrameReader(self.path)
            if len(reader) != count:
                raise Unusable("clip and landmarks differ in their number of frames")
            photos = [reader.read(place) for place in places]
        elif count == 1:
            photos = [read_photo(self.path)]
        else:
            raise Unusable("picture has the landmarks of several frames")
        if any(photo.shape[:2] != (CROP_SIDE, CROP_SIDE) for photo in photos):
            raise Unusable("not the 256x256 crop that the landmarks belong to")
        return photos


def _read_landmarks(path: Path) -> NDArray[np.float64]:
    """(T, 68, 2) pixels."""
    try:
        points = np.array(np.lib.format.open_memmap(path, mode="r"), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise Unusable("landmarks cannot be read") from error
    if points.ndim == 2:
        points = points[None]
    if points.shape[1:] != (N_LANDMARKS, 2) or not len(points):
        raise Unusable("landmarks are not 68 points a frame")
    return points


def _places(points: NDArray[np.float64], look: Look) -> list[int]:
    """The frames to take, in rising order: as `Look` says, by the landmarks alone."""
    count = min(look.frames, len(points))
    if look.sampling == "uniform":
        return [int((place + 0.5) * len(points) / count) for place in range(count)]
    motion = np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean(axis=-1)
    return sorted(np.argsort(-motion, kind="stable")[:count].tolist())


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The records of FaceInstruct-1M whose media are there.

    Raises:
        BadCorpus: no JSON file, or one that is not a list of records.
    """
    folder = root / "json_files" if (root / "json_files").is_dir() else root
    paths = sorted(require(folder, NAME, LAYOUT).glob("*.json"))
    if not paths:
        raise BadCorpus(f"{NAME}: '{folder}' holds no .json file; expected {LAYOUT}.")
    for path in paths:
        task = next((task for part, task in TASK_OF.items() if part in path.stem.lower()), None)
        if task is None:
            drops.add("file, not row: its name does not tell the task", path.name)
            continue
        for number, record in enumerate(_records(path)):
            key = f"{path.stem}-{number:07d}"
            try:
                turns = _turns(record)
                label = _label(task, turns)
                media = _media(record, root)
            except _Dropped as error:
                drops.add(str(error), key)
                continue
            yield RawFace(
                key=key,
                media=media,
                labels={task: list(label) if isinstance(label, tuple) else label},
                split="train",
                licence=LICENCE,
                origin=f"{path.relative_to(root).as_posix()}:{number}",
                conversations=turns,
            )


def samples_of(record: FaceRecord, row: RawFace) -> list[Sample]:
    """The questions and answers that a row of this source brings, as samples of its face.

    Each answer is opened by our lead, the label's, and kept as it is behind it.
    """
    samples: list[Sample] = []
    history: tuple[tuple[str, str], ...] = ()
    [(task, label)] = row.labels.items()
    for number, (question, text) in enumerate(row.conversations):
        answer = f"{TASKS[task].lead(tuple(label) if isinstance(label, list) else label)} {text}"
        samples.append(
            Sample(
                sample_id=f"{record.face_id}#given{number}",
                face_id=record.face_id,
                task=task,
                question=question,
                history=history,
                answer=answer,
                label=label,
                annotator=NAME,
            )
        )
        history += ((question, answer),)
    return samples


def _records(path: Path) -> Iterator[Any]:
    """The items of a JSON list, one by one: as objects all of a file would fill the memory."""
    decoder, place, expected = json.JSONDecoder(), 0, "["
    try:
        text = path.read_text("utf-8")
        while (mark := MARK.match(text, place)) and mark[1] in expected:
            if mark[1] == "]":
                return
            record, place = decoder.raw_decode(text, mark.end())
            expected = ",]"
            yield record
        raise ValueError(f"no {expected!r} at {place}")
    except ValueError as error:
        raise BadCorpus(
            f"{NAME}: '{path}' is not a whole JSON list of records; get the file again."
        ) from error


def _turns(record: Any) -> tuple[tuple[str, str], ...]:
    """Questions and answers without the marks that stand for the media."""
    said = record.get("conversations") if isinstance(record, dict) else None
    texts: list[str] = []
    for number, turn in enumerate(said if isinstance(said, list) else []):
        if not isinstance(turn, dict) or turn.get("from") != SPEAKERS[number % 2]:
            texts = []
            break
        texts.append(PLACEHOLDER.sub("", str(turn.get("value", ""))).strip())
    if not texts or len(texts) % 2 or not all(texts):
        raise _Dropped("conversation is not questions and answers in turn")
    return tuple(zip(texts[::2], texts[1::2], strict=True))


def _label(task: str, turns: tuple[tuple[str, str], ...]) -> Label:
    """What all answers say."""
    labels: list[Label] = []
    for _, answer in turns:
        try:
            labels.append(read_prose(task, answer).label)
            parse_prose(f"{TASKS[task].lead(labels[-1])} {answer}")
        except UnreadableAnswer as error:
            raise _Dropped("the answer's label cannot be read") from error
    if any(label != labels[0] for label in labels):
        raise _Dropped("the answers of a conversation have several labels")
    return labels[0]


def _media(record: Mapping[str, Any], root: Path) -> Media:
    clip = "video" in record
    path = _file(record.get("video" if clip else "image"), root, "picture or clip")
    if "landmarks_2d" in record:
        return LandmarkedMedia(path, _file(record["landmarks_2d"], root, "landmark file"), clip)
    return ClipFile(path) if clip else Picture(path)


def _file(name: Any, root: Path, what: str) -> Path:
    """The one file that a record names."""
    names = name if isinstance(name, list) else [name]
    if len(names) != 1 or not isinstance(names[0], str):
        raise _Dropped(f"record names no {what} or several")
    path = Path(names[0])
    if path.is_absolute() or ".." in path.parts:
        raise _Dropped(f"path of the {what} leaves the folder")
    if not (root / path).is_file():
        raise _Dropped(f"{what} is missing")
    return root / path


SOURCE: Final = Source(
    title=NAME,
    rows=rows,
    layout=LAYOUT,
    licence=LICENCE,
    consent="unknown",
)
