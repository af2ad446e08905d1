"""The model is read alike from both layouts, and damaged ones are refused by name."""

import json

import numpy as np
import pytest

from data_builders.rendered.morphable import lip_gap, load_model, model_digest, vertex_normals
from facellava.errors import BadCorpus
from tests.data_builders.rendered.miniature_face import (
    arrays,
    write_obj,
    write_pack,
    write_published,
)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    load_model.cache_clear()
    model_digest.cache_clear()


def test_pack_and_published_folder_give_the_same_model(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "published").mkdir()
    packed = load_model(write_pack(tmp_path / "pack"))
    published = load_model(write_published(tmp_path / "published"))
    inside = load_model(tmp_path / "published" / "FaceXModel")
    for model in (published, inside):
        assert model.expressions == packed.expressions
        np.testing.assert_allclose(model.vertices, packed.vertices, atol=1e-6)
        np.testing.assert_allclose(model.expression_offsets, packed.expression_offsets, atol=1e-6)
        np.testing.assert_allclose(model.identity_offsets, packed.identity_offsets, atol=1e-6)
        np.testing.assert_array_equal(model.triangles, packed.triangles)
        np.testing.assert_array_equal(model.landmarks, packed.landmarks)
        for name, triangles in packed.materials.items():
            np.testing.assert_array_equal(model.materials[name], triangles)


def test_quads_become_two_triangles_of_the_same_material(tmp_path):
    model = load_model(write_pack(tmp_path))
    faces = arrays()["faces"]
    assert len(model.triangles) == len(faces) + (faces[:, 3] >= 0).sum()
    assert (model.triangles >= 0).all()
    eye = model.triangles[model.materials["M_ScleraRight"]]
    assert set(eye.ravel()) == set(faces[-1])
    assert len(eye) == 2


def test_shapes_add_up(tmp_path):
    model = load_model(write_pack(tmp_path))
    still, open_ = (
        model.shaped(np.array([2.0, 0.0]), {"jawOpen": weight}) for weight in (0.0, 0.5)
    )
    np.testing.assert_allclose(still[:, 1], model.vertices[:, 1] * 1.1, rtol=2e-3)
    assert lip_gap(open_) - lip_gap(still) == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(
        model.shaped_landmarks(np.array([2.0, 0.0]), {"jawOpen": 0.5}), open_[:68], atol=1e-6
    )


def test_normals_look_out_of_the_face():
    corners = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 5, 5]])
    normals = vertex_normals(corners, np.int32([[0, 1, 2], [0, 2, 3]]))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 4 + [[0, 0, 0]])


def test_digest_tells_changed_files_apart(tmp_path):
    first = model_digest(write_pack(tmp_path))
    model_digest.cache_clear()
    assert model_digest(tmp_path) == first
    model_digest.cache_clear()
    assert model_digest(write_pack(tmp_path, vertices=arrays()["vertices"] + 1)) != first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"faces": None}, "has no array 'faces'"),
        ({"vertices": np.zeros((3, 3), np.float32)}, "do not fit its 3 vertices"),
        ({"identity_deltas": np.zeros((2, 5, 3), np.float16)}, "do not fit"),
        ({"materials": np.array(["M_Head", "M_ScleraRight"])}, "has the material M_Face"),
    ],
)
def test_packs_that_do_not_fit_are_refused(tmp_path, changed, message):
    write_pack(tmp_path, **changed)
    with pytest.raises(BadCorpus, match=message):
        load_model(tmp_path)


def test_damaged_or_missing_files_are_refused(tmp_path):
    with pytest.raises(BadCorpus, match=r"vertex_indices.json' is missing; expected ict_facekit"):
        load_model(tmp_path)
    write_pack(tmp_path)
    pack = tmp_path / "ict_facekit.npz"
    pack.write_bytes(pack.read_bytes()[:500])
    with pytest.raises(BadCorpus, match="damaged or cut off"):
        load_model(tmp_path)
    pack.unlink()
    with pytest.raises(BadCorpus, match="generic_neutral_mesh.obj' is missing"):
        load_model(tmp_path)
    (tmp_path / "vertex_indices.json").write_text("{")
    with pytest.raises(BadCorpus, match="is no JSON object"):
        load_model(tmp_path)
    (tmp_path / "vertex_indices.json").write_text(json.dumps({"idx_to_landmark_verts": [1, 2]}))
    with pytest.raises(BadCorpus, match="lists 2 landmark vertices"):
        load_model(tmp_path)


def test_published_shapes_of_another_mesh_are_refused(tmp_path):
    write_published(tmp_path)
    made = arrays()
    write_obj(tmp_path / "FaceXModel" / "jawOpen.obj", made["vertices"][:-1], made)
    with pytest.raises(BadCorpus, match=r"jawOpen.obj' has \d+ vertices and generic_neutral"):
        load_model(tmp_path)
