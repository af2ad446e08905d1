"""A corpus in the forms that other trainers read. :mod:`data_builders.imports` brings it back.

::

    OUT/media/<shard>/00000.jpg     a face's frame, the bytes of the corpus
    OUT/media/<shard>/00000.avi     a clip's frames, the bytes of the corpus, as Motion JPEG
    OUT/media/<shard>/00000.npy     its landmarks, (68, 2) or (T, 68, 2) float32
    OUT/faces.jsonl                 one line a face: all else that the corpus knows about it
    OUT/<split>.json or .jsonl      one record a kept sample, in the form asked for
    OUT/not_kept.jsonl              records of the samples that the ratings dropped
    OUT/README.md                   terms of the sources
    OUT/export.json                 form, counts, the corpus's manifest; written last

Forms, with <split> ``train``, ``validation``, ``test``:

llava
    A JSON list as FaceInstruct-1M: ``conversations``, ``image`` or ``video``, ``landmarks_2d``.
sharegpt
    A JSON list for LLaMA-Factory: ``conversations``, ``images``, ``videos``, and the file
    ``dataset_info.json`` with the data sets ``facellava_train`` and so on; OUT is the dataset_dir.
messages
    JSON lines for ms-swift: ``messages``, ``images``, ``videos``; read them from within OUT.

Paths are relative to OUT. A record has one medium and one mark for it, at the head of its first
question. Landmarks are pixels of a crop of 256, whatever the frame's size, since Face-LLaVA divides
by 256; that is a power of two, so that [0, 1] comes back to the last bit. Clips have one frame a
second: their frames were sampled already, and trainers that sample two a second take them all.

What a form has no place for (label, ratings ...) is JSON text under ``facellava`` in each record.
A mark such as ``<image>`` in a text would stand for a medium that is not there: it is written
``<\\image>``, ``<\\image>`` is written ``<\\\\image>``, and the importer takes one backslash away.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO, get_args

import av
import numpy as np
from tqdm import tqdm

from data_builders.build import space_is_needed
from data_builders.finished import to_json
from data_builders.manifests import whole_manifest
from facellava.corpus import (
    SPLITS,
    FaceRecord,
    Sample,
    read_shard,
    shards,
)
from facellava.errors import BadCorpus, BadSample
from facellava.faces import CROP_SIZE
from facellava.whole_files import write_text

Form = Literal["llava", "sharegpt", "messages"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

VERSION: Final = 1
SUMMARY: Final = "export.json"
FACES: Final = "faces.jsonl"
NOT_KEPT: Final = "not_kept.jsonl"
LANDMARK_SIDE: Final = 256  # pixels
FRAMES_A_SECOND: Final = 1
EXTRA: Final = "facellava"
OWN_FILES: Final = ("frames", "landmarks")  # of a face: what lies in files of its own
TOLD: Final = ("question", "history", "answer")  # of a sample: what stands in the conversation
MARK: Final = re.compile(r"<(\\*(?:image|video|audio|bbox|ref-object))>")
ESCAPED: Final = re.compile(r"<\\(\\*(?:image|video|audio|bbox|ref-object))>")


def export(folder: Path, out: Path, form: Form, split: str | None = None) -> int:
    """Write a corpus, or one split of it, in another form; see the head of this module.

    Args:
        folder: the corpus.
        out: a new or empty folder.

    Returns:
        The number of records, one a kept sample.

    Raises:
        BadCorpus: no corpus, one that lost files, or `out` holds files or cannot be written.
        BadSample: an unknown form or split.
    """
    if form not in FORMS:
        raise BadSample(f"There is no form {form!r}; the forms are {', '.join(FORMS)}.")
    if split is not None and split not in SPLITS:
        raise BadSample(f"The split is {split!r}; allowed are {', '.join(SPLITS)}.")
    manifest = whole_manifest(folder)
    paths = shards(folder, "faces", split)
    if not paths:
        raise BadCorpus(f"'{folder}' holds no faces of the split {split!r}.")
    with new_folder(out):
        counts = _write_shards(folder, paths, out, form)
        if form == "sharegpt":
            write_text(out / "dataset_info.json", to_json(dict(_dataset_info(out))))
        write_text(out / "README.md", _readme(manifest, form))
        facts = {"version": VERSION, "form": form, "split": split, "manifest": manifest}
        write_text(out / SUMMARY, to_json({**facts, **counts}))
    return counts["samples"]


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """A folder that is filled within; it goes again where that fails, since half is no use.

    Raises:
        BadCorpus: it holds files, cannot be written, or its disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadCorpus(
            f"'{out}' holds files, perhaps of a run that was killed; delete it or name another."
        )
    with space_is_needed(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except BaseException:
            shutil.rmtree(out)
            raise


def _write_shards(folder: Path, paths: Sequence[Path], out: Path, form: Form) -> Mapping[str, int]:
    counts = Counter(faces=0, samples=0, not_kept=0)
    with ExitStack() as stack, tqdm(unit="face", desc="export") as bar:
        faces = stack.enter_context((out / FACES).open("w", encoding="utf-8"))
        not_kept = stack.enter_context((out / NOT_KEPT).open("w", encoding="utf-8"))
        kept = {
            split: stack.enter_context(_Records(split_file(out, split, form), form))
            for split in sorted({path.name.split("-", 1)[0] for path in paths})
        }
        for path in paths:
            split, shown = path.name.split("-", 1)[0], {}
            for number, row in enumerate(read_shard(path, "faces")):
                face = FaceRecord.from_row(row)
                shown[face.face_id] = media = _write_media(face, out, path.stem, number)
                facts = {name: value for name, value in row.items() if name not in OWN_FILES}
                _write_line(faces, {"shard": path.stem, **facts, **media})
                bar.update()
            counts["faces"] += len(shown)
            sample_path = folder / "samples" / path.name
            rows = read_shard(sample_path, "samples") if sample_path.is_file() else ()
            for number, row in enumerate(rows):
                record = _record(row, shown[row["face_id"]], form, (path.stem, number))
                if row["kept"]:
                    kept[split].write(record)
                else:
                    _write_line(not_kept, record)
                counts["samples" if row["kept"] else "not_kept"] += 1
    return counts


def split_file(out: Path, split: str, form: Form) -> Path:
    """The file of a split's records."""
    return out / f"{split}.{'jsonl' if form == 'messages' else 'json'}"


class _Records:
    """A file of records, one a line, that gets its name when it is whole."""

    def __init__(self, path: Path, form: Form) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._is_list = form != "messages"
        self._count = 0

    def __enter__(self) -> Self:
        self._file = self._partial.open("w", encoding="utf-8")
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        if self._is_list:
            self._file.write(",\n" if self._count else "[\n")
        self._file.write(json.dumps(record, ensure_ascii=False))
        if not self._is_list:
            self._file.write("\n")
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_list:
            self._file.write("\n]\n" if self._count else "[]\n")
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)


