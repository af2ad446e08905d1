"""Where the datasets of an evaluation lie, and their faces tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from facellava.errors import BadCorpus

if TYPE_CHECKING:
    from eval.faces_table import FacesTable
    from eval.protocols import Protocol

RootsOption = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option("--root", help="Folder that holds the datasets, or DATASET=FOLDER; repeatable."),
]


@dataclass(frozen=True)
class DatasetFolders:
    """What --root said.

    Attributes:
        bases: folders that hold a folder a dataset.
        named: dataset to its own folder.
    """

    bases: tuple[Path, ...] = ()
    named: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, roots: Sequence[str]) -> DatasetFolders:
        """FOLDER or DATASET=FOLDER, as often as given."""
        bases: list[Path] = []
        named: dict[str, Path] = {}
        for root in roots:
            name, equals, folder = root.partition("=")
            if equals and re.fullmatch(r"\w+", name):
                named[name] = Path(folder)
            else:
                bases.append(Path(root))
        if not roots:
            raise typer.BadParameter("Say where the datasets lie: --root FOLDER.")
        return cls(tuple(bases), named)

    def of(self, source: str) -> Path:
        """The folder of a dataset.

        Below a base it has the source's name, or the dataset's, or is the one that begins so, such
        as ``celeba10k``.

        Raises:
            BadCorpus: there is none, or there are several.
        """
        from eval.protocols import dataset_of

        dataset = dataset_of(source)
        for name in (source, dataset):
            if name in self.named:
                return self.named[name]
        for base in self.bases:
            if not base.is_dir():
                raise BadCorpus(f"There is no folder '{base}'; give --root the datasets' folder.")
            for name in (source, dataset):
                if (base / name).exists():
                    return base / name
            similar = sorted(path for path in base.glob(f"{dataset}*") if path.is_dir())
            if len(similar) == 1:
                return similar[0]
            if similar:
                raise BadCorpus(
                    f"'{base}' holds {', '.join(path.name for path in similar)}; say which one is "
                    f"{source}: --root {source}=FOLDER."
                )
        raise BadCorpus(
            f"No folder of {source} was found; expected it below --root as '{dataset}', or give "
            f"--root {source}=FOLDER."
        )


def faces_table(
    protocol: Protocol,
    folders: DatasetFolders,
    out: Path,
    *,
    limit: int | None,
    seed: int,
    fold: int | None,
    workers: int | None,
) -> FacesTable:
    """The faces of a protocol as a corpus folder below `out`, built where it is not there yet.

    Raises:
        BadCorpus: the dataset is missing or of another layout.
    """
    from data_builders.faces_table import build_blend_faces, build_faces
    from eval.faces_table import FacesTable

    folder = out / protocol.table
    if protocol.made_from is not None:
        build_blend_faces(
            protocol.made_from,
            folders.of(protocol.made_from),
            folder,
            limit=limit,
            seed=seed,
            workers=workers,
        )
    else:
        build_faces(
            protocol.source,
            folders.of(protocol.source),
            folder,
            splits=None if protocol.split is None else (protocol.split,),
            limit=limit,
            seed=seed,
            workers=workers,
        )
    return FacesTable(folder, fold if protocol.folds else None)
