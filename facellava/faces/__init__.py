"""Photo or clip to faces: canonical crop and 68 landmarks, the same on every path."""

from facellava.faces.crop import CROP_SIZE, canonical_face
from facellava.faces.face import Face
from facellava.faces.find import find_faces
from facellava.faces.measurements import MEASUREMENTS, Measurement, measure
from facellava.faces.photo import read_photo

__all__ = [
    "CROP_SIZE",
    "MEASUREMENTS",
    "Face",
    "Measurement",
    "canonical_face",
    "find_faces",
    "measure",
    "read_photo",
]
