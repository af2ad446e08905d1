"""The internals of vLLM that the plugin leans on: an upgrade that moves one of them fails here."""

from __future__ import annotations

import numpy as np
import pytest

from facellava.faces import Face
from facellava.faces.face_png import to_png
from tests.serve.vllm_rig import EngineProcess, engine, faces, moved, needs_vllm, portrait

__all__ = ["engine", "faces", "portrait"]
pytestmark = needs_vllm

PROCESSING = "vllm.multimodal.processing"
PROCESSOR = f"{PROCESSING}.processor:BaseMultiModalProcessor"
INFO = f"{PROCESSING}.context:BaseProcessingInfo"
DUMMIES = f"{PROCESSING}.dummy_inputs:BaseDummyInputsBuilder"
PARSE = "vllm.multimodal.parse"
MODELS = "vllm.model_executor.models"
READING = "vllm.v1.sample.logits_processor:AdapterLogitsProcessor"

HOOKS = {
    # What the processor overrides, or calls.
    f"{PROCESSOR}.apply": ["self", "inputs", "timing_ctx"],
    f"{PROCESSOR}._get_mm_hashes": ["self", "inputs"],
    f"{PROCESSOR}._call_hf_processor": ["self", "hf_data", "hf_kwargs"],
    f"{PROCESSOR}._get_mm_fields_config": ["self", "hf_inputs", "hf_processor_mm_kwargs"],
    f"{PROCESSOR}._get_prompt_updates": [
        "self",
        "mm_items",
        "hf_processor_mm_kwargs",
        "out_mm_kwargs",
    ],
    f"{PROCESSING}.inputs:ProcessorInputs": [
        "prompt",
        "mm_data_items",
        "mm_uuid_items",
        "hf_processor_mm_kwargs",
        "media_io_kwargs",
        "cache",
    ],
    f"{PROCESSING}.processor:PromptReplacement": ["modality", "target", "replacement"],
    "vllm.multimodal.inputs:MultiModalFieldConfig.batched": ["modality", "keep_on_cpu"],
    # What vLLM asks about a checkpoint.
    f"{INFO}.get_hf_processor": ["self", "kwargs"],
    f"{INFO}.get_supported_mm_processor_kwargs": ["self"],
    f"{INFO}.get_default_tok_params": ["self"],
    f"{INFO}.get_data_parser": ["self"],
    f"{INFO}.get_supported_mm_limits": ["self"],
    f"{INFO}.get_mm_max_tokens_per_item": ["self", "seq_len", "mm_counts"],
    f"{DUMMIES}.get_dummy_text": ["self", "mm_counts"],
    f"{DUMMIES}.get_dummy_mm_data": ["self", "seq_len", "mm_counts", "mm_options"],
    # How media reach the processor.
    f"{PARSE}:MultiModalDataParser._parse_image_data": ["self", "data"],
    f"{PARSE}:MultiModalDataParser._parse_video_data": ["self", "data"],
    f"{PARSE}:ProcessorBatchItems": ["data", "modality"],
    f"{PARSE}:ProcessorBatchItems.get_item_for_hash": ["self", "index"],
    f"{PARSE}:ProcessorBatchItems.get_processor_data": ["self"],
    "vllm.multimodal.media:MediaWithBytes": ["media", "original_bytes", "io_config"],
    "vllm.multimodal.video:VideoLoader.load_bytes": ["cls", "data", "kwargs"],
    "vllm.multimodal.video:VideoLoaderRegistry.register": [
        "self",
        "name",
        "video_processor",
        "requires_gpu",
    ],
    # What the model class builds on.
    f"{MODELS}.interfaces:SupportsMultiModal.configure_mm_token_handling": [
        "self",
        "vocab_size",
        "mm_token_ids",
    ],
    f"{MODELS}.interfaces:SupportsMultiModal.embed_multimodal": ["self", "kwargs"],
    f"{MODELS}.interfaces:SupportsMultiModal.get_placeholder_str": ["cls", "modality", "i"],
    f"{MODELS}.utils:init_vllm_registered_model": [
        "vllm_config",
        "prefix",
        "hf_config",
        "architectures",
    ],
    f"{MODELS}.utils:AutoWeightsLoader.load_weights": ["self", "weights", "mapper"],
    f"{MODELS}.module_mapping:MultiModelKeys.from_string_field": [
        "language_model",
        "connector",
        "tower_model",
        "generator",
        "kwargs",
    ],
    f"{MODELS}.llama:LlamaForCausalLM.forward": [
        "self",
        "input_ids",
        "positions",
        "intermediate_tensors",
        "inputs_embeds",
    ],
    "vllm.multimodal.registry:MultiModalRegistry.register_processor": [
        "self",
        "processor",
        "info",
        "dummy_inputs",
    ],
    # The forced reading.
    f"{READING}.validate_params": ["cls", "sampling_params"],
    f"{READING}.new_req_logits_processor": ["self", "params"],
    f"{READING}.is_argmax_invariant": ["self"],
    # The reasons that hold.
    "serve.vllm_reasons:AdapterLogitsProcessor.__init__": [
        "self",
        "vllm_config",
        "device",
        "is_pin_memory",
    ],
    "vllm.tokenizers.registry:cached_tokenizer_from_config": ["model_config", "kwargs"],
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_are_where_they_were(engine: EngineProcess, hook: str) -> None:
    assert engine.call("parameters", path=hook) == HOOKS[hook]


def test_the_series_that_the_plugin_was_written_for(engine: EngineProcess) -> None:
    assert engine.call("version").startswith("0.32.")


def test_what_identifies_a_photo(engine: EngineProcess, faces: list[Face]) -> None:
    """Crop and landmarks and nothing else: not the object, not what a client calls it."""
    face, other = faces[0], moved(faces[0], 1e-6, slice(0, 1))
    photos = [face, other, {"image": face.crop, "landmarks": face.landmarks}, faces[1]]
    hashes = engine.call("hashes", photos=photos, uuids=None)
    assert hashes[0] == hashes[2]
    assert len(set(hashes)) == 3
    assert engine.call("hashes", photos=photos, uuids=["mine"] * 4) == hashes
    pictures = [to_png(face), to_png(other), to_png(face)]
    of_pictures = engine.call("hashes", photos=pictures, uuids=None)
    assert of_pictures[0] == of_pictures[2] != of_pictures[1]


def test_landmarks_travel_bit_by_bit(engine: EngineProcess, faces: list[Face]) -> None:
    """As integers, which no cast to the model's dtype touches."""
    sent = engine.call("travels", photo=faces[0])
    dtype, bits = sent["landmarks"]
    assert dtype == "torch.int32"
    np.testing.assert_array_equal(bits.view(np.float32)[0], faces[0].landmarks)
    assert sent["pixel_values"][1].shape == (1, 3, 96, 96)
