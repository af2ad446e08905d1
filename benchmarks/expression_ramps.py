"""Faces from neutral to the apex of an expression, for `benchmarks.clip_tokens`.

    python -m benchmarks.expression_ramps rendered --pack data/ict_facekit --out ramps.npz
    python -m benchmarks.expression_ramps photos --corpus corpus --out photos.npz

"rendered": people of the ICT-FaceKit model (extra `render`) at each of LEVELS of an expression's
apex, which is made of the action units of EMFACS; landmarks are off by what a face finder is off.
From such a ramp a clip of any timing can be put together. Goes on after a stop.

"photos": faces of a corpus, each a ramp of one level, so that a clip of it holds still.

A file holds N ramps of L levels, each level seen V times: `jpeg`, all crops (96 x 96 RGB) one after
the other, with `ends` (N * L * V,) of each; `landmarks` (N, L, V, 68, 2) in [0, 1] of the crop;
`labels` (N,) into `facellava.tasks.expression.BASIC`; `person` (N,), and `test` (N,) bool. People
who are tested are not trained on, and none of them is in a corpus of `data_builders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.posed_expressions import apex_weights
from data_builders.rendered.looks import draw_person, draw_shot
from data_builders.rendered.morphable import load_model
from data_builders.sources.ict_facekit import require_renderer
from facellava.corpus import read_faces
from facellava.faces import canonical_face
from facellava.records import decode_frame
from facellava.tasks.expression import BASIC

if TYPE_CHECKING:
    from data_builders.rendered.studio import Studio

SIDE: Final = 96
LEVELS: Final = (0.0, 1 / 3, 2 / 3, 1.0)
VIEWS: Final = 2
PICTURE: Final = 144  # pixels rendered
FINDER_ERROR: Final = 1.0  # pixels of the picture
PEOPLE: Final = 3  # keeps them apart from the people of data_builders.sources.ict_facekit
RAMPS_A_PERSON: Final = len(BASIC)
TESTED: Final = 3  # every third person
JPEG_QUALITY: Final = 90


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@dataclass(frozen=True, eq=False)
class Ramps:
    """Crops (N, L, V, 96, 96, 3) uint8 RGB and the rest as in the file."""

    crops: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labels: NDArray[np.int64]
    person: NDArray[np.int64]
    test: NDArray[np.bool_]

    @classmethod
    def load(cls, path: Path) -> Ramps:
        with np.load(path) as stored:
            jpeg, ends, landmarks = (stored[name] for name in ("jpeg", "ends", "landmarks"))
            crops = [
                cv2.cvtColor(cv2.imdecode(part, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                for part in np.split(jpeg, ends[:-1])
            ]
            shape = (*landmarks.shape[:3], SIDE, SIDE, 3)
            rest = (stored[name] for name in ("labels", "person", "test"))
            return cls(np.stack(crops).reshape(shape).astype(np.uint8), landmarks, *rest)

    def save(self, path: Path) -> None:
        parts = [_jpeg(crop) for crop in self.crops.reshape(-1, SIDE, SIDE, 3)]
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                jpeg=np.concatenate(parts),
                ends=np.cumsum([len(part) for part in parts]),
                landmarks=self.landmarks,
                labels=self.labels,
                person=self.person,
                test=self.test,
            )
        partial.replace(path)


def _jpeg(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return np.asarray(cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), quality)[1])


def _joined(parts: Sequence[Ramps]) -> Ramps:
    names = ("crops", "landmarks", "labels", "person", "test")
    return Ramps(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def ramps_of_person(studio: Studio, number: int) -> Ramps:
    """One ramp an expression of the model's person number so-and-so, each in a shot of its own."""
    rng = np.random.default_rng((PEOPLE, number))
    person = draw_person(rng, len(studio.model.identity_offsets))
    seen = []
    for name in BASIC:
        eyes = PICTURE * float(rng.uniform(0.27, 0.32))
        shot = replace(draw_shot(rng), size=PICTURE, eye_distance=eyes, centre=(0.5, 0.5))
        apex = apex_weights(name, rng)
        for level in LEVELS:
            turn = rng.normal(0, 1.5, 3)
            moved = replace(
                shot, yaw=shot.yaw + turn[0], pitch=shot.pitch / 2 + turn[1],
                roll=shot.roll + turn[2], painting=int(rng.integers(2**31)),
            )  # fmt: skip
            weights = {shape: weight * level for shape, weight in apex.items()}
            picture, marks = studio.shoot(person, weights, moved)
            for _ in range(VIEWS):
                found = marks + rng.normal(0, FINDER_ERROR, marks.shape)
                face = canonical_face(picture, found, source="rendered")
                seen.append((_small(face.crop), face.landmarks))
    shape = (RAMPS_A_PERSON, len(LEVELS), VIEWS)
    return Ramps(
        np.stack([crop for crop, _ in seen]).reshape(*shape, SIDE, SIDE, 3),
        np.stack([points for _, points in seen]).reshape(*shape, 68, 2),
        np.arange(RAMPS_A_PERSON),
        np.full(RAMPS_A_PERSON, number),
        np.full(RAMPS_A_PERSON, number % TESTED == 0),
    )


def _small(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


@app.command()
def rendered(
    pack: Annotated[Path, typer.Option(help="Folder of the ICT-FaceKit pack.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    people: Annotated[int, typer.Option(min=3, help="How many.")] = 120,
) -> None:
    """Ramps of seven expressions a person, of rendered faces."""
    require_renderer()
    # VTK takes a second to load, and photos do without.
    from data_builders.rendered.studio import Studio

    studio = Studio(load_model(pack))
    folder = out.with_name(f"{out.name}.parts-{PEOPLE}")
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(people), unit="person", disable=None):
        part = folder / f"{number:05d}.npz"
        if not part.exists():
            ramps_of_person(studio, number).save(part)
    _joined([Ramps.load(folder / f"{number:05d}.npz") for number in range(people)]).save(out)


@app.command()
def photos(
    corpus: Annotated[Path, typer.Option(help="A finished corpus.")],
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    source: Annotated[str, typer.Option(help="Of the corpus.")] = "fer2013",
    train: Annotated[int, typer.Option(min=1, help="Most faces to train on.")] = 3500,
    test: Annotated[int, typer.Option(min=1, help="Most faces to test on.")] = 3500,
) -> None:
    """Faces of a corpus that have an expression of the seven."""
    parts = [*_photos(corpus, source, "train", train)]
    parts += _photos(corpus, source, "validation", test)
    everyone = _joined(parts)
    replace(everyone, person=np.arange(len(parts))).save(out)


def _photos(corpus: Path, source: str, split: str, most: int) -> Iterator[Ramps]:
    left = most
    for record in tqdm(read_faces(corpus, split), unit="face", desc=split, disable=None):
        name = record.labels.get("expression")
        if record.source != source or name not in BASIC or not left:
            continue
        left -= 1
        crop = _small(decode_frame(record.frames[0]))
        yield Ramps(
            crop[None, None, None],
            np.asarray(record.landmarks[0], np.float32)[None, None, None],
            np.array([BASIC.index(name)]),
            np.array([0]),
            np.array([split != "train"]),
        )


if __name__ == "__main__":
    app()
