"""FaceLlavaForConditionalGeneration: the arrows of the paper's main figure.

    pixels -> vision tower -> projector -> image tokens -> FRGCA (landmarks) -> language model

Shapes: F frames in all, N image tokens per frame, D the language model's width, L text length.
A batch's photos and clips lie one after the other in F, in the order in which their placeholders
appear in `input_ids`, row by row: a photo is one frame, a clip of T frames is T frames. FaceEncoder
is the part that the vLLM model shares; it handles frames one by one, so items can be encoded alone.
Where the config names an encoder for clips, it handles whole clips.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput
from facellava.region_attention import Enriched, RegionAttention, check_landmarks

FRAME_INPUTS = ("pixel_values", "landmarks", "image_features")


class FaceEncoder(nn.Module):
    """Frames of faces and their landmarks to the tokens that the language model reads."""

    def __init__(self, config: FaceLlavaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = AutoModel.from_config(config.vision_config)
        # Named only where it is: a checkpoint without one has no such weights.
        if config.video_config is not None:
            self.video_tower = AutoModel.from_config(config.video_config)
        self.mm_projector = _projector(config, _feature_width(self.vision_tower, config))
        self.region_attention = RegionAttention(config)

    def encode_pixels(self, pixel_values: Tensor) -> Tensor:
        """The vision tower alone: pixels (F, 3, H, W) to features (F, N, tower width).

        These are what training caches: they do not depend on the landmarks.

        Raises:
            BadModelInput: the pixels are not (F, 3, H, W) of the config's image_size.
        """
        return self._look(self.vision_tower, pixel_values, self.config.vision_feature_select)

    def encode_frames(self, pixel_values: Tensor, in_clip: Tensor) -> Tensor:
        """Pixels of photos and clips (F, 3, H, W), each through its own tower, to features.

        Args:
            pixel_values: clips as whole clips, one after the other.
            in_clip: bool (F), which frames are of clips.

        Returns:
            (F, N, tower width). Where photos and clips keep different prefix tokens, N is the
            larger number, and the rows that the others lack are zeros before their tokens.

        Raises:
            BadModelInput: other shapes, or frames that are no whole clips.
        """
        if self.config.video_config is None or not in_clip.any():
            return self.encode_pixels(pixel_values)
        selection = self.config.video_feature_select
        seen = {True: self._look(self.video_tower, pixel_values[in_clip], selection)}
        if not in_clip.all():
            seen[False] = self.encode_pixels(pixel_values[~in_clip])
        n_tokens = max(features.shape[1] for features in seen.values())
        together = seen[True].new_zeros(len(pixel_values), n_tokens, seen[True].shape[2])
        for kind, features in seen.items():
            together[in_clip == kind, n_tokens - features.shape[1] :] = features
        return together

    def _look(self, tower: nn.Module, pixel_values: Tensor, selection: str) -> Tensor:
        height, width = self.config.image_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, height, width):
            raise BadModelInput(
                f"pixel_values have shape {tuple(pixel_values.shape)}; "
                f"allowed is (frames, 3, {height}, {width}), as the image processor gives them."
            )
        dtype = next(tower.parameters()).dtype
        hidden_states = tower(
            pixel_values.to(dtype), output_hidden_states=True, return_dict=True
        ).hidden_states
        features: Tensor = hidden_states[self.config.vision_feature_layer]
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2)
        if selection == "default":
            return features[:, self.config.n_prefix_tokens :]
        return features

    def forward(self, image_features: Tensor, landmarks: Tensor | None) -> Enriched:
        """Tower features (F, N, tower width) and landmarks (F, 68, 2) to tokens (F, N, D).

        Raises:
            BadModelInput: no usable landmarks, or features of another shape.
        """
        landmarks = check_landmarks(landmarks, image_features.shape[0])
        allowed = {self.config.tokens_per_frame, self.config.tokens_per_clip_frame}
        if image_features.ndim != 3 or image_features.shape[1] not in allowed:
            raise BadModelInput(
                f"image_features have shape {tuple(image_features.shape)}; allowed is (frames, "
                f"{self.config.tokens_per_frame}, width), as encode_pixels gives them."
            )
        dtype = next(self.mm_projector.parameters()).dtype
        return self.region_attention(self.mm_projector(image_features.to(dtype)), landmarks)


def _projector(config: FaceLlavaConfig, feature_width: int) -> nn.Module:
    if config.projector_type == "linear":
        return nn.Linear(feature_width, config.hidden_size)
    return nn.Sequential(
        nn.Linear(feature_width, config.hidden_size),
        nn.GELU(),
        nn.Linear(config.hidden_size, config.hidden_size),
    )


def _feature_width(vision_tower: nn.Module, config: FaceLlavaConfig) -> int:
    """Channels of the chosen hidden state: convolutional encoders list one width per stage."""
    stage_widths = getattr(config.vision_config, "hidden_sizes", None)
    if not stage_widths:
        return int(config.vision_config.hidden_size)
    embedding_width = getattr(config.vision_config, "embedding_size", stage_widths[0])
    return int([embedding_width, *stage_widths][config.vision_feature_layer])


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
        per_frame = torch.where(
            runs, self.config.tokens_per_clip_frame, self.config.tokens_per_frame
        )
        if (lengths % per_frame).any():
            raise BadModelInput(
                f"The text holds {len(of_clip)} placeholders, which are no whole frames: a photo "
                f"takes {self.config.tokens_per_frame} and a frame of a clip "
                f"{self.config.tokens_per_clip_frame}; let the processor write them."
            )
        return runs.repeat_interleave(lengths // per_frame)

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
        if self.config.video_config is not None:
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
        """Photos and clips, which have encoders of their own and may differ in tokens a frame."""
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
        for token_id, chosen, n_tokens in (
            (self.config.image_token_id, ~in_clip, self.config.tokens_per_frame),
            (self.config.video_token_id, in_clip, self.config.tokens_per_clip_frame),
        ):
            if chosen.any():
                tokens = self.face_encoder(
                    image_features[chosen, -n_tokens:], points[chosen]
                ).tokens
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
            per_row = per_row + clips // self.config.tokens_per_clip_frame
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
