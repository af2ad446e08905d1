"""Faces tables: corpus folders without questions, of the faces that a benchmark asks about.

Built as any corpus is: by several processes, going on after a kill, with checksums and with counts
of what was left out. Drops that a source counts while it reads are of all its splits, for it does
not say of which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from data_builders.blend_set import write_blend_pack
from data_builders.build import BuildOptions, build
from data_builders.mixture import MixtureEntry
from data_builders.repair import is_whole
from facellava.errors import BadSample

SHARD_ROWS: Final = 128  # tables are small: all workers get some, and a kill costs little


def build_faces(
    source: str,
    root: Path,
    out: Path,
    *,
    splits: Sequence[str] | None,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Build the faces table of a dataset, or go on with one that did not finish.

    Args:
        source: a name of :data:`data_builders.sources.SOURCES`.
        root: the dataset's folder, or one Parquet file of it.
        out: folder of the table.
        splits: the ones whose faces are wanted. None: all, and of a source with folds each face
            keeps the fold that tests it; its split says nothing then.
        limit: at most so many rows of each split, or of each fold where `splits` is None; drawn
            evenly by `seed`. It is counted before faces are looked for, so there may be fewer.
        workers: processes; as many as there are cores where None.

    Returns:
        The manifest.

    Raises:
        BadCorpus: no such source, another layout, no face in the splits, or `out` holds something
            else.
        BadSample: an unknown split, or a limit below 1.
    """
    options = BuildOptions(
        seed=seed,
        limit=limit,
        self_blends=(),
        fold=None if splits is None else 1,
        shard_rows=SHARD_ROWS,
        measured=False,
        splits=None if splits is None else tuple(splits),
        drawn=True,
    )
    return build([MixtureEntry(name=source, root=root)], out, options, workers=workers)


def build_blend_faces(
    made_from: str,
    root: Path,
    out: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Build a faces table of self-blended fakes beside the real faces that they are made from.

    The pictures are frozen in a Parquet file beside the table, named by what decides its bytes;
    one that is there is used again.

    Args:
        made_from: the dataset whose held-out real faces are blended, such as "celeba".
        root: its folder.
        out: folder of the table.
        limit: at most so many faces, half of them fakes; an odd one is left out.
        seed: decides the blends.
        workers: as of :func:`build_faces`; the pack is written by one process.

    Returns:
        The manifest.

    Raises:
        BadCorpus: as :func:`build_faces`; none of the dataset's faces are held out for blends.
        BadSample: a limit below 2.
    """
    if limit is not None and limit < 2:
        raise BadSample(f"The limit is {limit}; a real face and its fake are at least 2.")
    pairs = _pairs(limit)
    pack = blend_pack(out, limit=limit, seed=seed)
    if not pack.exists() and not is_whole(out):
        write_blend_pack([(made_from, root)], pack, seed=seed, limit=pairs)
    return build_faces(
        "real_fake_faces",
        pack if pack.exists() else root,  # of a whole table nothing is read
        out,
        splits=("test",),
        limit=None if pairs is None else 2 * pairs,
        seed=seed,
        workers=workers,
    )


def blend_pack(out: Path, *, limit: int | None, seed: int) -> Path:
    """The file in which :func:`build_blend_faces` freezes the pictures of the table `out`."""
    return out.with_name(f"{out.name}-{_pairs(limit) or 'all'}-pairs-seed-{seed}.parquet")


def _pairs(limit: int | None) -> int | None:
    return None if limit is None else limit // 2
