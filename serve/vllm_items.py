"""What a request to the engine may hold as a photo or a clip, and what makes two of them the same.

The identity of an item is all that the model's image tokens depend on: the landmarks too. vLLM's
processor cache, encoder cache and prefix cache are all keyed by it, so two faces of one photo, or
one crop with other landmarks, never share an entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import (
    ModalityDataItems,
    MultiModalDataParser,
    ProcessorBatchItems,
)
from vllm.multimodal.video import VideoLoader

from facellava.conversation import FaceCrop
from facellava.errors import BadMedia, BadModelInput
from facellava.faces import find_faces, read_photo
from facellava.faces.clips import read_clip, track_faces
from facellava.faces.face_png import CHUNK, MAX_FRAMES, from_png
from facellava.faces.shown_frames import looked_at, shown_of
from facellava.region_attention import check_landmarks


@dataclass(frozen=True, eq=False)
class SuppliedFace:
    """A crop and its landmarks, as the processor takes them."""

    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PhotoItem:
    """One image of a prompt.

    Attributes:
        content: a face ready for the model, or a picture that is not read yet: its bytes, or
            (H, W, 3) uint8 RGB.
    """

    content: FaceCrop | bytes | NDArray[np.uint8]

    @property
    def identity(self) -> dict[str, object]:
        if isinstance(self.content, bytes | np.ndarray):
            # A face picture's landmarks are among its bytes.
            return {"photo": self.content}
        return _identity([self.content])

    def face(self) -> FaceCrop:
        """The face to ask about: the one supplied, or the photo's largest.

        Raises:
            BadMedia, NoFaceFound: the photo cannot be read or shows no face.
            BadModelInput: a clip's picture, or one whose landmarks are damaged.
        """
        if isinstance(self.content, np.ndarray):
            return find_faces(self.content)[0]
        if not isinstance(self.content, bytes):
            return self.content
        picture = from_png(self.content)
        if picture is None:
            return find_faces(read_photo(self.content))[0]
        if picture.seconds is not None:
            raise BadModelInput("A clip is given as an image; give it as a video.")
        return picture.faces[0]


@dataclass(frozen=True, eq=False)
class ClipItem:
    """One clip of a prompt: a person's faces, frame after frame."""

    frames: tuple[FaceCrop, ...]

    @property
    def identity(self) -> dict[str, object]:
        return _identity(self.frames)


def _identity(frames: Sequence[FaceCrop]) -> dict[str, object]:
    return {
        "crops": [frame.crop for frame in frames],
        "landmarks": [frame.landmarks for frame in frames],
    }


class FaceItems(ProcessorBatchItems[PhotoItem | ClipItem]):
    """The photos, or the clips, of one prompt."""

    def get_item_for_hash(self, index: int) -> object:
        return self.data[index].identity


