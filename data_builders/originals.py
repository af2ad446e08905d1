"""The pictures that faces of a corpus were found in: a corpus itself keeps their crops alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_builders.media import Still, Unusable
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.shard import face_id_of
from data_builders.sources import find_source
from facellava.errors import BadCorpus, BadSample


def original_pictures(
    source: str, data: Path, face_ids: Collection[str]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The picture of each of these faces, in the source's order.

    Args:
        source: a name of :data:`data_builders.sources.SOURCES`.
        data: the dataset's folder, or one Parquet file of it.
        face_ids: of a corpus that was built from it.

    Yields:
        Face id, and its picture as (H, W, 3) uint8 RGB.

    Raises:
        BadCorpus: no such source or data, another layout, or a face is not there.
        BadSample: a face is one of a clip.
    """
    left = set(face_ids)
    for row in planned_rows(find_source(source), data, Drops(), fold=None) if left else ():
        face_id = face_id_of(source, row)
        if face_id not in left:
            continue
        if not isinstance(row.media, Still):
            raise BadSample(f"Face {face_id} is one of a clip; choose a dataset of pictures.")
        try:
            picture = row.media.photo()
        except (Unusable, OSError) as error:
            raise BadCorpus(
                f"The picture of face {face_id} in '{data}' cannot be read; give the dataset as it "
                "was when its faces were found."
            ) from error
        yield face_id, picture
        left.discard(face_id)
        if not left:
            return
    if left:
        raise BadCorpus(
            f"'{data}' has no picture of face {min(left)} (of {len(left)} in all); give the "
            "dataset that the faces were found in."
        )
