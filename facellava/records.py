"""The rows of the corpus: one face with its labels, one sample with its ratings.

Parquet holds flat columns; what varies between sources (labels, demographics, earlier turns) is
JSON text in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from facellava.errors import BadCorpus, BadSample
from facellava.faces import CROP_SIZE, Face
from facellava.regions import N_LANDMARKS

SPLITS: Final = ("train", "validation", "test")
JPEG_QUALITY: Final = 95
LONGEST_QUOTE: Final = 80  # characters of a file in an error

FACES_SCHEMA: Final = pa.schema(
    [
        ("face_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("subject", pa.string()),
        ("media", pa.string()),
        ("frames", pa.list_(pa.binary())),
        ("landmarks", pa.list_(pa.float32())),
        ("box", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("face_source", pa.string()),
        ("native_size", pa.float32()),
        ("labels", pa.string()),
        ("demographics", pa.string()),
        ("licence", pa.string()),
        ("origin", pa.string()),
        ("reference", pa.string()),
    ]
)
SAMPLES_SCHEMA: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("face_id", pa.string()),
        ("task", pa.string()),
        ("question", pa.string()),
        ("history", pa.string()),
        ("answer", pa.string()),
        ("form", pa.string()),
        ("label", pa.string()),
        ("weak", pa.bool_()),
        ("annotator", pa.string()),
        ("annotator_version", pa.string()),
        ("prompt_version", pa.string()),
        ("rating_label", pa.int8()),
        ("rating_face", pa.int8()),
        ("rating_text", pa.int8()),
        ("rating_overall", pa.int8()),
        ("rating_reason", pa.string()),
        ("kept", pa.bool_()),
    ]
)
TABLES: Final = {"faces": FACES_SCHEMA, "samples": SAMPLES_SCHEMA}


def encode_frame(crop: NDArray[np.uint8]) -> bytes:
    """A canonical crop (192, 192, 3) uint8 RGB as JPEG, quality 95, full colour resolution.

    Every crop of every source goes through this, so that no label can be read off a codec.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(crop[:, :, ::-1]), settings)
    return bytes(data)


def decode_frame(data: bytes) -> NDArray[np.uint8]:
    """The crop (192, 192, 3) uint8 RGB that :func:`encode_frame` wrote.

    Raises:
        BadCorpus: the bytes are not such a picture.
    """
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None or picture.shape != (CROP_SIZE, CROP_SIZE, 3):
        raise BadCorpus(
            f"A frame of the corpus is not a {CROP_SIZE}x{CROP_SIZE} JPEG; build the corpus again."
        )
    return np.ascontiguousarray(picture[:, :, ::-1], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """One row of the faces table: a face of a photo, or of the T frames of a clip.

    Attributes:
        face_id: unique in the corpus.
        source: the dataset, such as "fer2013"; "self_blended" for made fakes and their reals.
        split: "train", "validation" or "test".
        fold: the benchmark's fold where it has folds.
        subject: who it is, unique within the source, where the source says.
        frames: T JPEG pictures of the canonical crop (:func:`encode_frame`).
        landmarks: (T, 68, 2) float32, (x, y) in [0, 1] of the crop.
        box: (x0, y0, x1, y1) in the pixels of the source picture.
        score: the detector's score; 0.0 where no detector spoke.
        face_source: what found the face (`Face.source`).
        native_size: source pixels along the crop's side; below 192 the crop is magnified.
        labels: task to label, and what goes with it: "expression", "expression_votes", "age",
            "attributes" (all 40, name to bool), "action_units" (those that are there),
            "action_units_coded" (those that were looked for), "action_unit_intensity" (name to
            0..5), "deepfake", "blend".
        demographics: what the source says about the person; never guessed.
        licence: the source's terms in one line.
        origin: where in the source the row came from.
        media: "image" or "clip".
        reference: a description in words that the source gives.
    """

    face_id: str
    source: str
    split: str
    frames: tuple[bytes, ...]
    landmarks: NDArray[np.float32]
    box: tuple[float, float, float, float]
    score: float
    face_source: str
    native_size: float
    labels: Mapping[str, Any]
    licence: str
    origin: str
    demographics: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = None
    fold: int | None = None
    media: Literal["image", "clip"] = "image"
    reference: str | None = None

    def faces(self) -> list[Face]:
        """The frames as faces, crops decoded.

        The source photo is gone, so `crop_to_photo` keeps only the scale: photo pixels count from
        the crop's corner.
        """
        scale = self.native_size / CROP_SIZE
        return [
            Face(
                crop=decode_frame(frame),
                landmarks=points,
                box=self.box,
                index=0,
                score=self.score,
                source=self.face_source,
                crop_to_photo=np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]),
            )
            for frame, points in zip(self.frames, self.landmarks, strict=True)
        ]

    def shown_frames(self, most: int) -> list[bytes]:
        """The JPEG pictures that a model is shown: of a clip at most so many, evenly spread."""
        count = len(self.frames)
        places = np.linspace(0, count - 1, min(count, most)).round().astype(int)
        return [self.frames[place] for place in places]

    def to_row(self) -> dict[str, Any]:
        """The record as a row of :data:`FACES_SCHEMA`.

        Raises:
            BadSample: an unknown split, or landmarks that do not fit the frames.
        """
        if self.split not in SPLITS:
            raise BadSample(
                f"Face {self.face_id} has split {self.split!r}; allowed are {', '.join(SPLITS)}."
            )
        if not self.frames or self.landmarks.shape != (len(self.frames), N_LANDMARKS, 2):
            raise BadSample(
                f"Face {self.face_id} has {len(self.frames)} frames and landmarks of shape "
                f"{self.landmarks.shape}; give ({len(self.frames)}, {N_LANDMARKS}, 2)."
            )
        row = {name: getattr(self, name) for name in FACES_SCHEMA.names}
        row["frames"] = list(self.frames)
        row["landmarks"] = self.landmarks.astype(np.float32).reshape(-1)
        row["box"] = list(self.box)
        row["labels"] = _to_json(self.labels)
        row["demographics"] = _to_json(self.demographics)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FaceRecord:
        """A record from a row that Parquet or `datasets` gave.

        Raises:
            BadCorpus: landmarks, box or labels of a wrong form.
        """
        values = dict(row)
        face_id, frames = values["face_id"], tuple(values["frames"])
        points = np.asarray(values["landmarks"], dtype=np.float32)
        if not frames or points.size != len(frames) * N_LANDMARKS * 2:
            raise BadCorpus(
                f"Face {face_id} has {points.size} landmark numbers for {len(frames)} frames; "
                f"{N_LANDMARKS * 2} a frame are needed."
            )
        if len(values["box"]) != 4 or values["split"] not in SPLITS:
            raise BadCorpus(
                f"Face {face_id} has box {values['box']} and split {values['split']!r}; a box has "
                f"four numbers and the splits are {', '.join(SPLITS)}."
            )
        values["frames"], values["landmarks"] = frames, points.reshape(-1, N_LANDMARKS, 2)
        values["box"] = tuple(values["box"])
        for name in ("labels", "demographics"):
            values[name] = from_json(values[name], f"The {name} of face {face_id}", dict)
        return cls(**values)