class FaceDataParser(MultiModalDataParser):
    """`multi_modal_data` to items: anything that is not a face, a photo or a clip is refused."""

    def _parse_image_data(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        if data is None:
            return None
        return FaceItems([_photo_item(one) for one in _each(data)], "image")

    def _parse_video_data(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        if data is None:
            return None
        # A list of faces is one clip; a list of clips holds sequences or dicts.
        alone = isinstance(data, list | tuple) and data and _is_face(data[0])
        return FaceItems([_clip_item(one) for one in ([data] if alone else _each(data))], "video")


def _each(data: object) -> Sequence[object]:
    return data if isinstance(data, list | tuple) else [data]


def _is_face(given: object) -> bool:
    return hasattr(given, "crop") and hasattr(given, "landmarks")


def _photo_item(given: object) -> PhotoItem:
    match given:
        case PhotoItem():
            return given
        case MediaWithBytes():
            # Not vLLM's pixels: the library's own reader, for equal answers everywhere.
            return PhotoItem(given.original_bytes)
        case bytes():
            return PhotoItem(given)
        case Image.Image():
            if CHUNK in given.info:
                raise BadModelInput(
                    "A face picture is given as an opened image, which loses its landmarks; "
                    "give its bytes, or the face."
                )
            return PhotoItem(read_photo(given))
        case np.ndarray():
            return PhotoItem(read_photo(given))
        case {"image": crop, "landmarks": points, **rest} if not rest:
            return PhotoItem(_supplied(crop, points))
        case _ if _is_face(given):
            return PhotoItem(_supplied(given.crop, given.landmarks))  # type: ignore[attr-defined]
        case _:
            raise BadModelInput(
                f"An image is given as {_named(given)}; give a photo (its bytes, a Pillow image or "
                '(H, W, 3) RGB uint8), a face, or {"image": crop, "landmarks": (68, 2)}.'
            )


def _clip_item(given: object) -> ClipItem:
    match given:
        case ClipItem():
            return given
        case MediaWithBytes(media=(frames, {"landmarks": points})):
            return _clip_of(frames, points)
        case MediaWithBytes():
            raise BadModelInput(
                "Clips are read by another loader; start vLLM with "
                "VLLM_VIDEO_LOADER_BACKEND=facellava and send clips as files."
            )
        case {"frames": frames, "landmarks": points, **rest} if not rest:
            return _clip_of(frames, points)
        case (frames, {"landmarks": points}) if not _is_face(frames):
            return _clip_of(frames, points)
        case list() | tuple() if given and all(_is_face(face) for face in given):
            return _clip_of([face.crop for face in given], [face.landmarks for face in given])
        case _:
            raise BadModelInput(
                f"A video is given as {_named(given)}; give a person's faces, or "
                '{"frames": crops, "landmarks": (frames, 68, 2)}.'
            )


def _named(given: object) -> str:
    if given is None:
        return "nothing (a uuid alone does not bring a picture back)"
    return type(given).__name__


def _clip_of(frames: object, points: object) -> ClipItem:
    crops, landmarks = _sequence(frames, "frames"), _sequence(points, "landmarks")
    if len(crops) != len(landmarks):
        raise BadModelInput(
            f"Landmarks are given for {len(landmarks)} frame(s) and pixels for {len(crops)}; "
            "give one set of 68 points per frame."
        )
    if not 1 <= len(crops) <= MAX_FRAMES:
        raise BadModelInput(f"A clip holds {len(crops)} frames; allowed are 1 to {MAX_FRAMES}.")
    return ClipItem(tuple(_supplied(crop, own) for crop, own in zip(crops, landmarks, strict=True)))


def _sequence(given: Any, name: str) -> Sequence[Any]:
    if not isinstance(given, list | tuple | np.ndarray):
        raise BadModelInput(f"A clip's {name} are given as {_named(given)}; give an array.")
    return list(given)


def _supplied(crop: Any, points: Any) -> SuppliedFace:
    """A crop with landmarks in [0, 1] of it, both checked."""
    pixels = np.asarray(crop)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadModelInput(
            f"A crop has shape {pixels.shape} and type {pixels.dtype}; allowed is "
            "(height, width, 3) RGB uint8."
        )
    try:
        landmarks = np.array(points, np.float32)
    except (TypeError, ValueError) as error:
        raise BadModelInput("Landmarks are not numbers; give (68, 2) in [0, 1].") from error
    check_landmarks(torch.from_numpy(landmarks), 1)
    return SuppliedFace(np.ascontiguousarray(pixels), landmarks.reshape(-1, 2))


class FaceClipLoader(VideoLoader):
    """Encoded clips to one person's faces, for vLLM's registry of video loaders."""

    @classmethod
    def load_bytes(
        cls, data: bytes, num_frames: int = 4, **_: Any
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The crops (T, S, S, 3) uint8 RGB and {"landmarks": (T, 68, 2), "seconds": [...]}.

        Args:
            data: a face picture of a clip, or an MP4, WebM, AVI ... file.
            num_frames: how many frames to show of a file, 1 to 64; the person with the largest
                face is followed through more, as in the library.
            **_: what vLLM passes to every loader.

        Raises:
            BadMedia, NoFaceFound: the clip cannot be read or shows no face.
            BadModelInput: a photo's face picture, or damaged landmarks.
        """
        picture = from_png(data)
        if picture is None:
            if not 1 <= num_frames <= MAX_FRAMES:
                raise BadMedia(f"num_frames is {num_frames}; allowed are 1 to {MAX_FRAMES}.")
            person = shown_of(track_faces(read_clip(data, looked_at(num_frames)))[0], num_frames)
            faces: tuple[FaceCrop, ...] = person.frames
            seconds = person.seconds
        elif picture.seconds is None:
            raise BadModelInput("A photo's face is given as a video; give it as an image.")
        else:
            faces, seconds = picture.faces, picture.seconds
        landmarks = np.stack([face.landmarks for face in faces])
        metadata: Mapping[str, Any] = {"landmarks": landmarks, "seconds": list(seconds)}
        return np.stack([face.crop for face in faces]), dict(metadata)
