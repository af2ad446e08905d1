"""The paper's nine datasets in miniature, from the publisher's files to figures worked out by hand.

An engine with a script answers: some faces right, some wrong, one so that it cannot be read.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_builders.faces_table import build_faces
from data_builders.raw_face import stable_split
from eval.answers import Reply
from eval.faces_table import FacesTable
from eval.protocols import PROTOCOLS
from eval.results import score_run
from eval.run import ask_all
from eval.run_folder import RunFolder
from facellava.faces import read_photo
from facellava.records import FaceRecord
from facellava.tasks.attribute_table import NAMES, OFFICIAL_NAMES
from tests.data_builders.sources.layouts import (
    bp4d_line,
    bp4d_table,
    dfew_lists,
    disfa_labels,
    disfa_whole,
    faceforensics_clips,
    faceforensics_lists,
    write_bp4d,
)
from tests.data_builders.sources.miniatures import write
from tests.data_builders.test_media import encoded, moved

PROSE = "What a lovely picture."


def photo(number: int) -> bytes:
    """The portrait as a JPEG; other bytes for each number up to 255."""
    pixels = moved(number % 8).copy()
    pixels[:8, :8] = number
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


def clip(number: int, kind: str = "mp4", codec: str = "libx264") -> bytes:
    """Two frames of the portrait."""
    return encoded([moved(number), moved(number + 1)], kind=kind, codec=codec)


@dataclass
class Scripted:
    """Says of each face what its script says; a number is the probability of a fake."""

    script: Mapping[str, str | tuple[str, float]]
    batch: int = 2

    def describe(self) -> dict[str, Any]:
        return {"kind": "model", "name": "scripted", "weights_sha256": None, "label_only": False}

    def facts(self) -> dict[str, Any]:
        return {}

    def ask(self, records: Sequence[FaceRecord], question: str) -> list[Reply]:
        return [self.reply(record.face_id) for record in records]

    def reply(self, face_id: str) -> Reply:
        said = self.script[face_id]
        if isinstance(said, str):
            return Reply(face_id, said)
        text, fake = said
        return Reply(face_id, text, table={"real": round(1 - fake, 6), "fake": fake})


@dataclass(frozen=True)
class Outcome:
    """What is compared with figures worked out by hand, four places long."""

    n: int
    figures: dict[str, float]
    folds: dict[str, dict[str, float]]
    mean_over_folds: dict[str, float]
    people: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def root(tmp_path) -> Path:
    """Where the dataset lies."""
    return tmp_path / "data"


@pytest.fixture
def evaluate(tmp_path, root):
    """Ask about the faces of a protocol, score the answers."""

    def run(key: str, script: Mapping[str, str | tuple[str, float]]) -> Outcome:
        protocol, folder = PROTOCOLS[key], RunFolder(tmp_path / "run")
        table = FacesTable(folder.path / "faces" / protocol.table)
        splits = None if protocol.split is None else (protocol.split,)
        build_faces(protocol.source, root, table.folder, splits=splits, workers=1)
        # Nobody else is asked about: the script has no words for them.
        assert sorted(record.face_id for record in table.records(protocol)) == sorted(script)
        engine = Scripted(script)
        folder.begin(engine.describe(), {})
        ask_all(protocol, table, engine, folder.answers(protocol))
        folder.add(protocol, table)
        block = score_run(folder)["protocols"][key]
        assert block["unreadable"]["count"] == 1
        return Outcome(
            block["n"],
            {name: found["value"] for name, found in block["figures"].items()},
            block["folds_figures"],
            block["mean_over_folds"],
            block["n_subjects"],
            block["left_out"],
        )

    return run


def recalls(war: float, uar: float) -> dict[str, float]:
    return {"WAR": war, "UAR": uar}


def units(f1: float, accuracy: float) -> dict[str, float]:
    return {"mean_F1": f1, "mean_accuracy": accuracy}


def test_dfew_gives_a_figure_a_fold(evaluate, root):
    # Clip to its label and fold. 1 happy, 2 sad, 3 neutral, 4 angry, 5 surprise, 7 fear.
    clips = {1: (1, 1), 2: (1, 1), 3: (2, 1), 4: (3, 2), 5: (4, 3), 6: (5, 4), 7: (7, 5), 8: (7, 5)}
    write(root, dfew_lists(clips))
    write(root, {f"Clip/original/{n}.mp4": clip(n) for n in clips if n != 8})
    write(root, {"Clip/original/8.mp4": "cut off"})
    found = evaluate("dfew/5-folds", {
        "dfew-00001": "Expression: happiness.",
        "dfew-00002": "Expression: sadness.",
        "dfew-00003": "Expression: sadness.",
        "dfew-00004": "Expression: neutral.",
        "dfew-00005": PROSE,
        "dfew-00006": "Expression: surprise.",
        "dfew-00007": "Expression: fear.",
    })  # fmt: skip
    assert found == Outcome(
        7,
        # Recalls: happiness 1/2, anger 0, four others 1.
        recalls(0.7143, 0.75),
        {
            "1": recalls(0.6667, 0.75), "2": recalls(1, 1), "3": recalls(0, 0),
            "4": recalls(1, 1), "5": recalls(1, 1),
        },
        recalls(0.7333, 0.75),
        left_out={"clip cannot be read or has no frames": 1},
    )  # fmt: skip


def test_crema_d_folds_by_actor(evaluate, root):
    names = (
        "1001_DFA_ANG_XX", "1001_DFA_HAP_XX", "1019_DFA_FEA_HI", "1019_DFA_FEA_LO",
        "1019_DFA_FEA_MD", "1037_DFA_DIS_XX", "1055_DFA_NEU_XX", "1091_DFA_SAD_XX",
    )  # fmt: skip
    files = {f"VideoFlash/{name}.flv": clip(n, "flv", "flv") for n, name in enumerate(names)}
    write(root, files)
    said = ("anger", "neutral", "fear", "fear", "anger", None, "neutral", "surprise")
    found = evaluate("crema_d/5-actor-folds", {
        f"crema_d-{name}": f"Expression: {word}." if word else PROSE
        for name, word in zip(names, said, strict=True)
    })  # fmt: skip
    assert found == Outcome(
        8,
        # Recalls: anger 1, happiness 0, fear 2/3, disgust 0, neutral 1, sadness 0.
        recalls(0.5, 0.4444),
        {
            "1": recalls(0.5, 0.5), "2": recalls(0.6667, 0.6667), "3": recalls(0, 0),
            "4": recalls(1, 1), "5": recalls(0, 0),
        },
        recalls(0.4333, 0.4333),
        people=5,
    )  # fmt: skip


def test_rafdb_asks_about_its_test_list(evaluate, root):
    labels = {"train_00001": 1, "test_0001": 1, "test_0002": 1, "test_0003": 7, "test_0004": 6,
              "test_0005": 7}  # fmt: skip
    listed = "".join(f"{name}.jpg {label}\n" for name, label in labels.items())
    write(root, {"basic/EmoLabel/list_patition_label.txt": listed})
    write(root, {
        f"basic/Image/aligned/{name}_aligned.jpg": photo(n) for n, name in enumerate(labels)
    })  # fmt: skip
    found = evaluate("rafdb/test", {
        "rafdb-test_0001": "Expression: surprise.",
        "rafdb-test_0002": PROSE,
        "rafdb-test_0003": "Expression: neutral.",
        "rafdb-test_0004": "Expression: fear.",
        "rafdb-test_0005": "Expression: neutral.",
    })  # fmt: skip
    # Recalls: surprise 1/2, neutral 1, anger 0.
    assert found == Outcome(5, recalls(0.6, 0.5), {}, {})


def test_disfa_counts_units_from_intensity_two(evaluate, root):
    people = ("SN003", "SN013", "SN002")  # of the folds 1 to 3
    write(root, disfa_whole())
    write(root, {
        f"Videos_LeftCamera/LeftVideo{person}_comp.avi": clip(3 * n, "avi", "mpeg4")
        for n, person in enumerate(people)
    })  # fmt: skip
    write(root, {
        disfa_labels("SN003", 6): "1,2\n2,0\n", disfa_labels("SN003", 12): "1,3\n2,0\n",
        disfa_labels("SN013", 1): "1,2\n2,0\n", disfa_labels("SN013", 4): "1,0\n2,1\n",
        disfa_labels("SN002", 25): "1,5\n2,2\n", disfa_labels("SN002", 26): "1,2\n2,0\n",
    })  # fmt: skip
    found = evaluate("disfa/3-folds", {
        "disfa-SN003-0001": "Action units: AU6, AU12.",
        "disfa-SN003-0002": "Action units: AU12.",
        "disfa-SN013-0001": "Action units: AU1.",
        "disfa-SN013-0002": "Action units: none.",
        "disfa-SN002-0001": "Action units: AU25.",
        "disfa-SN002-0002": PROSE,
    })  # fmt: skip
    assert found == Outcome(
        6,
        # F1: AU1 and AU6 1, AU12 and AU25 2/3, the other four 0. Wrong in one face of six: AU12,
        # AU25, AU26.
        units(0.4167, 0.9375),
        # F1: AU6 1 and AU12 2/3; AU1 1; AU25 2/3. Wrong in one face of two: AU12; none; AU25, AU26.
        {"1": units(0.2083, 0.9375), "2": units(0.125, 1), "3": units(0.0833, 0.875)},
        units(0.1389, 0.9375),
        people=3,
        left_out={"frame of the clip cannot be read": 2 * 24},
    )


def test_bp4d_leaves_units_out_that_were_not_coded(evaluate, root):
    none = {f"AU{unit}": 0 for unit in range(1, 25)}
    write_bp4d(root)
    tables = {
        "F007": [bp4d_line(1, **none | {"AU6": 1, "AU12": 1}), bp4d_line(2, **none | {"AU1": 9})],
        "M011": [bp4d_line(5, **none | {"AU10": 1})],
        "F001": [bp4d_line(2440, **none | {"AU4": 1, "AU17": 9}), bp4d_line(2441, **none)],
    }
    for person, lines in tables.items():
        write(root, bp4d_table(person, "T1", lines))
    names = ("F007/T1/0001.jpg", "F007/T1/0002.jpg", "M011/T1/5.jpg", "F001/T1/2440.jpg")
    write(root, {name: photo(n) for n, name in enumerate(names)})
    found = evaluate("bp4d/3-folds", {
        "bp4d-F007-T1-0001": "Action units: AU6, AU12.",
        "bp4d-F007-T1-0002": "Action units: AU1.",
        "bp4d-M011-T1-0005": "Action units: AU10, AU14.",
        "bp4d-F001-T1-2440": PROSE,
    })  # fmt: skip
    assert found == Outcome(
        4,
        # F1: AU6, AU10 and AU12 1, the other nine 0. Wrong in one face of four: AU4, AU14.
        units(0.25, 0.9583),
        # Of fold 3, eleven units were coded, of which one was missed.
        {"1": units(0.1667, 1), "2": units(0.0833, 0.9167), "3": units(0, 0.9091)},
        units(0.0833, 0.9419),
        people=3,
        left_out={"picture is missing": 1},
    )


def test_celeba_asks_for_forty_attributes(evaluate, root):
    there = {1: (), 2: ("male",), 3: (), 4: ("male", "smiling")}
    lines = [
        f"{number:06d}.jpg " + " ".join("1" if name in names else "-1" for name in NAMES)
        for number, names in there.items()
    ]
    pairs = {1: 0, 2: 2, 3: 2, 4: 2}
    write(root, {
        "Anno/list_attr_celeba.txt": "\n".join(["4", " ".join(OFFICIAL_NAMES), *lines]) + "\n",
        "Anno/identity_CelebA.txt": "".join(f"{n:06d}.jpg {10 + n}\n" for n in pairs),
        "Eval/list_eval_partition.txt": "".join(f"{n:06d}.jpg {p}\n" for n, p in pairs.items()),
        **{f"Img/img_align_celeba/{number:06d}.jpg": photo(number) for number in there},
    })  # fmt: skip
    male = ", ".join(f"{name} {'yes' if name == 'male' else 'no'}" for name in NAMES)
    found = evaluate("celeba/test", {
        "celeba-000002": f"Attributes: {male}.",
        "celeba-000003": f"Attributes: {male}.",
        "celeba-000004": PROSE,
    })  # fmt: skip
    # Right in 1 of 3: male; in 2 of 3: the other 39. Mean recalls of yes and no: male 1/2 and 0,
    # smiling 0 and 1, the other 38 are no in all three faces: 2/3.
    assert found == Outcome(
        3, {"mAcc": 0.6583, "balanced_accuracy": 0.6521}, {}, {}, people=3,
    )  # fmt: skip


def test_utkface_has_a_protocol_of_all_ages_and_one_of_some(evaluate, root):
    tested = [n for n in range(256) if _utkface_split(photo(n)) == "test"]
    trained = next(n for n in range(256) if _utkface_split(photo(n)) == "train")
    names = {age: f"{age}_1_2_20170116001536188.jpg.chip.jpg" for age in (20, 21, 30, 40, 60, 61)}
    files = {name: photo(n) for name, n in zip(names.values(), tested, strict=False)}
    write(root / "UTKFace", files | {"50_0_0_2017.jpg": photo(trained)})
    said = {20: 25, 21: 21, 40: 46, 60: 57, 61: 61}
    script = {
        f"utkface-{age}_1_2_20170116001536188": f"Age: {said[age]} years." if age in said else PROSE
        for age in names
    }
    # Errors 5, 0, 6, 3 and 0 years, and one answer that cannot be read.
    assert evaluate("utkface/all-ages", script) == Outcome(6, {"MAE": 2.8, "CS5": 0.6667}, {}, {})
    middle = {name: text for name, text in script.items() if name[8:10] not in ("20", "61")}
    assert evaluate("utkface/21-60", middle) == Outcome(4, {"MAE": 3.0, "CS5": 0.5}, {}, {})


def _utkface_split(picture: bytes) -> str:
    return stable_split(hashlib.sha256(read_photo(picture).tobytes()).hexdigest())


def test_morph2_follows_the_published_lists(evaluate, root):
    tested = ("009055_1M54.JPG", "273546_01M22.jpg", "273546_02F23.JPG")
    write(root, {
        "label/RANDOM_80_20/train.txt": "009055_0M53.JPG 53\n",
        "label/RANDOM_80_20/test.txt": "".join(f"{name} {name[-6:-4]}\n" for name in tested),
        **{f"Album2/{name}": photo(n) for n, name in enumerate(("009055_0M53.JPG", *tested))},
    })  # fmt: skip
    found = evaluate("morph2/random-80-20", {
        "morph2_random-009055_1M54": "Age: 50 years.",
        "morph2_random-273546_01M22": PROSE,
        "morph2_random-273546_02F23": "Age: 33 years.",
    })  # fmt: skip
    assert found == Outcome(3, {"MAE": 7.0, "CS5": 0.3333}, {}, {}, people=2)


def test_faceforensics_asks_about_the_test_pairs_of_one_compression(evaluate, root):
    whole = {
        "original_sequences/youtube/c40/videos/000.mp4": clip(0),
        "original_sequences/youtube/c40/videos/003.mp4": clip(2),
        "manipulated_sequences/Deepfakes/c40/videos/000_003.mp4": clip(4),
        "manipulated_sequences/Deepfakes/c40/videos/003_000.mp4": clip(6),
        "manipulated_sequences/FaceSwap/c40/videos/000_003.mp4": clip(8),
    }
    files = faceforensics_lists() | faceforensics_clips(compression="c40")
    write(root, files | faceforensics_clips() | whole)
    found = evaluate("faceforensics/c40", {
        "faceforensics_c40-youtube-000": ("Deepfake: real.", 0.1),
        "faceforensics_c40-youtube-003": ("Deepfake: fake.", 0.6),
        "faceforensics_c40-Deepfakes-000_003": ("Deepfake: fake.", 0.9),
        "faceforensics_c40-Deepfakes-003_000": ("Deepfake: real.", 0.4),
        "faceforensics_c40-FaceSwap-000_003": (PROSE, 0.99),
    })  # fmt: skip
    assert found == Outcome(
        5,
        # Recalls: real 1/2, fake 1/3. What cannot be read stands at 0.5, so of the six pairs of a
        # fake and a real, four stand right: 0.9 and both, 0.4 and 0.5 each above 0.1 only.
        {"accuracy": 0.4, "balanced_accuracy": 0.4167, "AUC": 0.6667},
        {},
        {},
        people=2,
        left_out={"clip cannot be read or has no frames": 7},
    )
