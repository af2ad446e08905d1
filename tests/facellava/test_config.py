from __future__ import annotations

import pytest
from transformers import AutoConfig, CLIPVisionConfig, ResNetConfig, SiglipVisionConfig

from facellava.config import FaceLlavaConfig
from facellava.errors import BadModelInput


def test_convolutional_grid_is_found_and_may_be_oblong(build_config, resnet_vision):
    assert build_config(resnet_vision, image_size=96).image_grid == [6, 6]
    oblong = build_config(resnet_vision, image_size=(96, 64))
    assert (oblong.image_grid, oblong.n_prefix_tokens, oblong.tokens_per_frame) == ([6, 4], 0, 24)


def test_cls_token_counts_only_when_kept(build_config, clip_vision):
    dropped = build_config(clip_vision)
    kept = build_config(clip_vision, vision_feature_select="full")
    assert (dropped.image_grid, dropped.n_prefix_tokens) == ([4, 4], 1)
    assert (dropped.tokens_per_frame, kept.tokens_per_frame) == (16, 17)


def test_encoder_without_cls_loses_no_patch(build_config):
    siglip = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=48,
        patch_size=12,
    )
    config = build_config(siglip)
    assert (config.n_prefix_tokens, config.tokens_per_frame) == (0, 16)


def test_round_trip_through_json(build_config, clip_vision, landmarks, tmp_path):
    config = build_config(
        clip_vision,
        region_hidden=8,
        landmark_mean=landmarks.tolist(),
        landmark_std=0.05,
        calibration={"expression": 1.7},
    )
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, FaceLlavaConfig)
    assert isinstance(again.vision_config, CLIPVisionConfig)
    assert again.to_diff_dict() == config.to_diff_dict()
    assert again.calibration == {"expression": 1.7}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"region_variant": "masked"}, "paper, released"),
        ({"projector_type": "mlp3x"}, "mlp2x_gelu"),
        ({"region_heads": 5}, "32"),
        ({"region_variant": "released", "region_hidden": 4}, "single-linear"),
        ({"calibration": {"age": 0.0}}, "above 0"),
        ({"landmark_mean": [[0.5, 0.5]]}, "68"),
        ({"image_size": None}, "image_size"),
        ({"video_token_id": 5}, "placeholder"),
        ({"clip_frames": 0}, "clip_frames is 0; it must be a whole number from 1 to 1024"),
        ({"clip_frames": 2000, "clip_merge": 2000}, "from 1 to 1024"),
        ({"clip_merge": 10**12}, "clip_merge is 1000000000000; .* from 1 to 1024"),
    ],
)
def test_values_outside_what_is_allowed(build_config, resnet_vision, settings, said):
    arguments = {"image_size": 96, **settings}
    with pytest.raises(BadModelInput, match=said):
        build_config(resnet_vision, **arguments)


def test_backbone_that_transformers_does_not_know():
    with pytest.raises(BadModelInput, match="languagebind"):
        FaceLlavaConfig(vision_config={"model_type": "languagebind"}, text_config=ResNetConfig())


def test_a_clip_fits_what_the_language_model_reads(build_config, resnet_vision):
    positions = build_config(resnet_vision, image_size=96).text_config.max_position_embeddings
    most = positions // 36
    assert build_config(resnet_vision, image_size=96, clip_frames=most).clip_frames == most
    with pytest.raises(BadModelInput, match=f"reads {positions} at most"):
        build_config(resnet_vision, image_size=96, clip_frames=most + 1)
