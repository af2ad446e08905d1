"""Rendered faces: the rows, the pictures, and that the points lie where the picture shows them."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data_builders.media import DEFAULT_LOOK
from data_builders.raw_face import Drops, stable_split
from data_builders.rendered.looks import Light, Person, Shot, draw_person
from data_builders.rendered.morphable import load_model
from data_builders.rendered.units import unit_weights
from data_builders.shard import find_face
from data_builders.sources import SOURCES, ict_facekit
from data_builders.sources.ict_facekit import FACES_A_PERSON, Rendering, draw_scene
from facellava.errors import BadCorpus, MissingBackend
from facellava.faces import canonical_face, find_faces, measure
from tests.data_builders.rendered.miniature_face import arrays, write_pack

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "ict_facekit"
GROUND = (0.0, 0.0, 1.0)
FRONTAL = Shot(
    yaw=0, pitch=0, roll=0, size=128, eye_distance=32, distance=90, centre=(0.5, 0.5),
    lights=(
        Light((-0.3, 0.3, 0.9), (1, 1, 1), 1.0), Light((0.8, 0.1, 0.5), (1, 1, 1), 0.4),
        Light((0.0, -0.6, 0.8), (1, 1, 1), 0.4),
    ),
    roughness=0.6, ground="plain", ground_colours=(GROUND, GROUND), cloth=(0.2, 0.3, 0.4), blur=0,
    noise=0, gamma=1, painting=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_pack(tmp_path_factory.mktemp("facekit"))


@pytest.fixture(scope="module")
def studio(root):
    render = pytest.importorskip("data_builders.rendered.studio", exc_type=ImportError)
    return render.Studio(load_model(root))


def person(shapes: int = 2) -> Person:
    drawn = draw_person(np.random.default_rng(0), shapes)
    return replace(
        drawn, weights=np.zeros(shapes), skin=(0.8, 0.6, 0.5), lips=(0.7, 0.4, 0.4), bald=True,
        stubble=0.0, freckles=0, iris=(0.1, 0.1, 0.1),
    )  # fmt: skip


def first(root: Path, count: int):
    return list(islice(SOURCES["ict_facekit"].rows(root, Drops()), count))


def test_rows_of_one_person_stay_together(root):
    rows = first(root, 40 * FACES_A_PERSON)
    assert [row.key for row in rows[:2]] == ["000000", "000001"]
    people = {row.subject: row for row in rows}
    assert len(people) == 40
    for row in rows:
        assert row.split == people[row.subject].split == stable_split(f"ICT-FaceKit/{row.subject}")
        assert row.demographics == people[row.subject].demographics
        assert set(row.labels) == {"action_units", "action_units_coded", "action_unit_intensity"}
        assert row.licence == "ICT-FaceKit: MIT licence"
    assert {row.split for row in rows} == {"train", "validation", "test"}
    assert {row.demographics["skin_tone"] for row in rows} == {f"mst-{n}" for n in range(1, 11)}
    assert SOURCES["ict_facekit"].consent == "no real person"


def test_rows_are_the_same_every_time(root):
    assert first(root, 20) == first(root, 20)
    one, other = (row.media.digest() for row in first(root, 2))
    assert one != other


def test_a_rendering_is_a_face_whose_points_are_given(root):
    pytest.importorskip("vtkmodules")
    row = first(root, 1)[0]
    drops = Drops()
    [face] = find_face(row, drops)
    assert not drops.counts
    assert face.source == "rendered"
    assert not face.weak
    assert face.crop.shape == (192, 192, 3)
    assert ((face.landmarks > -0.1) & (face.landmarks < 1.1)).all()
    again = canonical_face(row.media.photo(), face.photo_landmarks)
    # Landmarks are kept as float32, so that a level may be rounded otherwise.
    np.testing.assert_allclose(again.crop.astype(int), face.crop, atol=1)


def test_pixels_do_not_depend_on_what_was_rendered_before(root):
    pytest.importorskip("vtkmodules")
    [alone] = Rendering(root, 3).face(DEFAULT_LOOK)
    for seed in (40, 2):
        Rendering(root, seed).face(DEFAULT_LOOK)
    [again] = Rendering(root, 3).face(DEFAULT_LOOK)
    ict_facekit._studio.cache_clear()
    [anew] = Rendering(root, 3).face(DEFAULT_LOOK)
    for face in (again, anew):
        np.testing.assert_array_equal(face.crop, alone.crop)
        np.testing.assert_array_equal(face.landmarks, alone.landmarks)


def test_the_eye_is_where_its_points_are(studio):
    """The miniature has an eye on the person's right alone: left and right cannot be mixed up."""
    for shot in (FRONTAL, replace(FRONTAL, yaw=20, pitch=10, roll=-12, centre=(0.4, 0.6))):
        picture, marks = studio.shoot(person(), {}, shot)
        columns, rows = (
            np.rint([marks[36:42].mean(axis=0), marks[42:48].mean(axis=0)]).astype(int).T
        )
        pupil, skin = picture[rows, columns].mean(axis=1)
        assert pupil < 40
        assert skin > 70
        assert marks[36, 0] < marks[45, 0]


