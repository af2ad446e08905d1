"""The protocols: which faces of which dataset are asked what, and what counts as right.

A figure without its protocol means nothing: the same dataset is split, folded and labelled in
several ways. So a result is kept under its protocol's key, such as ``morph2/random-80-20``, and
figures of two protocols never meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from facellava.errors import FacellavaError
from facellava.records import FaceRecord
from facellava.tasks import TASKS, Label
from facellava.tasks.action_units import BP4D, DISFA, UNION
from facellava.tasks.expression import LABEL_SETS

Kind = Literal["classes", "years", "units", "attributes", "deepfake"]

FIGURES: Final[dict[Kind, tuple[str, ...]]] = {
    "classes": ("WAR", "UAR"),
    "years": ("MAE", "CS5"),
    "units": ("mean_F1", "mean_accuracy"),
    "attributes": ("mAcc", "balanced_accuracy"),
    "deepfake": ("accuracy", "balanced_accuracy", "AUC"),
}
"""The figures of each kind, the headline first."""

SMALLER_IS_BETTER: Final = frozenset({"MAE"})
AGE_GROUPS: Final = (
    "0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+",
)  # fmt: skip
"""FairFace's."""

REAL_FAKE: Final = ("real", "fake")
DFDC: Final = "dfdc_sample"
"""The origin of real_fake_faces' crops of the Deepfake Detection Challenge."""


# One dataset under several names: what one protocol trains on, another may test.
_PROTOCOL_PART: Final = re.compile(r"(?:_(?:random|subjects|c23|c40)|[78])$")


def dataset_of(source: str) -> str:
    """The dataset that a source reads: "morph2" of "morph2_random"."""
    return _PROTOCOL_PART.sub("", source)


def age_group(years: int) -> str:
    """The group of AGE_GROUPS that an age falls into."""
    return next(
        group
        for group in AGE_GROUPS
        if group.endswith("+") or years <= int(group.partition("-")[2])
    )


@dataclass(frozen=True)
class Protocol:
    """One way to measure on one dataset.

    Attributes:
        key: names it in results and on the command line.
        title: the dataset and the part of it, as people write it.
        source: the dataset whose reader makes the faces table.
        task: whose canonical question is asked.
        kind: which figures are taken.
        labels: the closed set: classes, units or attributes; empty for years.
        split: the part that is asked about; None where every fold is.
        folds: how many folds the protocol has; figures are then also given a fold.
        truth: the right answer out of a face, in the form of :class:`eval.items.Item`; None where
            the face has no part in the protocol.
        made_from: where the faces are made from another dataset's: that dataset.
        parted_from: the protocol of the same question that had these faces too, before they were
            given a row of their own; answers of that time hold theirs.
        kin_in_training: whether the dataset's other parts hold such faces, too: what trained on
            them has then seen their like.
        size: how many faces or clips the publisher's part has, where it is known: figures of fewer
            are marked.
        published: key in the table of published figures, where there are any for this protocol.
        note: what a reader has to know to compare.
    """

    key: str
    title: str
    source: str
    task: str
    kind: Kind
    labels: tuple[str, ...]
    truth: Callable[[FaceRecord], Any]
    split: str | None = "test"
    folds: int = 0
    made_from: str | None = None
    parted_from: str | None = None
    kin_in_training: bool = True
    size: int | None = None
    published: str | None = None
    note: str = ""

    @property
    def table(self) -> str:
        """Name of the faces table, which several protocols may share."""
        return f"{self.key.partition('/')[0] if self.made_from else self.source}-{self.part}"

    @property
    def part(self) -> str:
        """The split, or "folds"."""
        return self.split or "folds"

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures, the headline first."""
        return FIGURES[self.kind]

    @property
    def question(self) -> str:
        """What every face is asked."""
        return TASKS[self.task].canonical_question

    def given(self, label: Label) -> Any:
        """A verdict in the form of the truth; the label is the task's, never None."""
        if self.kind == "units":
            return {unit: unit in _units(label) for unit in self.labels}
        if self.kind == "attributes":
            return label if isinstance(label, dict) and set(label) == set(self.labels) else None
        if self.task == "age" and self.kind == "classes":
            return age_group(_years(label))
        return label


def _units(label: Label) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else ()


def _years(label: Label) -> int:
    if not isinstance(label, int):
        raise FacellavaError(f"An age is a number of years, not {label!r}.")
    return label


