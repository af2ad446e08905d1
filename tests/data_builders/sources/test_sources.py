"""Each source reads a miniature of its published layout and of its Parquet form, no other."""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image

from data_builders.plan import planned_rows
from data_builders.raw_face import Drops, stable_split
from data_builders.sources import SOURCES
from facellava.errors import BadCorpus
from facellava.faces import read_photo
from facellava.tasks.attribute_table import NAMES, OFFICIAL_NAMES


def picture(number: int, side: int = 48, kind: str = "JPEG") -> bytes:
    """The astronaut's face, cut a little differently for each number."""
    cut = Image.fromarray(skimage.data.astronaut()[20 + number : 190 + number, 140:310])
    data = io.BytesIO()
    cut.resize((side, side)).save(data, kind)
    return data.getvalue()


def grey(number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(number, kind="PNG"))).convert("L"))


def read(source: str, root: Path):
    drops = Drops()
    return list(SOURCES[source].rows(root, drops)), drops


def write_pack(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


# FER2013


def write_fer(root: Path, rows, votes=None) -> None:
    with (root / "fer2013.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["emotion", "pixels", "Usage"])
        for emotion, levels, usage in rows:
            table.writerow([emotion, " ".join(map(str, levels.reshape(-1))), usage])
    if votes is not None:
        with (root / "fer2013new.csv").open("w", newline="") as file:
            table = csv.writer(file)
            head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
            table.writerow([*head.split(","), "unknown", "NF"])
            table.writerows(["Training", f"fer{n:07d}.png", *row] for n, row in enumerate(votes))


def test_fer2013_csv_gives_our_words_exact_pixels_and_splits(tmp_path):
    usages = ["Training", "PublicTest", "PrivateTest"]
    write_fer(tmp_path, [(n, grey(n), usages[n % 3]) for n in range(7)])
    rows, drops = read("fer2013", tmp_path)
    assert [row.labels["expression"] for row in rows] == [
        "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral",
    ]  # fmt: skip
    assert [row.split for row in rows[:3]] == ["train", "validation", "test"]
    np.testing.assert_array_equal(read_photo(rows[4].media.data)[:, :, 0], grey(4))
    assert rows[3].key == "00003"
    assert "expression_votes" not in rows[0].labels
    assert not drops.counts


def test_fer2013_votes_are_read_and_non_faces_dropped(tmp_path):
    votes = [[4, 0, 0, 1, 3, 2, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0, 0, 9]]
    write_fer(tmp_path, [(0, grey(0), "Training"), (3, grey(1), "Training")], votes)
    [row], drops = read("fer2013", tmp_path)
    assert row.labels["expression_votes"] == {
        "neutral": 4, "happiness": 0, "surprise": 0, "sadness": 1, "anger": 3, "disgust": 2,
        "fear": 0, "contempt": 0, "unknown": 0, "not_a_face": 0,
    }  # fmt: skip
    assert drops.to_dict() == {"most FER+ voters saw no face": {"count": 1, "examples": ["00001"]}}


def test_fer2013_training_pictures_of_later_splits_and_double_labels_are_dropped(tmp_path):
    write_fer(
        tmp_path,
        [
            (0, grey(0), "Training"),
            (1, grey(0), "PublicTest"),
            (2, grey(1), "PublicTest"),
            (2, grey(1), "PrivateTest"),
            (3, grey(2), "Training"),
            (4, grey(2), "Training"),
            (5, grey(3), "Training"),
            (5, grey(3), "Training"),
            (9, grey(4), "Training"),
            (0, grey(5), "Nowhere"),
        ],
    )
    rows, drops = read("fer2013", tmp_path)
    assert [row.key for row in rows] == ["00001", "00003", "00006", "00007"]
    assert drops.counts == {
        "the same picture is in a later split": 2,
        "the same picture has two labels": 2,
        "unknown emotion '9'": 1,
        "unknown split 'Nowhere'": 1,
    }


def test_fer2013_votes_that_do_not_fit_are_refused(tmp_path):
    write_fer(tmp_path, [(0, grey(0), "Training")] * 2, votes=[[10] + [0] * 9])
    with pytest.raises(BadCorpus, match="belong together row for row"):
        read("fer2013", tmp_path)


def test_fer2013_short_rows_are_refused(tmp_path):
    write_fer(tmp_path, [(0, grey(0)[:40], "Training")])
    with pytest.raises(BadCorpus, match="row 0 .* has 1920 pixels"):
        read("fer2013", tmp_path)


def test_ferplus_is_what_most_voters_saw(tmp_path):
    votes = {
        "contempt": [1, 0, 0, 0, 2, 0, 0, 6, 1, 0],
        "happiness": [0, 10, 0, 0, 0, 0, 0, 0, 0, 0],
        "two as many": [4, 0, 0, 4, 0, 0, 0, 0, 2, 0],
        "unknown": [1, 2, 0, 0, 0, 0, 0, 0, 7, 0],
        "no face": [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    }
    write_fer(
        tmp_path,
        [(3, grey(number), "PublicTest") for number in range(len(votes))],
        votes=list(votes.values()),
    )
    rows, drops = read("ferplus", tmp_path)
    assert [row.labels["expression"] for row in rows] == ["contempt", "happiness"]
    assert rows[0].labels["expression_votes"]["contempt"] == 6
    assert drops.counts == {"no class has the most FER+ votes": 3}


def test_fer2013_pack(tmp_path):
    def row(number: int, split: str, **facts) -> dict:
        md5 = hashlib.md5(grey(number).tobytes()).hexdigest()
        votes = dict.fromkeys(
            ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"],
            1,
        )
        return {
            "image": picture(number, kind="PNG"), "label": 4, "split": split, "pixel_md5": md5,
            "fer_index": number, "label_ambiguous": False, "source_path": f"x/{number}.png",
            **{f"ferplus_{name}": n for name, n in votes.items()},
            "ferplus_unknown": 2, "ferplus_nf": 0,
        } | facts  # fmt: skip

    rows = [
        row(0, "train"),
        row(1, "train"),
        row(2, "train", label_ambiguous=True),
        row(3, "train", fer_index=None, ferplus_neutral=None),
    ]
    write_pack(tmp_path / "train.parquet", rows)
    write_pack(tmp_path / "validation.parquet", [row(1, "validation")])
    read_rows, drops = read("fer2013", tmp_path)
    assert [(r.split, r.labels["expression"]) for r in read_rows] == [
        ("train", "sadness"), ("train", "sadness"), ("validation", "sadness"),
    ]  # fmt: skip
    assert read_rows[0].labels["expression_votes"]["unknown"] == 2
    assert "expression_votes" not in read_rows[1].labels
    assert len({r.key for r in read_rows}) == 3
    assert sum(drops.counts.values()) == 2


# UTKFace


def test_utkface_folder(tmp_path):
    folder = tmp_path / "UTKFace"
    folder.mkdir()
    good = "26_1_2_20170116001536188.jpg.chip.jpg"
    names = [good, "0_0_4_20170116001536189.jpg", "39_1_20170116174525125.jpg", "117_0_0_2017.jpg"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    (folder / "5_0_0_2018.jpg").write_bytes(b"not a picture")
    rows, drops = read("utkface", tmp_path)
    assert {row.key: row.labels["age"] for row in rows} == {
        "26_1_2_20170116001536188": 26, "0_0_4_20170116001536189": 0,
    }  # fmt: skip
    asian = next(row for row in rows if row.labels["age"] == 26)
    assert asian.demographics == {"gender": "female", "race": "Asian"}
    assert asian.origin == f"UTKFace/{good}"
    assert drops.to_dict() == {
        "age outside 0..116": {"count": 1, "examples": ["117_0_0_2017.jpg"]},
        "file name lacks age, gender, race or date": {
            "count": 1, "examples": ["39_1_20170116174525125.jpg"],
        },
        "picture cannot be read": {"count": 1, "examples": ["5_0_0_2018.jpg"]},
    }  # fmt: skip


def test_utkface_equal_pictures_share_a_split(tmp_path):
    for number in range(30):
        for copy in range(2):
            (tmp_path / f"20_0_0_{number}{copy}.jpg").write_bytes(picture(number))
    rows, _ = read("utkface", tmp_path)
    splits: dict[bytes, set[str]] = {}
    for row in rows:
        splits.setdefault(row.media.data, set()).add(row.split)
    assert len(splits) == 30
    assert all(len(found) == 1 for found in splits.values())
    assert len({row.split for row in rows}) > 1


def test_utkface_pack(tmp_path):
    row = {
        "image": picture(0), "age": 71, "gender": 0, "race": 3, "split": "test",
        "source_path": "a/b:c/71_0_3_2017.jpg.chip.jpg",
    }  # fmt: skip
    write_pack(tmp_path / "test.parquet", [row, row | {"gender": 3, "source_path": "3_3_3_1.jpg"}])
    [read_row], drops = read("utkface", tmp_path)
    assert (read_row.labels, read_row.split) == ({"age": 71}, "test")
    assert read_row.demographics == {"gender": "male", "race": "Indian"}
    assert drops.counts == {"unknown gender or race": 1}


# CelebA


def write_celeba(root: Path, names: tuple[str, ...] = tuple(OFFICIAL_NAMES)) -> None:
    for folder in ("Anno", "Eval", "Img/img_align_celeba"):
        (root / folder).mkdir(parents=True)
    lines = ["4", " ".join(names)]
    for number in range(1, 5):
        values = ["1" if (place + number) % 3 == 0 else "-1" for place in range(40)]
        lines.append(f"{number:06d}.jpg " + "  ".join(values))
    (root / "Anno" / "list_attr_celeba.txt").write_text("\n".join(lines))
    (root / "Anno" / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 17\n")
    partition = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 7\n"
    (root / "Eval" / "list_eval_partition.txt").write_text(partition)
    for number in (1, 2, 4):
        path = root / "Img" / "img_align_celeba" / f"{number:06d}.jpg"
        path.write_bytes(picture(number))


def test_celeba_original_layout(tmp_path):
    write_celeba(tmp_path)
    rows, drops = read("celeba", tmp_path)
    assert [(row.key, row.split, row.subject) for row in rows] == [
        ("000001", "train", "2880"), ("000002", "validation", "17"),
    ]  # fmt: skip
    attributes = rows[0].labels["attributes"]
    assert tuple(attributes) == NAMES
    assert [name for place, name in enumerate(NAMES) if attributes[name]] == [
        name for place, name in enumerate(NAMES) if (place + 1) % 3 == 0
    ]
    assert drops.counts == {"picture is missing": 1, "unknown split 'partition 7'": 1}


def test_celeba_other_attribute_names_are_refused(tmp_path):
    write_celeba(tmp_path, names=tuple(reversed(OFFICIAL_NAMES)))
    with pytest.raises(BadCorpus, match="not CelebA's 40 attribute names in their order"):
        read("celeba", tmp_path)


def test_celeba_pack(tmp_path):
    values = {name: int(place == 0) for place, name in enumerate(OFFICIAL_NAMES)}
    row = {"image": picture(0), "image_id": "000051.jpg", "identity": 1446, "split": "test"}
    odd = {"image_id": "000052.jpg", "Young": 7}
    write_pack(tmp_path / "a.parquet", [row | values, row | values | odd])
    [read_row], drops = read("celeba", tmp_path)
    assert (read_row.subject, read_row.key) == ("1446", "000051")
    assert [name for name, there in read_row.labels["attributes"].items() if there] == [NAMES[0]]
    assert drops.to_dict() == {
        "attributes are not 40 yes or no values": {"count": 1, "examples": ["000052.jpg"]}
    }


# real_fake_faces


def test_real_fake_faces_folders(tmp_path):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(picture(1, kind="PNG"))
    rows, _ = read("real_fake_faces", tmp_path)
    assert [(row.key, row.labels["deepfake"]) for row in rows] == [
        ("real-1", "real"), ("fake-1", "fake"),
    ]  # fmt: skip
    assert rows[0].split == stable_split("real/1.png")


def test_real_fake_faces_pack(tmp_path):
    row = {
        "image": {"bytes": picture(0), "path": None}, "label": 1, "split": "validation",
        "source_path": "x/y:data/fake_0.jpg", "method": "stylegan2", "origin": "web",
    }  # fmt: skip
    write_pack(tmp_path / "images.parquet", [row, row | {"label": 2, "source_path": "z"}])
    [read_row], drops = read("real_fake_faces", tmp_path)
    assert read_row.labels == {"deepfake": "fake", "method": "stylegan2", "origin": "web"}
    assert read_row.media.data == picture(0)
    assert read_row.licence.startswith("FFHQ: CC BY-NC-SA 4.0; StyleGAN2")
    assert drops.counts == {"label is neither 0 (real) nor 1 (fake)": 1}


# Refusals that all share


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("fer2013", "fer2013.csv"),
        ("utkface", "holds no .jpg file"),
        ("celeba", "list_attr_celeba.txt"),
        ("real_fake_faces", "real' is missing"),
        ("dfew", "set_1.csv"),
        ("mafw", "Train & Test Set"),
        ("ferv39k", "train_All.csv"),
        ("crema_d", "VideoFlash"),
        ("affectnet7", "train_set/images"),
        ("affectnet8", "train_set/images"),
        ("rafdb", "list_patition_label.txt"),
        ("ck_plus", "Emotion"),
    ],
)
def test_an_empty_folder_is_refused_naming_what_lacks(tmp_path, source, missing):
    with pytest.raises(BadCorpus, match=missing) as caught:
        read(source, tmp_path)
    assert "expected" in str(caught.value)
    with pytest.raises(BadCorpus, match="is missing"):
        read(source, tmp_path / "nowhere")


@pytest.mark.parametrize("source", ["fer2013", "utkface", "celeba", "real_fake_faces"])
def test_foreign_or_damaged_parquet_is_refused(tmp_path, source):
    write_pack(tmp_path / "x.parquet", [{"something": 1}])
    with pytest.raises(BadCorpus, match=r"x.parquet' has no column '\w+'; expected the columns"):
        read(source, tmp_path)
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadCorpus, match="x.parquet' is damaged or cut off"):
        read(source, tmp_path)


# Rows of packs without a picture or a name

NAMED_BY = {
    "fer2013": {"label": 3, "pixel_md5": "md5"},
    "utkface": {"age": 30, "gender": 0, "race": 0, "source_path": "30_0_0_2017.jpg"},
    "celeba": {"image_id": "1.jpg", **dict.fromkeys(OFFICIAL_NAMES, 0)},
    "real_fake_faces": {"label": 0, "source_path": "a.jpg"},
}


@pytest.mark.parametrize("source", NAMED_BY)
@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.string(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])],
    ids=["bytes", "text", "struct"],
)
def test_a_pack_row_without_picture_or_name_is_left_out(tmp_path, source, kind):
    facts = NAMED_BY[source] | {"split": "test"}
    named_by = {"fer2013": "pixel_md5", "celeba": "image_id"}.get(source, "source_path")
    pictures = {pa.binary(): [None], pa.string(): ["a.jpg", None]}.get(
        kind, [None, {"bytes": None, "path": "a.jpg"}]
    )
    rows = [facts | {"image": None, named_by: None}]
    rows += [
        facts | {"image": given, named_by: f"{number}{facts[named_by]}"}
        for number, given in enumerate(pictures)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = {name: pa.array(column) for name, column in columns.items() if name != "image"}
    table["image"] = pa.array(columns["image"], kind)
    pq.write_table(pa.table(table), tmp_path / "test.parquet")
    drops = Drops()
    assert list(planned_rows(SOURCES[source], tmp_path, drops)) == []
    assert drops.counts == {f"{named_by} is missing": 1, "picture is missing": len(pictures)}
    assert drops.examples[f"{named_by} is missing"] == ["row 0 of test.parquet"]


def test_text_that_is_no_table_is_one_sentence(tmp_path):
    (tmp_path / "fer2013.csv").write_text('emotion,pixels,Usage\n0,"' + "1 " * 2**20)
    with pytest.raises(BadCorpus, match="FER2013: a table or list .* is damaged or not UTF-8"):
        list(planned_rows(SOURCES["fer2013"], tmp_path, Drops()))
