"""The whole chain: against plain LLaVA, against itself with and without cache, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

from facellava.checkpoint import new_model
from facellava.errors import BadModelInput
from facellava.model import FaceLlavaForConditionalGeneration

IMAGE = {"type": "image"}


def ask(text, *parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def plain_llava_of(model):
    """transformers' own LLaVA with the same weights; it knows nothing of landmarks."""
    config = model.config
    plain = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=config.vision_config,
            text_config=config.text_config,
            image_token_index=config.image_token_id,
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select,
        )
    ).eval()
    projector = model.face_encoder.mm_projector
    parts = [
        (plain.model.vision_tower, model.face_encoder.vision_tower),
        (plain.model.multi_modal_projector.linear_1, projector[0]),
        (plain.model.multi_modal_projector.linear_2, projector[2]),
        (plain.model.language_model, model.language_model.model),
        (plain.lm_head, model.language_model.lm_head),
    ]
    for target, origin in parts:
        target.load_state_dict(origin.state_dict())
    return plain


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(("layer", "selection"), [(-1, "default"), (-2, "default"), (-2, "full")])
def test_plain_llava_when_the_landmark_branch_is_zero(
    build_config, clip_vision, tiny_tokenizer, astronaut_face, variant, layer, selection
):
    torch.manual_seed(2)
    config = build_config(
        clip_vision,
        region_variant=variant,
        vision_feature_layer=layer,
        vision_feature_select=selection,
    )
    model, processor = new_model(config, tiny_tokenizer)
    batch = processor.encode([ask("Which expression?", IMAGE)], [astronaut_face])
    plain = plain_llava_of(model)
    expected = plain(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        pixel_values=batch["pixel_values"],
    ).logits
    assert not torch.allclose(model(**batch).logits, expected)

    linear = model.face_encoder.region_attention.landmarks_cross_attn.linear_proj
    linear.weight.data.zero_()
    linear.bias.data.zero_()
    assert torch.equal(model(**batch).logits, expected)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_moving_one_landmark_changes_the_logits(
    build_config, resnet_vision, tiny_tokenizer, astronaut_face, variant
):
    torch.manual_seed(3)
    config = build_config(resnet_vision, image_size=96, region_variant=variant)
    model, processor = new_model(config, tiny_tokenizer)
    batch = processor.encode([ask("How old?", IMAGE)], [astronaut_face])
    before = model(**batch).logits[0, -1]
    moved = batch["landmarks"].clone()
    moved[0, 54, 1] -= 0.05  # the left corner of the mouth, up
    after = model(**{**batch, "landmarks": moved}).logits[0, -1]
    assert (after - before).abs().max() > 1e-6
    assert torch.equal(model(**batch).logits[0, -1], before)


def test_shapes_of_photos_and_clips(tiny_model, landmarks):
    points = torch.from_numpy(landmarks)
    photos = tiny_model.get_image_features(torch.randn(4, 3, 96, 96), points.expand(4, 68, 2))
    assert photos.shape == (4, 36, 32)
    clips = torch.randn(2, 5, 3, 96, 96)
    tokens = tiny_model.get_image_features(clips, points.expand(2, 5, 68, 2))
    assert tokens.shape == (2, 5, 36, 32)
    frame = tiny_model.get_image_features(clips[1, 3:4], points.expand(1, 68, 2))
    torch.testing.assert_close(tokens[1, 3:4], frame)
    seen = tiny_model.region_attention_map(clips, points.expand(2, 5, 68, 2))
    assert seen.shape == (2, 5, 8, 36, 9)


def test_convolutional_features_are_flattened_row_major(tiny_model):
    tower = tiny_model.face_encoder.vision_tower
    pixels = torch.randn(1, 3, 96, 96)
    grid = tower(pixels).last_hidden_state
    flat = tiny_model.face_encoder.encode_pixels(pixels)
    assert grid.shape[2:] == (6, 6)
    assert torch.equal(flat[0, 2 * 6 + 5], grid[0, :, 2, 5])


