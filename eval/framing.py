"""Does the whole chain say the same of a face however its photo was taken?

The run asked about canonical crops that were found once, in the datasets' own pictures. Here each
picture is shown in other ways (`eval.altered`) to all that a user's photo goes through: the finder,
the landmarks, the crop, the model. "As it is" is what the run holds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from eval.altered import WAYS, Photo, Shown
from eval.answers import AnswerFile, Reply
from eval.comparison import compare
from eval.engines import ModelEngine
from eval.figures import Scorer, intervals
from eval.forms import same_entries
from eval.intervals import mean_interval, share_interval
from eval.items import Item
from eval.protocols import Protocol
from eval.run import item_of
from facellava.errors import NoFaceFound
from facellava.faces import Face, find_faces
from facellava.records import FaceRecord, encode_frame

NOT_FOUND: Final = "the face was not found"
NEAR: Final = 0.5  # face widths; what is found farther from the face is something else
SAME_YEARS: Final = 3

Pictures = Callable[[Collection[str]], Iterable[tuple[str, Photo]]]
"""Face ids to the pictures that the faces were found in."""


def ask_in_other_ways(
    protocol: Protocol,
    records: Mapping[str, FaceRecord],
    pictures: Pictures,
    engine: ModelEngine,
    path: Path,
    head: Mapping[str, Any],
) -> dict[str, Reply]:
    """Show every picture in every way that has no answer in the file yet.

    Args:
        protocol: whose faces they are.
        records: face id to face.
        pictures: where they come from; asked only for those that are needed.
        engine: the model; `label_only` spares the reasons, which are not read.
        path: the file of answers.
        head: what decides the answers; its "question" is asked, its "seed" decides where a corner
            or a turn is chosen.

    Returns:
        :func:`shown_id` to the reply; its problem is NOT_FOUND where the face was not found.

    Raises:
        FacellavaError: `path` holds answers of another run or cannot be written; a picture is not
            there.
    """
    with AnswerFile(path, head) as file:
        waiting = {
            face_id: ways
            for face_id in records
            if (ways := [way for way in WAYS if shown_id(way, face_id) not in file.replies])
        }

        def seen() -> Iterator[tuple[str, FaceRecord | None]]:
            for face_id, picture in pictures(waiting.keys()):
                for way in waiting[face_id]:
                    yield (
                        shown_id(way, face_id),
                        seen_again(records[face_id], picture, way, head["seed"]),
                    )

        looks, total = seen(), sum(map(len, waiting.values()))
        with tqdm(total=total, unit="photo", desc=f"{protocol.key}, shown otherwise") as bar:
            while part := list(islice(looks, engine.batch)):
                found = [record for _, record in part if record is not None]
                file.append(
                    engine.ask(found, head["question"], probabilities="AUC" in protocol.figures)
                )
                file.append(Reply(name, "", NOT_FOUND) for name, record in part if record is None)
                bar.update(len(part))
        return file.replies


def shown_id(way: str, face_id: str) -> str:
    """What names a face that is shown in that way."""
    return f"{way}/{face_id}"


def seen_again(record: FaceRecord, picture: Photo, way: str, seed: int) -> FaceRecord | None:
    """The face as it is found where its picture is shown in that way; None where it is not."""
    name = shown_id(way, record.face_id)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    face = nearest_face(WAYS[way](Shown(picture, record.box), rng))
    if face is None:
        return None
    return replace(
        record,
        face_id=name,
        frames=(encode_frame(face.crop),),
        landmarks=face.landmarks[None],
        box=face.box,
        score=face.score,
        face_source=face.source,
        native_size=face.native_size,
    )


def nearest_face(shown: Shown) -> Face | None:
    """Of the faces that the finder sees the one nearest to where the face was put."""
    try:
        faces = find_faces(shown.photo)
    except NoFaceFound:
        return None

    def distance(face: Face) -> float:
        return math.dist(Shown(shown.photo, face.box).centre, shown.centre)

    nearest = min(faces, key=distance)
    return nearest if distance(nearest) <= NEAR * shown.face else None


def compare_ways(
    protocol: Protocol,
    items: Sequence[Item],
    records: Mapping[str, FaceRecord],
    replies: Mapping[str, Reply],
) -> dict[str, Any]:
    """What was found and said in each way beside what the run holds.

    Args:
        protocol: what was asked.
        items: the run's answers, "as it is".
        records: face id to face.
        replies: of :func:`ask_in_other_ways`.

    Returns:
        "n" faces; "as_it_is" with its "figures", each a "value" with its 95% interval; "ways", each
        with the shares "found" and "same" with their intervals, the answers that are "unreadable",
        and the "figures" as :func:`eval.comparison.compare` has them, as it is and in this way over
        the faces found; none where no face was. "same" is over the faces found too: the same
        verdict, of ages one within three years, of units and attributes the share of entries.
    """
    ways = {}
    for way in WAYS:
        both = [
            (item, item_of(protocol, records[item.face_id], reply))
            for item in items
            if (reply := replies[shown_id(way, item.face_id)]).problem != NOT_FOUND
        ]
        ways[way] = {
            "found": share_interval(len(both), len(items)),
            "same": _same(protocol, both),
            "unreadable": sum(other.given is None for _, other in both),
            "figures": _changes(protocol, both),
        }
    figures = intervals(Scorer(protocol, items))
    return {"n": len(items), "as_it_is": {"figures": figures}, "ways": ways}


def _same(protocol: Protocol, both: Sequence[tuple[Item, Item]]) -> dict[str, float]:
    pairs = [(item.given, other.given) for item, other in both]
    if protocol.kind in ("units", "attributes"):
        return mean_interval([same_entries(*pair) for pair in pairs])
    if protocol.kind == "years":
        hits = [None not in pair and abs(pair[0] - pair[1]) <= SAME_YEARS for pair in pairs]
    else:
        hits = [given is not None and given == other for given, other in pairs]
    return share_interval(sum(hits), len(hits))


def _changes(protocol: Protocol, both: Sequence[tuple[Item, Item]]) -> dict[str, Any]:
    if not both:
        return {}
    before, after = zip(*both, strict=True)
    figures: dict[str, Any] = compare(protocol, before, after)["figures"]
    return figures
