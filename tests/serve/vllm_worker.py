"""vLLM in a process of its own: it changes torch's threads and warns, which no test run may suffer.

Called with the address of a listener; answers requests of (method, keyword arguments) until that
hangs up.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import sys
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_VIDEO_LOADER_BACKEND": "facellava",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
}


class Worker:
    """The engines, by name, and what is counted while they run."""

    def __init__(self) -> None:
        from facellava import face_encoder
        from serve import vllm_items

        self.engines: dict[str, Any] = {}
        self.adapters: dict[str, int] = {}
        self.encoded: list[int] = []
        self.searched = 0
        encode, find = face_encoder.FaceEncoder.encode_pixels, vllm_items.find_faces

        def counted_encode(encoder: Any, pixel_values: Any) -> Any:
            self.encoded.append(len(pixel_values))
            return encode(encoder, pixel_values)

        def counted_find(photo: Any) -> Any:
            self.searched += 1
            return find(photo)

        face_encoder.FaceEncoder.encode_pixels = counted_encode
        vllm_items.find_faces = counted_find

    def start(self, name: str, folder: str, **settings: Any) -> None:
        from vllm import LLM

        self.engines[name] = LLM(
            model=folder,
            dtype="float32",
            enforce_eager=True,
            block_size=32,
            max_num_seqs=32,
            max_logprobs=128,
            limit_mm_per_prompt={"image": 4, "video": 1},
            logits_processors=[
                "serve.vllm_reading:ForcedReading",
                "serve.vllm_reasons:OnlyHeldClaims",
            ],
            seed=0,
            **settings,
        )

    def generate(
        self,
        name: str,
        prompts: list[dict[str, Any]],
        max_tokens: int = 40,
        adapter: str | None = None,
        extra_args_of_each: list[dict[str, Any]] | None = None,
        **sampling: Any,
    ) -> dict[str, Any]:
        """Greedy token ids and log-probabilities of each prompt, and the work that it took."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        self.encoded, self.searched = [], 0
        if tokens := sampling.get("logprob_token_ids"):
            sampling["logprobs"] = len(tokens)
        sampling |= {"temperature": 0, "max_tokens": max_tokens, "skip_special_tokens": False}
        parameters = [
            SamplingParams(**sampling, **({} if extra is None else {"extra_args": extra}))
            for extra in extra_args_of_each or [None] * len(prompts)
        ]
        lora = None
        if adapter is not None:
            number = self.adapters.setdefault(adapter, len(self.adapters) + 1)
            lora = LoRARequest(Path(adapter).name, number, adapter)
        outputs = self.engines[name].generate(
            prompts, parameters, lora_request=lora, use_tqdm=False
        )
        return {
            "ids": [list(output.outputs[0].token_ids) for output in outputs],
            "logs": [
                [{token: one.logprob for token, one in place.items()} for place in logs]
                for logs in (output.outputs[0].logprobs or [] for output in outputs)
            ],
            "cached": [output.num_cached_tokens for output in outputs],
            "encoded": self.encoded,
            "searched": self.searched,
        }

    def load_clip(self, data: bytes, num_frames: int) -> Any:
        """What vLLM's own media code hands on for a clip's bytes."""
        from vllm.multimodal.media import ImageMediaIO, VideoMediaIO

        return VideoMediaIO(ImageMediaIO(), num_frames=num_frames).load_bytes(data)

    def load_photo(self, data: bytes) -> Any:
        """What vLLM's own media code hands on for a picture's bytes."""
        from vllm.multimodal.media import ImageMediaIO

        return ImageMediaIO().load_bytes(data)

    def parameters(self, path: str) -> list[str]:
        """Names of the parameters of "module:Class.function", or a dataclass's fields."""
        module, _, inner = path.partition(":")
        found: Any = importlib.import_module(module)
        for name in inner.split("."):
            found = inspect.getattr_static(found, name)
        return list(inspect.signature(getattr(found, "__func__", found)).parameters)

    def version(self) -> str:
        import vllm

        return str(vllm.__version__)

    def hashes(self, photos: list[Any], uuids: list[str] | None) -> list[str]:
        """What identifies each photo in vLLM's caches."""
        from vllm.multimodal.processing import ProcessorInputs

        processor = self.engines["nano"].renderer.get_mm_processor()
        items = processor.info.parse_mm_data({"image": photos})
        inputs = ProcessorInputs([], items, {"image": uuids} if uuids else None)
        return list(processor._get_mm_hashes(inputs)["image"])

    def travels(self, photo: Any) -> dict[str, Any]:
        """What the processor hands on for a photo: name to (dtype, array)."""
        from vllm.multimodal.processing import ProcessorInputs
        from vllm.multimodal.processing.context import TimingContext

        processor = self.engines["nano"].renderer.get_mm_processor()
        items = processor.info.parse_mm_data({"image": [photo]})
        token = processor.info.get_hf_config().image_token_id
        made = processor.apply(ProcessorInputs([token], items), TimingContext(enabled=False))
        [item] = made["mm_kwargs"]["image"]
        fields = {name: element.data for name, element in item.items()}
        return {name: (str(data.dtype), data.numpy()) for name, data in fields.items()}

    def architecture(self, model_type: str) -> str:
        from transformers import AutoConfig

        from serve.vllm_model import language_architecture

        return language_architecture(AutoConfig.for_model(model_type))

    def register_twice(self) -> list[bool]:
        from vllm import ModelRegistry
        from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

        from serve.vllm_items import FaceClipLoader
        from serve.vllm_plugin import ARCHITECTURE, register

        register()
        register()
        return [
            ARCHITECTURE in ModelRegistry.get_supported_archs(),
            isinstance(VIDEO_LOADER_REGISTRY.load("facellava"), FaceClipLoader),
        ]


def main() -> None:
    os.environ.update(ENVIRONMENT)
    with Client(sys.argv[1]) as connection:
        worker = Worker()
        connection.send(("ready", None))
        while True:
            try:
                method, settings = pickle.loads(connection.recv_bytes())
            except EOFError:
                return
            try:
                answer = ("done", getattr(worker, method)(**settings))
            except Exception as error:  # the test says whether it was expected
                answer = ("failed", f"{type(error).__name__}: {error}")
            connection.send(answer)


if __name__ == "__main__":
    main()
