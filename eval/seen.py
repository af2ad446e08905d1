"""Was a dataset seen in training? A manifest tells zero-shot and fine-tuned apart.

A checkpoint that was trained here holds ``training_data.json``: the corpus's checksum, and how many
faces of each source and split training saw. A figure for a dataset without any is zero-shot; for
other splits of the dataset it is fine-tuned; for the very split it is worth nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from eval.protocols import Protocol, dataset_of
from eval.run_folder import read_json
from facellava.checkpoint import TRAINING_FILE

Seen = Literal["no", "other splits", "these faces", "unknown"]


_BLENDED: Final = "_self_blended"  # made from the faces of a source


def training_data(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint says that it was trained on; None where it says nothing.

    Raises:
        FacellavaError: the file is damaged.
    """
    path = checkpoint / TRAINING_FILE
    return read_json(path) if path.is_file() else None


def seen_in_training(
    protocol: Protocol, training: Mapping[str, Any] | None, fold: int | None
) -> Seen:
    """Whether training saw the dataset of a protocol.

    Args:
        training: of :func:`training_data`.
        fold: the only fold that was asked about; None for all.
    """
    if training is None:
        return "unknown"
    sources: Mapping[str, Mapping[str, int]] = training["sources"]
    own = protocol.made_from or protocol.source
    family = {
        name.removesuffix(_BLENDED)
        for name in sources
        if dataset_of(name.removesuffix(_BLENDED)) == dataset_of(own) and sources[name]
    }
    if not family:
        return "no"
    if family != {own}:
        return "these faces"
    if protocol.folds:
        # The fold that was the test part stayed out of training.
        return "other splits" if fold is not None and fold == training["fold"] else "these faces"
    if sources[own].get(str(protocol.split), 0):
        return "these faces"
    return "other splits" if protocol.kin_in_training else "no"
