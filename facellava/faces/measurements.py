"""The interpretable quantities of a face, each with a written definition.

`MEASUREMENTS` is the list; `measure` gives the values of one face. A quantity that the photo
cannot show (too small, outside the photo, turned too far, without colour) has no value and a note
that says why: nothing is guessed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from facellava.faces.face import Face
from facellava.faces.geometry_measurements import GEOMETRY_SPECS, Geometry
from facellava.faces.pose import Pose, estimate_pose
from facellava.faces.quantity import Measurement, MeasurementSpec, Unmeasurable
from facellava.faces.skin_patches import SkinPatches, padding_mask
from facellava.faces.texture_measurements import TEXTURE_SPECS

__all__ = ["MEASUREMENTS", "Measurement", "MeasurementSpec", "measure"]

_ALL: Final[tuple[MeasurementSpec[Any], ...]] = (*GEOMETRY_SPECS, *TEXTURE_SPECS)
MEASUREMENTS: Final[dict[str, MeasurementSpec[Any]]] = {spec.id: spec for spec in _ALL}
"""Every definition by its id."""


def measure(face: Face) -> dict[str, Measurement]:
    """Every quantity of MEASUREMENTS for one face, in the order of that table.

    A face whose landmarks are weak is measured all the same; its measurements say so.
    """
    pose = estimate_pose(face.landmarks)
    padded = padding_mask(face.crop)
    side = face.crop.shape[0]
    places = np.floor(face.landmarks * side).astype(int)
    outside = ((places < 0) | (places >= side)).any(axis=1)
    column, row = places.clip(0, side - 1).T
    geometry = Geometry(face, pose, outside | padded[row, column])
    patches = SkinPatches(face, pose, padded)
    measured = [_measure_one(spec, geometry, face, pose) for spec in GEOMETRY_SPECS]
    measured += [_measure_one(spec, patches, face, pose) for spec in TEXTURE_SPECS]
    return {measurement.id: measurement for measurement in measured}


def _measure_one(spec: MeasurementSpec[Any], seen: Any, face: Face, pose: Pose) -> Measurement:
    value: float | None = None
    note = ""
    if face.native_size < spec.smallest_native_size:
        note = (
            f"the face spans {face.native_size:.0f} photo pixels, "
            f"{spec.smallest_native_size:.0f} are needed"
        )
    elif abs(pose.yaw) > spec.largest_yaw:
        note = f"the head is turned by about {abs(pose.yaw):.0f} degrees"
    elif abs(pose.pitch) > spec.largest_pitch:
        note = f"the head is nodded by about {abs(pose.pitch):.0f} degrees"
    else:
        try:
            value = spec.compute(seen)
        except Unmeasurable as reason:
            note = str(reason)
    return Measurement(spec.id, value, spec.unit, note, weak=face.weak)
