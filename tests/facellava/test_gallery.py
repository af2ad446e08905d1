"""Many photos: which they are, and that a bad one does not stop the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava.errors import BadMedia, FacellavaError, NoFaceFound
from facellava.gallery import ask_photos, find_in_photo, photo_paths, sample_photo, trouble
from facellava.predictor import FaceLlava


def test_folders_are_opened_and_files_kept_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "c.webp"):
        (folder / name).write_bytes(b"x")
    given = [tmp_path / "z.jpg", folder, tmp_path / "z.jpg"]
    names = [path.name for path in photo_paths(given)]
    assert names == ["z.jpg", "a.png", "b.JPG", "c.webp", "z.jpg"]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadMedia, match="holds no photos"):
        photo_paths([tmp_path])


def test_each_photo_has_its_outcome(
    reciting_checkpoint: Path, astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    good, blank, broken = (tmp_path / name for name in ("good.png", "blank.png", "broken.jpg"))
    Image.fromarray(astronaut).save(good)
    Image.new("RGB", (120, 120)).save(blank)
    broken.write_bytes(b"\xff\xd8 not much of a photo")
    paths = [broken, good, blank, tmp_path / "absent.jpg", tmp_path / "absent.mp4", good]
    outcomes = list(
        ask_photos(
            FaceLlava.load(reciting_checkpoint),
            paths,
            "How old?",
            face="all",
            declared_crop=False,
            overlay=None,
        )
    )
    assert [path for path, _ in outcomes] == paths
    kinds = [BadMedia, list, NoFaceFound, BadMedia, BadMedia, list]
    assert [type(outcome) for _, outcome in outcomes] == kinds
    for path, outcome in outcomes:
        if isinstance(outcome, FacellavaError):
            assert path.name in trouble(path, outcome)
        else:
            assert [answer.label for answer in outcome] == [34]


def test_overlays_are_drawn(
    reciting_checkpoint: Path, astronaut: NDArray[np.uint8], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(astronaut).save(photo)
    drawn, boxed = tmp_path / "drawn.png", tmp_path / "boxed.png"
    [(_, outcome)] = ask_photos(
        FaceLlava.load(reciting_checkpoint),
        [photo],
        "Which expression?",
        face="largest",
        declared_crop=False,
        overlay=drawn,
    )
    assert isinstance(outcome, list)
    assert len(find_in_photo(photo, declared_crop=False, overlay=boxed)) == 1
    for path in (drawn, boxed):
        picture = np.asarray(Image.open(path))
        assert not np.array_equal(picture[: len(astronaut), : astronaut.shape[1]], astronaut)


def test_the_sample_photo_is_there() -> None:
    assert sample_photo().is_file()
