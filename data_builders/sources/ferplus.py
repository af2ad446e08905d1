"""FER+ (Barsoum et al., 2016): FER2013's pictures under what most of ten voters saw in them.

The layout is FER2013's, with the votes. Contempt is an eighth class. A picture is left out where no
class has the most votes: two have as many, or most voters saw none or no face. That is the paper's
"majority voting".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from data_builders.raw_face import Drops, RawFace, Source
from data_builders.sources import fer2013
from facellava.tasks.expression import LABEL_SETS


def rows(root: Path, drops: Drops) -> Iterator[RawFace]:
    """The faces of FER+.

    Raises:
        BadCorpus: neither layout of FER2013 is there, or FER+ does not fit.
    """
    for face in fer2013.rows(root, drops):
        label = majority(face.labels.get("expression_votes", {}))
        if label is None:
            drops.add("no class has the most FER+ votes", face.key, face.split)
            continue
        yield replace(face, labels={**face.labels, "expression": label})


def majority(votes: Mapping[str, int]) -> str | None:
    """The class with the most votes; None where two have as many, or it is no class."""
    most = max(votes.values(), default=0)
    first = [name for name, count in votes.items() if count == most]
    return first[0] if len(first) == 1 and first[0] in LABEL_SETS["ferplus"].labels else None


SOURCE: Final = Source(
    title="FER+",
    rows=rows,
    layout=f"{fer2013.LAYOUT}; with the votes",
    licence=fer2013.LICENCE,
    consent="web pictures, not asked",
)
