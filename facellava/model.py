"""FaceLlavaForConditionalGeneration: the arrows of the paper's main figure.

    pixels -> vision tower -> projector -> image tokens -> FRGCA (landmarks) -> language model

Shapes: F frames in all, N image tokens per frame, D the language model's width, L text length.
A batch's photos and clips lie one after the other in F, in the order in which their placeholders
appear in `input_ids`, row by row: a photo is one frame, a clip of T frames is T frames.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput
from facellava.face_encoder import FaceEncoder
from facellava.region_attention import Enriched, check_landmarks

FRAME_INPUTS = ("pixel_values", "landmarks", "image_features")


class FaceLlavaForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A causal language model that reads faces: photos, clips, several of them, and text."""

    config: FaceLlavaConfig
    config_class = FaceLlavaConfig
    base_model_prefix = "face_llava"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__(config)
        self.face_encoder = FaceEncoder(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_image_features(self, pixel_values: Tensor, landmarks: Tensor | None) -> Tensor:
        """Image tokens that the language model reads.

        Args:
            pixel_values: (..., 3, H, W), for instance (photos, 3, H, W) or (clips, T, 3, H, W).
            landmarks: (..., 68, 2) in [0, 1] of the crop, with the same leading dimensions.

        Returns:
            (..., N, D).

        Raises:
            BadModelInput: no usable landmarks, or shapes that do not fit.
        """
        return self._enrich(pixel_values, landmarks).tokens

    def region_attention_map(self, pixel_values: Tensor, landmarks: Tensor | None) -> Tensor:
        """How much each image token looks at each region: (..., heads, N, 9), rows sum to 1."""
        return self._enrich(pixel_values, landmarks).attention

    def _enrich(self, pixel_values: Tensor, landmarks: Tensor | None) -> Enriched:
        leading = pixel_values.shape[:-3]
        features = self.face_encoder.encode_pixels(
            pixel_values.reshape(-1, *pixel_values.shape[-3:])
        )
        enriched = self.face_encoder(features, landmarks)
        return Enriched(*(part.unflatten(0, leading) for part in enriched))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        landmarks: Tensor | None = None,
        image_features: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits, and the loss where labels are given.

        Args:
            input_ids: (B, L), with one placeholder per image token.
            attention_mask: (B, L), 0 on padding.
            pixel_values: (F, 3, H, W), the batch's frames in the order of their placeholders.
            landmarks: (F, 68, 2) in [0, 1] of each frame's crop.
            image_features: (F, N, tower width) from `encode_frames`, instead of pixel_values:
                training caches them.
            position_ids: (B, L), as in the language model.
            past_key_values: the language model's cache.
            inputs_embeds: (B, L, D) instead of input_ids, with the faces already inside.
            labels: (B, L), -100 where there is no loss.
            use_cache: as in the language model.
            logits_to_keep: logits of the last so many positions only, 0 for all.
            **kwargs: handed through to the language model (its attention and loss arguments).

        Raises:
            BadModelInput: placeholders and image tokens differ in number, or the landmarks are
                not usable.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise BadModelInput("Pass exactly one of input_ids and inputs_embeds.")
        if pixel_values is not None and image_features is not None:
            raise BadModelInput("Pass pixel_values or their cached image_features, not both.")
        if pixel_values is not None and input_ids is not None:
            image_features = self.encode_frames(input_ids, pixel_values)
        if input_ids is not None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            prefilled = past_key_values is not None and past_key_values.get_seq_length() > 0
            if image_features is not None or not prefilled:
                inputs_embeds = self._place_faces(
                    input_ids, inputs_embeds, image_features, landmarks
                )
        elif pixel_values is not None or image_features is not None:
            raise BadModelInput(
                "inputs_embeds already hold the faces: pass no pixel_values or image_features "
                "with them."
            )
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def placeholder_mask(self, input_ids: Tensor) -> Tensor:
        """Where `input_ids` (B, L) hold a placeholder of a photo or a clip: bool (B, L)."""
        return (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)

    def frames_in_clips(self, input_ids: Tensor) -> Tensor:
        """For each frame whose placeholders `input_ids` (B, L) hold, if it is of a clip: bool (F).

        Raises:
            BadModelInput: placeholders that are no whole frames.
        """
        of_clip = input_ids[self.placeholder_mask(input_ids)] == self.config.video_token_id
        runs, lengths = torch.unique_consecutive(of_clip, return_counts=True)
        config = self.config
        per_step = torch.where(runs, config.tokens_per_clip_frame, config.tokens_per_frame)
        if (lengths % per_step).any():
            raise BadModelInput(
                f"The text holds {len(of_clip)} placeholders, which are no whole frames: a photo "
                f"takes {config.tokens_per_frame} and {config.clip_merge} frame(s) of a clip "
                f"{config.tokens_per_clip_frame}; let the processor write them."
            )
        frames = lengths // per_step * torch.where(runs, config.clip_merge, 1)
        return runs.repeat_interleave(frames)

    def encode_frames(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        """What the towers see: pixels (F, 3, H, W) to features (F, N, tower width).

        Args:
            input_ids: (B, L), whose placeholders tell photos from clips.
            pixel_values: the frames, in the order of their placeholders.

        Raises:
            BadModelInput: placeholders and frames do not match.
        """
        if self.config.video_config is None:
            return self.face_encoder.encode_pixels(pixel_values)
        in_clip = self.frames_in_clips(input_ids)
        if len(in_clip) != len(pixel_values):
            raise BadModelInput(
                f"The text holds placeholders of {len(in_clip)} frame(s) and {len(pixel_values)} "
                "are given; let the processor write them."
            )
        return self.face_encoder.encode_frames(pixel_values, in_clip)

    def _place_faces(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor,
        image_features: Tensor | None,
        landmarks: Tensor | None,
    ) -> Tensor:
        if self.config.clips_differ:
            return self._place_by_kind(input_ids, inputs_embeds, image_features, landmarks)
        mask = self.placeholder_mask(input_ids)
        n_placeholders = int(mask.sum())
        n_frames = 0 if image_features is None else image_features.shape[0]
        n_tokens = n_frames * self.config.tokens_per_frame
        if n_placeholders != n_tokens:
            raise BadModelInput(
                f"The text holds {n_placeholders} placeholders and the {n_frames} frame(s) give "
                f"{n_tokens} image tokens; let the processor write {self.config.tokens_per_frame} "
                "placeholders per frame."
            )
        if image_features is None:
            return inputs_embeds
        tokens = self.face_encoder(image_features, landmarks).tokens
        return inputs_embeds.masked_scatter(
            mask.unsqueeze(-1), tokens.to(inputs_embeds.device, inputs_embeds.dtype)
        )

    def _place_by_kind(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor,
        image_features: Tensor | None,
        landmarks: Tensor | None,
    ) -> Tensor:
        """Photos and clips, which differ in encoder or in tokens a frame."""
        in_clip = self.frames_in_clips(input_ids)
        n_frames = 0 if image_features is None else image_features.shape[0]
        if len(in_clip) != n_frames:
            raise BadModelInput(
                f"The text holds placeholders of {len(in_clip)} frame(s) and {n_frames} are given; "
                "let the processor write them."
            )
        if image_features is None:
            return inputs_embeds
        points = check_landmarks(landmarks, n_frames)
        for token_id, chosen, n_features in (
            (self.config.image_token_id, ~in_clip, self.config.tokens_per_frame),
            (self.config.video_token_id, in_clip, self.config.features_per_clip_frame),
        ):
            if chosen.any():
                features = image_features[chosen, -n_features:]
                tokens = self.face_encoder(features, points[chosen]).tokens
                if token_id == self.config.video_token_id:
                    tokens = self.face_encoder.shorten(tokens)
                inputs_embeds = inputs_embeds.masked_scatter(
                    (input_ids == token_id).unsqueeze(-1),
                    tokens.to(inputs_embeds.device, inputs_embeds.dtype),
                )
        return inputs_embeds

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Frames go in with the prompt only; afterwards the cache holds them."""
        frames = {name: kwargs.pop(name, None) for name in FRAME_INPUTS}
        model_inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            model_inputs.update(frames)
        return model_inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat each row's frames as a block, since a row may hold several."""
        frames = {name: model_kwargs.pop(name, None) for name in FRAME_INPUTS}
        if expand_size > 1 and input_ids is not None:
            photos = (input_ids == self.config.image_token_id).sum(dim=1)
            clips = (input_ids == self.config.video_token_id).sum(dim=1)
            per_row = photos // self.config.tokens_per_frame
            steps = clips // self.config.tokens_per_clip_frame
            per_row = per_row + steps * self.config.clip_merge
            frames = {
                name: None if value is None else _repeat_blocks(value, per_row, expand_size)
                for name, value in frames.items()
            }
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **model_kwargs,
        )
        return input_ids, {**model_kwargs, **frames}


def _repeat_blocks(frames: Tensor, per_row: Tensor, times: int) -> Tensor:
    blocks = torch.split(frames, per_row.tolist())
    return torch.cat([block for block in blocks for _ in range(times)])
