"""The command line as a user meets it: exit codes, stdout for answers, stderr for troubles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facellava import __version__
from facellava.faces import MEASUREMENTS, Face
from tests.facellava.command_line import Facellava

AGED = "Age: 34 years. The mouth is closed."


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]) -> Path:
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    Image.fromarray(astronaut).save(path)
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture that shows no face."""
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_answer_is_printed(facellava: Facellava, photo: Path, reciting_checkpoint: Path) -> None:
    done = facellava("ask", photo, "-q", "How old is she?", "--model", reciting_checkpoint)
    assert done.code == 0
    assert done.out.splitlines()[0] == AGED
    assert "the mouth is closed" in done.out.lower()
    assert done.trouble == []


def test_json_is_all_that_stdout_holds(
    facellava: Facellava, photo: Path, noise: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.jpg"
    asked = ["ask", photo, noise, absent, photo, "--task", "age", "--json"]
    done = facellava(*asked, "--model", reciting_checkpoint)
    assert done.code == 1
    answers: list[dict[str, Any]] = json.loads(done.out)
    assert [Path(answer["photo"]).name for answer in answers] == [
        "portrait.png", "noise.png", "absent.jpg", "portrait.png",
    ]  # fmt: skip
    for answer in (answers[0], answers[3]):
        assert (answer["task"], answer["label"], answer["text"]) == ("age", 34, AGED)
        assert sum(answer["probabilities"]["raw"].values()) == pytest.approx(1, abs=0.01)
    assert [set(answers[n]) for n in (1, 2)] == [{"photo", "error"}] * 2
    # One sentence each, and each says which photo.
    assert len(done.trouble) == 2
    assert "noise.png" in done.trouble[0]
    assert "absent.jpg" in done.trouble[1]


def test_a_folder_of_photos_with_a_name_over_each_answer(
    facellava: Facellava, photo: Path, reciting_checkpoint: Path
) -> None:
    shutil.copy(photo, photo.parent / "second[a].png")
    done = facellava("ask", photo.parent, "-q", "How old?", "--model", reciting_checkpoint)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line for line in lines if ", face " in line] == [
        "portrait.png, face 0",
        "second[a].png, face 0",
    ]
    assert lines.count(AGED) == 2
    (photo.parent / "second[a].png").unlink()


def test_an_answer_that_cannot_be_read_counts_as_failed(
    facellava: Facellava, photo: Path, reciting_checkpoint: Path
) -> None:
    done = facellava("ask", photo, "-q", "Sing a song", "--model", reciting_checkpoint)
    assert done.code == 1
    assert done.out == "La la la.\n"
    assert done.trouble == [
        "This answer cannot be read: The answer opens with no task's lead: 'La la la.'."
    ]


def test_overlay(
    facellava: Facellava, photo: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn.png"
    asked = ["ask", photo, "-q", "Which expression?", "--model", reciting_checkpoint, "--overlay"]
    assert facellava(*asked, drawn).code == 0
    assert Image.open(drawn).size[0] >= Image.open(photo).size[0]
    nowhere = facellava(*asked, tmp_path / "no" / "folder.png")
    assert nowhere.code == 1
    assert len(nowhere.trouble) == 1
    assert "cannot be written" in nowhere.trouble[0]


def write_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def write_words(path: Path) -> Path:
    path.write_text("Dear diary, this is no photo.")
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "no file"),
        (write_empty, "is empty"),
        (write_words, "is not a photo"),
        (make_folder, "holds no photos"),
    ],
    ids=["missing", "empty", "words", "folder"],
)
@pytest.mark.parametrize("command", ["ask", "faces"])
def test_what_is_no_photo(
    facellava: Facellava,
    tmp_path: Path,
    reciting_checkpoint: Path,
    command: str,
    make: Callable[[Path], Path],
    said: str,
) -> None:
    path = make(tmp_path / "thing.jpg")
    more = ["--task", "age", "--model", reciting_checkpoint] if command == "ask" else []
    done = facellava(command, path, *more)
    assert (done.code, done.out) == (1, "")
    [sentence] = done.trouble
    assert said in sentence
    assert "thing.jpg" in sentence
    assert sentence.endswith(".")


