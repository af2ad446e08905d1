"""Clips with true labels frame by frame, for `benchmarks.clip_noise`.

    python -m benchmarks.clip_set rendered --pack data/ict_facekit --out rendered.npz
    python -m benchmarks.clip_set faces --corpus corpus --out faces.npz

"rendered": people of the ICT-FaceKit model (extra `render`) whose face goes from neutral over the
onset of an expression to its apex and back, while the head moves a little. The expression is made
of the action units of EMFACS, so the label of each frame is true by construction: the expression
where it is at `VISIBLE` of its apex or more, neutral before and behind. Training and test people
differ. It renders about three frames a second and goes on after a stop.

"faces": faces of a corpus with an expression that most annotators chose. A clip is one picture,
moved and lit a little differently from frame to frame, as a face that keeps still; nothing
happens in it, so that its frames are as redundant as frames can be.

Training clips are imbalanced, test clips are as even as the faces allow. Frames are grey, as
FER2013 is, and landmarks are off by what a face finder is off. One .npz with frames (N, T, 48, 48)
uint8, landmarks (N, T, 68, 2) float32 in [0, 1] of the frame, labels (N, T) int64, test (N,) bool
and classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.posed_expressions import apex_weights
from data_builders.rendered.looks import draw_person, draw_shot
from data_builders.rendered.morphable import load_model
from data_builders.sources.ict_facekit import require_renderer
from facellava.corpus import read_faces
from facellava.faces import canonical_face
from facellava.records import FaceRecord, decode_frame
from facellava.tasks.expression import BASIC
from train.augment import shift, to_pictures

if TYPE_CHECKING:
    from data_builders.rendered.studio import Studio

SIDE: Final = 48
FRAMES: Final = 12
STILL_FRAMES: Final = 6
FINDER_ERROR: Final = 0.01  # of the crop's side: two of its 192 pixels
VISIBLE: Final = 0.4  # of the apex
PICTURE: Final = 88  # pixels rendered; the crop takes about 48 of them
CLIPS_A_PERSON: Final = 2
FEW_VOTES: Final = 0.6

# Roughly the shares in FER2013 and Aff-Wild2: much happiness, little fear and disgust.
SHARES: Final = {
    "neutral": 0.16, "happiness": 0.32, "sadness": 0.16, "surprise": 0.14,
    "fear": 0.06, "anger": 0.10, "disgust": 0.06,
}  # fmt: skip

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (T, 48, 48) uint8, landmarks (T, 68, 2), labels (T,); whether it is for testing."""

    frames: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: bool


def envelope(rng: np.random.Generator) -> NDArray[np.float64]:
    """(T,) how much of the expression shows: 0 at both ends, 1 at the apex."""
    start, end = rng.uniform(0, 2.5), FRAMES - 1 - rng.uniform(0, 2.5)
    rise, fall = rng.uniform(1.5, 3.5), rng.uniform(1.5, 3.5)
    times = np.arange(FRAMES)
    ramps = np.minimum((times - start) / rise, (end - times) / fall)
    share = np.clip(ramps, 0, 1)
    eased: NDArray[np.float64] = share * share * (3 - 2 * share)
    return eased


