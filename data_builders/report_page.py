"""The report on a corpus as one page: counts, ratings, what was dropped, leaks, samples to look at.

One HTML file that needs no network and no script: pictures are data URLs, and a content policy in
its head forbids all else. Texts and names come from outside and are escaped.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from data_builders.build import space_is_needed
from data_builders.finished import PAGE
from data_builders.leaks import Group, Leak, find_leaks
from data_builders.manifests import whole_manifest
from data_builders.report import RATINGS
from data_builders.report_picks import Pick, faces_by_id, pick_samples
from facellava.corpus import SPLITS, FaceRecord, decode_frame
from facellava.errors import BadCorpus
from facellava.faces import CROP_SIZE
from facellava.faces.overlay import CLOSED, REGION_COLOURS
from facellava.regions import REGIONS
from facellava.whole_files import write_text

MOST_SAMPLES: Final = 240
LOW_RATED: Final = 2  # of each source and task
MOST_LABELS: Final = 45
FRAMES_SHOWN: Final = 4  # of a clip
LEAKS_SHOWN: Final = 24  # with pictures; all are listed
JPEG_QUALITY: Final = 80
KINDS: Final = {"person": "Same person", "picture": "Same picture", "near-copy": "Near-copies"}


@dataclass(frozen=True)
class Bar:
    """A row of a chart.

    Attributes:
        share: of the longest bar, [0, 1].
    """

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Outline:
    """A region's landmarks in pixels of the crop, for an SVG polyline, or polygon where closed."""

    points: str
    colour: str
    closed: bool


@dataclass(frozen=True)
class Picture:
    """A frame with its landmarks drawn over it."""

    url: str
    outlines: Sequence[Outline]


@dataclass(frozen=True)
class Card:
    """A sample with its label in words and its face."""

    pick: Pick
    label: str
    face: FaceRecord
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Twins:
    """An example of a leak."""

    leak: Leak
    distance: int
    faces: Sequence[tuple[Group, str, Picture]]


def write_report(
    folder: Path,
    out: Path | None = None,
    *,
    seed: int = 0,
    examples: int = 3,
    leaks: bool = True,
) -> Path:
    """Write the page.

    Args:
        folder: the corpus.
        out: the file; ``report.html`` in the corpus where None, which a removal deletes.
        seed: decides which samples are shown; the same corpus and seed give the same page.
        examples: samples of each source and task that are shown, next to a few low-rated ones.
        leaks: look for leaks, which takes about 2 ms a face.

    Returns:
        The file.

    Raises:
        BadCorpus: there is no whole corpus, or `out` is a folder or cannot be written.
    """
    manifest = whole_manifest(folder)
    page = out or folder / PAGE
    if page.is_dir():
        raise BadCorpus(f"'{page}' is a folder; name a file for the page.")
    with space_is_needed(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
    text = _page(folder, manifest, seed, examples, leaks)
    with space_is_needed(page.parent):
        write_text(page, text)
    return page


def _page(folder: Path, manifest: Mapping[str, Any], seed: int, examples: int, leaks: bool) -> str:
    """The page's text; the arguments are those of :func:`write_report`."""
    found = find_leaks(folder) if leaks else None
    picks = pick_samples(folder, seed, examples, LOW_RATED, MOST_SAMPLES)
    twins = [(leak, example) for leak in found or () for example in leak.examples][:LEAKS_SHOWN]
    faces = faces_by_id(folder, _wanted(picks.values(), twins))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_builders"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report_page.html.j2").render(
        manifest=manifest,
        settings=_settings(manifest["settings"]),
        endpoint=_settings(manifest.get("endpoint", {})),
        splits=SPLITS,
        side=CROP_SIZE,
        tables=_tables(manifest["counts"]),
        labels=_labels(manifest["counts"].get("labels", {})),
        ratings=_ratings(manifest["counts"].get("ratings", {})),
        rating_names=RATINGS,
        threshold=_threshold(manifest),
        kinds=KINDS,
        leaks=found,
        twins=[_twins(leak, example, faces) for leak, example in twins],
        samples={
            place: [_card(pick, faces[pick.sample.face_id]) for pick in chosen]
            for place, chosen in picks.items()
        },
    )


