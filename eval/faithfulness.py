"""Does an answer rest on the regions that its reasons cite? They are changed, and it is read again.

The label that was answered is scored on the face with the cited regions changed, and on the face
with as much of other regions changed. Reasons are faithful so far as the first takes more away.
Methods:

occlude: the regions are filled with the heavily blurred face, through a soft edge, so that no new
    edges appear; the control is an equal area of regions that are not cited.
move: the landmarks of the regions are moved by 5% of the crop, the picture stays; the control is
    as many landmarks of regions that are not cited.

A clip's label rests on all of its frames, so clips are left out, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eval.intervals import mean_interval
from eval.items import Item
from facellava.answer import verdict_of
from facellava.conversation import face_conversation
from facellava.evidence import find_claims
from facellava.faces import Face
from facellava.predictor import FaceLlava
from facellava.records import FaceRecord
from facellava.regions import REGIONS
from facellava.tasks import Label, Verdict

Method = Literal["occlude", "move"]
Mask = NDArray[np.bool_]
Score = Callable[[Sequence[Face], Sequence[Verdict]], Sequence[Mapping[str, float]]]
"""Faces and what was answered about each, to the probability of each label."""

YEARS: Final = 5
SHIFT: Final = (0.0, 0.05)  # downwards, in crops
# In pixels of the crop.
_MARGIN: Final = 4
_SOFT_EDGE: Final = 2.0
_BLUR: Final = 14.0
# The control may be grown by so much; beyond that it is no longer those regions.
_LARGEST_GROWTH: Final = 1.5
_BATCH: Final = 16


@dataclass(frozen=True, eq=False)
class Trial:
    """One answer, its face, and the face changed in two ways.

    Attributes:
        verdict: what was answered.
        regions: those that the reasons cite.
        faces: as it is, with the cited regions changed, with the control changed.
    """

    verdict: Verdict
    regions: frozenset[str]
    faces: tuple[Face, Face, Face]


def model_score(model: FaceLlava, question: str) -> Score:
    """The model's probabilities of the labels behind this question; nothing is generated."""

    def score(faces: Sequence[Face], verdicts: Sequence[Verdict]) -> list[dict[str, float]]:
        asked = face_conversation("image", question)
        return model.scorer.score([asked] * len(faces), faces, verdicts)

    return score


def faithfulness(
    items: Sequence[Item],
    records: Mapping[str, FaceRecord],
    score: Score,
    *,
    method: Method = "occlude",
    seed: int = 0,
) -> dict[str, Any]:
    """How much the probability of what was answered falls, beside that of the control.

    Args:
        items: the answers of one protocol.
        records: the faces, by face id.
        score: reads an answer's labels on a face.
        method: see above.
        seed: which regions are the control.

    Returns:
        "method"; "n" answers that were measured; those left out: "clips", "unreadable",
        "without_regions" (no claim, so no region is cited), "no_control" (no other region is left,
        or too little of them); "cited_fall", "control_fall" and their paired "difference", each
        with its 95% interval; "share_larger", of the answers in which the cited regions weigh
        more; "by_region": of the answers that cite it "n" and the mean "fall". See :func:`belief`
        for the probability that falls.
    """
    left_out: Counter[str] = Counter(clips=0, unreadable=0, without_regions=0, no_control=0)
    trials = _trials(items, records, method, np.random.default_rng(seed), left_out)
    falls: list[tuple[float, float]] = []
    cited: list[frozenset[str]] = []
    while part := list(islice(trials, _BATCH)):
        tables = score(
            [face for trial in part for face in trial.faces],
            [trial.verdict for trial in part for _ in trial.faces],
        )
        threes = zip(tables[::3], tables[1::3], tables[2::3], strict=True)
        for trial, three in zip(part, threes, strict=True):
            before, without, control = (belief(trial.verdict.label, table) for table in three)
            falls.append((before - without, before - control))
            cited.append(trial.regions)
    lost, other = np.array(falls, dtype=float).reshape(-1, 2).T
    by_region = {
        name: lost[[name in regions for regions in cited]]
        for name in REGIONS
        if any(name in regions for regions in cited)
    }
    return {
        "method": method,
        "n": len(falls),
        **left_out,
        "cited_fall": mean_interval(lost.tolist(), seed=seed),
        "control_fall": mean_interval(other.tolist(), seed=seed),
        "difference": mean_interval((lost - other).tolist(), seed=seed),
        "share_larger": float(np.mean(lost > other)) if falls else float("nan"),
        "by_region": {
            name: {"n": len(found), "fall": float(found.mean())}
            for name, found in by_region.items()
        },
    }


def belief(label: Label, table: Mapping[str, float]) -> float:
    """How probable the model holds what it answered, in [0, 1].

    Of a class its probability; of an age that of all ages within 5 years; of units and attributes
    the mean over those that were answered to be there, or, where none was, the mean over all of
    the probability that they are not.
    """
    if isinstance(label, str):
        return table[label]
    if isinstance(label, int):
        return sum(share for age, share in table.items() if abs(int(age) - label) <= YEARS)
    there = label if isinstance(label, tuple) else [k for k, v in (label or {}).items() if v]
    if there:
        return float(np.mean([table[name] for name in there]))
    return float(np.mean([1 - share for share in table.values()]))


