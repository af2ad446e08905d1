"""Protocols as task folders of lmms-eval, the evaluation tool of the multimodal field.

::

    OUT/facellava_<key>/facellava_<key>.yaml           the task: the bare question
    OUT/facellava_<key>/facellava_<key>_closed.yaml    the same with the labels spelt out
    OUT/facellava_<key>/test.parquet                   faces, questions, truth
    OUT/facellava_<key>/task_functions.py              what the YAML names
    OUT/facellava_<key>/facellava_reader/              our parsers and metrics, copied

``lmms-eval --include_path OUT --tasks facellava_<key>`` finds them. The layout is that of lmms-eval
0.7.3, which takes a relative path of a Parquet file from the YAML's folder; `lmms_requirements.txt`
is the environment in which it was run.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Final

import datasets
import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
from tqdm import tqdm

from eval.faces_table import FacesTable
from eval.figures import FAILURE_RULE
from eval.lmms_functions import FIGURES
from eval.protocols import SMALLER_IS_BETTER, Protocol
from facellava.errors import BadCorpus, FacellavaError
from facellava.faces.crop import CROP_SIZE
from facellava.faces.face_png import to_png
from facellava.predictor import MAX_NEW_TOKENS
from facellava.records import FaceRecord
from facellava.tasks.closed_question import question_in

FEATURES: Final = datasets.Features(
    {
        "face_id": datasets.Value("string"),
        "image": datasets.Image(),
        "question": datasets.Value("string"),
        "closed_question": datasets.Value("string"),
        "target": datasets.Value("string"),
        "task": datasets.Value("string"),
        "kind": datasets.Value("string"),
        "labels": datasets.List(datasets.Value("string")),
    }
)
FUNCTIONS: Final = "task_functions"
READER: Final = "facellava_reader"
ROWS: Final = 64  # of a row group: about 4 MB of pictures
LOWER_IS_BETTER: Final = SMALLER_IS_BETTER | {"unreadable", "not_our_grammar"}

_OWN_IMPORT: Final = re.compile(r"^(\s*)(from|import) facellava\b", re.MULTILINE)


def task_name(protocol: Protocol) -> str:
    """What lmms-eval calls the protocol: "facellava_" and the key in letters, digits and "_"."""
    return "facellava_" + re.sub(r"[^a-z0-9]+", "_", protocol.key.lower()).strip("_")


def export_lmms_tasks(
    tables: Iterable[tuple[Protocol, FacesTable]], out: Path, *, limit: int | None = None
) -> list[Path]:
    """Write a task folder a protocol; each appears whole or not at all.

    Args:
        tables: the protocols and where their faces lie, as a run holds them.
        out: the folder around the task folders.
        limit: at most so many faces of each, drawn by the hash of their ids.

    Returns:
        The task folders.

    Raises:
        BadCorpus: a table holds no face of its protocol.
        FacellavaError: a task folder is there already, a protocol asks about clips, or the disk
            cannot be written.
    """
    wanted = [(protocol, table, out / task_name(protocol)) for protocol, table in tables]
    for number, (_, _, folder) in enumerate(wanted):
        if folder.exists() or folder in [earlier for _, _, earlier in wanted[:number]]:
            raise FacellavaError(
                f"'{folder}' would be overwritten; delete it, or give another folder to export to."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for protocol, table, folder in wanted:
            _export(protocol, table, folder, limit)
    except OSError as error:
        raise FacellavaError(
            f"'{out}' cannot be written ({error.strerror}); give a folder with free space."
        ) from error
    return [folder for _, _, folder in wanted]


def _export(protocol: Protocol, table: FacesTable, folder: Path, limit: int | None) -> None:
    with tempfile.TemporaryDirectory(prefix=".lmms-", dir=folder.parent) as work:
        partial = Path(work) / folder.name
        partial.mkdir()
        count, licences = _write_table(protocol, _chosen(protocol, table, limit), partial)
        _copy_reader(partial)
        for name, column in (
            (folder.name, "question"),
            (f"{folder.name}_closed", "closed_question"),
        ):
            text = _as_yaml(_task(name, protocol, column))
            (partial / f"{name}.yaml").write_text(text, "utf-8")
        (partial / "README.md").write_text(_readme(protocol, folder.name, count, licences), "utf-8")
        partial.replace(folder)


def _chosen(protocol: Protocol, table: FacesTable, limit: int | None) -> Iterator[FaceRecord]:
    if limit is None:
        return table.records(protocol)
    ids = (record.face_id for record in table.records(protocol))
    kept = set(heapq.nsmallest(limit, ids, key=lambda name: hashlib.sha256(name.encode()).digest()))
    return (record for record in table.records(protocol) if record.face_id in kept)


def _write_table(
    protocol: Protocol, records: Iterator[FaceRecord], folder: Path
) -> tuple[int, list[str]]:
    """The number of rows, and the terms of the faces."""
    count, licences = 0, set()
    schema = FEATURES.arrow_schema
    with (
        pq.ParquetWriter(folder / "test.parquet", schema, compression="zstd") as file,
        tqdm(unit="face", desc=folder.name) as bar,
    ):
        while part := list(islice(records, ROWS)):
            rows = [_row(protocol, record) for record in part]
            file.write_table(pa.Table.from_pylist(rows, schema=schema))
            licences |= {record.licence for record in part}
            count += len(part)
            bar.update(len(part))
    if not count:
        raise BadCorpus(
            f"No face was found for {protocol.key}; give the faces table of {protocol.title}."
        )
    return count, sorted(licences)


def _row(protocol: Protocol, record: FaceRecord) -> dict[str, Any]:
    if record.media != "image":
        raise FacellavaError(
            f"{protocol.key} asks about clips, and only photos are exported to lmms-eval; leave it "
            "out."
        )
    [face] = record.faces()
    return {
        "face_id": record.face_id,
        "image": {"bytes": to_png(face), "path": None},
        "question": protocol.question,
        "closed_question": question_in("closed", protocol.task, protocol.labels),
        "target": json.dumps(protocol.truth(record)),
        "task": protocol.task,
        "kind": protocol.kind,
        "labels": list(protocol.labels),
    }


def _copy_reader(folder: Path) -> None:
    """Our parsers and metrics under a name of their own, beside the file that imports them."""
    library, suite, reader = files("facellava"), files("eval"), folder / READER
    sources = {f"tasks/{path.name}": path for path in library.joinpath("tasks").iterdir()}
    sources |= {name: library.joinpath(name) for name in ("errors.py", "metrics.py")}
    sources |= {"lmms_functions.py": suite.joinpath("lmms_functions.py")}
    (reader / "tasks").mkdir(parents=True)
    (reader / "__init__.py").write_text(
        f'"""Copied from facellava {version("facellava")}, Apache-2.0."""\n', "utf-8"
    )
    for name, path in sources.items():
        if name.endswith(".py"):
            text = _OWN_IMPORT.sub(rf"\1\2 {READER}", path.read_text("utf-8"))
            (reader / name).write_text(text, "utf-8")
    shim = suite.joinpath("lmms_templates", f"{FUNCTIONS}.py.txt").read_text("utf-8")
    (folder / f"{FUNCTIONS}.py").write_text(shim, "utf-8")


class _Function(str):
    """A function of the task's own file, as YAML names it."""


