"""What goes wrong in a build is counted or told in one sentence, and nothing is lost by it."""

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from data_builders.build import BuildOptions, build
from data_builders.mixture import MixtureEntry
from facellava.corpus import read_faces, validate
from facellava.errors import BadCorpus, BadSample
from tests.data_builders.small_corpus import OPTIONS, contents, write_pictures

BUILD = """
import sys
from pathlib import Path
from data_builders.build import BuildOptions, build
from data_builders.mixture import MixtureEntry
from facellava.errors import FacellavaError
if __name__ == "__main__":
    out, executor, *pairs = sys.argv[1:]
    sources = [
        MixtureEntry(name=name, root=Path(root)) for name, root in zip(pairs[::2], pairs[1::2])
    ]
    options = BuildOptions(seed=7, shard_rows=3, self_blends=("utkface",))
    try:
        build(sources, Path(out), options, workers=1, executor=executor)
    except FacellavaError as error:
        sys.exit(str(error))
"""


def built_apart(raw, out: Path, script: Path, executor: str = "local", most_bytes: int = 0):
    """A build in a process of its own, whose files may be only so large."""
    script.write_text(BUILD)
    pairs = [word for entry in raw for word in (entry.name, str(entry.root))]

    def limit() -> None:
        if most_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.run(
        [sys.executable, str(script), str(out), executor, *pairs],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=240,
    )


def test_a_full_disk_is_one_sentence_and_the_build_goes_on(raw, corpus, tmp_path):
    out, script = tmp_path / "corpus", tmp_path / "build.py"
    stopped = built_apart(raw, out, script, most_bytes=20_000)
    assert stopped.returncode == 1
    assert stopped.stderr.splitlines()[-1] == (
        f"The disk of '{out}' is full: free some space and run the same command again, it goes on "
        "from there."
    )
    assert not list(out.rglob("*.partial"))
    assert not (out / "manifest.json").exists()
    build(raw, out, OPTIONS, workers=1)
    assert contents(out) == contents(corpus)


def test_a_full_disk_for_temporary_files_is_one_sentence(tmp_path, monkeypatch):
    def small(*args, **options):
        base = connect(*args, **options)
        base.execute("PRAGMA page_size = 512")
        base.execute("PRAGMA max_page_count = 8")
        return base

    connect = sqlite3.connect
    root = tmp_path / "utk"
    root.mkdir()
    write_pictures(tmp_path, ["1.jpg"])
    picture = (tmp_path / "1.jpg").read_bytes()
    for number in range(30):
        (root / f"20_1_0_{number:040d}.jpg").write_bytes(picture)
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(BadCorpus, match=r"temporary files is full .*disk is full.* set TMPDIR"):
        build([MixtureEntry(name="utkface", root=root)], tmp_path / "corpus", workers=1)
    assert not (tmp_path / "corpus").exists()


def test_ray_gives_the_same_bytes(raw, corpus, tmp_path):
    done = built_apart(raw, tmp_path / "corpus", tmp_path / "build.py", executor="ray")
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(tmp_path / "corpus") == contents(corpus)


def test_a_corrupt_picture_among_many_is_counted_and_named(tmp_path):
    root = tmp_path / "utk"
    write_pictures(root, [f"{20 + n}_1_0_2017{n:04d}.jpg" for n in range(4)])
    whole = (root / "21_1_0_20170001.jpg").read_bytes()
    (root / "21_1_0_20170001.jpg").write_bytes(whole[: len(whole) // 3])
    options = BuildOptions(self_blends=())
    manifest = build(
        [MixtureEntry(name="utkface", root=root)], tmp_path / "corpus", options, workers=1
    )
    assert manifest["dropped"]["utkface"] == {
        "picture cannot be read": {"count": 1, "examples": ["21_1_0_20170001.jpg"]}
    }
    assert validate(tmp_path / "corpus")["faces"] == 3


def test_a_file_that_is_gone_is_counted(tmp_path):
    root = tmp_path / "rff"
    for label in ("real", "fake"):
        write_pictures(root / label, ["1.jpg", "2.jpg"], first=3 * (label == "fake"))
    (root / "fake" / "3.jpg").symlink_to(root / "nowhere.jpg")
    options = BuildOptions(self_blends=())
    manifest = build(
        [MixtureEntry(name="real_fake_faces", root=root)], tmp_path / "corpus", options, workers=1
    )
    [(reason, found)] = manifest["dropped"]["real_fake_faces"].items()
    assert (reason, found["count"]) == ("file cannot be read", 1)
    assert len(list(read_faces(tmp_path / "corpus"))) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"shard_rows": 0}, "shard of 0 rows"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(BadSample, match=words):
        BuildOptions(**options)
