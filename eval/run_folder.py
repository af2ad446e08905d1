"""The folder of a run: what was asked of whom, where the faces lie, what came of it.

::

    run.json        engine, machine, settings, and the faces table of each protocol
    faces/          faces tables, a corpus folder each
    answers/        a file of answers for each question about a faces table
    extras/         what later commands add: verified claims, faithfulness, forms, what the
                    landmarks are worth, photos shown in other ways, a judge's ratings
    results.json    figures; report.md and report.html show them
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from eval.answers import read_answers
from eval.faces_table import FacesTable
from eval.protocols import PROTOCOLS, Protocol, find_protocols
from facellava import whole_files
from facellava.environment import gpu_name
from facellava.errors import FacellavaError

VERSION: Final = 1
GIB: Final = 2**30


class RunFolder:
    """A run on disk.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, engine: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
        """Whether the folder holds this very run already; nothing is written.

        Raises:
            FacellavaError: it holds another run or other files.
        """
        if (self.path / "run.json").is_file():
            found = self.facts()
            wanted = {"engine": dict(engine), "settings": dict(settings)}
            odd = [name for name, value in wanted.items() if found[name] != value]
            if odd:
                raise FacellavaError(
                    f"'{self.path}' holds a run with other {' and '.join(odd)}; give another --out."
                )
            return True
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        if names - {"faces"} or self.path.is_file():
            raise FacellavaError(f"'{self.path}' holds other files; give a new folder as --out.")
        return False

    def begin(self, engine: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Note what the run is made of, or check that it goes on with the same.

        Raises:
            FacellavaError: the folder holds another run or other files, or cannot be written.
        """
        if not self.check(engine, settings):
            facts: dict[str, Any] = {"engine": dict(engine), "settings": dict(settings)}
            facts |= {"version": VERSION, "made": made_here(), "protocols": {}}
            write_json(self.path / "run.json", facts)

    def facts(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            FacellavaError: there is no run here, or one of another version.
        """
        found = read_json(self.path / "run.json")
        parts = ("made", "engine", "settings", "protocols")
        whole = all(isinstance(found.get(part), dict) for part in parts) and all(
            isinstance(entry, dict) and {"faces", "fold"} <= entry.keys()
            for entry in found["protocols"].values()
        )
        if found.get("version") != VERSION or not whole:
            raise FacellavaError(
                f"'{self.path}' holds no run that this facellava reads; make one with "
                "`facellava eval run`."
            )
        return found

    def add(self, protocol: Protocol, table: FacesTable) -> None:
        """Note where the faces of a protocol lie."""
        facts = self.facts()
        folder = os.path.relpath(table.folder.resolve(), self.path.resolve())
        facts["protocols"][protocol.key] = {"faces": folder, "fold": table.fold}
        write_json(self.path / "run.json", facts)

    def note(self, **more: Any) -> None:
        """Add facts to run.json."""
        write_json(self.path / "run.json", self.facts() | more)

    def protocols(self) -> dict[str, tuple[Protocol, FacesTable]]:
        """The protocols whose faces were all asked about, with their faces.

        One that was parted from such a protocol is among them where its faces were asked about too.

        Raises:
            FacellavaError: there is no run here, or no protocol of it was finished.
        """
        noted: dict[str, dict[str, Any]] = self.facts()["protocols"]
        if not noted:
            raise FacellavaError(
                f"No protocol of the run '{self.path}' was finished; give `facellava eval run` the "
                "same options again, it goes on from there."
            )
        tables = {
            key: FacesTable(self.path / entry["faces"], entry["fold"])
            for key, entry in noted.items()
        }
        for key, protocol in PROTOCOLS.items():
            table = tables.get(protocol.parted_from or "")
            if table is not None and key not in tables and self._answered(protocol, table):
                tables[key] = table
        return {
            protocol.key: (protocol, tables[protocol.key]) for protocol in find_protocols(tables)
        }

    def _answered(self, protocol: Protocol, table: FacesTable) -> bool:
        """Whether the protocol has faces, and each has an answer."""
        _, replies = read_answers(self.answers(protocol))
        faces = {record.face_id for record in table.records(protocol)}
        return bool(faces) and faces <= replies.keys()

    def answers(self, protocol: Protocol) -> Path:
        """The file of answers that the protocol reads; protocols of one question share it."""
        return self.path / "answers" / f"{protocol.table}.{protocol.task}.jsonl"

    def json_answers(self, protocol: Protocol) -> Path:
        """The same faces asked in JSON, for those who compare the two forms."""
        return self.path / "extras" / f"{protocol.table}.{protocol.task}.in_json.jsonl"

    def framing_answers(self, protocol: Protocol) -> Path:
        """The same faces on photos that were taken in other ways."""
        return self.path / "extras" / f"{protocol.table}.{protocol.task}.framing.jsonl"

    def extra(self, protocol: Protocol, name: str) -> Path:
        """Where a later command keeps what it found out about a protocol."""
        return self.path / "extras" / f"{protocol.key.replace('/', '__')}.{name}.json"

    def results(self) -> dict[str, Any]:
        """The figures.

        Raises:
            FacellavaError: the run was not scored.
        """
        return read_json(self.path / "results.json")


def made_here() -> dict[str, Any]:
    """When, by which code and on which machine."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "facellava": version("facellava"),
        "commit": _commit(),
        "machine": {
            "cpu": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
            ),
            "gpu": gpu_name() or None,
            "python": sys.version.split()[0],
            "torch": str(torch.__version__),
        },
    }


def _commit() -> str | None:
    """Of the checkout that this code runs from; None where it is installed from a wheel."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FacellavaError: there is none.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FacellavaError(
            f"'{path}' is not there or is damaged; run the evaluation that makes it again."
        ) from error
    if not isinstance(found, dict):
        raise FacellavaError(f"'{path}' is not a table of facts; run the evaluation again.")
    return found


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; see :func:`write_text`."""
    write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        FacellavaError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write_text(path, text)
    except OSError as error:
        raise FacellavaError(
            f"'{path}' cannot be written ({error.strerror}); give a folder that is writable and "
            "has room."
        ) from error
