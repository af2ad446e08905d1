"""Face-LLaVA's multi-modal processor for vLLM: prompts and faces to what the model takes.

Everything that a request can get wrong is refused here, by a ValueError that vLLM answers with
status 400: an error inside the model's forward would end the whole engine. The pixels are the
library's, from the same FaceLlavaProcessor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataItems, MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
)

from facellava.config import FaceLlavaConfig
from facellava.conversation import PLACEHOLDER_OF, FaceItem
from facellava.errors import BadModelInput
from facellava.faces.crop import CROP_SIZE
from facellava.faces.face_png import MAX_FRAMES
from facellava.processor import FaceLlavaProcessor
from facellava.regions import N_LANDMARKS
from serve.vllm_items import FaceDataParser

# What the model's embed_multimodal is called with: pixels, and landmarks as the bits of float32.
PIXELS_OF: Final = {"image": "pixel_values", "video": "pixel_values_videos"}
LANDMARKS_OF: Final = {"image": "landmarks", "video": "landmarks_videos"}


class FaceProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the inputs of a checkpoint."""

    def get_hf_config(self) -> FaceLlavaConfig:
        return self.ctx.get_hf_config(FaceLlavaConfig)

    def get_hf_processor(self, **_: object) -> FaceLlavaProcessor:
        return self.ctx.get_hf_processor(FaceLlavaProcessor)

    @cached_property
    def face_processor(self) -> FaceLlavaProcessor:
        """The checkpoint's processor, looked up once."""
        return self.get_hf_processor()

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        return {"text_kwargs": set(), "images_kwargs": set(), "videos_kwargs": set()}

    def get_default_tok_params(self) -> Any:
        # Prompts are rendered by the chat template, special tokens and all.
        return replace(super().get_default_tok_params(), add_special_tokens=False)

    def get_data_parser(self) -> MultiModalDataParser:
        return FaceDataParser(expected_hidden_size=self._get_expected_hidden_size())

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return dict.fromkeys(PIXELS_OF)

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        longest = self.face_processor.clip_tokens(self.most_frames(seq_len))
        return {"image": self.get_hf_config().tokens_per_frame, "video": longest}

    def most_frames(self, seq_len: int) -> int:
        """Frames that the model sees of the longest clip that `seq_len` tokens can hold."""
        config = self.get_hf_config()
        if config.clip_frames is not None:
            return config.clip_frames
        steps = min(-(-MAX_FRAMES // config.clip_merge), seq_len // config.tokens_per_clip_frame)
        return max(1, steps) * config.clip_merge


class FaceDummyInputs(BaseDummyInputsBuilder[FaceProcessingInfo]):
    """The largest inputs, with which vLLM measures memory at its start."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "".join(PLACEHOLDER_OF[kind] * count for kind, count in mm_counts.items())

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any
    ) -> dict[str, Any]:
        crop = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        points = np.full((N_LANDMARKS, 2), 0.5, np.float32)
        frames = min(MAX_FRAMES, self.info.most_frames(seq_len))
        dummies = {
            "image": {"image": crop, "landmarks": points},
            "video": {"frames": [crop] * frames, "landmarks": [points] * frames},
        }
        return {kind: [dummies[kind]] * count for kind, count in mm_counts.items()}


class FaceMultiModalProcessor(BaseMultiModalProcessor[FaceProcessingInfo]):
    """Checks a prompt's items, encodes those that no cache holds, and makes room for them."""

    def apply(self, inputs: ProcessorInputs, timing_ctx: Any) -> Any:
        """As in vLLM, after the checks.

        Raises:
            BadModelInput: processor settings in the request, or another number of placeholders
                than of photos and clips.
        """
        if inputs.hf_processor_mm_kwargs:
            names = ", ".join(sorted(map(str, inputs.hf_processor_mm_kwargs)))
            raise BadModelInput(
                f"mm_processor_kwargs holds {names}; the processor has no settings, and landmarks "
                "go with their picture."
            )
        for kind, token_id in self._token_ids().items():
            written = inputs.prompt.count(token_id)
            given = inputs.mm_data_items.get_count(kind, strict=False)
            if written != given:
                raise BadModelInput(
                    f"The text holds {PLACEHOLDER_OF[kind]} {written} time(s), and {given} "
                    f"{kind}(s) are given; give one for each."
                )
        return super().apply(inputs, timing_ctx)

    def _get_mm_hashes(self, inputs: ProcessorInputs) -> Any:
        # The content alone says what an item is: a uuid that a client made up could name other
        # landmarks, or another client's picture.
        return super()._get_mm_hashes(replace(inputs, mm_uuid_items=None))

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        tensors: dict[str, Any] = {}
        if photos := hf_data.get("images"):
            self._encode([photo.face() for photo in photos], "image", tensors)
        if clips := hf_data.get("videos"):
            self._encode([clip.frames for clip in clips], "video", tensors)
        return BatchFeature(tensors)

    def _encode(self, faces: Sequence[FaceItem], kind: str, tensors: dict[str, Any]) -> None:
        """Each item's pixels (T, 3, H, W) and landmarks (T, 68, 2), T = 1 for a photo."""
        processor = self.info.face_processor
        counts = [len(processor.frames_of(item)) for item in faces]
        encoded = processor.encode_faces(faces)
        # As integers the landmarks keep all bits, whatever dtype the model's inputs are cast to.
        bits = encoded["landmarks"].contiguous().view(torch.int32)
        tensors[PIXELS_OF[kind]] = list(encoded["pixel_values"].split(counts))
        tensors[LANDMARKS_OF[kind]] = list(bits.split(counts))

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {
            names[kind]: MultiModalFieldConfig.batched(kind)
            for names in (PIXELS_OF, LANDMARKS_OF)
            for kind in names
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: Any,
    ) -> list[PromptReplacement]:
        config, processor = self.info.get_hf_config(), self.info.face_processor

        def clip(index: int) -> list[int]:
            frames = len(out_mm_kwargs["video"][index][PIXELS_OF["video"]].data)
            return [config.video_token_id] * processor.clip_tokens(frames)

        photo = [config.image_token_id] * config.tokens_per_frame
        return [
            PromptReplacement("image", target=[config.image_token_id], replacement=photo),
            PromptReplacement("video", target=[config.video_token_id], replacement=clip),
        ]

    def _token_ids(self) -> dict[str, int]:
        config = self.info.get_hf_config()
        return {"image": config.image_token_id, "video": config.video_token_id}
