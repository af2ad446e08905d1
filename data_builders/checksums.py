"""SHA256SUMS in a dataset's folder: files that are not what they were are refused before any work.

Fold files decide figures, so whoever keeps them can pin them, in the form of ``sha256sum``::

    sha256sum EmoLabel_DataSplit/*/*.csv > SHA256SUMS
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from facellava.corpus import sha256
from facellava.errors import BadCorpus

SUMS: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def check_sums(root: Path, dataset: str) -> int:
    """Compare the files that SHA256SUMS names; returns how many, 0 where there is no such file.

    Raises:
        BadCorpus: a file is missing or another one, or a line cannot be read.
    """
    listed = root / SUMS
    if not listed.is_file():
        return 0
    lines = [line for line in listed.read_text("utf-8", "replace").splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None or not (root / found[2]).resolve().is_relative_to(root.resolve()):
            raise BadCorpus(
                f"{dataset}: line {number} of '{listed}' is no checksum with a file below the "
                "folder; write it with sha256sum."
            )
        wanted, path = found[1].lower(), root / found[2]
        if not path.is_file() or sha256(path) != wanted:
            raise BadCorpus(
                f"{dataset}: '{path}' is not the file of {SUMS} (checksum); get the publisher's, "
                "or mend the list."
            )
    return len(lines)