def _wanted(
    picks: Iterable[Sequence[Pick]], twins: Sequence[tuple[Leak, tuple[int, str, str]]]
) -> Mapping[Group, set[str]]:
    wanted: defaultdict[Group, set[str]] = defaultdict(set)
    for chosen in picks:
        for pick in chosen:
            wanted[pick.group].add(pick.sample.face_id)
    for leak, (_, first, second) in twins:
        for group in (leak.first, leak.second):
            wanted[group] |= {first, second}
    return wanted


def _settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Setting to value in words."""
    words = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = [f"{key} {part}" for key, part in value.items()]
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        words[name.replace("_", " ")] = "none" if value is None else str(value)
    return words


def _threshold(manifest: Mapping[str, Any]) -> Mapping[str, int]:
    """The lowest rating of each kind with which a sample is kept; empty where it is their mean."""
    decided = manifest.get("endpoint", {"rule": "each", **manifest["settings"]})
    return decided.get("threshold", {}) if decided["rule"] == "each" else {}


def _tables(counts: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, int]]]:
    """Titles to counts by source or task, and split."""
    titles = {
        "Faces": "faces",
        "Samples kept": "samples",
        "Of these, the label was measured, not given": "weak",
        "Samples not kept for low ratings": "low_rated",
        "Samples not kept, as no rating came": "unrated",
    }
    return {title: counts[name] for title, name in titles.items() if counts.get(name)}


def _bars(counts: Mapping[str, int], names: Iterable[str]) -> list[Bar]:
    most = max(counts.values(), default=1)
    return [Bar(name, counts.get(name, 0), counts.get(name, 0) / most) for name in names]


def _labels(labels: Mapping[str, Mapping[str, int]]) -> dict[str, list[Bar]]:
    """Task to its labels, the most frequent first; ages in their order."""
    bars = {}
    for task, counts in sorted(labels.items()):
        names = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_LABELS]
        if task == "age":
            names = sorted(counts, key=lambda decade: (len(decade), decade))
        bars[task] = _bars(counts, names)
    return bars


def _ratings(ratings: Mapping[str, Mapping[str, int]]) -> dict[str, list[Bar]]:
    return {
        name: _bars(ratings[name], map(str, range(1, 11))) for name in RATINGS if name in ratings
    }


def _twins(leak: Leak, example: tuple[int, str, str], faces: Mapping[str, FaceRecord]) -> Twins:
    distance, *ids = example
    shown = []
    for face_id in ids:
        face = faces[face_id]
        middle = len(face.frames) // 2
        shown.append(((face.source, face.split), face_id, _picture(face.frames[middle], None)))
    return Twins(leak, distance, shown)


def _card(pick: Pick, face: FaceRecord) -> Card:
    count = min(FRAMES_SHOWN, len(face.frames))
    places = np.linspace(0, len(face.frames) - 1, count).round().astype(int)
    pictures = [_picture(face.frames[place], face.landmarks[place]) for place in places]
    return Card(pick, _label(pick.sample.label), face, pictures)


def _label(label: Any) -> str:
    """A sample's label in words; JSON where it is more than a word."""
    if label is None:
        return "none"
    return label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)


def _picture(frame: bytes, landmarks: NDArray[np.float32] | None) -> Picture:
    """A frame, compressed again, for a page is looked at and not measured."""
    bgr = np.ascontiguousarray(decode_frame(frame)[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    url = f"data:image/jpeg;base64,{base64.b64encode(bytes(data)).decode()}"
    return Picture(url, [] if landmarks is None else _outlines(landmarks * CROP_SIZE))


def _outlines(points: NDArray[np.float32]) -> list[Outline]:
    return [
        Outline(
            " ".join(f"{x:.1f},{y:.1f}" for x, y in points[part].tolist()),
            "#{:02x}{:02x}{:02x}".format(*REGION_COLOURS[name]),
            name in CLOSED,
        )
        for name, part in REGIONS.items()
    ]
