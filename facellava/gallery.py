"""Many photos at once: find them, ask about each, keep going when one of them is bad."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facellava.answer import Answer
from facellava.errors import BadMedia, FacellavaError
from facellava.faces import Face, find_faces, read_photo
from facellava.faces.clips import CLIP_SUFFIXES
from facellava.faces.overlay import draw_overlay, save_png
from facellava.faces.photo import PHOTO_SUFFIXES
from facellava.predictor import FaceChoice, FaceLlava

# An animation that is also a picture format, such as GIF, is taken for its first frame.
CLIP_ONLY = CLIP_SUFFIXES - PHOTO_SUFFIXES


def photo_paths(given: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the photos in them, by name.

    A file that is not there is a photo that cannot be read: it is met when its turn comes.

    Raises:
        BadMedia: a folder without photos.
    """
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
            if not inside:
                raise BadMedia(
                    f"The folder '{path}' holds no photos; it needs files such as .jpg or .png."
                )
            paths += inside
        else:
            paths.append(path)
    return paths


def trouble(path: Path, error: FacellavaError) -> str:
    """The error's sentence, with the photo that it is about."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def sample_photo() -> Path:
    """A portrait that may be shown to anybody: NASA's of Eileen Collins, from scikit-image."""
    return Path(str(files("skimage") / "data" / "astronaut.png"))


def ask_photos(
    model: FaceLlava,
    paths: Sequence[Path],
    question: str,
    *,
    face: FaceChoice,
    declared_crop: bool,
    overlay: Path | None,
) -> Iterator[tuple[Path, list[Answer] | FacellavaError]]:
    """Ask the same about every photo; what went wrong with a photo stands in its answer's place."""
    for path in tqdm(paths, unit="photo", disable=len(paths) == 1):
        try:
            if path.suffix.lower() in CLIP_ONLY:
                if overlay is not None:
                    raise BadMedia(f"'{path}' is a clip; an overlay is drawn on photos.")
                yield path, model.ask_clip(path, question, face=face)
                continue
            photo = read_photo(path)
            answers = model.ask(photo, question, face=face, declared_crop=declared_crop)
            if overlay is not None:
                asked = [answer.face for answer in answers]
                picture = draw_overlay(
                    photo,
                    asked,
                    cited_regions={answer.face.index: answer.cited_regions for answer in answers},
                    region_attention=np.stack(
                        [model.region_attention(item).mean(axis=0) for item in asked]
                    ),
                )
                save_png(overlay, picture)
        except FacellavaError as error:
            yield path, error
        else:
            yield path, answers


def find_in_photo(path: Path, *, declared_crop: bool, overlay: Path | None) -> list[Face]:
    """The faces of a photo, drawn into `overlay` where that is wanted."""
    photo = read_photo(path)
    found = find_faces(photo, declared_crop=declared_crop)
    if overlay is not None:
        save_png(overlay, draw_overlay(photo, found))
    return found
