"""What a run reads back of its own may have been cut off or changed since: said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from facellava.errors import BadCheckpoint, FacellavaError


@contextmanager
def undamaged(path: str | Path, remedy: str, part: str = "") -> Iterator[None]:
    """Around the reading of a file or folder that training wrote.

    torch, safetensors, PEFT, tokenizers and Arrow raise errors of no common kind.

    Args:
        path: of that file or folder.
        remedy: the end of the sentence: what to do.
        part: which of the folder's files are read.

    Raises:
        BadCheckpoint: it cannot be read.
    """
    try:
        yield
    except (FacellavaError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        how = ": ".join(filter(None, (part, type(error).__name__)))
        raise BadCheckpoint(f"'{path}' is damaged ({how}); {remedy}") from error
