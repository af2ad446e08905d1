"""The face finder on a real portrait, turned, mirrored, tiled, shrunk and cut."""

from __future__ import annotations

import io
import threading

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from facellava.errors import MissingBackend, NoFaceFound
from facellava.faces import Face, canonical_face, find_faces, read_photo
from facellava.faces.crop import photo_to_crop
from facellava.faces.detectors import FaceBackend
from facellava.faces.landmarks import plausible
from facellava.regions import flip_landmarks

HEAD = (slice(20, 220), slice(120, 320))  # the astronaut's head, about 200 pixels


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def face(portrait: NDArray[np.uint8]) -> Face:
    faces = find_faces(portrait)
    assert len(faces) == 1  # a badge on the suit scores just above zero and is looked at again
    return faces[0]


def moved(
    photo: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The photo under an affine map of pixel edges (ours); cv2 counts pixel centres."""
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    warped = cv2.warpAffine(
        photo, centred, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(warped, np.uint8)


def test_the_face_lies_where_it_is_in_the_photo(face: Face, portrait: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(face.box, (175, 76, 266, 167), atol=15)
    assert (face.index, face.source, face.weak) == (0, "dlib_hog", False)
    assert face.crop.shape == (192, 192, 3)
    assert face.crop.dtype == np.uint8
    points = face.photo_landmarks
    assert points[36:42, 0].mean() < points[42:48, 0].mean()  # the person's right eye is at left
    assert points[36:48, 1].mean() < points[30, 1] < points[48:60, 1].mean() < points[8, 1]
    assert plausible(points)


def test_landmarks_go_to_the_photo_and_back(face: Face) -> None:
    again = photo_to_crop(face.photo_landmarks, face.crop_to_photo)
    np.testing.assert_allclose(again, face.landmarks, atol=1e-5)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(25, 1.0, (0, 0)), (-40, 1.3, (15, -20)), (170, 0.8, (30, 12))]
)
def test_the_crop_does_not_depend_on_the_framing(
    portrait: NDArray[np.uint8], face: Face, degrees: float, scale: float, shift: tuple[int, int]
) -> None:
    matrix = cv2.getRotationMatrix2D((225, 125), degrees, scale)
    matrix[:, 2] += shift
    points = face.photo_landmarks @ matrix[:, :2].T + matrix[:, 2]
    other = canonical_face(moved(portrait, matrix, (512, 512)), points)
    np.testing.assert_allclose(other.landmarks, face.landmarks, atol=1e-4)
    difference = np.abs(other.crop[20:170, 20:170].astype(int) - face.crop[20:170, 20:170])
    assert difference.mean() < 6


def test_a_mirrored_photo_gives_the_mirrored_crop(portrait: NDArray[np.uint8], face: Face) -> None:
    points = face.photo_landmarks.copy()
    points[:, 0] = portrait.shape[1] - points[:, 0]
    normal = photo_to_crop(face.photo_landmarks, face.crop_to_photo)
    mirrored_points = flip_landmarks(points.astype(np.float32))
    mirrored_points[:, 0] = 1.0 - mirrored_points[:, 0]  # permuted only: these are pixels
    mirrored = canonical_face(np.ascontiguousarray(portrait[:, ::-1]), mirrored_points)
    np.testing.assert_allclose(mirrored.landmarks, flip_landmarks(normal), atol=1e-4)
    assert np.abs(mirrored.crop[:, ::-1].astype(int) - face.crop).mean() < 3


def test_eight_exif_orientations_give_one_face(portrait: NDArray[np.uint8], face: Face) -> None:
    undo = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180]
    undo += [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90]
    undo += [Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270]
    for orientation, operation in enumerate(undo, start=1):
        stored = Image.fromarray(portrait)
        stored = stored if operation is None else stored.transpose(operation)
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        stored.save(file, "PNG", exif=exif, compress_level=1)
        np.testing.assert_array_equal(read_photo(file.getvalue()), portrait)
    same = find_faces(read_photo(file.getvalue()))[0]
    assert same.box == face.box
    np.testing.assert_array_equal(same.landmarks, face.landmarks)


@pytest.mark.parametrize("degrees", [60, 90, 180])
def test_a_turned_face_is_found_and_set_upright(
    portrait: NDArray[np.uint8], face: Face, degrees: int
) -> None:
    matrix = cv2.getRotationMatrix2D((256, 256), degrees, 1.0)
    found = find_faces(moved(portrait, matrix, (512, 512)))
    assert len(found) == 1
    assert found[0].weak
    expected = face.photo_landmarks @ matrix[:, :2].T + matrix[:, 2]
    error = np.linalg.norm(found[0].photo_landmarks - expected, axis=1).mean()
    assert error < 0.06 * (face.box[2] - face.box[0])
    assert np.abs(found[0].landmarks - face.landmarks).mean() < 0.03


def test_a_tilted_face_beside_an_upright_one_is_not_lost(portrait: NDArray[np.uint8]) -> None:
    head = portrait[0:260, 90:350]
    tilted = moved(head, cv2.getRotationMatrix2D((130, 130), 60, 1.0), (260, 260))
    sources = [one.source for one in find_faces(np.hstack([head, tilted]))]
    assert sorted(sources) == ["dlib_hog", "dlib_hog_weak"]


def test_forty_faces_come_largest_first_then_from_left(portrait: NDArray[np.uint8]) -> None:
    tile = cv2.resize(portrait[HEAD], (128, 128), interpolation=cv2.INTER_AREA)
    faces = find_faces(np.tile(tile, (5, 8, 1)))
    assert len(faces) == 40
    assert [one.index for one in faces] == list(range(40))
    areas = [(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) for one in faces]
    assert all(before >= after - 1 for before, after in zip(areas, areas[1:], strict=False))


def test_a_face_cut_by_the_edge_is_found_inside_the_photo(portrait: NDArray[np.uint8]) -> None:
    cut = np.ascontiguousarray(portrait[:, :225])  # through the astronaut's nose
    x0, y0, x1, y1 = find_faces(cut)[0].box
    assert 0 <= x0 < x1 <= 225
    assert 60 < y0 < y1 < 200


@pytest.mark.parametrize("side", [48, 96])
def test_a_declared_crop_needs_no_detection(portrait: NDArray[np.uint8], side: int) -> None:
    crop = cv2.resize(portrait[60:185, 165:280], (side, side), interpolation=cv2.INTER_AREA)
    found = find_faces(crop, declared_crop=True)
    assert len(found) == 1
    assert found[0].native_size < 2 * side
    assert plausible(found[0].landmarks)


def test_a_declared_crop_without_a_visible_face_is_marked() -> None:
    found = find_faces(np.full((48, 48, 3), 90, np.uint8), declared_crop=True)
    assert [(one.source, one.score, one.weak) for one in found] == [("assumed_box", 0.0, True)]


@pytest.mark.parametrize("name", ["brick", "coffee", "noise", "ribbon"])
def test_no_face_is_an_error_that_says_what_to_do(name: str) -> None:
    if name == "noise":
        noise = np.random.default_rng(3).normal(size=(240, 320, 3))
        photo = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)
        photo = photo.astype(np.uint8)
    elif name == "ribbon":
        photo = np.full((16, 3000, 3), 120, np.uint8)
    else:
        photo = getattr(data, name)()
        photo = np.dstack([photo] * 3) if photo.ndim == 2 else photo
    with pytest.raises(NoFaceFound, match="use a photo"):
        find_faces(np.ascontiguousarray(photo))


def test_threads_agree(portrait: NDArray[np.uint8], face: Face) -> None:
    head = np.ascontiguousarray(portrait[:260, 90:350])
    expected = find_faces(head)[0].landmarks
    results: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: results.append(find_faces(head)[0].landmarks))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for landmarks in results:
        np.testing.assert_array_equal(landmarks, expected)


def test_implausible_points_are_told(face: Face) -> None:
    profile = face.landmarks.copy()
    profile[36:48, 0] = 0.5  # both eyes behind each other
    mouth_in_the_brows = face.landmarks.copy()
    mouth_in_the_brows[48:60, 1] -= 0.4
    assert plausible(face.landmarks)
    assert not plausible(profile)
    assert not plausible(mouth_in_the_brows)
    assert not plausible(np.zeros((68, 2)))


def test_backend_names_and_files_are_checked(
    portrait: NDArray[np.uint8], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACELLAVA_FACE_BACKEND", "yunet")
    with pytest.raises(MissingBackend, match="FACELLAVA_FACE_MODEL"):
        find_faces(portrait)
    monkeypatch.setenv("FACELLAVA_FACE_MODEL", f"{tmp_path}/yunet.onnx")
    with pytest.raises(MissingBackend, match=r"yunet\.onnx.*is missing"):
        find_faces(portrait)
    with pytest.raises(MissingBackend, match="no face backend 'haar'"):
        find_faces(portrait, backend=FaceBackend("haar"))


def test_in_a_declared_crop_a_small_face_is_not_the_face() -> None:
    crop = np.full((192, 192, 3), 128, np.uint8)
    head = np.ascontiguousarray(data.astronaut()[HEAD])
    crop[4:100, 4:100] = cv2.resize(head, (96, 96), interpolation=cv2.INTER_AREA)
    (found,) = find_faces(crop, declared_crop=True)
    assert found.source == "assumed_box"