def _label(name: str, among: Iterable[str] | None = None) -> Callable[[FaceRecord], Any]:
    allowed = None if among is None else frozenset(among)

    def read(record: FaceRecord) -> Any:
        found = record.labels.get(name)
        return found if allowed is None or found in allowed else None

    return read


def _age_within(low: int, high: int) -> Callable[[FaceRecord], Any]:
    def read(record: FaceRecord) -> Any:
        age = record.labels.get("age")
        return age if age is not None and low <= age <= high else None

    return read


def _of_dfdc(wanted: bool) -> Callable[[FaceRecord], Any]:
    """Real or fake, of DFDC's crops alone or of all other faces."""

    def read(record: FaceRecord) -> Any:
        there = record.labels.get("origin") == DFDC
        return record.labels.get("deepfake") if there == wanted else None

    return read


def _coded(units: tuple[str, ...]) -> Callable[[FaceRecord], dict[str, bool] | None]:
    """Of these units the ones that were coded for the face; None where none was."""

    def read(record: FaceRecord) -> dict[str, bool] | None:
        labels = record.labels
        if "action_units" not in labels:
            return None
        coded = labels.get("action_units_coded", units)
        found = {unit: unit in labels["action_units"] for unit in units if unit in coded}
        return found or None

    return read


def _expression(key: str, title: str, source: str, labels: str, **more: Any) -> Protocol:
    classes = LABEL_SETS[labels].labels
    return Protocol(
        key, title, source, "expression", "classes", classes, _label("expression", classes), **more
    )


def _age(key: str, title: str, source: str, **more: Any) -> Protocol:
    return Protocol(key, title, source, "age", "years", (), **{"truth": _label("age"), **more})


def _deepfake(key: str, title: str, source: str, **more: Any) -> Protocol:
    truth = _label("deepfake", REAL_FAKE)
    return Protocol(
        key, title, source, "deepfake", "deepfake", REAL_FAKE, **{"truth": truth, **more}
    )


def _action_units(
    key: str, title: str, source: str, units: tuple[str, ...], **more: Any
) -> Protocol:
    return Protocol(key, title, source, "action_units", "units", units, _coded(units), **more)


