"""FaceLlavaForConditionalGeneration for vLLM: the library's FaceEncoder before vLLM's own LM.

Shapes: F frames of a step's items together, N image tokens per frame, D the LM's width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import VllmConfig
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from facellava.config import FaceLlavaConfig
from facellava.conversation import PLACEHOLDER_OF
from facellava.errors import BadCheckpoint
from facellava.face_encoder import FaceEncoder
from serve.vllm_inputs import (
    LANDMARKS_OF,
    PIXELS_OF,
    FaceDummyInputs,
    FaceMultiModalProcessor,
    FaceProcessingInfo,
)
from serve.vllm_plugin import check_clips_can_be_served

# How Llama, Mistral, Qwen and most others are fused in vLLM. Its quantisation asks the class, so
# that this cannot wait until the LM is there.
FUSED_LAYERS: Final = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "gate_up_proj": ["gate_proj", "up_proj"],
}


def language_architecture(text_config: PreTrainedConfig) -> str:
    """The name under which vLLM knows a language model.

    Raises:
        BadCheckpoint: vLLM has no such language model.
    """
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text_config.model_type)
    if name not in ModelRegistry.get_supported_archs():
        raise BadCheckpoint(
            f"vLLM cannot run a language model of the type {text_config.model_type!r}; ask this "
            "checkpoint with facellava ask, or train one on Llama, Qwen or Mistral."
        )
    return str(name)


@MULTIMODAL_REGISTRY.register_processor(
    FaceMultiModalProcessor, info=FaceProcessingInfo, dummy_inputs=FaceDummyInputs
)
class FaceLlavaForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """The model of facellava.model with vLLM's language model in it."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = FUSED_LAYERS
    placeholder_ids: Tensor

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return PLACEHOLDER_OF.get(modality)

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: FaceLlavaConfig = vllm_config.model_config.hf_config
        check_clips_can_be_served(config)
        self.config = config
        placeholders = [config.image_token_id, config.video_token_id]
        self.configure_mm_token_handling(  # type: ignore[operator]
            vocab_size=config.text_config.vocab_size, mm_token_ids=placeholders
        )
        with self._mark_tower_model(vllm_config, {"image", "video"}):  # type: ignore[operator]
            # The vision config may name another dtype than the one that is served. Convolutions
            # with channels last take little more than half the time on CPUs.
            encoder = FaceEncoder(config).to(vllm_config.model_config.dtype)
            self.face_encoder = encoder.to(  # type: ignore[call-overload]
                memory_format=torch.channels_last
            )
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=[language_architecture(config.text_config)],
            )
        self.register_buffer("placeholder_ids", torch.tensor(placeholders), persistent=False)
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> tuple[Tensor, ...]:
        """Image tokens of a step's photos or clips: one (tokens, D) an item.

        Args:
            **kwargs: per kind of item, pixels (T, 3, H, W) and the bits of landmarks (T, 68, 2) of
                each item; vLLM stacks them where they are all of one size.
        """
        pixels = [item for name in PIXELS_OF.values() for item in kwargs.get(name, ())]
        bits = [item for name in LANDMARKS_OF.values() for item in kwargs.get(name, ())]
        if not pixels:
            return ()
        features = self.face_encoder.encode_pixels(torch.cat(pixels))
        tokens = self.face_encoder(features, torch.cat(bits).view(torch.float32)).tokens
        items: Sequence[Tensor] = tokens.split([len(item) for item in pixels])
        photos = len(kwargs.get(PIXELS_OF["image"], ()))
        clips = (self.face_encoder.shorten(item) for item in items[photos:])
        return tuple(item.flatten(0, 1) for item in (*items[:photos], *clips))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor | IntermediateTensors:
        """The language model's hidden states; the faces are in `inputs_embeds` already."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits in which placeholders cannot be chosen, as in the library's generation config."""
        logits: Tensor | None = self.language_model.compute_logits(hidden_states)
        if logits is not None:
            logits.index_fill_(-1, self.placeholder_ids, float("-inf"))
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """A checkpoint's tensors, of which the LM's may be stored in vLLM's fused form."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights)
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        """Adapters go on the language model alone; those of other parts are merged before."""
        return MultiModelKeys.from_string_field(
            language_model="language_model",
            connector=["face_encoder.mm_projector", "face_encoder.region_attention"],
            tower_model="face_encoder.vision_tower",
        )
