"""A morphable face: one neutral mesh plus weighted offsets, for who it is and what it expresses.

ICT-FaceKit (USC Institute for Creative Technologies, MIT licence): 26,719 vertices, units of about
a centimetre, x to the person's left, y up, z out of the face. The published folder holds one OBJ
file a shape, all with the same vertices in the same order; the pack holds the same numbers in one
file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from data_builders.raw_face import require
from facellava.errors import BadCorpus
from facellava.regions import N_LANDMARKS

NAME: Final = "ICT-FaceKit"
PACK: Final = "ict_facekit.npz"
INDICES: Final = "vertex_indices.json"
NEUTRAL: Final = "generic_neutral_mesh.obj"
LAYOUT: Final = (
    f"{PACK} and {INDICES}, or the published folder FaceXModel with {NEUTRAL}, identity000.obj "
    f"..., browDown_L.obj ... and {INDICES}"
)
ARRAYS: Final = (
    "vertices", "faces", "face_material", "materials", "expression_names", "expression_deltas",
    "identity_deltas",
)  # fmt: skip
SKIN: Final = "M_Face"
INNER_LIPS: Final = ((61, 67), (62, 66), (63, 65))  # upper and lower points of iBUG-68

Points = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MorphableFace:
    """The shapes of one model.

    Attributes:
        vertices: (V, 3) float32, the neutral mesh.
        triangles: (F, 3) int32 into the vertices.
        materials: name to the rows of `triangles` that have it.
        expressions: shape name to its row in `expression_offsets`.
        expression_offsets: (E, V, 3) float32, added to the neutral mesh at weight 1.
        identity_offsets: (I, V, 3) float32; weights of people are distributed as N(0, 1).
        landmarks: (68,) vertex of each iBUG-68 point.
    """

    vertices: Points
    triangles: NDArray[np.int32]
    materials: Mapping[str, NDArray[np.int64]]
    expressions: Mapping[str, int]
    expression_offsets: Points
    identity_offsets: Points
    landmarks: NDArray[np.int64]

    def shaped(self, identity: NDArray[np.floating], expression: Mapping[str, float]) -> Points:
        """The mesh (V, 3) of a person (weights (I,)) with an expression (shape name to weight)."""
        return self._sum(slice(None), identity, expression)

    def shaped_landmarks(
        self, identity: NDArray[np.floating], expression: Mapping[str, float]
    ) -> Points:
        """The 68 points (68, 3) of :meth:`shaped`, without the rest."""
        return self._sum(self.landmarks, identity, expression)

    def _sum(
        self,
        rows: slice | NDArray[np.int64],
        identity: NDArray[np.floating],
        expression: Mapping[str, float],
    ) -> Points:
        points = self.vertices[rows].copy()
        points += np.tensordot(identity.astype(np.float32), self.identity_offsets[:, rows], axes=1)
        for name, weight in expression.items():
            points += np.float32(weight) * self.expression_offsets[self.expressions[name]][rows]
        return points


def lip_gap(points: NDArray[np.floating]) -> float:
    """Mean height of the opening between the lips, in model units; 68 points (68, 3), y up."""
    return float(np.mean([points[upper, 1] - points[lower, 1] for upper, lower in INNER_LIPS]))


def vertex_normals(points: Points, triangles: NDArray[np.int32]) -> Points:
    """Unit normals (V, 3), each the mean of its triangles' weighted by their area."""
    first, second, third = (points[triangles[:, corner]] for corner in range(3))
    flat = np.cross(second - first, third - first)
    normals = np.empty_like(points)
    for axis in range(3):
        weights = np.repeat(flat[:, axis], 3)
        normals[:, axis] = np.bincount(triangles.reshape(-1), weights, len(points))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.maximum(length, 1e-12)


@lru_cache(maxsize=1)
def load_model(root: Path) -> MorphableFace:
    """The model of a folder with the pack or with the published files; read once a process.

    Raises:
        BadCorpus: a file or an array is missing, or they do not fit each other.
    """
    landmarks = _landmarks(require(_folder(root) / INDICES, NAME, LAYOUT))
    arrays = _pack_arrays(root / PACK) if (root / PACK).is_file() else _published_arrays(root)
    vertices = arrays["vertices"].astype(np.float32)
    if landmarks.max() >= len(vertices) or any(
        arrays[name].ndim != 3 or arrays[name].shape[1:] != vertices.shape
        for name in ("expression_deltas", "identity_deltas")
    ):
        raise BadCorpus(
            f"{NAME}: the shapes or landmarks in '{root}' do not fit its {len(vertices)} vertices; "
            "get the files again."
        )
    triangles, materials = _triangles(arrays)
    if not materials.get(SKIN, np.empty(0)).size:
        raise BadCorpus(f"{NAME}: no face of the mesh in '{root}' has the material {SKIN}.")
    return MorphableFace(
        vertices=vertices,
        triangles=triangles,
        materials=materials,
        expressions={str(name): row for row, name in enumerate(arrays["expression_names"])},
        expression_offsets=arrays["expression_deltas"].astype(np.float32),
        identity_offsets=arrays["identity_deltas"].astype(np.float32),
        landmarks=landmarks,
    )


