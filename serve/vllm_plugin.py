"""The entry point by which vLLM learns of Face-LLaVA, in each of its processes.

vLLM logs an error of a plugin and goes on without it; the model is then refused as an unknown one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from facellava.errors import BadCheckpoint, MissingBackend

if TYPE_CHECKING:
    from facellava.config import FaceLlavaConfig

ARCHITECTURE: Final = "FaceLlavaForConditionalGeneration"
CLIP_LOADER: Final = "facellava"
"""What VLLM_VIDEO_LOADER_BACKEND must be for clips to be read."""
VLLM_SERIES: Final = "0.32"
"""The plugin leans on internals of vLLM: tests/serve/test_vllm_hooks.py names them."""


def check_clips_can_be_served(config: FaceLlavaConfig) -> None:
    """Refuse checkpoints whose clips go through an encoder of their own.

    The plugin encodes frames one by one, which such an encoder must not see.

    Raises:
        BadCheckpoint: it is one of those.
    """
    if config.video_config is not None:
        raise BadCheckpoint(
            "vLLM cannot serve this checkpoint yet, because its clips have an encoder of their own "
            f"({config.video_config.model_type}); give --engine library, or use facellava ask."
        )


def register() -> None:
    """Make vLLM know the model, its config and processor, and the reader of clips.

    May be called any number of times.

    Raises:
        MissingBackend: the installed vLLM is of another series.
    """
    import vllm
    from vllm.model_executor.models import ModelRegistry
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

    from facellava.checkpoint import register_auto_classes
    from serve.vllm_items import FaceClipLoader

    if not vllm.__version__.startswith(f"{VLLM_SERIES}."):
        raise MissingBackend(
            f"vLLM {vllm.__version__} is installed and facellava's plugin fits {VLLM_SERIES}.*: "
            "run make setup, or install the extra serve or serve-cpu anew."
        )
    register_auto_classes()
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"serve.vllm_model:{ARCHITECTURE}")
    VIDEO_LOADER_REGISTRY.register(CLIP_LOADER)(FaceClipLoader)