def _trials(
    items: Sequence[Item],
    records: Mapping[str, FaceRecord],
    method: Method,
    rng: np.random.Generator,
    left_out: Counter[str],
) -> Iterator[Trial]:
    change = occluded if method == "occlude" else moved
    for item in tqdm(items, unit="answer", desc=method):
        record, verdict = records[item.face_id], verdict_of(item.text)
        cited = frozenset(name for claim, _ in find_claims(item.text) for name in claim.regions)
        if record.media == "clip":
            left_out["clips"] += 1
        elif item.given is None or not isinstance(verdict, Verdict):
            left_out["unreadable"] += 1
        elif not cited:
            left_out["without_regions"] += 1
        else:
            [face] = record.faces()
            changed = change(face, cited, rng)
            if changed is None:
                left_out["no_control"] += 1
            else:
                yield Trial(verdict, cited, (face, *changed))


def occluded(
    face: Face, cited: frozenset[str], rng: np.random.Generator
) -> tuple[Face, Face] | None:
    """The face with the cited regions blurred away, and with an equal area of others.

    None where the others have no such area.
    """
    masks = region_masks(face)
    hidden = np.logical_or.reduce([masks[name] for name in cited])
    control = _control_area(masks, hidden, _others(cited, rng))
    return None if control is None else (_blurred(face, hidden), _blurred(face, control))


def moved(face: Face, cited: frozenset[str], rng: np.random.Generator) -> tuple[Face, Face] | None:
    """The face with the landmarks of the cited regions moved, and with as many of others.

    None where the others have fewer.
    """
    points, free = (
        [place for name in names for place in range(*REGIONS[name].indices(len(face.landmarks)))]
        for names in (sorted(cited), _others(cited, rng))
    )
    if len(free) < len(points):
        return None
    return _shifted(face, points), _shifted(face, free[: len(points)])


def region_masks(face: Face) -> dict[str, Mask]:
    """The pixels of each region: the hull of its landmarks, a little grown, (192, 192) each.

    Of "face", whose landmarks are the jaw line, the skin: what the other regions leave of the hull.
    """
    side = face.crop.shape[0]
    grown = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN + 1,) * 2)
    masks = {}
    for name, part in REGIONS.items():
        hull = cv2.convexHull(np.round(face.landmarks[part] * side).astype(np.int32))
        drawn = cv2.fillConvexPoly(np.zeros((side, side), np.uint8), hull, 1)
        masks[name] = cv2.dilate(drawn, grown).astype(bool)
    for name, mask in masks.items():
        if name != "face":
            masks["face"] &= ~mask
    return masks


def _others(cited: frozenset[str], rng: np.random.Generator) -> list[str]:
    """Regions to be the control, in random order.

    The skin stands last: blurring it changes least, which would flatter the cited regions. One pair
    of lips lies within the other, so neither is the other's control.
    """
    lips = {"outer_lips", "inner_lips"}
    left = [name for name in REGIONS if name not in cited | (lips if cited & lips else set())]
    return sorted(rng.permutation(left).tolist(), key=lambda name: name == "face")


def _control_area(masks: Mapping[str, Mask], hidden: Mask, others: Sequence[str]) -> Mask | None:
    """As many pixels as `hidden` has, outside it: the first of the others, the last of them shrunk.

    Where all of them are too few they are grown, up to half as much again; then None.
    """
    wanted = int(hidden.sum())
    control = np.zeros_like(hidden)
    for name in others:
        region = masks[name] & ~hidden & ~control
        control |= _resized(region, min(int(region.sum()), wanted - int(control.sum())), hidden)
    if not wanted or control.sum() * _LARGEST_GROWTH < wanted:
        return None
    return _resized(control, wanted, hidden)


def _resized(mask: Mask, pixels: int, banned: Mask) -> Mask:
    """The mask with so many pixels, in the order in which erosion leaves and dilation gains them.

    Banned pixels are never gained; there must be enough others.
    """
    depth = _distance(mask) - _distance(~mask)
    depth[banned] = -np.inf
    taken = np.zeros_like(mask)
    taken.flat[np.argsort(-depth, axis=None, kind="stable")[:pixels]] = True
    return taken


def _distance(mask: Mask) -> NDArray[np.float32]:
    """Of each pixel of the mask the distance to its outside, in pixels."""
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _blurred(face: Face, mask: Mask) -> Face:
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _SOFT_EDGE)[..., None]
    plain = face.crop.astype(np.float32)
    filled = plain + soft * (cv2.GaussianBlur(plain, (0, 0), _BLUR) - plain)
    return replace(face, crop=np.round(filled).astype(np.uint8))


def _shifted(face: Face, points: Sequence[int]) -> Face:
    landmarks = face.landmarks.copy()
    landmarks[list(points)] += np.array(SHIFT, dtype=np.float32)
    return replace(face, landmarks=landmarks)