def record_of(faces: Sequence[Face], **facts: Any) -> FaceRecord:
    """A record of one face, or of the frames of one track.

    Args:
        faces: the face in each frame, in time order; box, score and size are the first frame's.
        facts: the fields of :class:`FaceRecord` that a face does not hold.
    """
    first = faces[0]
    return FaceRecord(
        frames=tuple(encode_frame(face.crop) for face in faces),
        landmarks=np.stack([face.landmarks for face in faces]).astype(np.float32),
        box=first.box,
        score=first.score,
        face_source=first.source,
        native_size=first.native_size,
        media="image" if len(faces) == 1 else "clip",
        **facts,
    )


@dataclass(frozen=True)
class Ratings:
    """Face-LLaVA's four ratings of a sample, each from 1 (wrong) to 10 (right), and why.

    Attributes:
        label: is the given label right for the face?
        face: does the text agree with what the face shows?
        text: does the text agree with the label?
        overall: is it a good sample?
        reason: one or two sentences.
    """

    label: int
    face: int
    text: int
    overall: int
    reason: str

    def __post_init__(self) -> None:
        for name in ("label", "face", "text", "overall"):
            if not 1 <= getattr(self, name) <= 10:
                raise BadSample(
                    f"The rating {name!r} is {getattr(self, name)}; ratings go from 1 to 10."
                )


@dataclass(frozen=True)
class Sample:
    """One row of the samples table: a question about a face, and its answer.

    Attributes:
        sample_id: unique in the corpus.
        history: earlier (question, answer) turns about the same face, oldest first.
        form: how the answer is written, "prose" or "json".
        label: the task's label as `facellava.tasks` holds it in JSON.
        weak: the label was measured, not given by a person.
        annotator: what wrote the answer, such as "measured" or a model's name.
        ratings: None until rated.
        kept: False where the ratings say that training should not see it.
    """

    sample_id: str
    face_id: str
    task: str
    question: str
    answer: str
    label: Any
    form: Literal["prose", "json"] = "prose"
    history: tuple[tuple[str, str], ...] = ()
    weak: bool = False
    annotator: str = ""
    annotator_version: str = ""
    prompt_version: str = ""
    ratings: Ratings | None = None
    kept: bool = True

    def to_row(self) -> dict[str, Any]:
        """The sample as a row of :data:`SAMPLES_SCHEMA`."""
        row = {name: getattr(self, name, None) for name in SAMPLES_SCHEMA.names}
        if self.ratings is not None:
            row |= {f"rating_{name}": value for name, value in asdict(self.ratings).items()}
        row["history"], row["label"] = _to_json(self.history), _to_json(self.label)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Sample:
        """A sample from a row that Parquet or `datasets` gave.

        Raises:
            BadCorpus: history, label or ratings of a wrong form.
        """
        values = {name: value for name, value in row.items() if not name.startswith("rating_")}
        rated = {name: row[f"rating_{name}"] for name in Ratings.__dataclass_fields__}
        subject = f"of sample {values['sample_id']}"
        turns = from_json(values["history"], f"The history {subject}", list)
        values["history"] = tuple((question, answer) for question, answer in turns)
        values["label"] = from_json(values["label"], f"The label {subject}", object)
        if rated["overall"] is not None:
            try:
                values["ratings"] = Ratings(**rated)
            except (BadSample, TypeError) as error:
                raise BadCorpus(
                    f"The ratings {subject} are {rated}; four numbers from 1 to 10 are needed."
                ) from error
        return cls(**values)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str | bytes, what: str, kind: type) -> Any:
    """The value of that kind in a JSON text, or in the UTF-8 bytes of one.

    Raises:
        BadCorpus: the text is not JSON, or of another kind; `what` is the subject of the sentence.
    """
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise BadCorpus(f"{what} is not JSON: {_beginning(text)}.") from error
    if not isinstance(value, kind):
        raise BadCorpus(f"{what} is {_beginning(text)}; a JSON {kind.__name__} is needed.")
    return value


def _beginning(text: object) -> str:
    """As much of a text as an error may quote."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    quoted = repr(words)
    return quoted if len(quoted) <= LONGEST_QUOTE else f"{quoted[: LONGEST_QUOTE - 4]} ..."