def test_a_face_that_is_not_there(
    facellava: Facellava, photo: Path, reciting_checkpoint: Path
) -> None:
    done = facellava("ask", photo, "--task", "age", "--face", 4, "--model", reciting_checkpoint)
    assert (done.code, done.out) == (1, "")
    [sentence] = done.trouble
    assert "there is no face 4" in sentence


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give a question, or a task"),
        (["--task", "age", "-q", "Why?"], "Give a question, or a task"),
        (["--task", "mood"], "'mood'"),
        (["--task", "age", "--face", "smallest"], "'smallest'"),
        (["--task", "age", "--face", "²"], "largest, all or a number"),
        (["--task", "age", "--volume", "11"], "--volume"),
    ],
    ids=["neither", "both", "task", "face", "digit", "option"],
)
def test_wrong_usage(facellava: Facellava, photo: Path, arguments: list[str], said: str) -> None:
    done = facellava("ask", photo, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_one_overlay_for_two_photos_is_wrong_usage(facellava: Facellava, photo: Path) -> None:
    for command in (["ask", "--task", "age"], ["faces"]):
        done = facellava(*command, photo, photo, "--overlay", "x.png")
        assert (done.code, done.out) == (2, "")
        assert "for one photo" in done.err


def test_weights_that_cannot_be_read(
    facellava: Facellava, photo: Path, reciting_checkpoint: Path, tmp_path: Path
) -> None:
    cut, bare = tmp_path / "cut", tmp_path / "bare"
    for folder in (cut, bare):
        shutil.copytree(reciting_checkpoint, folder)
    os.truncate(cut / "model.safetensors", 5000)
    (bare / "model.safetensors").unlink()
    for folder in (cut, bare, tmp_path / "absent"):
        done = facellava("ask", photo, "--task", "age", "--model", folder)
        assert (done.code, done.out) == (1, "")
        [sentence] = done.trouble
        assert str(folder) in sentence


def test_faces_as_json(facellava: Facellava, photo: Path, found_face: Face, noise: Path) -> None:
    done = facellava("faces", photo, "--json")
    assert done.code == 0
    [face] = json.loads(done.out)["faces"]
    assert face["box"] == pytest.approx([round(value, 1) for value in found_face.box])
    assert len(face["landmarks"]) == 68
    assert set(face["measurements"]) == set(MEASUREMENTS)
    both = facellava("faces", photo, noise, "--json")
    assert both.code == 1
    assert [len(entry["faces"]) for entry in json.loads(both.out)] == [1, 0]
    assert "noise.png" in both.trouble[0]


def test_faces_in_words(facellava: Facellava, photo: Path, tmp_path: Path) -> None:
    done = facellava("faces", photo, "--overlay", tmp_path / "boxed.png")
    assert done.code == 0
    assert "portrait.png: 1 face(s)" in done.out
    assert (tmp_path / "boxed.png").exists()


def test_an_adapter_is_merged_into_a_checkpoint(
    facellava: Facellava, twin: Path, tmp_path: Path, photo: Path
) -> None:
    merged = tmp_path / "merged"
    done = facellava("train", "merge", twin, "--out", merged)
    assert done.code == 0, done.err
    alone = facellava("ask", photo, "--task", "age", "--json")
    together = facellava("ask", photo, "--task", "age", "--model", merged, "--json")
    assert together.out != alone.out
    itself = facellava("train", "merge", twin, "--model", merged, "--out", merged)
    assert itself.code == 1
    assert "choose another path" in itself.err
    assert (merged / "config.json").is_file()


def test_training_is_told_its_optimiser(facellava: Facellava, tmp_path: Path) -> None:
    unknown = facellava(
        "train",
        "run",
        "nano-lora",
        "--optim",
        "lion",
        "--set",
        f"corpus={tmp_path}",
        "--set",
        "out=o",
    )
    assert unknown.code == 1
    assert "setting regions.optim is 'lion': input should be 'adamw', 'adam'" in unknown.err
    compared = facellava("train", "optimisers", tmp_path, "--out", tmp_path, "--optim", "lion")
    assert compared.code == 1
    assert compared.err == ("There is no optimiser lion; use some of adamw, adam, rmsprop, sgd.\n")


@pytest.mark.parametrize("command", ["run", "blends"])
@pytest.mark.parametrize("pair", ["fer2013", "=data", "fer2013="])
def test_sources_are_named(facellava: Facellava, tmp_path: Path, command: str, pair: str) -> None:
    done = facellava("build", command, pair, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert f"'{pair}' is not NAME=FOLDER" in done.err


def test_a_corpus_that_is_not_there(facellava: Facellava, tmp_path: Path) -> None:
    for command in (["build", "validate"], ["build", "report"]):
        done = facellava(*command, tmp_path / "absent")
        assert (done.code, done.out) == (1, "")
        [sentence] = done.trouble
        assert "absent" in sentence


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["ask", "--help"], ["eval", "run", "--help"], []],
    ids=" ".join,
)
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['facellava', *{arguments!r}]\n"
        "from facellava.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'cv2'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (0 if arguments else 2)
    if arguments == ["--version"]:
        assert done.stdout == f"facellava {__version__}\n"


def test_a_level_of_logging_that_is_none(
    facellava: Facellava, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACELLAVA_LOG", "loud")
    done = facellava("--version")
    assert (done.code, done.out) == (2, "")
    assert done.trouble == ["FACELLAVA_LOG is 'LOUD'; use DEBUG, INFO, WARNING or ERROR."]


def test_from_the_shell_nothing_but_the_answer_is_heard(
    photo: Path, reciting_checkpoint: Path
) -> None:
    """A process of its own: no library complains on stderr."""
    command = [
        sys.executable, "-c", "from facellava.cli import main; main()",
        "ask", str(photo), "--task", "age", "--model", str(reciting_checkpoint),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == AGED
