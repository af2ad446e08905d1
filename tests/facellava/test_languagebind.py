"""LanguageBind's video tower: a CLIP for each frame, and what goes from frame to frame."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, CLIPVisionModel

from facellava.errors import BadModelInput
from facellava.languagebind import LanguageBindVideoConfig, LanguageBindVideoModel

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 48,
    "patch_size": 12,
    "hidden_act": "gelu",
}


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return LanguageBindVideoModel(LanguageBindVideoConfig(num_frames=4, **SIZES)).eval()


@pytest.fixture
def clips():
    """Two clips of four frames, one after the other."""
    return torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def silence_time(tower):
    for layer in tower.encoder.layers:
        torch.nn.init.zeros_(layer.temporal_embedding)
        torch.nn.init.zeros_(layer.temporal_attn.out_proj.weight)
        torch.nn.init.zeros_(layer.temporal_attn.out_proj.bias)


@torch.inference_mode()
def hidden_states(model, pixels):
    return model(pixels, output_hidden_states=True).hidden_states


def test_one_hidden_state_a_layer_and_one_before(tower, clips):
    found = hidden_states(tower, clips)
    assert [tuple(state.shape) for state in found] == [(8, 17, 32)] * 4
    assert tower(clips).pooler_output.shape == (8, 32)


def test_plain_clip_when_the_temporal_branch_is_zero(tower, clips):
    plain = CLIPVisionModel(CLIPVisionConfig(**SIZES)).eval()
    own = tower.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    expected = hidden_states(plain, clips)
    assert not torch.allclose(hidden_states(tower, clips)[-1], expected[-1])

    silence_time(tower)
    for found, wanted in zip(hidden_states(tower, clips), expected, strict=True):
        assert torch.equal(found, wanted)


def test_frames_of_a_clip_see_each_other_and_no_other_clip(tower, clips):
    before = hidden_states(tower, clips)[-2]
    changed = clips.clone()
    changed[1] += 1.0
    moved = (hidden_states(tower, changed)[-2] - before).abs().amax(dim=(1, 2))
    assert (moved[:4] > 1e-4).all()
    assert torch.equal(moved[4:], torch.zeros(4))


def test_one_layer_by_hand(tower, clips):
    """x + e, then + attention over time of its norm, then CLIP's layer: one patch at a time."""
    layer = tower.encoder.layers[0]
    tokens = torch.randn(4, 17, 32, generator=torch.Generator().manual_seed(2))
    timed = tokens + layer.temporal_embedding[0][:, None]
    mixed = torch.stack(
        [
            layer.temporal_attn(layer.temporal_layer_norm1(timed[None, :, patch]))[0][0]
            for patch in range(17)
        ],
        dim=1,
    )
    spatial = timed + mixed
    spatial = spatial + layer.self_attn(layer.layer_norm1(spatial))[0]
    expected = spatial + layer.mlp(layer.layer_norm2(spatial))
    torch.testing.assert_close(layer(tokens), expected)


def test_the_order_of_frames_counts(tower, clips):
    forwards = hidden_states(tower, clips[:4])[-1]
    backwards = hidden_states(tower, clips[:4].flip(0))[-1].flip(0)
    assert not torch.allclose(forwards, backwards, atol=1e-4)


def test_the_published_names(tower):
    names = {name for name, _ in tower.named_parameters() if name.startswith("encoder.layers.2.t")}
    attention = {
        f"encoder.layers.2.temporal_attn.{part}_proj.{kind}"
        for part in ("q", "k", "v", "out")
        for kind in ("weight", "bias")
    }
    norm = {f"encoder.layers.2.temporal_layer_norm1.{kind}" for kind in ("weight", "bias")}
    assert names == {"encoder.layers.2.temporal_embedding"} | attention | norm


def test_auto_classes_know_it(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).num_frames == 4
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, LanguageBindVideoModel)
    for name, value in tower.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_half_a_clip_is_refused(tower, clips):
    with pytest.raises(BadModelInput, match="7 frames are no whole clips.*clips of 4 frames"):
        tower(clips[:7])
