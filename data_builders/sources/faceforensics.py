"""FaceForensics++ (Roessler et al., ICCV 2019): 1,000 clips, and fakes of each by five methods.

Layout::

    original_sequences/youtube/c23/videos/000.mp4
    manipulated_sequences/Deepfakes/c23/videos/000_003.mp4   the clip 000 with what 003 brings
    dataset/splits/train.json, val.json, test.json           [["071", "054"], ...]

The lists are in the publisher's code repository; ``splits/`` is read too. Each pair of them stands
for two originals and, by each method, the fakes of both orders: 360, 70 and 70 pairs. A compression
is a source of its own, for figures at c23 and at c40 are different benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from data_builders.media import ClipFile
from data_builders.raw_face import Drops, RawFace, Source, require
from facellava.errors import BadCorpus

NAME: Final = "FaceForensics++"
LICENCE: Final = "FaceForensics++: non-commercial research and education, no passing on"
METHODS: Final = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
LISTS: Final = {"train": "train.json", "validation": "val.json", "test": "test.json"}
LAYOUT: Final = (
    "original_sequences/youtube/{0}/videos/000.mp4 ..., "
    "manipulated_sequences/Deepfakes/{0}/videos/000_003.mp4 ... and dataset/splits/train.json, "
    "val.json, test.json"
)


def rows(root: Path, drops: Drops, compression: str) -> Iterator[RawFace]:
    """The clips at one compression, "c23" or "c40".

    A method whose folder is missing is counted, and the others are read.

    Raises:
        BadCorpus: no originals, no fakes or no lists, or a clip that is in two pairs.
    """
    layout = LAYOUT.format(compression)
    originals = require(
        root / "original_sequences" / "youtube" / compression / "videos", NAME, layout
    )
    fakes = {}
    for method in METHODS:
        folder = root / "manipulated_sequences" / method / compression / "videos"
        if folder.is_dir():
            fakes[method] = folder
    if not fakes:
        missing = root / "manipulated_sequences" / METHODS[0] / compression / "videos"
        require(missing, NAME, layout)
    pairs = _pairs(root, layout)
    for method in METHODS:
        if method not in fakes:
            drops.add("folder of a method is missing", f"{method}/{compression}")
    for split, (one, other) in pairs:
        labels = {"deepfake": "real", "compression": compression}
        for clip in (one, other):
            yield from _clip(originals / f"{clip}.mp4", root, split, labels, drops)
        for method, folder in fakes.items():
            labels = {"deepfake": "fake", "method": method, "compression": compression}
            for name in (f"{one}_{other}.mp4", f"{other}_{one}.mp4"):
                yield from _clip(folder / name, root, split, labels, drops)


def _clip(
    path: Path, root: Path, split: str, labels: dict[str, str], drops: Drops
) -> Iterator[RawFace]:
    """The row, or none, and counted, where the file is missing."""
    key = f"{labels.get('method', 'youtube')}-{path.stem}"
    if not path.is_file():
        drops.add("clip is missing", key)
        return
    yield RawFace(
        key=key,
        media=ClipFile(path),
        labels=labels,
        split=split,
        subject=path.stem.split("_")[0],  # a fake shows the target's clip
        licence=LICENCE,
        origin=path.relative_to(root).as_posix(),
    )


def _pairs(root: Path, layout: str) -> list[tuple[str, Sequence[str]]]:
    """Split and the two clips of each pair."""
    folder = root / "dataset" / "splits"
    if not folder.is_dir():
        folder = root / "splits"
    found: list[tuple[str, Sequence[str]]] = []
    seen: set[str] = set()
    for split, name in LISTS.items():
        path = require(folder / name, NAME, layout)
        try:
            pairs = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise BadCorpus(f"{NAME}: '{path}' is not JSON; get the file again.") from error
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(clip, str) and clip.isdigit() for clip in pair)
            ):
                raise BadCorpus(
                    f"{NAME}: '{path}' holds {pair!r}; expected a list of pairs such as "
                    '["000", "003"].'
                )
            for clip in pair:
                if clip in seen:
                    raise BadCorpus(
                        f"{NAME}: clip {clip} of '{path}' is in two pairs, so the splits would "
                        "leak; get the lists again."
                    )
                seen.add(clip)
            found.append((split, pair))
    return found


def _source(compression: str) -> Source:
    return Source(
        title=f"{NAME}, {compression}",
        rows=partial(rows, compression=compression),
        layout=LAYOUT.format(compression),
        licence=LICENCE,
        consent="web pictures, not asked",
    )


C23: Final = _source("c23")
C40: Final = _source("c40")
