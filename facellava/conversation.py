"""What a conversation is made of: turns, photos and clips of faces, and the default chat template.

A message is {"role": "system" | "user" | "assistant", "content": text or a list of parts}. A part
is {"type": "text", "text": ...}, {"type": "image"} for a photo's face or {"type": "video"} for a
clip; the faces themselves travel beside the messages, in order of their parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN
from facellava.errors import BadModelInput

Message: TypeAlias = Mapping[str, Any]
EMPTY_QUESTION: Final = "The question is empty; ask something about the face."
ROLES: Final = ("system", "user", "assistant")
PLACEHOLDER_OF: Final = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}
PLACEHOLDERS: Final = re.compile("|".join(map(re.escape, PLACEHOLDER_OF.values())))

# For tokenizers without a template of their own, such as nano's.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('Unknown role ' + message['role']) -}}{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ['image', 'video'] -%}{{- '<' + part['type'] + '>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '</s>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
CHAT_TEMPLATE_TOKENS: Final = (*(f"<|{role}|>" for role in ROLES), "</s>")


class FaceCrop(Protocol):
    """What the model needs of a face; facellava.faces.Face has it."""

    @property
    def crop(self) -> NDArray[np.uint8]:
        """(height, width, 3) RGB."""

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(68, 2), (x, y) in [0, 1] of the crop."""


Turn: TypeAlias = tuple[str, str]
"""An earlier turn: question and answer."""
FaceItem: TypeAlias = FaceCrop | Sequence[FaceCrop]
"""A photo's face, or a clip: one person's faces, frame after frame."""


def frames_of(item: FaceItem) -> Sequence[FaceCrop]:
    """The frames of a clip, or a photo's face as the only frame.

    Raises:
        BadModelInput: an empty clip.
    """
    frames = item if isinstance(item, Sequence) else (item,)
    if not frames:
        raise BadModelInput("A clip holds no frames; give at least one.")
    return frames


def item_kinds(messages: Sequence[Message]) -> list[str]:
    """ "image" or "video" for each photo and clip of a conversation, in order of appearance."""
    return [
        part["type"]
        for message in messages
        if not isinstance(message.get("content"), str)
        for part in message.get("content") or ()
        if part.get("type") in PLACEHOLDER_OF
    ]


def check_items(kinds: Sequence[str], items: Sequence[FaceItem]) -> None:
    """Refuse faces that do not fit the text's photos and clips, one for one.

    Raises:
        BadModelInput: another number, a clip for an image or a single face for a video.
    """
    if len(kinds) != len(items):
        raise BadModelInput(
            f"The text names {len(kinds)} photos and clips, and {len(items)} are given; "
            "give one face or clip for each."
        )
    for index, (kind, item) in enumerate(zip(kinds, items, strict=True)):
        given = "clip" if isinstance(item, Sequence) else "single face"
        if (kind == "video") != (given == "clip"):
            raise BadModelInput(
                f"Item {index} of the text is of type {kind!r}, and a {given} is given for it; "
                "an image takes a face, a video a sequence of faces."
            )


def flatten_turns(
    messages: Sequence[Message], escape: Callable[[str], str]
) -> list[dict[str, str]]:
    """Messages whose content is one string: placeholders in place, all other text escaped.

    Raises:
        BadModelInput: an unknown role or part, or no user's turn before the assistant's.
    """
    turns = [
        {"role": _role(message), "content": "".join(_pieces(message, escape))}
        for message in messages
    ]
    speakers = [turn["role"] for turn in turns if turn["role"] != "system"]
    if not speakers or speakers[0] != "user":
        raise BadModelInput("A conversation must open with a user's turn.")
    return turns


def _role(message: Message) -> str:
    role = message.get("role")
    if role not in ROLES:
        raise BadModelInput(f"A message has the role {role!r}; use one of {', '.join(ROLES)}.")
    return str(role)


def _pieces(message: Message, escape: Callable[[str], str]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield escape(content)
        return
    for part in content or ():
        match part:
            case {"type": "image" | "video" as kind}:
                yield PLACEHOLDER_OF[kind]
            case {"type": "text", "text": str(text)}:
                yield escape(text)
            case _:
                raise BadModelInput(
                    f"A message holds the part {part!r}; a part is an image, a video or a text."
                )


def face_conversation(
    kind: Literal["image", "video"],
    question: str,
    history: Sequence[Turn] = (),
    answer: str | None = None,
) -> list[Message]:
    """The messages of a question about one face or clip, after earlier turns.

    Args:
        kind: whether the first turn shows a photo's face or a clip.
        question: the last question.
        history: earlier (question, answer) turns, oldest first.
        answer: the last answer, for training.

    Raises:
        BadModelInput: an empty question, or one that is no Unicode text.
    """
    messages: list[Message] = []
    for asked, answered in (*history, (question, answer)):
        if not asked.strip():
            raise BadModelInput(EMPTY_QUESTION)
        if any("\ud800" <= letter <= "\udfff" for letter in asked):
            raise BadModelInput("The question holds broken characters; type it in UTF-8.")
        words = {"type": "text", "text": asked.strip()}
        messages.append(
            {"role": "user", "content": [words] if messages else [{"type": kind}, words]}
        )
        if answered is not None:
            messages.append({"role": "assistant", "content": answered})
    return messages
