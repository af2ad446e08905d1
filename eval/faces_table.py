"""The faces that a protocol asks about: a corpus folder, whoever built it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.protocols import Protocol
from facellava.corpus import read_faces, read_manifest, sha256
from facellava.records import FaceRecord


@dataclass(frozen=True)
class FacesTable:
    """A corpus folder that holds the faces of a protocol.

    Attributes:
        folder: of the corpus.
        fold: ask about this fold only; None for all.
    """

    folder: Path
    fold: int | None = None

    @property
    def data_sha256(self) -> str:
        """Of its manifest, which holds the checksums of the rest."""
        read_manifest(self.folder)
        return sha256(self.folder / "manifest.json")

    def records(self, protocol: Protocol) -> Iterator[FaceRecord]:
        """The faces that have part in the protocol, in the table's order.

        Raises:
            BadCorpus: a damaged table.
        """
        for record in read_faces(self.folder, protocol.split):
            if protocol.folds and (record.fold is None or self.fold not in (None, record.fold)):
                continue
            if protocol.truth(record) is not None:
                yield record
