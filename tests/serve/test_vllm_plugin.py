"""What the plugin refuses before vLLM starts."""

from __future__ import annotations

import pytest
from transformers import CLIPVisionConfig, LlamaConfig

from facellava.config import FaceLlavaConfig
from facellava.errors import BadCheckpoint
from facellava.languagebind import LanguageBindVideoConfig
from serve.server import ServeOptions, serve
from serve.vllm_plugin import check_clips_can_be_served

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 48,
    "patch_size": 12,
}


def config_with(video: LanguageBindVideoConfig | None) -> FaceLlavaConfig:
    text = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, vocab_size=64)
    return FaceLlavaConfig(
        vision_config=CLIPVisionConfig(**SIZES), text_config=text, video_config=video
    )


def test_an_encoder_for_clips_is_refused() -> None:
    check_clips_can_be_served(config_with(None))
    with pytest.raises(BadCheckpoint, match=r"languagebind_video.*--engine library"):
        check_clips_can_be_served(config_with(LanguageBindVideoConfig(**SIZES)))


def test_serve_refuses_it_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        config = config_with(LanguageBindVideoConfig(**SIZES))

    monkeypatch.setattr("serve.server.load_reading_parts", lambda *_, **__: (None, Encoder()))
    with pytest.raises(BadCheckpoint, match="vLLM cannot serve this checkpoint yet"):
        serve(ServeOptions(port=0))