@lru_cache(maxsize=1)
def model_digest(root: Path) -> bytes:
    """Changes with the model's files."""
    folder = _folder(root)
    packed = root / PACK
    shapes = [packed] if packed.is_file() else sorted(folder.glob("*.obj"))
    digest = hashlib.sha256()
    for path in (folder / INDICES, *shapes):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()


def _folder(root: Path) -> Path:
    return root / "FaceXModel" if (root / "FaceXModel").is_dir() else root


def _landmarks(path: Path) -> NDArray[np.int64]:
    try:
        vertices = json.loads(path.read_text("utf-8"))["idx_to_landmark_verts"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadCorpus(
            f"{NAME}: '{path}' is no JSON object with idx_to_landmark_verts; get the file again."
        ) from error
    landmarks = np.asarray(vertices, dtype=np.int64)
    if landmarks.shape != (N_LANDMARKS,):
        raise BadCorpus(
            f"{NAME}: '{path}' lists {landmarks.size} landmark vertices in idx_to_landmark_verts; "
            f"{N_LANDMARKS} are needed."
        )
    return landmarks


def _pack_arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as pack:
            missing = [name for name in ARRAYS if name not in pack]
            if missing:
                raise BadCorpus(
                    f"{NAME}: '{path}' has no array '{missing[0]}'; expected {', '.join(ARRAYS)}."
                )
            return {name: pack[name] for name in ARRAYS}
    except (OSError, ValueError, BadZipFile) as error:
        raise BadCorpus(f"{NAME}: '{path}' is damaged or cut off; get the file again.") from error


def _published_arrays(root: Path) -> dict[str, Any]:
    folder = _folder(root)
    neutral = require(folder / NEUTRAL, NAME, LAYOUT)
    shapes = [path for path in sorted(folder.glob("*.obj")) if path != neutral]
    people = [path for path in shapes if path.stem.startswith("identity")]
    expressions = [path for path in shapes if path not in people]
    vertices = _obj_vertices(neutral)
    faces, materials, face_material = _obj_faces(neutral)
    return {
        "vertices": vertices,
        "faces": faces,
        "face_material": face_material,
        "materials": materials,
        "expression_names": [path.stem for path in expressions],
        "expression_deltas": _offsets(expressions, vertices),
        "identity_deltas": _offsets(people, vertices),
    }


def _offsets(paths: Sequence[Path], neutral: Points) -> Points:
    offsets = np.empty((len(paths), *neutral.shape), dtype=np.float32)
    for row, path in enumerate(paths):
        vertices = _obj_vertices(path)
        if vertices.shape != neutral.shape:
            raise BadCorpus(
                f"{NAME}: '{path}' has {len(vertices)} vertices and {NEUTRAL} {len(neutral)}; get "
                "the files again."
            )
        offsets[row] = vertices - neutral
    return offsets


def _obj_vertices(path: Path) -> Points:
    with path.open("rb") as file:
        rows = [line.split()[1:4] for line in file if line.startswith(b"v ")]
    return np.array(rows, dtype=np.float64).astype(np.float32).reshape(-1, 3)


def _obj_faces(path: Path) -> tuple[NDArray[np.int32], list[str], NDArray[np.int32]]:
    """Faces (F, 4) with -1 for a triangle's fourth corner, material names, material of each."""
    materials: list[str] = []
    faces: list[list[int]] = []
    owners: list[int] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, _, rest = line.partition(" ")
            if word == "usemtl":
                if rest.strip() not in materials:
                    materials.append(rest.strip())
                owner = materials.index(rest.strip())
            elif word == "f":
                corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
                if not materials or len(corners) not in (3, 4):
                    raise BadCorpus(
                        f"{NAME}: '{path}' has a face without material or of {len(corners)} "
                        "corners; get the file again."
                    )
                faces.append([*corners, -1][:4])
                owners.append(owner)
    return np.array(faces, dtype=np.int32), materials, np.array(owners, dtype=np.int32)


def _triangles(
    arrays: Mapping[str, Any],
) -> tuple[NDArray[np.int32], dict[str, NDArray[np.int64]]]:
    """Quads cut in two, and which triangles each material has."""
    faces, owners = arrays["faces"], arrays["face_material"]
    quads = faces[:, 3] >= 0
    triangles = np.concatenate([faces[:, :3], faces[quads][:, [0, 2, 3]]]).astype(np.int32)
    owner = np.concatenate([owners, owners[quads]])
    materials = {
        str(name): np.flatnonzero(owner == number)
        for number, name in enumerate(arrays["materials"])
    }
    return triangles, materials