@pytest.mark.parametrize("selection", ["default", "full"])
def test_a_face_and_its_mirror_image_are_averaged_patch_by_patch(
    build_config, clip_vision, tiny_tokenizer, selection
):
    torch.manual_seed(8)
    model, _ = new_model(
        build_config(clip_vision, mirror_average=True, vision_feature_select=selection),
        tiny_tokenizer,
    )
    encoder, config = model.face_encoder, model.config
    pixels = torch.randn(2, 3, *config.image_size)
    n_prefix = encoder.encode_pixels(pixels).shape[1] - config.n_patches
    assert n_prefix == (config.n_prefix_tokens if selection == "full" else 0)

    def mirrored(features):
        height, width = config.image_grid
        grid = features[:, n_prefix:].reshape(2, height, width, -1).flip(2)
        return torch.cat([features[:, :n_prefix], grid.reshape(2, height * width, -1)], dim=1)

    averaged = encoder.encode_pixels(pixels)
    # Exactly as much of the mirror image as of the face itself.
    torch.testing.assert_close(encoder.encode_pixels(pixels.flip(-1)), mirrored(averaged))
    encoder.config.mirror_average = False
    plain, flipped = (encoder.encode_pixels(each) for each in (pixels, pixels.flip(-1)))
    assert not torch.allclose(plain, averaged, atol=1e-3)
    torch.testing.assert_close(averaged, (plain + mirrored(flipped)) / 2)


@pytest.mark.parametrize("tied", [False, True])
def test_generate_with_cache_equals_without(
    build_config, clip_vision, tiny_tokenizer, astronaut_face, other_face, tied
):
    torch.manual_seed(4)
    model, processor = new_model(build_config(clip_vision, tied=tied), tiny_tokenizer)
    batch = processor.encode(
        [ask("Which expression does this face show?", IMAGE), ask("How old?", IMAGE)],
        [astronaut_face, other_face],
    )
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    cached = model.generate(**batch, **settings)
    fresh = model.generate(**batch, **settings, use_cache=False)
    assert torch.equal(cached, fresh)
    assert cached.shape[1] == batch["input_ids"].shape[1] + 12
    written = cached[:, batch["input_ids"].shape[1] :]
    assert not model.placeholder_mask(written).any()

    alone = processor.encode([ask("How old?", IMAGE)], [other_face])
    single = model.generate(**alone, **settings)[0, alone["input_ids"].shape[1] :]
    assert torch.equal(single, written[1])


def test_beams_keep_every_rows_own_faces(tiny_parts, astronaut_face, other_face):
    model, processor = tiny_parts
    talk = [ask("Compare.", IMAGE, IMAGE), ask("And this?", {"type": "video"})]
    faces = [astronaut_face, other_face, [other_face, astronaut_face, other_face]]
    batch = processor.encode(talk, faces)
    seen = []
    hook = model.face_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    written = model.generate(
        **batch, max_new_tokens=3, do_sample=False, num_beams=3, eos_token_id=None
    )
    hook.remove()
    assert written.shape[0] == 2
    first, second = batch["landmarks"][:2], batch["landmarks"][2:]
    # Once, with the prompt; each row's faces as a block for each of its three beams.
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat([first] * 3 + [second] * 3))


def test_each_face_lands_at_its_own_placeholders(tiny_parts, astronaut_face, other_face):
    model, processor = tiny_parts
    clip = [astronaut_face, other_face]
    talk = [ask("a", IMAGE, {"type": "video"}), ask("b", IMAGE)]
    batch = processor.encode(talk, [other_face, clip, astronaut_face])
    assert batch["pixel_values"].shape[0] == 4
    seen = {}
    hook = model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    model(**batch)
    hook.remove()
    tokens = model.get_image_features(batch["pixel_values"], batch["landmarks"])
    placed = seen["inputs_embeds"][model.placeholder_mask(batch["input_ids"])]
    torch.testing.assert_close(placed, tokens.flatten(0, 1))
    other_alone = model.get_image_features(
        *(processor.encode_faces([other_face])[name] for name in ("pixel_values", "landmarks"))
    )
    first_of_row_0 = seen["inputs_embeds"][0][model.placeholder_mask(batch["input_ids"])[0]][:36]
    torch.testing.assert_close(first_of_row_0, other_alone[0])