def _write_line(file: TextIO, value: Mapping[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _write_media(face: FaceRecord, out: Path, shard: str, number: int) -> dict[str, str]:
    """Write frames and landmarks; their paths from `out` under "image" or "video"."""
    kind, ending = ("image", "jpg") if face.media == "image" else ("video", "avi")
    # By number: ids are the sources' and may hold what a file name cannot.
    name = f"media/{shard}/{number:05d}"
    media = {kind: f"{name}.{ending}", "landmarks_2d": f"{name}.npy"}
    path = out / media[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    points = face.landmarks * np.float32(LANDMARK_SIDE)
    if kind == "image":
        [frame] = face.frames
        path.write_bytes(frame)
        [points] = points
    else:
        _write_clip(path, face.frames)
    np.save(out / media["landmarks_2d"], points)
    return media


def _write_clip(path: Path, frames: Iterable[bytes]) -> None:
    """JPEG pictures as the frames of a Motion JPEG file, not encoded again."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=FRAMES_A_SECOND)
        stream.width = stream.height = CROP_SIZE
        stream.pix_fmt = "yuvj444p"
        for place, frame in enumerate(frames):
            packet = av.Packet(frame)
            packet.stream = stream
            packet.pts = packet.dts = place
            packet.time_base = Fraction(1, FRAMES_A_SECOND)
            packet.is_keyframe = True
            container.mux(packet)


def _record(
    row: Mapping[str, Any], media: Mapping[str, str], form: Form, place: tuple[str, int]
) -> dict[str, Any]:
    """One sample in the form asked for.

    Args:
        place: the sample's shard and its number in it.
    """
    sample = Sample.from_row(row)
    kind = "image" if "image" in media else "video"
    texts = [escaped(text) for turn in sample.history for text in turn]
    texts += [escaped(sample.question), escaped(sample.answer)]
    texts[0] = f"<{kind}>\n{texts[0]}"
    facts = {name: value for name, value in row.items() if name not in TOLD}
    shard, number = place
    extra = {EXTRA: json.dumps({"shard": shard, "row": number, **facts}, ensure_ascii=False)}
    if form == "llava":
        return {"id": sample.sample_id, "conversations": _turns(texts, form), **media, **extra}
    turns = "conversations" if form == "sharegpt" else "messages"
    found = {f"{name}s": [media[name]] if name == kind else [] for name in ("image", "video")}
    return {turns: _turns(texts, form), **found, **extra}


def _turns(texts: Sequence[str], form: Form) -> list[dict[str, str]]:
    who, what, speakers = (
        ("role", "content", ("user", "assistant"))
        if form == "messages"
        else ("from", "value", ("human", "gpt"))
    )
    return [{who: speakers[place % 2], what: text} for place, text in enumerate(texts)]


def escaped(text: str) -> str:
    """The text without marks that stand for media; see the head of this module."""
    return MARK.sub(r"<\\\1>", text)


def unescaped(text: str) -> str:
    """What :func:`escaped` was given."""
    return ESCAPED.sub(r"<\1>", text)


def _dataset_info(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = {"messages": "conversations", "images": "images", "videos": "videos"}
    for split in SPLITS:
        path = split_file(out, split, "sharegpt")
        if path.is_file():
            facts = {"file_name": path.name, "formatting": "sharegpt", "columns": columns}
            yield f"facellava_{split}", facts


def _readme(manifest: Mapping[str, Any], form: Form) -> str:
    lines = [
        f"# Faces with questions and explained answers, in the form {form}",
        "",
        "Written by `facellava build export`; `facellava build import` makes a corpus of it again.",
        "Each line of `faces.jsonl` carries its source's terms:",
        "",
    ]
    for name, terms in manifest["sources"].items():
        licence, consent = (terms[part].rstrip(".") for part in ("licence", "consent"))
        lines.append(f"- {name}: {licence}. Consent of the people: {consent}.")
    return "\n".join([*lines, ""])