def rendered_clip(studio: Studio, number: int, name: str, test: bool) -> Clip:
    """Clip number so-and-so of the people in the model."""
    rng = np.random.default_rng((7, number))
    person = draw_person(
        np.random.default_rng((1, int(test), number // CLIPS_A_PERSON)),
        len(studio.model.identity_offsets),
    )
    shot = draw_shot(rng)
    eyes = PICTURE * float(rng.uniform(0.27, 0.32))
    shot = replace(shot, size=PICTURE, eye_distance=eyes, centre=(0.5, 0.5), pitch=shot.pitch / 2)
    apex, shown = apex_weights(name, rng), envelope(rng)
    turns = np.cumsum(rng.normal(0, 1.2, (FRAMES, 3)), axis=0)
    frames, points = [], []
    for share, (yaw, pitch, roll) in zip(shown, turns, strict=True):
        weights = {shape: weight * float(share) for shape, weight in apex.items()}
        weights |= dict.fromkeys(("eyeBlink_R", "eyeBlink_L"), float(rng.random() < 0.05))
        moved = replace(
            shot, yaw=shot.yaw + yaw, pitch=shot.pitch + pitch, roll=shot.roll + roll,
            painting=int(rng.integers(2**31)),
        )  # fmt: skip
        picture, marks = studio.shoot(person, weights, moved)
        marks = marks + rng.normal(0, FINDER_ERROR * PICTURE / 2, marks.shape)
        face = canonical_face(picture, marks, source="rendered")
        frames.append(_grey(face.crop))
        points.append(face.landmarks)
    labels = np.where(shown >= VISIBLE, BASIC.index(name), BASIC.index("neutral"))
    return Clip(np.stack(frames), np.stack(points), labels.astype(np.int64), test)


def _grey(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def names_in_shares(count: int, shares: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """`count` expressions in these shares, in random order."""
    names = list(shares)
    ends = np.round(np.cumsum(list(shares.values())) / sum(shares.values()) * count).astype(int)
    listed = np.repeat(names, np.diff(ends, prepend=0))
    return [str(name) for name in rng.permutation(listed)]


@app.command()
def rendered(
    pack: Annotated[Path, typer.Option(help="Folder of the ICT-FaceKit pack.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    train: Annotated[int, typer.Option(min=1, help="Clips to train on.")] = 192,
    test: Annotated[int, typer.Option(min=1, help="Clips to test on.")] = 84,
) -> None:
    """Onset, apex and offset of expressions on rendered faces."""
    require_renderer()
    from data_builders.rendered.studio import Studio

    studio = Studio(load_model(pack))
    rng = np.random.default_rng(0)
    wanted = [(name, False) for name in names_in_shares(train, SHARES, rng)]
    wanted += [(name, True) for name in names_in_shares(test, dict.fromkeys(BASIC, 1.0), rng)]
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, (name, for_test) in enumerate(tqdm(wanted, unit="clip", disable=None)):
        part = parts / f"{number:05d}.npz"
        if not part.exists():
            clip = rendered_clip(studio, number, name, for_test)
            _write(part, [clip])
        clips += _read(part)
    _write(out, clips)
    typer.echo(f"{len(clips)} clips are in {out}")


@app.command()
def faces(
    corpus: Annotated[Path, typer.Option(help="A finished corpus.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    source: Annotated[str, typer.Option(help="Of the corpus.")] = "fer2013",
    train: Annotated[int, typer.Option(min=1, help="Most clips to train on.")] = 1200,
    test: Annotated[int, typer.Option(min=1, help="Most clips to test on, over all labels.")] = 700,
) -> None:
    """Still faces of a corpus, each as a clip that hardly moves."""
    limits = {
        "train": {name: round(train * share) for name, share in SHARES.items()},
        "validation": dict.fromkeys(BASIC, test // len(BASIC)),
    }
    clips = [
        still_clip(record, split == "validation")
        for split, limit in limits.items()
        for record in tqdm(list(_agreed(corpus, source, split, limit)), unit="clip", disable=None)
    ]
    _write(out, clips)
    typer.echo(f"{len(clips)} clips are in {out}")


def _agreed(
    corpus: Path, source: str, split: str, limits: Mapping[str, int]
) -> Iterator[FaceRecord]:
    """Faces that most annotators agree on, so many of each label at most."""
    left = dict(limits)
    for record in read_faces(corpus, split, source):
        votes = record.labels.get("expression_votes") or {}
        name = record.labels.get("expression")
        if name not in left or not votes:
            continue
        if left[name] and votes.get(name, 0) >= FEW_VOTES * sum(votes.values()):
            left[name] -= 1
            yield record


def still_clip(record: FaceRecord, test: bool) -> Clip:
    """The first frame of a face, moved and lit a little differently from frame to frame.

    A test clip is the one frame: the same picture again would only narrow the interval.
    """
    rng = np.random.default_rng(zlib.crc32(record.face_id.encode()))
    pictures = to_pictures(decode_frame(record.frames[0])[None].repeat(STILL_FRAMES, axis=0))
    points = torch.from_numpy(record.landmarks[0]).expand(STILL_FRAMES, -1, -1)
    if not test:
        pictures, points = shift(pictures, points, rng, strength=0.25)
    crops = pictures.round().byte().permute(0, 2, 3, 1).numpy()
    frames, marks = [], []
    gain, bias = 1.0, 0.0
    for crop, at in zip(crops, points.numpy(), strict=True):
        grey = _grey(crop).astype(np.float32)
        frames.append(np.clip((grey - 128) * gain + 128 + bias, 0, 255).astype(np.uint8))
        marks.append((at + rng.normal(0, FINDER_ERROR / 2, at.shape)).astype(np.float32))
        gain, bias = gain * float(np.exp(rng.normal(0, 0.03))), bias + float(rng.normal(0, 3))
    shown = 1 if test else STILL_FRAMES
    labels = np.full(STILL_FRAMES, BASIC.index(str(record.labels["expression"])), np.int64)
    labels[shown:] = -1
    return Clip(np.stack(frames), np.stack(marks), labels, test)


def _write(path: Path, clips: list[Clip]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            frames=np.stack([clip.frames for clip in clips]),
            landmarks=np.stack([clip.landmarks for clip in clips]),
            labels=np.stack([clip.labels for clip in clips]),
            test=np.array([clip.test for clip in clips]),
            classes=np.array(BASIC),
        )
    partial.replace(path)


def _read(path: Path) -> list[Clip]:
    with np.load(path) as stored:
        arrays = [stored[name] for name in ("frames", "landmarks", "labels", "test")]
    return [Clip(f, p, y, bool(t)) for f, p, y, t in zip(*arrays, strict=True)]


if __name__ == "__main__":
    app()
