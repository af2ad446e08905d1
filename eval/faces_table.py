"""The faces that a protocol asks about: a corpus folder, whoever built it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.protocols import Protocol
from facellava.corpus import read_faces, read_manifest, sha256, shards
from facellava.errors import BadCorpus
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

    def check(self) -> None:
        """See that the faces are those of the manifest: none lost, added or changed.

        Raises:
            BadCorpus: they are not.
        """
        listed = {
            name: entry["sha256"]
            for name, entry in read_manifest(self.folder)["files"].items()
            if name.startswith("faces/")
        }
        present = {
            path.relative_to(self.folder).as_posix() for path in shards(self.folder, "faces")
        }
        odd = sorted(listed.keys() ^ present)
        odd = odd or [name for name in listed if sha256(self.folder / name) != listed[name]]
        if odd:
            raise BadCorpus(
                f"The faces table '{self.folder}' is not what was asked about: {odd[0]} is "
                "missing, new or changed; delete it and run the evaluation again, which builds it "
                "anew."
            )

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
