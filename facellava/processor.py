"""Conversations and faces in, the model's tensors out: one path for training, answering, serving.

Shapes: B conversations, L text length, F frames of the whole batch in order of their placeholders
(a photo is one frame, a clip of T frames is T), H W the encoder's input size. Crops are RGB uint8;
landmarks are (x, y) in [0, 1] of the crop, so resizing the crop does not move them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN
from facellava.conversation import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_TOKENS,
    PLACEHOLDERS,
    FaceCrop,
    FaceItem,
    Message,
    check_items,
    flatten_turns,
    frames_of,
    item_kinds,
)
from facellava.errors import BadModelInput
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.region_attention import check_landmarks

IGNORED_LABEL: Final = -100


@dataclass(frozen=True)
class EncodedText:
    """One conversation's token ids and, for training, their labels (-100 where no loss is)."""

    input_ids: list[int]
    labels: list[int] | None = None


class FaceLlavaProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template as one.

    Args:
        image_processor: makes pixels of crops.
        tokenizer: must hold `<image>` and `<video>` as special tokens.
        chat_template: Jinja; by default the tokenizer's own, and where it has none, CHAT_TEMPLATE.
        tokens_per_frame: the config's `tokens_per_frame`.
        tokens_per_clip_frame: the config's; None for as many as a photo has.
        clip_frames: the config's `clip_frames`: longer and shorter clips are sampled to so many
            frames. None takes clips as they are.
        clip_merge: the config's.

    Raises:
        BadModelInput: the tokenizer lacks a special token that is needed.
    """

    def __init__(
        self,
        image_processor: FaceLlavaImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        tokens_per_frame: int = 1,
        tokens_per_clip_frame: int | None = None,
        clip_frames: int | None = None,
        clip_merge: int = 1,
    ) -> None:
        template = chat_template or tokenizer.chat_template or CHAT_TEMPLATE
        self._specials = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        needed = [IMAGE_TOKEN, VIDEO_TOKEN]
        needed += CHAT_TEMPLATE_TOKENS if template == CHAT_TEMPLATE else ()
        missing = [token for token in needed if token not in self._specials]
        if missing:
            raise BadModelInput(
                f"The tokenizer lacks the special tokens {', '.join(missing)}: add them first."
            )
        super().__init__(image_processor, tokenizer, chat_template=template)
        # One template, whoever renders: vLLM asks the tokenizer.
        tokenizer.chat_template = template
        self.tokens_per_frame = int(tokens_per_frame)
        self.tokens_per_clip_frame = int(tokens_per_clip_frame or tokens_per_frame)
        self.clip_frames = clip_frames
        self.clip_merge = int(clip_merge)
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
        read = set(self._ids(text)) - {self.tokenizer.unk_token_id}
        special = [token for token, index in self._specials.items() if index in read]
        if special:
            raise BadModelInput(
                f"The text is read as the special token {special[0]}; write it differently."
            )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt's text, with one `<image>` or `<video>` per item and all text escaped.

        Raises:
            BadModelInput: an unknown role or part, or turns that the chat template refuses.
        """
        return self._apply_template(flatten_turns(messages, self.escape), add_generation_prompt)

    def _apply_template(self, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise BadModelInput(f"The chat template refuses these turns: {error}.") from error
        return text

    def encode_text(
        self, messages: Sequence[Message], frames: Sequence[int] = (), *, training: bool = False
    ) -> EncodedText:
        """One conversation's token ids; with training, the labels of its assistant turns too.

        Args:
            messages: the conversation.
            frames: number of frames of each item, in order of appearance (a photo has 1, a clip
                as many as `frames_of` gives).
            training: the conversation ends with the assistant's turn, and labels are wanted: the
                ids of every assistant turn up to and with its end-of-turn token, -100 elsewhere.
                Otherwise the assistant's turn is opened.

        Raises:
            BadModelInput: items and frames differ in number, or turns that cannot be told apart.
        """
        turns = flatten_turns(messages, self.escape)
        text = self._expand(self._apply_template(turns, not training), frames)
        if not training:
            return EncodedText(self._ids(text))
        if turns[-1]["role"] != "assistant":
            raise BadModelInput("A conversation to learn from must end with the assistant's turn.")
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = list(self._assistant_spans(turns, text, frames))
        labels = [
            token if any(start <= offset[0] < end for start, end in spans) else IGNORED_LABEL
            for token, offset in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        return EncodedText(encoded["input_ids"], labels)

    def _expand(self, text: str, frames: Sequence[int]) -> str:
        """Repeat each placeholder as often as its item has image tokens."""
        n_placeholders = len(PLACEHOLDERS.findall(text))
        if n_placeholders != len(frames):
            raise BadModelInput(
                f"The text holds {n_placeholders} photos and clips, and the frames of "
                f"{len(frames)} are given; give one face or clip for each."
            )
        counts = iter(frames)

        def repeated(found: re.Match[str]) -> str:
            if found[0] == IMAGE_TOKEN:
                return IMAGE_TOKEN * (next(counts) * self.tokens_per_frame)
            return VIDEO_TOKEN * self.clip_tokens(next(counts))

        return PLACEHOLDERS.sub(repeated, text)

    def clip_tokens(self, frames: int) -> int:
        """Placeholders of a clip of so many frames, as `frames_of` gives them."""
        return frames // self.clip_merge * self.tokens_per_clip_frame

    def _assistant_spans(
        self, turns: list[dict[str, str]], text: str, frames: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        """Where assistant turns lie in the rendered text: [start, end) in characters."""
        end_of_turn = self.tokenizer.eos_token or ""
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before = self._render_expanded(turns[:index], frames, add_generation_prompt=True)
            after = self._render_expanded(turns[: index + 1], frames, add_generation_prompt=False)
            if not (text.startswith(after) and after.startswith(before)):
                raise BadModelInput(
                    "The chat template writes earlier turns differently once later ones follow, "
                    "so that answers cannot be told from questions; use another template."
                )
            spoken = after[len(before) :]
            # Some templates add a line break after the end of turn: nothing to learn there.
            length = spoken.rfind(end_of_turn) + len(end_of_turn)
            yield len(before), len(before) + (length if end_of_turn in spoken else len(spoken))

    def _render_expanded(
        self, turns: list[dict[str, str]], frames: Sequence[int], *, add_generation_prompt: bool
    ) -> str:
        n_items = sum(len(PLACEHOLDERS.findall(turn["content"])) for turn in turns)
        return self._expand(self._apply_template(turns, add_generation_prompt), frames[:n_items])

    def pad(
        self, rows: Sequence[EncodedText], *, side: Literal["left", "right"]
    ) -> dict[str, torch.Tensor]:
        """Rows to input_ids and attention_mask (B, L), and labels where the rows have them.

        Pad on the left for generation, on the right for training.
        """
        filler = self.tokenizer.pad_token_id
        if filler is None:
            filler = self.tokenizer.eos_token_id
        length = max(len(row.input_ids) for row in rows)

        def stack(values: list[list[int]], padding: int) -> torch.Tensor:
            gaps = [[padding] * (length - len(value)) for value in values]
            pairs = zip(gaps, values, strict=True)
            return torch.tensor([gap + ids if side == "left" else ids + gap for gap, ids in pairs])

        padded = {
            "input_ids": stack([row.input_ids for row in rows], filler),
            "attention_mask": stack([[1] * len(row.input_ids) for row in rows], 0),
        }
        labels = [row.labels for row in rows if row.labels is not None]
        if labels:
            padded["labels"] = stack(labels, IGNORED_LABEL)
        return padded

    def clip_length(self, frames: int) -> int:
        """How many frames the model sees of a clip of so many."""
        return self.clip_frames or -(-frames // self.clip_merge) * self.clip_merge

    def frames_of(self, item: FaceItem) -> Sequence[FaceCrop]:
        """A photo's face as the only frame, or the frames of a clip that the model sees.

        Sampled evenly as the published code does: first and last frame are among them, and frames
        of a shorter clip repeat. Where frames are merged, some repeat to make the last group whole.

        Raises:
            BadModelInput: an empty clip.
        """
        frames = frames_of(item)
        wanted = self.clip_length(len(frames))
        if wanted == len(frames) or not isinstance(item, Sequence):
            return frames
        chosen = np.linspace(0, len(frames) - 1, wanted, dtype=int)
        return [frames[index] for index in chosen]

    def encode_faces(self, items: Sequence[FaceItem]) -> dict[str, torch.Tensor]:
        """Faces and clips to pixel_values (F, 3, H, W) and landmarks (F, 68, 2), both float32.

        Raises:
            BadModelInput: a crop or landmarks of a wrong shape or range, or an empty clip.
        """
        faces = [face for item in items for face in self.frames_of(item)]
        pixels = self.image_processor([face.crop for face in faces], return_tensors="pt")
        landmarks = [torch.from_numpy(np.array(face.landmarks, np.float32)) for face in faces]
        return {
            "pixel_values": pixels["pixel_values"],
            "landmarks": torch.cat([check_landmarks(points, 1) for points in landmarks]),
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
        kinds = [item_kinds(messages) for messages in conversations]
        check_items([kind for row in kinds for kind in row], faces)
        frames = iter([len(self.frames_of(item)) for item in faces])
        rows = [
            self.encode_text(messages, [next(frames) for _ in row], training=training)
            for messages, row in zip(conversations, kinds, strict=True)
        ]
        return self._batch(rows, faces, side="right" if training else "left")

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
            BadModelInput: placeholders and items do not match, or one of them cannot be used.
        """
        if return_tensors != "pt":
            raise BadModelInput(f"return_tensors is {return_tensors!r}; allowed is 'pt'.")
        items = list(images or ())
        prompts = [text] if isinstance(text, str) else list(text or ())
        found = [PLACEHOLDERS.findall(prompt) for prompt in prompts]
        if text is not None:
            check_items([token.strip("<>") for row in found for token in row], items)
        frames = iter([len(self.frames_of(item)) for item in items])
        rows = [
            EncodedText(self._ids(self._expand(prompt, [next(frames) for _ in row])))
            for prompt, row in zip(prompts, found, strict=True)
        ]
        return self._batch(rows, items, side="left")

    def _batch(
        self,
        rows: Sequence[EncodedText],
        faces: Sequence[FaceItem],
        *,
        side: Literal["left", "right"],
    ) -> BatchFeature:
        texts = self.pad(rows, side=side) if rows else {}
        return BatchFeature({**texts, **(self.encode_faces(faces) if faces else {})})
