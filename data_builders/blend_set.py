"""A frozen test set of self-blended fakes: for each blend ratio, faces and their fakes.

One Parquet file with the columns of the real_fake_faces source and the ratio, so that this source
reads it; each picture keeps the terms of the dataset that it is made from. Each face is used once,
at one ratio, as real and as fake: the two differ by the blend alone, every ratio has as many of
each, and a filter on ``blend_ratio`` gives a fair set again. Pictures are PNG at the resolution
that the face has in its source: no codec and no magnifying stands between the blend and the reader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from data_builders.face_records import face_records
from data_builders.shard import BLENDED, generator
from facellava.corpus import FaceRecord
from facellava.errors import BadCorpus, BadSample
from facellava.faces.self_blend import self_blend

RATIOS: Final = (0.25, 0.5, 0.75, 1.0)
# CelebA's test people are in no other split. Of the few others, the validation part is used too.
HELD_OUT: Final = {"celeba": ("test",), "real_fake_faces": ("test", "validation")}
SCHEMA: Final = pa.schema(
    [
        ("image", pa.binary()),
        ("label", pa.int8()),
        ("label_name", pa.string()),
        ("method", pa.string()),
        ("blend_ratio", pa.float32()),
        ("shape", pa.string()),
        ("inside", pa.string()),
        ("crossed", pa.string()),
        ("origin", pa.string()),
        ("pixel_md5", pa.string()),
        ("source_path", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
    ]
)


def write_blend_pack(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    *,
    seed: int = 0,
    ratios: Sequence[float] = RATIOS,
    splits: Mapping[str, Sequence[str]] = HELD_OUT,
    limit: int | None = None,
) -> int:
    """Blend the real faces of datasets into a test set; a seed gives the same bytes again.

    Args:
        sources: name and folder of each dataset.
        out: the Parquet file to write; must not exist.
        ratios: dealt out to the faces in turn.
        splits: for each source, the splits whose faces are taken.
        limit: at most so many faces, spread over the sources.

    Returns:
        The number of pictures, half of them fake.

    Raises:
        BadCorpus: a dataset that is given twice or has another layout, no real faces in it, or
            `out` exists or cannot be written.
        BadSample: a ratio outside (0, 1].
    """
    if out.exists():
        raise BadCorpus(
            f"'{out}' exists; a frozen test set is not overwritten, so name a new file."
        )
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise BadSample(f"The blend ratios are {list(ratios)}; give numbers above 0 and up to 1.")
    names = [name for name, _ in sources]
    if len(set(names)) != len(names):
        raise BadCorpus(f"The sources are {names}; give each source once, so no face is in twice.")
    for name in names:
        if name not in splits:
            raise BadCorpus(f"No faces of {name!r} are held out for blends: {', '.join(splits)}.")
    records = chain.from_iterable(
        face_records(name, data, split=split)[0] for name, data in sources for split in splits[name]
    )
    # By a hash of the id, so that a limit takes from all sources and ratios fall by chance.
    chosen = sorted(filter(_is_real, records), key=_shuffled)[:limit]
    if not chosen:
        raise BadCorpus("The sources hold no real faces; give datasets with real faces.")
    pairs = tqdm(_pairs(chosen, ratios, seed), total=2 * len(chosen), unit="picture")
    table = pa.Table.from_pylist(list(pairs), schema=SCHEMA)
    try:
        _write(table, out)
    except OSError as error:
        raise BadCorpus(
            f"'{out}' cannot be written ({error.strerror or error}); free some space, or name a "
            "file in another folder."
        ) from error
    return table.num_rows


def _write(table: pa.Table, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd", row_group_size=256)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _is_real(record: FaceRecord) -> bool:
    return record.labels.get("deepfake", "real") == "real"


def _shuffled(record: FaceRecord) -> bytes:
    return hashlib.sha256(record.face_id.encode()).digest()


def _pairs(
    records: Iterable[FaceRecord], ratios: Sequence[float], seed: int
) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records):
        ratio = float(ratios[number % len(ratios)])
        blend = self_blend(record.faces()[0], generator(seed, record.face_id), ratio)
        facts = {
            "blend_ratio": ratio,
            "origin": record.source,
            "split": "test",
            "licence": record.licence,
        }
        for label, picture in enumerate(blend.pictures):
            name = "fake" if label else "real"
            row = facts | {
                "image": _png(picture),
                "label": label,
                "label_name": name,
                "method": BLENDED if label else "none",
                "pixel_md5": hashlib.md5(picture.tobytes()).hexdigest(),
                "source_path": f"{record.face_id}/{name}",
            }
            if label:
                row |= {
                    "shape": blend.shape,
                    "inside": " ".join(blend.inside),
                    "crossed": " ".join(blend.crossed),
                }
            yield row


def _png(picture: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    return bytes(data)
