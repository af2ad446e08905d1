import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data

from data_builders.blend_set import write_blend_set
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from facellava.corpus import decode_frame, record_of, sha256, write_shard
from facellava.errors import BadCorpus, BadSample
from facellava.faces import find_faces

PARTS = (("celeba", "test"), ("real_fake_faces", "test"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Nine real faces of two sources, and a fake one that must not be blended."""
    folder = tmp_path_factory.mktemp("corpus")
    face = find_faces(skimage.data.astronaut())[0]
    for source, labels in (
        ("celeba", [{"attributes": {}}] * 6),
        ("real_fake_faces", [{"deepfake": "real"}] * 3 + [{"deepfake": "fake"}]),
    ):
        records = [
            record_of(
                [face], face_id=f"{source}-{number}", source=source, split="test",
                labels=label, licence="", origin="",
            )
            for number, label in enumerate(labels)
        ]  # fmt: skip
        write_shard(folder / "faces" / f"test-{source}-00000.parquet", records, "faces")
    (folder / "manifest.json").write_text("{}")
    return folder


def test_pairs_are_balanced_for_every_ratio_and_differ_by_the_blend(corpus, tmp_path):
    out = tmp_path / "blends.parquet"
    assert write_blend_set(corpus, out, seed=3, ratios=(0.25, 1.0), parts=PARTS) == 18
    rows = pq.read_table(out).to_pylist()
    assert [row["label"] for row in rows] == [0, 1] * 9
    assert [row["blend_ratio"] for row in rows if row["label"]] == [0.25, 1.0] * 4 + [0.25]
    assert not any(row["source_path"].startswith("real_fake_faces-3") for row in rows)
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        assert real["blend_ratio"] == fake["blend_ratio"]
        assert (real["method"], fake["method"]) == ("none", "self_blended")
        pixels = [decode_frame(row["image"]) for row in (real, fake)]
        assert real["pixel_md5"] == hashlib.md5(pixels[0].tobytes()).hexdigest()
        assert 0.05 < np.abs(pixels[0].astype(int) - pixels[1]).mean() < 30
        assert fake["inside"] or fake["crossed"]


def test_the_set_is_frozen(corpus, tmp_path):
    first, again, other = (tmp_path / f"{n}.parquet" for n in range(3))
    write_blend_set(corpus, first, seed=3, parts=PARTS, limit=5)
    write_blend_set(corpus, again, seed=3, parts=PARTS, limit=5)
    write_blend_set(corpus, other, seed=4, parts=PARTS, limit=5)
    assert sha256(first) == sha256(again) != sha256(other)
    with pytest.raises(BadCorpus, match="not overwritten"):
        write_blend_set(corpus, first, parts=PARTS)


def test_the_set_reads_as_the_source_whose_columns_it_has(corpus, tmp_path):
    write_blend_set(corpus, tmp_path / "x" / "images.parquet", parts=PARTS)
    drops = Drops()
    rows = list(SOURCES["real_fake_faces"](tmp_path / "x", drops))
    assert len({row.key for row in rows}) == len(rows) == 18
    assert {row.split for row in rows} == {"test"}
    assert sum(row.labels["deepfake"] == "fake" for row in rows) == 9
    assert not drops.counts


def test_nothing_to_blend_and_bad_ratios_are_refused(corpus, tmp_path):
    out = tmp_path / "x.parquet"
    with pytest.raises(BadCorpus, match="no real faces of: celeba train"):
        write_blend_set(corpus, out, parts=[("celeba", "train")])
    with pytest.raises(BadSample, match="above 0 and up to 1"):
        write_blend_set(corpus, out, ratios=(0.5, 2.0), parts=PARTS)
    assert not list(tmp_path.iterdir())