def test_cached_features_replace_pixels(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    talk = [*ask("How old?", IMAGE), {"role": "assistant", "content": "Age: 34 years."}]
    batch = processor.encode([talk], [astronaut_face], training=True)
    expected = model(**batch)
    features = model.face_encoder.encode_pixels(batch.pop("pixel_values"))
    cached = model(**batch, image_features=features)
    assert torch.equal(cached.loss, expected.loss)


def test_loss_is_cross_entropy_of_the_answer_alone(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    talk = [*ask("How old?", IMAGE), {"role": "assistant", "content": "Age: 34 years."}]
    batch = processor.encode([talk], [astronaut_face], training=True)
    out = model(**batch)
    answer = batch["labels"][0, 1:] != -100
    expected = torch.nn.functional.cross_entropy(
        out.logits[0, :-1][answer], batch["labels"][0, 1:][answer]
    )
    torch.testing.assert_close(out.loss, expected)
    # Trainer averages over the whole accumulated batch: the count must reach the loss.
    n_answer = int(answer.sum())
    halved = model(**batch, num_items_in_batch=torch.tensor(2 * n_answer)).loss
    torch.testing.assert_close(halved, expected / 2)


def test_every_part_of_the_landmark_branch_learns(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    talk = [*ask("How old?", IMAGE), {"role": "assistant", "content": "Age: 34 years."}]
    model(**processor.encode([talk], [astronaut_face], training=True)).loss.backward()
    still = [
        name
        for name, parameter in model.face_encoder.region_attention.named_parameters()
        # A key's bias moves all nine scores alike, which softmax cancels.
        if not name.endswith("k_proj.bias") and not parameter.grad.abs().any()
    ]
    assert still == []


def test_gradient_checkpointing_gives_the_same_gradients(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    talk = [*ask("How old?", IMAGE), {"role": "assistant", "content": "Age: 34 years."}]
    batch = processor.encode([talk], [astronaut_face], training=True)
    # Stored layers are recomputed in training mode only; the tower's batch norms stay as they are.
    model.language_model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append(model.face_encoder.mm_projector[0].weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_another_encoder_and_an_oblong_grid(
    build_config, resnet_vision, tiny_tokenizer, astronaut_face
):
    siglip = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=48,
        patch_size=12,
    )
    oblong = build_config(resnet_vision, image_size=(96, 64))
    for config in (build_config(siglip), oblong):
        model, processor = new_model(config, tiny_tokenizer)
        batch = processor.encode([ask("How old?", IMAGE)], [astronaut_face])
        assert batch["pixel_values"].shape[2:] == tuple(config.image_size)
        assert torch.isfinite(model(**batch).logits).all()


def test_text_alone_needs_no_face(tiny_parts):
    model, processor = tiny_parts
    batch = processor.encode([ask("Hello")])
    assert set(batch) == {"input_ids", "attention_mask"}
    expected = model.language_model(**batch).logits
    assert torch.equal(model(**batch).logits, expected)


@pytest.mark.parametrize(
    "broken",
    [
        lambda points: None,
        lambda points: torch.full_like(points, float("nan")),
        lambda points: points[:, :5],
        lambda points: points * 192,
        lambda points: points.repeat(2, 1, 1),
    ],
)
def test_no_usable_landmarks_raises_everywhere(tiny_parts, astronaut_face, broken):
    model, processor = tiny_parts
    batch = processor.encode([ask("How old?", IMAGE)], [astronaut_face])
    batch["landmarks"] = broken(batch["landmarks"])
    with pytest.raises(BadModelInput, match="[Ll]andmarks"):
        model(**batch)
    with pytest.raises(BadModelInput, match="[Ll]andmarks"):
        model.generate(**batch, max_new_tokens=1)
    with pytest.raises(BadModelInput, match="[Ll]andmarks"):
        model.get_image_features(batch["pixel_values"], batch["landmarks"])


def test_placeholders_and_tokens_must_agree(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    batch = processor.encode([ask("How old?", IMAGE)], [astronaut_face])
    batch["input_ids"][0, batch["input_ids"][0] == model.config.image_token_id] = torch.tensor(
        [model.config.image_token_id] * 30 + [9] * 6
    )
    with pytest.raises(BadModelInput, match=r"30 placeholders.*36 image tokens"):
        model(**batch)
    del batch["pixel_values"]
    with pytest.raises(BadModelInput, match=r"30 placeholders.*0 image tokens"):
        model(**batch)


def test_contradicting_inputs(tiny_parts, astronaut_face):
    model, processor = tiny_parts
    batch = processor.encode([ask("How old?", IMAGE)], [astronaut_face])
    features = model.face_encoder.encode_pixels(batch["pixel_values"])
    with pytest.raises(BadModelInput, match="not both"):
        model(**batch, image_features=features)
    with pytest.raises(BadModelInput, match="exactly one"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(BadModelInput, match=r"\(1, 3, 64, 96\)"):
        model.face_encoder.encode_pixels(torch.zeros(1, 3, 64, 96))
    with pytest.raises(BadModelInput, match=r"\(1, 35, 16\)"):
        model.face_encoder(features[:, 1:], batch["landmarks"])


def test_random_weights_follow_the_seed(tiny_config, tiny_tokenizer):
    states = []
    for _ in range(2):
        torch.manual_seed(11)
        model = FaceLlavaForConditionalGeneration(tiny_config)
        states.append(
            np.concatenate([v.float().numpy().ravel() for v in model.state_dict().values()])
        )
    np.testing.assert_array_equal(*states)
