"""MAFW: eleven classes, five folds, and the English descriptions as references."""

import pytest

from data_builders.media import ClipFile, FrameFiles
from facellava.errors import BadCorpus
from tests.data_builders.sources.miniatures import read, write

WORDS = [
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt",
    "anxiety", "helplessness", "disappointment",
]  # fmt: skip
CLIPS = {f"{25 + number:05d}.mp4": word for number, word in enumerate(WORDS)}
LISTS = "Train & Test Set/single/no_caption"


def lists(folder=LISTS, clips=CLIPS):
    """The ten lists; the clips are tested in the folds 1 to 5 by turns."""
    files = {}
    for fold in range(1, 6):
        for part in ("train", "test"):
            lines = [
                f"{name} {word}\n"
                for place, (name, word) in enumerate(clips.items())
                if (place % 5 + 1 == fold) == (part == "test")
            ]
            files[f"{folder}/set_{fold}/{part}.txt"] = "".join(lines)
    return files


def test_labels_folds_and_clips(tmp_path):
    write(tmp_path, lists() | {f"clips/{name}": name for name in CLIPS})
    rows, drops = read("mafw", tmp_path)
    assert [(row.key, row.labels["expression"], row.fold) for row in rows] == [
        ("00025", "anger", 1), ("00026", "disgust", 2), ("00027", "fear", 3),
        ("00028", "happiness", 4), ("00029", "neutral", 5), ("00030", "sadness", 1),
        ("00031", "surprise", 2), ("00032", "contempt", 3), ("00033", "anxiety", 4),
        ("00034", "helplessness", 5), ("00035", "disappointment", 1),
    ]  # fmt: skip
    assert rows[0].media == ClipFile(tmp_path / "clips" / "00025.mp4")
    assert {row.reference for row in rows} == {None}
    assert not drops.counts


def test_the_folder_names_that_others_gave_and_frames(tmp_path):
    write(tmp_path, lists("split/single/no_caption"))
    write(tmp_path, {"data/clips/00025.mp4": b"", "data/frames/00026/1.png": b""})
    rows, drops = read("mafw", tmp_path)
    assert [row.media for row in rows] == [
        ClipFile(tmp_path / "data" / "clips" / "00025.mp4"),
        FrameFiles((tmp_path / "data" / "frames" / "00026" / "1.png",)),
    ]
    assert drops.counts == {"clip is missing or has no frames": 9}


def test_english_descriptions_are_kept_whatever_the_encoding(tmp_path):
    with_caption = "Train & Test Set/single/with_caption/set_1"
    chinese = "一个男人皱眉。"
    train = [
        f"00025.mp4\tanger\t{chinese}\tA man frowns.".encode("gb18030"),
        f"00026.mp4\tdisgust\t{chinese}\tHis nose\u2019s wrinkled. ".encode(),
        f"00027.mp4\tfear\t{chinese}\t{chinese}".encode("gb18030"),
        f"00028.mp4\thappiness\t{chinese}".encode("gb18030"),
        b"00029.mp4 neutral",
        b"00030.mp4\tsadness\t\xff\xff\xff\tsad \xff",
    ]
    single_label = f"00032.mp4  contempt  <br>{chinese} <br> A smirk. "
    write(tmp_path, lists() | {f"clips/{name}": name for name in CLIPS})
    write(
        tmp_path,
        {
            f"{with_caption}/train.txt": b"\r\n".join(train),
            f"{with_caption}/test.txt": f"00031.mp4\tsurprise\t{chinese}\tWide eyes.",
            "caption-label/single_label.txt": single_label,
        },
    )
    rows, _ = read("mafw", tmp_path)
    assert {row.key: row.reference for row in rows if row.reference is not None} == {
        "00025": "A man frowns.",
        "00026": "His nose\u2019s wrinkled.",
        "00031": "Wide eyes.",
        "00032": "A smirk.",
    }


def test_unknown_labels_are_counted_and_missing_lists_named(tmp_path):
    files = lists(clips=CLIPS | {"00036.mp4": "anger_disgust"})
    write(tmp_path, files | {f"clips/{name}": name for name in CLIPS})
    rows, drops = read("mafw", tmp_path)
    assert len(rows) == len(CLIPS)
    assert drops.to_dict() == {
        "unknown label 'anger_disgust'": {"count": 1, "examples": ["00036.mp4"]}
    }
    (tmp_path / LISTS / "set_5" / "train.txt").unlink()
    with pytest.raises(BadCorpus, match=r"MAFW: '.*set_5/train.txt' is missing; expected 'Train &"):
        read("mafw", tmp_path)


def test_clips_must_be_somewhere(tmp_path):
    write(tmp_path, lists())
    with pytest.raises(BadCorpus, match="MAFW: '.*clips' is missing"):
        read("mafw", tmp_path)
