"""A mixture of datasets as a short TOML file: where each lies, and how much of it is taken.

::

    [fer2013]                   # a name of data_builders.sources
    root = "data/fer2013"       # from the mixture file's own folder
    weight = 0.5                # share of the rows; all where it is left out
    limit = 5000                # at most so many rows of each split; all where it is left out
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_builders.sources import find_source
from facellava.errors import BadCorpus


class MixtureEntry(BaseModel):
    """One dataset of a mixture.

    Attributes:
        name: of the source, a key of :data:`data_builders.sources.SOURCES`.
        root: the dataset's folder or file.
        weight: share of the rows that is taken, in (0, 1]; see :func:`is_taken`.
        limit: at most so many rows of each split; all where None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    root: Path
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    limit: Annotated[int, Field(ge=1)] | None = None


KEYS = tuple(name for name in MixtureEntry.model_fields if name != "name")


def read_mixture(path: Path) -> list[MixtureEntry]:
    """The datasets of a mixture file, in the file's order.

    Raises:
        BadCorpus: no such file, not TOML, an unknown dataset or key, or a value out of its range.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadCorpus(f"The mixture '{path}' cannot be read; give a TOML file.") from error
    except ValueError as error:
        raise BadCorpus(f"The mixture '{path}' is not TOML: {error}.") from error
    if not tables:
        raise BadCorpus(f"The mixture '{path}' names no dataset; add a table such as [fer2013].")
    return [_entry(name, table, path) for name, table in tables.items()]


def _entry(name: str, table: Any, path: Path) -> MixtureEntry:
    where = f"Mixture '{path}', [{name}]"
    if not isinstance(table, dict):
        raise BadCorpus(f"{where}: a table with the keys {', '.join(KEYS)} is needed.")
    find_source(name)
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise BadCorpus(
            f"{where}: there is no key {', '.join(unknown)}; the keys are {', '.join(KEYS)}."
        )
    if not isinstance(table.get("root"), str):
        raise BadCorpus(f"{where}: root is missing; give the dataset's folder in quotes.")
    try:
        return MixtureEntry(name=name, **table | {"root": path.parent / table["root"]})
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadCorpus(
            f"{where}: {fault['loc'][0]} is {fault['input']!r}; weight is a number above 0 and up "
            "to 1, limit a whole number of at least 1."
        ) from error


def is_taken(key: str, weight: float) -> bool:
    """Whether a row belongs to the share that is taken, by its key alone.

    A greater weight takes the same rows and more. The hash is salted: splits that are made by a
    hash of the key as well are thinned evenly.
    """
    digest = hashlib.sha256(b"mixture:" + key.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < weight