def test_points_lie_on_the_face_and_the_ground_around_it(studio):
    picture, marks = studio.shoot(person(), {}, FRONTAL)
    np.testing.assert_array_equal(picture[[2, 2, -3, -3], [2, -3, 2, -3]], [[0, 0, 255]] * 4)
    columns, rows = np.rint(marks[17:]).astype(int).T
    assert (picture[rows, columns, 2] < 250).all()


@pytest.mark.parametrize(
    ("turned", "axis", "sign"),
    [({"yaw": 20.0}, 0, 1), ({"pitch": 20.0}, 1, -1)],
)
def test_turning_moves_the_nose_to_the_left_and_upwards(studio, turned, axis, sign):
    ahead, marks = (
        studio.shoot(person(), {}, shot)[1] for shot in (FRONTAL, replace(FRONTAL, **turned))
    )
    assert sign * (marks[30] - ahead[30])[axis] > 3


def test_roll_turns_to_the_left_shoulder(studio):
    _, marks = studio.shoot(person(), {}, replace(FRONTAL, roll=10.0))
    across = marks[45] - marks[36]
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(10, abs=1)


def test_the_expression_moves_the_points(studio):
    still, open_ = (
        studio.shoot(person(), {"jawOpen": weight}, FRONTAL)[1] for weight in (0.0, 0.5)
    )
    # One model unit down, at 32 pixels for 5.5 or so between the middles of the eyes.
    assert 4 < (open_ - still)[66, 1] < 7
    np.testing.assert_allclose(open_[:48], still[:48])


def test_scenes_vary(root):
    people, expressions, shots = zip(*(draw_scene(seed, 2) for seed in range(64)), strict=True)
    assert len({made.painting for made in people}) == 4
    assert len({shot.yaw for shot in shots}) > 60
    assert max(abs(shot.yaw) for shot in shots) <= 35
    assert len({tuple(made.intensities) for made in expressions}) > 20


def test_models_that_lack_a_shape_are_refused(tmp_path):
    names = arrays()["expression_names"].copy()
    names[list(names).index("jawOpen")] = "jawOpens"
    load_model.cache_clear()
    write_pack(tmp_path, expression_names=names)
    with pytest.raises(BadCorpus, match="has no shape 'jawOpen'"):
        first(tmp_path, 1)


def test_without_vtk_it_says_what_to_install(root, monkeypatch):
    monkeypatch.setattr(ict_facekit, "find_spec", lambda name: None)
    with pytest.raises(MissingBackend, match=r"pip install 'facellava\[render\]'"):
        first(root, 1)
    with pytest.raises(MissingBackend, match="needs VTK"):
        Rendering(root, 0).face(DEFAULT_LOOK)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real model is not beside the checkout")
def test_the_real_model_shows_what_its_labels_say():
    render = pytest.importorskip("data_builders.rendered.studio", exc_type=ImportError)
    load_model.cache_clear()
    scene = render.Studio(load_model(REAL))
    who = replace(person(100), bald=False, hair=(0.1, 0.08, 0.06))
    shot = replace(FRONTAL, size=192, eye_distance=56)

    def measured(weights):
        picture, marks = scene.shoot(who, weights, shot)
        return measure(canonical_face(picture, marks, source="rendered"))

    still = measured({})
    for unit, name, change in (
        ("AU1", "inner_brow_height", 0.03), ("AU2", "outer_brow_height", 0.05),
        ("AU4", "brow_gap", -0.04), ("AU7", "eye_opening_mean", -0.05),
        ("AU10", "nose_to_lip", -0.05), ("AU12", "lip_corner_height", 0.05),
        ("AU15", "lip_corner_height", -0.03), ("AU17", "jaw_drop", -0.03),
        ("AU24", "lip_thickness", -0.015), ("AU26", "jaw_drop", 0.1),
    ):  # fmt: skip
        moved = measured(unit_weights(unit, 5, 5))[name].value - still[name].value
        assert moved / change > 1, unit
    one_sided = measured(unit_weights("AU12", right=5, left=0))
    assert one_sided["lip_corner_asymmetry"].value > 0.05

    picture, marks = scene.shoot(who, {}, shot)
    [found] = find_faces(picture)
    error = np.linalg.norm(found.photo_landmarks - marks, axis=1).mean() / 56
    assert error < 0.08
