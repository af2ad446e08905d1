"""Conversations and faces in, the model's tensors out: one path for training, answering, serving.

Shapes: B conversations, L text length, F frames of the whole batch in order of their placeholders
(a photo is one frame, a clip of T frames is T), H W the encoder's input size. Crops are RGB uint8;
landmarks are (x, y) in [0, 1] of the crop, so resizing the crop does not move them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN
from facellava.errors import BadModelInput
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.region_attention import check_landmarks

IGNORED_LABEL: Final = -100
ROLES: Final = ("system", "user", "assistant")
END_OF_TURN: Final = "</s>"
ROLE_TOKENS: Final = tuple(f"<|{role}|>" for role in ROLES)

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

Message: TypeAlias = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": text or a list of parts}. A part is
{"type": "text", "text": ...}, {"type": "image"} or {"type": "video"}."""


class FaceCrop(Protocol):
    """What the processor needs of a face; facellava.faces.Face has it."""

    @property
    def crop(self) -> NDArray[np.uint8]:
        """(height, width, 3) RGB."""

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(68, 2), (x, y) in [0, 1] of the crop."""


FaceItem: TypeAlias = FaceCrop | Sequence[FaceCrop]
"""A photo's face, or a clip: one person's faces, frame after frame."""


class EncodedText:
    """Token ids of one conversation and, for training, their labels (-100 where no loss is)."""

    def __init__(self, input_ids: list[int], labels: list[int] | None) -> None:
        self.input_ids = input_ids
        self.labels = labels


class FaceLlavaProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template as one.

    Args:
        image_processor: makes pixels of crops.
        tokenizer: must hold `<image>` and `<video>` as special tokens.
        chat_template: Jinja; by default the tokenizer's own, and where it has none, CHAT_TEMPLATE.
        tokens_per_frame: the config's `tokens_per_frame`.

    Raises:
        BadModelInput: the tokenizer lacks a special token that is needed.
    """

    def __init__(
        self,
        image_processor: FaceLlavaImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        tokens_per_frame: int = 1,
    ) -> None:
        template = chat_template or tokenizer.chat_template or CHAT_TEMPLATE
        needed = [IMAGE_TOKEN, VIDEO_TOKEN]
        if template == CHAT_TEMPLATE:
            needed += [*ROLE_TOKENS, END_OF_TURN]
        self._specials = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        missing = [token for token in needed if token not in self._specials]
        if missing:
            raise BadModelInput(
                f"The tokenizer lacks the special tokens {', '.join(missing)}: add them first."
            )
        super().__init__(image_processor, tokenizer, chat_template=template)
        # One template, whoever renders: vLLM asks the tokenizer.
        tokenizer.chat_template = template
        self.tokens_per_frame = int(tokens_per_frame)
        self.image_token = IMAGE_TOKEN
        self.video_token = VIDEO_TOKEN
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)))

    def escape(self, text: str) -> str:
        """Text in which no special string is left: `<image>` becomes `< image>`.

        Raises:
            BadModelInput: the tokenizer still reads a special token in it.
        """
        while self._special_pattern.search(text):
            text = self._special_pattern.sub(
                lambda found: f"{found[0][0]} {found[0][1:]}" if len(found[0]) > 1 else "", text
            )
        harmless = {self.tokenizer.unk_token_id}
        read = set(self.tokenizer(text, add_special_tokens=False)["input_ids"]) - harmless
        special = [token for token, index in self._specials.items() if index in read]
        if special:
            raise BadModelInput(
                f"The text is read as the special token {special[0]}; write it differently."
            )
        return text

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt's text, with one `<image>` or `<video>` per item and all text escaped.

        Raises:
            BadModelInput: an unknown role or part.
        """
        return self._apply_template(
            [self._flatten(message) for message in messages], add_generation_prompt
        )

    def _apply_template(self, flat: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(
            flat, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    def _flatten(self, message: Message) -> dict[str, str]:
        """A message whose content is one string, placeholders in place."""
        if message.get("role") not in ROLES:
            raise BadModelInput(
                f"A message has the role {message.get('role')!r}; use one of {', '.join(ROLES)}."
            )
        content = message.get("content")
        if isinstance(content, str):
            return {"role": message["role"], "content": self.escape(content)}
        text = ""
        for part in content or ():
            match part:
                case {"type": "image"}:
                    text += IMAGE_TOKEN
                case {"type": "video"}:
                    text += VIDEO_TOKEN
                case {"type": "text", "text": str(words)}:
                    text += self.escape(words)
                case _:
                    raise BadModelInput(
                        f"A message holds the part {part!r}; a part is an image, a video or a text."
                    )
        return {"role": message["role"], "content": text}

    def encode_text(
        self, messages: Sequence[Message], frames: Sequence[int], *, training: bool = False
    ) -> EncodedText:
        """One conversation's token ids; with training, the labels of its assistant turns too.

        Args:
            messages: the conversation.
            frames: number of frames of each item, in order of appearance (a photo has 1).
            training: the last turn is the assistant's, and labels are wanted: the ids of every
                assistant turn up to and with its end-of-turn token, -100 elsewhere.

        Raises:
            BadModelInput: items and frames differ in number, or the template does not allow to
                tell the turns apart.
        """
        flat = [self._flatten(message) for message in messages]
        text = self._expand(self._apply_template(flat, not training), frames)
        if not training:
            return EncodedText(self.tokenizer(text, add_special_tokens=False)["input_ids"], None)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = list(self._assistant_spans(flat, text, frames))
        labels = [
            token if any(start <= offset[0] < end for start, end in spans) else IGNORED_LABEL
            for token, offset in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        return EncodedText(encoded["input_ids"], labels)

    def _expand(self, text: str, frames: Sequence[int]) -> str:
        """Repeat each placeholder as often as its item has image tokens."""
        pieces = re.split(f"({re.escape(IMAGE_TOKEN)}|{re.escape(VIDEO_TOKEN)})", text)
        n_placeholders = len(pieces) // 2
        if n_placeholders != len(frames):
            raise BadModelInput(
                f"The conversation holds {n_placeholders} photos and clips, and {len(frames)} "
                "faces are given; give one face or clip for each."
            )
        pieces[1::2] = [
            token * (count * self.tokens_per_frame)
            for token, count in zip(pieces[1::2], frames, strict=True)
        ]
        return "".join(pieces)

    def _assistant_spans(
        self, flat: list[dict[str, str]], text: str, frames: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        """Where assistant turns lie in the rendered text: [start, end) in characters."""
        eos = self.tokenizer.eos_token
        for index, message in enumerate(flat):
            if message["role"] != "assistant":
                continue
            n_items = sum(len(_PLACEHOLDERS.findall(turn["content"])) for turn in flat[:index])
            before = self._expand(self._apply_template(flat[:index], True), frames[:n_items])
            after = self._expand(
                self._apply_template(flat[: index + 1], False),
                frames[: n_items + len(_PLACEHOLDERS.findall(message["content"]))],
            )
            if not (text.startswith(after) and after.startswith(before)):
                raise BadModelInput(
                    "The chat template writes earlier turns differently once later ones follow, "
                    "so that answers cannot be told from questions; use another template."
                )
            turn = after[len(before) :]
            end = turn.rfind(eos) + len(eos) if eos and eos in turn else len(turn)
            yield len(before), len(before) + end

    def pad(
        self, rows: Sequence[EncodedText], *, side: Literal["left", "right"]
    ) -> dict[str, torch.Tensor]:
        """Rows to input_ids and attention_mask (B, L), and labels where the rows have them.

        Pad on the left for generation, on the right for training.
        """
        pad_id = self.tokenizer.pad_token_id
        if pad_id is None:
            pad_id = self.tokenizer.eos_token_id
        columns = {
            "input_ids": ([row.input_ids for row in rows], pad_id),
            "attention_mask": ([[1] * len(row.input_ids) for row in rows], 0),
        }
        labels = [row.labels for row in rows if row.labels is not None]
        if labels:
            columns["labels"] = (labels, IGNORED_LABEL)
        length = max(len(row.input_ids) for row in rows)
        padded = {}
        for name, (values, filler) in columns.items():
            gaps = [[filler] * (length - len(value)) for value in values]
            padded[name] = torch.tensor(
                [
                    gap + value if side == "left" else value + gap
                    for gap, value in zip(gaps, values, strict=True)
                ]
            )
        return padded

    def encode_faces(self, items: Sequence[FaceItem]) -> dict[str, torch.Tensor]:
        """Faces and clips to pixel_values (F, 3, H, W) and landmarks (F, 68, 2), both float32.

        Raises:
            BadModelInput: a crop or landmarks of a wrong shape or range, or an empty clip.
        """
        faces = [face for item in items for face in frames_of(item)]
        pixels = self.image_processor([face.crop for face in faces], return_tensors="pt")
        landmarks = [
            check_landmarks(torch.as_tensor(np.asarray(face.landmarks, dtype=np.float32)), 1)
            for face in faces
        ]
        return {
            "pixel_values": pixels["pixel_values"],
            "landmarks": torch.cat(landmarks) if landmarks else torch.empty(0, 68, 2),
        }

    def encode(
        self,
        conversations: Sequence[Sequence[Message]],
        faces: Sequence[FaceItem] = (),
        *,
        training: bool = False,
    ) -> BatchFeature:
        """A batch of conversations and their faces to everything that the model takes.

        Args:
            conversations: B lists of messages.
            faces: faces and clips of the whole batch, in order of their image and video parts.
            training: pad on the right and add labels; otherwise pad on the left and open the
                assistant's turn.

        Returns:
            input_ids, attention_mask (B, L), with training labels (B, L), and where there are
            faces pixel_values (F, 3, H, W) and landmarks (F, 68, 2).

        Raises:
            BadModelInput: items and faces do not match, or one of them cannot be used.
        """
        kinds = [
            [part["type"] for message in messages for part in _item_parts(message)]
            for messages in conversations
        ]
        check_kinds([kind for row in kinds for kind in row], faces)
        frames = iter([len(frames_of(item)) for item in faces])
        rows = [
            self.encode_text(messages, [next(frames) for _ in row], training=training)
            for messages, row in zip(conversations, kinds, strict=True)
        ]
        batch = self.pad(rows, side="right" if training else "left")
        return BatchFeature({**batch, **(self.encode_faces(faces) if faces else {})})

    def __call__(
        self,
        images: Sequence[FaceItem] | None = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """The Hugging Face form: text that is rendered already, special strings and all.

        Args:
            images: faces and clips in order of their placeholders over all of `text`.
            text: prompts with one `<image>` or `<video>` per item; None for the faces alone.
            return_tensors: only "pt".

        Raises:
            BadModelInput: placeholders and items do not match.
        """
        if return_tensors != "pt":
            raise BadModelInput(f"return_tensors is {return_tensors!r}; allowed is 'pt'.")
        items = list(images or ())
        batch = self.encode_faces(items) if items else {}
        if text is None:
            return BatchFeature(batch)
        prompts = [text] if isinstance(text, str) else list(text)
        found = [_PLACEHOLDERS.findall(prompt) for prompt in prompts]
        check_kinds([token.strip("<>") for row in found for token in row], items)
        frames = iter([len(frames_of(item)) for item in items])
        rows = [
            EncodedText(
                self.tokenizer(
                    self._expand(prompt, [next(frames) for _ in row]), add_special_tokens=False
                )["input_ids"],
                None,
            )
            for prompt, row in zip(prompts, found, strict=True)
        ]
        return BatchFeature({**self.pad(rows, side="left"), **batch})


_PLACEHOLDERS: Final = re.compile(f"{re.escape(IMAGE_TOKEN)}|{re.escape(VIDEO_TOKEN)}")


def frames_of(item: FaceItem) -> Sequence[FaceCrop]:
    """The frames of a clip, or a photo's face as the only frame."""
    frames = item if isinstance(item, Sequence) else (item,)
    if not frames:
        raise BadModelInput("A clip holds no frames; give at least one.")
    return frames


def check_kinds(kinds: Sequence[str], items: Sequence[FaceItem]) -> None:
    """Refuse faces that do not fit the conversation's image and video parts, one for one."""
    if len(kinds) != len(items):
        raise BadModelInput(
            f"The text names {len(kinds)} photos and clips, and {len(items)} are given; "
            "give one face or clip for each."
        )
    for index, (kind, item) in enumerate(zip(kinds, items, strict=True)):
        if (kind == "video") != isinstance(item, Sequence):
            raise BadModelInput(
                f"Item {index} of the text is {kind!r}, and what is given for it is a "
                f"{'clip' if isinstance(item, Sequence) else 'single face'}; "
                "an image takes a face, a video a sequence of faces."
            )


def _item_parts(message: Message) -> Iterator[Message]:
    content = message.get("content")
    if not isinstance(content, str):
        yield from (part for part in content or () if part.get("type") in ("image", "video"))
