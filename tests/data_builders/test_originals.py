"""The pictures that faces were found in: by the faces' names, and refused where they lack."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.face_records import face_records
from data_builders.originals import original_pictures
from facellava.errors import BadCorpus, BadSample
from facellava.faces import read_photo
from tests.data_builders.small_corpus import utkface_rows
from tests.data_builders.sources.miniatures import write

CLIP = "1001_DFA_ANG_XX"
AGES = (20, 30, 40)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """UTKFace as a pack: three pictures, and one that is broken."""
    root = tmp_path_factory.mktemp("pack")
    rows = utkface_rows(root, AGES)
    rows.append({**rows[0], "image": b"broken", "source_path": "50_0_0_2017.jpg"})
    pq.write_table(pa.Table.from_pylist(rows), root / "utkface.parquet")
    return root


def test_pictures_come_by_the_names_of_faces(pack):
    faces, _ = face_records("utkface", pack / "utkface.parquet", split="test")
    by_id = {record.face_id: record for record in faces}
    assert len(by_id) == 3
    wanted = [face_id for face_id in by_id if "30_" not in face_id]
    found = dict(original_pictures("utkface", pack / "utkface.parquet", wanted))
    assert sorted(found) == sorted(wanted)
    for face_id, picture in found.items():
        name = face_id.removeprefix("utkface-") + ".jpg"
        np.testing.assert_array_equal(picture, read_photo(pack / name))


def test_of_no_faces_nothing_is_read(tmp_path):
    assert list(original_pictures("utkface", tmp_path / "absent", ())) == []


@pytest.mark.parametrize(
    ("face_id", "said"),
    [
        ("utkface-99_0_0_2017", "has no picture of face utkface-99_0_0_2017"),
        ("utkface-50_0_0_2017", "face utkface-50_0_0_2017 in .* cannot be read"),
    ],
)
def test_a_picture_that_is_not_there_is_named(pack, face_id, said):
    with pytest.raises(BadCorpus, match=said):
        list(original_pictures("utkface", pack / "utkface.parquet", [face_id]))


def test_a_clip_is_no_picture(tmp_path):
    write(tmp_path, {f"VideoFlash/{CLIP}.flv": "a clip"})
    with pytest.raises(BadSample, match=f"Face crema_d-{CLIP} is one of a clip"):
        list(original_pictures("crema_d", tmp_path, [f"crema_d-{CLIP}"]))