class _Dumper(yaml.SafeDumper):
    """Knows lmms-eval's tag for functions."""


_Dumper.add_representer(
    _Function,
    lambda dumper, name: dumper.represent_scalar("!function", f"{FUNCTIONS}.{name}"),
)


def _task(name: str, protocol: Protocol, question_column: str) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": "test.parquet"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": _Function("doc_to_visual"),
        "doc_to_text": question_column,
        "doc_to_target": "target",
        "process_results": _Function("process_results"),
        "generation_kwargs": {
            "max_new_tokens": MAX_NEW_TOKENS,
            "temperature": 0,
            "do_sample": False,
            "until": [],
        },
        "metric_list": [
            {
                "metric": figure,
                "aggregation": _Function(function.__name__),
                "higher_is_better": figure not in LOWER_IS_BETTER,
            }
            for figure, function in FIGURES[protocol.kind].items()
        ],
        "metadata": {"version": 1, "protocol": protocol.key, "title": protocol.title},
    }


def _as_yaml(task: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        dict(task), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text


def _readme(protocol: Protocol, name: str, count: int, licences: Iterable[str]) -> str:
    template = files("eval").joinpath("lmms_templates", "README.md.j2").read_text("utf-8")
    return jinja2.Template(template, keep_trailing_newline=True).render(
        name=name,
        protocol=protocol,
        rows=count,
        version=version("facellava"),
        question=protocol.question,
        figures=list(FIGURES[protocol.kind]),
        rule=FAILURE_RULE[protocol.kind],
        side=CROP_SIZE,
        licences=[" ".join(licence.split()) for licence in licences],
    )
