"""A checkpoint whose clips have an encoder of their own, beside photos in one batch."""

from __future__ import annotations

import json

import pytest
import torch

from facellava import checkpoint
from facellava.checkpoint import new_model
from facellava.conversation import face_conversation
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.label_scorer import LabelScorer
from facellava.languagebind import LanguageBindVideoConfig
from facellava.tasks import Verdict

PHOTO_TOKENS, CLIP_TOKENS, FRAMES = 16, 17, 4


@pytest.fixture
def clip_video(clip_vision):
    sizes = clip_vision.to_dict()
    del sizes["model_type"]
    return LanguageBindVideoConfig(num_frames=FRAMES, **sizes)


@pytest.fixture
def config(build_config, clip_vision, clip_video):
    """As in the published checkpoint: photos without CLS, clips with it, one layer from the end."""
    return build_config(
        clip_vision,
        video_config=clip_video,
        video_feature_select="full",
        vision_feature_layer=-2,
        region_variant="released",
    )


@pytest.fixture
def parts(config, tiny_tokenizer):
    torch.manual_seed(5)
    return new_model(config, tiny_tokenizer)


@pytest.fixture
def clip(astronaut_face, other_face):
    return [astronaut_face, other_face, other_face, astronaut_face]


def about(kind, question="How old?"):
    return face_conversation(kind, question)


def placed(model, batch):
    """The embeddings that the language model gets."""
    seen = {}
    hook = model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.inference_mode():
        model(**batch)
    hook.remove()
    return seen["inputs_embeds"]


def test_photos_and_clips_go_through_their_own_towers(parts, clip, other_face):
    model, processor = parts
    talk = [about("video"), about("image"), about("video")]
    batch = processor.encode(talk, [clip, other_face, clip[::-1]])
    found = placed(model, batch)
    encoder, pixels, points = model.face_encoder, batch["pixel_values"], batch["landmarks"]
    assert len(pixels) == 2 * FRAMES + 1

    chosen = [*range(FRAMES), *range(FRAMES + 1, 2 * FRAMES + 1)]
    states = encoder.video_tower(pixels[chosen], output_hidden_states=True).hidden_states[-2]
    wanted = encoder(states, points[chosen]).tokens
    of_clips = found[batch["input_ids"] == model.config.video_token_id]
    assert of_clips.shape == (2 * FRAMES * CLIP_TOKENS, 32)
    torch.testing.assert_close(of_clips, wanted.flatten(0, 1))

    photo = encoder(encoder.encode_pixels(pixels[[FRAMES]]), points[[FRAMES]]).tokens
    of_photos = found[batch["input_ids"] == model.config.image_token_id]
    assert of_photos.shape == (PHOTO_TOKENS, 32)
    torch.testing.assert_close(of_photos, photo[0])


def test_one_frame_changes_what_all_frames_of_its_clip_say(parts, clip):
    model, processor = parts
    batch = processor.encode([about("video")], [clip])
    before = placed(model, batch)
    changed = {**batch, "pixel_values": batch["pixel_values"].clone()}
    changed["pixel_values"][0] += 1.0
    mask = batch["input_ids"] == model.config.video_token_id
    moved = (placed(model, changed) - before)[mask].abs().amax(dim=1)
    assert (moved.view(FRAMES, CLIP_TOKENS).amax(dim=1) > 1e-5).all()


@pytest.mark.parametrize(("length", "chosen"), [(1, [0, 0, 0, 0]), (3, [0, 0, 1, 2]),
                                                (4, [0, 1, 2, 3]), (9, [0, 2, 5, 8])])  # fmt: skip
def test_clips_of_any_length_become_as_long_as_the_encoder_reads(parts, length, chosen):
    _, processor = parts
    assert processor.frames_of(list(range(length))) == chosen


def test_a_photo_stays_one_frame(parts, other_face):
    _, processor = parts
    assert processor.frames_of(other_face) == (other_face,)


def test_cached_features_and_beams_agree_with_pixels(parts, clip, other_face):
    model, processor = parts
    batch = processor.encode([about("image"), about("video")], [other_face, clip])
    with torch.inference_mode():
        expected = model(**batch).logits
        features = model.encode_frames(batch["input_ids"], batch["pixel_values"])
        assert features.shape == (FRAMES + 1, CLIP_TOKENS, 32)
        rest = {name: value for name, value in batch.items() if name != "pixel_values"}
        assert torch.equal(model(**rest, image_features=features).logits, expected)
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        beams = model.generate(**batch, **settings, num_beams=2)
        again = model.generate(**batch, **settings, num_beams=2, use_cache=False)
    assert torch.equal(beams, again)


def test_labels_of_photos_and_clips_are_scored_as_alone(parts, clip, other_face):
    model, processor = parts
    scorer = LabelScorer(model, processor)
    age = Verdict("age", 34, "")
    talk, faces = [about("video"), about("image")], [clip, other_face]
    together = scorer.score(talk, faces, [age, age])
    for row, wanted in enumerate(together):
        [alone] = scorer.score([talk[row]], [faces[row]], [age])
        assert alone == pytest.approx(wanted, rel=1e-3)


def test_a_checkpoint_keeps_it(parts, clip, tmp_path):
    model, processor = parts
    folder = checkpoint.save(model, processor, tmp_path / "model")
    again, its_processor = checkpoint.load(folder)
    assert (its_processor.tokens_per_clip_frame, its_processor.clip_frames) == (CLIP_TOKENS, FRAMES)
    batch = its_processor.encode([about("video")], [clip])
    with torch.inference_mode():
        torch.testing.assert_close(
            again(**batch).logits, model(**batch).logits, atol=1e-3, rtol=0.0
        )
    file = folder / "processor_config.json"
    stored = json.loads(file.read_text())
    for name, value, said in (
        ("clip_frames", 8, "clips of 8 frames and the model reads 4"),
        ("tokens_per_clip_frame", 16, "16 placeholders per frame and the model gives 17"),
    ):
        file.write_text(json.dumps({**stored, name: value}))
        with pytest.raises(BadCheckpoint, match=said):
            checkpoint.load(folder)


def test_placeholders_and_frames_must_agree(parts, clip):
    model, processor = parts
    batch = processor.encode([about("video")], [clip])
    short = {**batch, "pixel_values": batch["pixel_values"][1:]}
    with pytest.raises(BadModelInput, match=r"4 frame\(s\) and 3 are given"):
        model(**short)
    with pytest.raises(BadModelInput, match=r"4 frame\(s\) and 0 are given"):
        model(input_ids=batch["input_ids"])
    with pytest.raises(BadModelInput, match="no whole frames"):
        model(**{**batch, "input_ids": batch["input_ids"][:, 20:]})
    with pytest.raises(BadModelInput, match="Landmarks are missing"):
        model(**{**batch, "landmarks": None})
    half = torch.tensor([[model.config.video_token_id] * (2 * CLIP_TOKENS)])
    with pytest.raises(BadModelInput, match="clips of 4 frames"):
        model(input_ids=half, pixel_values=batch["pixel_values"][:2])


def test_encoders_that_do_not_fit_each_other(build_config, clip_vision, clip_video):
    with pytest.raises(BadModelInput, match="names no num_frames"):
        build_config(clip_vision, video_config=clip_vision)
    clip_video.patch_size = 16
    with pytest.raises(BadModelInput, match="patch_size is 12 in vision_config and 16"):
        build_config(clip_vision, video_config=clip_video)


def test_without_one_clips_take_what_photos_take(build_config, clip_vision):
    config = build_config(clip_vision)
    assert (config.tokens_per_clip_frame, config.clip_frames) == (PHOTO_TOKENS, None)
