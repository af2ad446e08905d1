"""Faces tables: the faces of the wanted splits or of all folds, evenly drawn, without questions."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.build import BuildOptions, build
from data_builders.faces_table import build_blend_faces, build_faces
from data_builders.plan import planned_rows
from data_builders.raw_face import Drops
from data_builders.sources import SOURCES
from data_builders.sources.crema_d import FOLDS
from facellava.corpus import read_faces, read_manifest, validate
from facellava.errors import BadCorpus, BadSample
from facellava.tasks.attribute_table import OFFICIAL_NAMES
from tests.data_builders.small_corpus import contents, utkface_rows, write_pictures
from tests.data_builders.sources.miniatures import write

AGES = range(20, 32)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """UTKFace as a pack: 12 faces that can be read and one that cannot, in the split test; one of
    them again in train, where one is broken too."""
    root = tmp_path_factory.mktemp("pack")
    rows = utkface_rows(root, AGES)
    rows.append({**rows[0], "image": b"broken", "source_path": "40_0_0_2017.jpg"})
    rows.append({**rows[3], "source_path": "50_0_0_2017.jpg", "split": "train"})
    rows.append({**rows[0], "split": "train"})
    pq.write_table(pa.Table.from_pylist(rows), root / "utkface.parquet")
    return root / "utkface.parquet"


@pytest.fixture(scope="module")
def table(pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("table") / "utkface-test"
    build_faces("utkface", pack, out, splits=("test",), workers=2)
    return out


def crema_d(root, actors=FOLDS, takes="ABC"):
    write(root, {f"VideoFlash/{a}_DF{t}_ANG_XX.flv": f"{a}{t}" for a in actors for t in takes})


def ages(folder):
    return [record.labels["age"] for record in read_faces(folder)]


def by_hash(keys, seed, count):
    """Those with the smallest sha256 of seed/key, in the order given."""
    found = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).hexdigest())
    return [key for key in keys if key in found[:count]]


def test_a_table_holds_the_faces_of_its_split_and_no_questions(table):
    assert validate(table) == {"faces": 12, "samples": 0}
    records = list(read_faces(table))
    assert [record.labels["age"] for record in records] == list(AGES)
    assert {(record.split, record.fold, record.source) for record in records} == {
        ("test", None, "utkface")
    }
    manifest = read_manifest(table)
    # The two rows of train, one of them with a fault, are no part of the table: no drops of it.
    assert manifest["dropped"] == {
        "utkface": {"picture cannot be read": {"count": 1, "examples": ["40_0_0_2017"]}}
    }
    assert manifest["counts"]["faces"] == {"utkface": {"test": 12}}
    assert set(manifest["files"]) == {"faces/test-utkface-00000.parquet"}


def test_a_limit_draws_by_seed_and_is_no_drop(pack, table, tmp_path):
    keys = [f"{age}_0_0_2017" for age in AGES]
    for seed, limit in ((0, 4), (1, 4)):
        out = tmp_path / f"{seed}-{limit}"
        drawn = by_hash([*keys, "40_0_0_2017"], seed, limit)
        manifest = build_faces(
            "utkface", pack, out, splits=["test"], limit=limit, seed=seed, workers=1
        )
        whole = [key for key in drawn if not key.startswith("40")]
        assert [record.face_id for record in read_faces(out)] == [f"utkface-{k}" for k in whole]
        assert sum(f["count"] for f in manifest["dropped"]["utkface"].values()) == limit - len(
            whole
        )
    assert ages(tmp_path / "0-4") != ages(tmp_path / "1-4")
    before = contents(tmp_path / "0-4")
    build_faces("utkface", pack, tmp_path / "0-4", splits=["test"], limit=4, workers=2)
    assert contents(tmp_path / "0-4") == before
    with pytest.raises(BadCorpus, match=r"built with other settings \(limit\)"):
        build_faces("utkface", pack, tmp_path / "0-4", splits=["test"], limit=5)


def test_rows_are_drawn_of_each_fold_in_the_sources_order(tmp_path):
    crema_d(tmp_path)
    keys = {fold: [f"{actor}_DF{take}_ANG_XX" for actor, tested in FOLDS.items() for take in "ABC"
                   if tested == fold] for fold in range(1, 6)}  # fmt: skip

    def drawn(limit):
        rows = planned_rows(SOURCES["crema_d"], tmp_path, Drops(), fold=None, limit=limit, seed=7)
        return [(row.key, row.fold, row.split) for row in rows]

    assert drawn(10) == [
        (key, fold, "train") for fold in range(1, 6) for key in by_hash(keys[fold], 7, 10)
    ]
    assert set(drawn(9)) < set(drawn(10))
    assert len(drawn(1000)) == 3 * 91
    # Evenly: by neither actor nor place.
    assert len({key[:4] for key, _, _ in drawn(10)}) > 20


def test_of_all_folds_no_row_is_lost_for_being_in_two(tmp_path):
    crema_d(tmp_path, actors=("1001", "1019", "1040"), takes="A")
    for name in ("1019_DFA_ANG_XX", "1040_DFA_ANG_XX"):
        (tmp_path / "VideoFlash" / f"{name}.flv").write_text("1001A")
    for fold, kept in ((None, 3), (1, 1), (5, 3)):
        drops = Drops()
        assert len(list(planned_rows(SOURCES["crema_d"], tmp_path, drops, fold=fold))) == kept
        assert sum(drops.counts.values()) == 3 - kept


def test_corpora_from_before_there_were_splits_and_draws_are_not_refused(raw, tmp_path):
    options = BuildOptions(limit=1, self_blends=(), measured=False)
    build(raw[1:], tmp_path / "c", options, workers=1)
    note = tmp_path / "c" / "manifest.json"
    old = json.loads(note.read_text())
    for name in ("splits", "drawn"):
        del old["settings"][name]
    note.write_text(json.dumps(old))
    assert build(raw[1:], tmp_path / "c", options, workers=1) == old
    for other in ({"splits": ("test",)}, {"drawn": True}):
        with pytest.raises(BadCorpus, match=rf"other settings \({next(iter(other))}\)"):
            build(raw[1:], tmp_path / "c", BuildOptions(limit=1, self_blends=(), measured=False,
                                                        **other))  # fmt: skip


def test_what_cannot_be_built_is_said(pack, tmp_path):
    with pytest.raises(BadCorpus, match="Not one usable face of the split validation was found"):
        build_faces("utkface", pack, tmp_path / "a", splits=("validation",), workers=1)
    with pytest.raises(BadSample, match=r"The splits are \['dev'\]; give one or more of train"):
        build_faces("utkface", pack, tmp_path / "a", splits=("dev",))
    with pytest.raises(BadSample, match=r"The splits are \[\]"):
        build_faces("utkface", pack, tmp_path / "a", splits=())
    with pytest.raises(BadSample, match="The limit is 0"):
        build_faces("utkface", pack, tmp_path / "a", splits=None, limit=0)
    with pytest.raises(BadSample, match="a real face and its fake are at least 2"):
        build_blend_faces("celeba", pack, tmp_path / "a", limit=1)
    assert not list(tmp_path.iterdir())


def test_blends_are_frozen_beside_their_table(tmp_path):
    write_pictures(tmp_path, [f"{number}.jpg" for number in range(4)])
    rows = [
        {
            "image": (tmp_path / f"{number}.jpg").read_bytes(),
            "image_id": f"{number:06d}.jpg",
            "split": "test" if number < 3 else "train",
            **dict.fromkeys(OFFICIAL_NAMES, 0),
        }
        for number in range(4)
    ]
    root = tmp_path / "celeba.parquet"
    pq.write_table(pa.Table.from_pylist(rows), root)
    out = tmp_path / "faces" / "self_blended-test"
    manifest = build_blend_faces("celeba", root, out, limit=5, seed=3, workers=1)
    records = list(read_faces(out))
    assert manifest["settings"]["limit"] == 4
    assert [record.labels["deepfake"] for record in records] == ["real", "fake"] * 2
    assert [record.labels["blend_ratio"] for record in records] == [0.25, 0.25, 0.5, 0.5]
    assert {record.split for record in records} == {"test"}
    frozen = out.with_name("self_blended-test-2-pairs-seed-3.parquet")
    assert sorted(out.parent.iterdir()) == [out, frozen]

    # A table that did not finish is made from the same pack; a finished one needs none.
    before = contents(out), frozen.stat().st_mtime_ns
    (out / "manifest.json").unlink()
    next((out / "faces").iterdir()).unlink()
    (out / "README.md").unlink()
    (out / "faces").rmdir()
    build_blend_faces("celeba", root, out, limit=4, seed=3, workers=1)
    assert (contents(out), frozen.stat().st_mtime_ns) == before
    frozen.unlink()
    assert build_blend_faces("celeba", root, out, limit=4, seed=3) == read_manifest(out)
    assert not frozen.exists()
    with pytest.raises(BadCorpus, match=r"other settings \(limit\)"):
        build_blend_faces("celeba", root, out, limit=6, seed=3)


def test_what_is_lost_of_another_split_is_no_loss():
    drops = Drops(("test",))
    for name, split in (("a", "test"), ("b", "train"), ("c", None), ("d", "Usage 3")):
        drops.add("picture is missing", name, split)
    # A row whose split is not known, or is none, may have been a wanted one.
    assert drops.to_dict() == {"picture is missing": {"count": 3, "examples": ["a", "c", "d"]}}
