import errno
import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from data_builders.blend_set import write_blend_pack
from data_builders.face_records import face_records
from data_builders.sources import SOURCES
from facellava.corpus import sha256
from facellava.errors import BadCorpus, BadSample
from facellava.faces import read_photo
from facellava.tasks.attribute_table import OFFICIAL_NAMES


def picture(number: int) -> bytes:
    cut = skimage.data.astronaut()[10 + number : 200 + number, 125:315]
    data = io.BytesIO()
    Image.fromarray(cut).resize((120, 120)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Nine real faces of two packs, and others that must not be blended: fake, or of training."""
    root = tmp_path_factory.mktemp("packs")
    (root / "celeba").mkdir()
    attributes = dict.fromkeys(OFFICIAL_NAMES, 0)
    rows = [
        {"image": picture(n), "image_id": f"{n:06d}.jpg", "split": "test" if n < 6 else "train"}
        for n in range(8)
    ]
    pq.write_table(
        pa.Table.from_pylist([row | attributes for row in rows]), root / "celeba" / "x.parquet"
    )
    rows = [
        {"image": picture(n), "label": int(n == 23), "split": split, "source_path": f"{n}.png"}
        for n, split in enumerate(("test", "test", "validation", "test", "train"), start=20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "faces.parquet")
    return [("celeba", root / "celeba"), ("real_fake_faces", root / "faces.parquet")]


def test_pairs_are_balanced_for_every_ratio_and_differ_by_the_blend(sources, tmp_path):
    out = tmp_path / "blends.parquet"
    assert write_blend_pack(sources, out, seed=3, ratios=(0.25, 1.0)) == 18
    rows = pq.read_table(out).to_pylist()
    assert [row["label"] for row in rows] == [0, 1] * 9
    assert [row["blend_ratio"] for row in rows if row["label"]] == [0.25, 1.0] * 4 + [0.25]
    used = {row["source_path"].split("/")[0] for row in rows}
    assert used == {
        *(f"celeba-{n:06d}" for n in range(6)),
        *(f"real_fake_faces-{n}" for n in (20, 21, 22)),
    }
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        assert real["blend_ratio"] == fake["blend_ratio"]
        assert (real["method"], fake["method"]) == ("none", "self_blended")
        pixels = [read_photo(row["image"]) for row in (real, fake)]
        assert real["pixel_md5"] == hashlib.md5(pixels[0].tobytes()).hexdigest()
        assert 0.05 < np.abs(pixels[0].astype(int) - pixels[1]).mean() < 30
        assert fake["inside"] or fake["crossed"]


def test_the_set_is_frozen(sources, tmp_path):
    first, again, other = (tmp_path / f"{n}.parquet" for n in range(3))
    write_blend_pack(sources, first, seed=3, limit=5)
    write_blend_pack(sources, again, seed=3, limit=5)
    write_blend_pack(sources, other, seed=4, limit=5)
    assert sha256(first) == sha256(again) != sha256(other)
    with pytest.raises(BadCorpus, match="not overwritten"):
        write_blend_pack(sources, first)


def test_eval_reads_the_set_as_real_and_fake_faces(sources, tmp_path):
    write_blend_pack(sources, tmp_path / "set.parquet")
    records, count = face_records("real_fake_faces", tmp_path / "set.parquet", split="test")
    read = list(records)
    assert len({record.face_id for record in read}) == len(read) == count == 18
    assert sum(record.labels["deepfake"] == "fake" for record in read) == 9
    assert {record.labels["blend_ratio"] for record in read} == {0.25, 0.5, 0.75, 1.0}
    assert all(record.face_source == "dlib_hog" for record in read)
    # Each under the terms of the dataset that it is made from.
    terms = {(record.labels["origin"], record.licence) for record in read}
    assert terms == {(name, SOURCES[name].licence) for name, _ in sources}
    first, _ = face_records(*sources[0], split="test")
    assert abs(read[0].native_size / next(first).native_size - 1) < 0.15


def test_nothing_to_blend_and_bad_ratios_are_refused(sources, tmp_path):
    out = tmp_path / "x.parquet"
    with pytest.raises(BadCorpus, match="No faces of 'utkface' are held out"):
        write_blend_pack([("utkface", tmp_path)], out)
    with pytest.raises(BadSample, match="above 0 and up to 1"):
        write_blend_pack(sources, out, ratios=(0.5, 2.0))
    assert not list(tmp_path.iterdir())


def test_a_source_is_blended_once(sources, tmp_path):
    with pytest.raises(BadCorpus, match="give each source once"):
        write_blend_pack([sources[0], sources[0]], tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_where_a_set_cannot_be_is_told(sources, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadCorpus, match=r"x.parquet' cannot be written \("):
        write_blend_pack(sources, tmp_path / "file" / "x.parquet", limit=1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("data_builders.blend_set.pq.write_table", full)
    with pytest.raises(BadCorpus, match=r"cannot be written \(no room\); free some space"):
        write_blend_pack(sources, tmp_path / "new" / "x.parquet", limit=1)
    assert not list((tmp_path / "new").iterdir())


def test_a_limit_draws_by_its_seed_from_one_split(sources):
    def ids(seed: int) -> list[str]:
        records, count = face_records("celeba", sources[0][1], split="test", limit=3, seed=seed)
        assert count == 3
        return [record.face_id for record in records]

    assert ids(1) == ids(1)
    assert len({tuple(ids(seed)) for seed in range(6)}) > 1
    assert all(face_id < "celeba-000006" for face_id in ids(1))


def test_wrong_requests_for_faces_say_what_there_is(sources, tmp_path):
    with pytest.raises(BadCorpus, match="no 'validation' faces of celeba; its splits are: test, t"):
        face_records("celeba", sources[0][1], split="validation")
    with pytest.raises(BadSample, match="split is 'dev'"):
        face_records("celeba", sources[0][1], split="dev")
    with pytest.raises(BadCorpus, match="There is no"):
        face_records("celeba", tmp_path / "nowhere", split="test")
    with pytest.raises(BadCorpus, match="no source 'imdb'"):
        face_records("imdb", tmp_path, split="test")
