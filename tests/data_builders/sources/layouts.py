"""Miniatures that tests of several packages make: files by their paths within a dataset."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from data_builders.sources import bp4d, disfa
from tests.data_builders.sources.miniatures import write

BP4D_HEADER = ",".join(str(number) for number in range(100))
DISFA_UNITS = (1, 2, 4, 6, 9, 12, 25, 26)
FORGERIES = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
PAIRS = {"train": [["071", "054"]], "val": [["720", "672"]], "test": [["000", "003"]]}


def dfew_lists(clips: Mapping[int, tuple[int | str, int]]) -> dict[str, str]:
    """The ten lists of DFEW's clips, which name their label and the fold that tests them."""
    files = {}
    for fold in range(1, 6):
        for part in ("train", "test"):
            lines = [
                f"{name},{label}"
                for name, (label, tested) in clips.items()
                if (tested == fold) == (part == "test")
            ]
            path = f"EmoLabel_DataSplit/{part}(single-labeled)/set_{fold}.csv"
            files[path] = "\n".join(["video_name,label", *lines]) + "\n"
    return files


def disfa_labels(person: str, unit: int) -> str:
    """Path of the intensities of one action unit."""
    return f"ActionUnit_Labels/{person}/{person}_au{unit}.txt"


def disfa_whole(clip: str = "LeftVideo{}_comp.avi") -> dict[str, str]:
    """Two frames of everyone in DISFA; nothing moves, and no clip can be read."""
    people = disfa.FOLD_OF
    files = {disfa_labels(person, unit): "1,0\n2,0\n" for person in people for unit in DISFA_UNITS}
    return files | {f"Videos_LeftCamera/{clip.format(person)}": person for person in people}


def bp4d_line(frame: int, **codes: int) -> str:
    """A row of a table of BP4D; units that are not named are 9."""
    return f"{frame}," + ",".join(str(codes.get(f"AU{unit}", 9)) for unit in range(1, 100))


def bp4d_table(person: str = "F001", task: str = "T1", lines: Iterable[str] = ()) -> dict[str, str]:
    """The codes of one person in one task of BP4D."""
    return {f"AUCoding/AU_OCC/{person}_{task}.csv": "\n".join([BP4D_HEADER, *lines]) + "\n"}


def write_bp4d(root: Path) -> None:
    """All people and tasks of BP4D: empty tables, empty folders."""
    for person, task in product(bp4d.FOLD_OF, bp4d.TASKS):
        write(root, bp4d_table(person, task))
        (root / person / task).mkdir(parents=True)


def faceforensics_lists(
    pairs: Mapping[str, object] = PAIRS, folder: str = "dataset/splits"
) -> dict[str, str]:
    """The lists of FaceForensics++'s pairs."""
    return {f"{folder}/{name}.json": json.dumps(found) for name, found in pairs.items()}


def faceforensics_clips(
    methods: Sequence[str] = FORGERIES, compression: str = "c23"
) -> dict[str, str]:
    """The originals and fakes of PAIRS; none can be read."""
    files = {}
    for [one, other] in (pair for pairs in PAIRS.values() for pair in pairs):
        for clip in (one, other):
            files[f"original_sequences/youtube/{compression}/videos/{clip}.mp4"] = clip
        for method, name in product(methods, (f"{one}_{other}", f"{other}_{one}")):
            files[f"manipulated_sequences/{method}/{compression}/videos/{name}.mp4"] = name
    return files
