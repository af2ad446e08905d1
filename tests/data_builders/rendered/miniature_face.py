"""A morphable face of a few hundred vertices, in the pack's form and in the published one."""

import json
from pathlib import Path

import numpy as np

from data_builders.rendered.units import shape_names
from facellava.faces.pose import MEAN_FACE

EYES_APART = 6.5
MATERIALS = ["M_Face", "M_ScleraRight"]
COLUMNS = 12


def arrays() -> dict[str, np.ndarray]:
    """A vaulted sheet of skin with the 68 points before it and one eye, the person's right one.

    Only two shapes do something: jawOpen lowers the lower lip, identity 0 lengthens the face.
    """
    marks = MEAN_FACE * EYES_APART * [1, -1, 1]
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(np.linspace(-9, 9, COLUMNS), np.linspace(-13, 9, COLUMNS))
    )
    sheet = np.stack([x, y, -((x / 4) ** 2) - 2], axis=1)
    centre = marks[36:42].mean(axis=0)
    eye = centre + 1.5 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + [0, 0, 1]
    vertices = np.concatenate([marks, sheet, eye]).astype(np.float32)
    corner = 68 + np.arange(COLUMNS * (COLUMNS - 1)).reshape(-1, COLUMNS)[:, :-1].ravel()
    quads = np.stack([corner, corner + 1, corner + COLUMNS + 1, corner + COLUMNS], axis=1)
    # The first quad is given as two triangles, so that both kinds are there.
    skin = [[*quads[0, :3], -1], [*quads[0, [0, 2, 3]], -1], *quads[1:]]
    faces = np.array([*skin, len(vertices) - 4 + np.arange(4)], dtype=np.int32)
    names = sorted(shape_names())
    moved = np.zeros((len(names), *vertices.shape), np.float16)
    moved[names.index("jawOpen"), [55, 56, 57, 58, 59, 65, 66, 67], 1] = -2.0
    grown = np.zeros((2, *vertices.shape), np.float16)
    grown[0, :, 1] = vertices[:, 1] * 0.05
    return {
        "vertices": vertices,
        "faces": faces,
        "face_material": np.array([0] * (len(faces) - 1) + [1], np.int16),
        "materials": np.array(MATERIALS),
        "expression_names": np.array(names),
        "expression_deltas": moved,
        "identity_deltas": grown,
    }


def write_pack(root: Path, **changed: np.ndarray | None) -> Path:
    """The pack; arrays that are None are left out."""
    parts = {name: part for name, part in (arrays() | changed).items() if part is not None}
    np.savez_compressed(root / "ict_facekit.npz", **parts)
    write_indices(root)
    return root


def write_published(root: Path) -> Path:
    """The published folder, one OBJ file a shape."""
    folder = root / "FaceXModel"
    folder.mkdir()
    write_indices(folder)
    made = arrays()
    write_obj(folder / "generic_neutral_mesh.obj", made["vertices"], made)
    for name, offsets in zip(made["expression_names"], made["expression_deltas"], strict=True):
        write_obj(folder / f"{name}.obj", made["vertices"] + offsets, made)
    for number, offsets in enumerate(made["identity_deltas"]):
        write_obj(folder / f"identity{number:03d}.obj", made["vertices"] + offsets, made)
    return root


def write_obj(path: Path, vertices: np.ndarray, made: dict[str, np.ndarray]) -> None:
    lines = ["mtllib ICTFaceModelMaterial.mtl"]
    lines += [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices.astype(np.float64)]
    lines += ["vt 0.5 0.5"]
    material = None
    for face, number in zip(made["faces"], made["face_material"], strict=True):
        if number != material:
            material = number
            lines.append(f"usemtl {MATERIALS[number]}")
        lines.append("f " + " ".join(f"{corner + 1}/1" for corner in face if corner >= 0))
    path.write_text("\n".join(lines) + "\n")


def write_indices(folder: Path) -> None:
    (folder / "vertex_indices.json").write_text(
        json.dumps({"idx_to_landmark_verts": list(range(68))})
    )