_FOLDS: Final[Mapping[str, Any]] = {"split": None}
_PROTOCOLS: Final = (
    # The nine of the paper.
    _expression("dfew/5-folds", "DFEW, five folds", "dfew", "dfew",
                folds=5, published="dfew", note="single-labelled clips", size=11_697, **_FOLDS),
    _expression("crema_d/5-actor-folds", "CREMA-D, five folds by actor", "crema_d", "crema_d",
                folds=5, published="crema_d", note="the label is what the actor meant to show; "
                "Face-LLaVA does not say which split it used", size=7_442, **_FOLDS),
    _expression("rafdb/test", "RAF-DB basic, test", "rafdb", "rafdb",
                published="rafdb", size=3_068),
    _action_units("disfa/3-folds", "DISFA, three folds by person", "disfa", DISFA,
                  folds=3, published="disfa", note="active from intensity 2", **_FOLDS),
    _action_units("bp4d/3-folds", "BP4D, three folds by person", "bp4d", BP4D,
                  folds=3, published="bp4d", note="units coded 9 are left out", **_FOLDS),
    Protocol("celeba/test", "CelebA, test", "celeba", "attributes", "attributes",
             TASKS["attributes"].labels, _label("attributes"), published="celeba", size=19_962),
    _age("utkface/all-ages", "UTKFace, all ages, our 10%", "utkface",
         note="there is no official split; ours is by the picture's hash"),
    _age("utkface/21-60", "UTKFace, ages 21 to 60, our 10%", "utkface", truth=_age_within(21, 60),
         published="utkface", note="the published figures are of another split of these ages"),
    _age("morph2/random-80-20", "MORPH II, random 80-20", "morph2_random", published="morph2",
         note="one person is in both parts, which flatters"),
    _age("morph2/subject-exclusive", "MORPH II, no person in both parts", "morph2_subjects"),
    _deepfake("faceforensics/c23", "FaceForensics++ c23, official test pairs", "faceforensics_c23",
              note="140 real and 140 fakes of each method", size=840),
    _deepfake("faceforensics/c40", "FaceForensics++ c40, official test pairs", "faceforensics_c40",
              published="faceforensics", note="the published figures are most likely of c40",
              size=840),
    # More expression, age and deepfake sets.
    _expression("fer2013/public-test", "FER2013, PublicTest", "fer2013", "fer2013",
                split="validation", size=3_589),
    _expression("fer2013/private-test", "FER2013, PrivateTest", "fer2013", "fer2013", size=3_589),
    _expression("ferplus/public-test", "FER+, PublicTest, what most voters saw", "ferplus",
                "ferplus", split="validation", note="FER2013's pictures that have a majority"),
    _expression("ferplus/private-test", "FER+, PrivateTest, what most voters saw", "ferplus",
                "ferplus", note="FER2013's pictures that have a majority"),
    _expression("affectnet/8-validation", "AffectNet, validation, 8 classes", "affectnet8",
                "affectnet8", split="validation", size=4_000),
    _expression("affectnet/7-validation", "AffectNet, validation, 7 classes", "affectnet7",
                "affectnet7", split="validation", size=3_500),
    _expression("mafw/11-classes-5-folds", "MAFW, 11 single classes, five folds", "mafw", "mafw11",
                folds=5, **_FOLDS),
    _expression("ferv39k/test", "FERV39k, all scenes, test", "ferv39k", "ferv39k", size=7_847),
    _age("agedb/10-percent", "AgeDB, our 10% by person", "agedb"),
    Protocol("fairface/age-groups", "FairFace, validation, nine age groups", "fairface", "age",
             "classes", AGE_GROUPS, lambda record: record.demographics.get("age_group"),
             split="validation", note="the group that the answered age falls into", size=10_954),
    _deepfake("celeb_df/official-test", "Celeb-DF v2, official test list", "celeb_df", size=518),
    _deepfake("lfw/all-real", "LFW, every face is genuine", "lfw", truth=lambda _: "real",
              split="train", note="one class only: the share of genuine photos that are believed",
              size=13_233),
    # What can be had without asking anybody.
    _deepfake("real_fake_faces/test", "Real and fake faces, test", "real_fake_faces",
              truth=_of_dfdc(False),
              note="real faces of FFHQ and samples of StyleGAN2; DFDC's crops have their own row"),
    _deepfake("real_fake_faces/dfdc", "Crops of DFDC, an anecdote", "real_fake_faces",
              truth=_of_dfdc(True), parted_from="real_fake_faces/test", kin_in_training=False,
              note="an anecdote: so few crops, tiny and of few videos, prove nothing; the pack has "
              "them in its test part alone, so training on it sees none"),
    _deepfake("self_blended/test", "Self-blends of CelebA's test faces", "real_fake_faces",
              made_from="celeba"),
    _action_units("ict_facekit/test", "ICT-FaceKit renders, people held out", "ict_facekit", UNION,
                  note="rendered faces, true by construction; no human-coded data"),
)  # fmt: skip

PROTOCOLS: Final[dict[str, Protocol]] = {protocol.key: protocol for protocol in _PROTOCOLS}

SUITES: Final[dict[str, tuple[str, ...]]] = {
    "packs": (
        "fer2013/public-test",
        "utkface/all-ages",
        "utkface/21-60",
        "celeba/test",
        "real_fake_faces/test",
        "real_fake_faces/dfdc",
        "self_blended/test",
        "ict_facekit/test",
    ),
    "paper": (
        "dfew/5-folds",
        "crema_d/5-actor-folds",
        "rafdb/test",
        "disfa/3-folds",
        "bp4d/3-folds",
        "celeba/test",
        "utkface/21-60",
        "morph2/random-80-20",
        "faceforensics/c40",
    ),
    "all": tuple(PROTOCOLS),
}


def find_protocols(names: Iterable[str]) -> list[Protocol]:
    """Protocols by key, or all of a suite by its name; each once, in the order given.

    Raises:
        FacellavaError: there is none of that name.
    """
    keys: dict[str, None] = {}
    for name in names:
        for key in SUITES.get(name, (name,)):
            if key not in PROTOCOLS:
                raise FacellavaError(
                    f"There is no protocol or suite {name!r}; choose among the suites "
                    f"{', '.join(SUITES)} and the protocols {', '.join(PROTOCOLS)}."
                )
            keys[key] = None
    return [PROTOCOLS[key] for key in keys]
