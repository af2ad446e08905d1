"""Clips that take fewer tokens a frame: counted, averaged and placed alike everywhere."""

from __future__ import annotations

import pytest
import torch

from facellava import checkpoint
from facellava.checkpoint import new_model, set_clips
from facellava.conversation import face_conversation
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.label_scorer import LabelScorer
from facellava.languagebind import LanguageBindVideoConfig
from facellava.tasks import Verdict

POOL, MERGE = 2, 2
PHOTO_TOKENS, CLIP_TOKENS = 16, 4


@pytest.fixture
def parts(build_config, clip_vision, tiny_tokenizer):
    torch.manual_seed(5)
    config = build_config(clip_vision, clip_pool=POOL, clip_merge=MERGE)
    return new_model(config, tiny_tokenizer)


@pytest.fixture
def clip(astronaut_face, other_face):
    return [astronaut_face, other_face, other_face, astronaut_face]


def about(kind):
    return face_conversation(kind, "How old?")


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


def by_hand(tokens):
    """Means over squares of 2 x 2 patches of 2 frames: (F, 16, D) to (F / 2 * 4, D)."""
    grid = tokens.reshape(-1, MERGE, 2, POOL, 2, POOL, tokens.shape[-1])
    return grid.mean(dim=(1, 3, 5)).reshape(-1, tokens.shape[-1])


def test_photos_keep_their_tokens_and_clips_are_averaged(parts, clip, other_face):
    model, processor = parts
    talk = [about("video"), about("image"), about("video")]
    batch = processor.encode(talk, [clip, other_face, clip[1:3]])
    found, ids = placed(model, batch), batch["input_ids"]
    features = model.face_encoder.encode_pixels(batch["pixel_values"])
    tokens = model.face_encoder(features, batch["landmarks"]).tokens
    assert int((ids == model.config.video_token_id).sum()) == 3 * CLIP_TOKENS
    of_clips = by_hand(tokens[[0, 1, 2, 3, 5, 6]])
    torch.testing.assert_close(found[ids == model.config.video_token_id], of_clips)
    torch.testing.assert_close(found[ids == model.config.image_token_id], tokens[4])
    assert found[ids == model.config.image_token_id].shape[0] == PHOTO_TOKENS


@pytest.mark.parametrize(
    ("length", "shown"), [(1, [0, 0]), (2, [0, 1]), (3, [0, 0, 1, 2]), (5, [0, 0, 1, 2, 3, 4])]
)
def test_a_clip_is_filled_up_to_whole_groups(parts, length, shown):
    _, processor = parts
    assert processor.frames_of(list(range(length))) == shown
    assert processor.clip_tokens(len(shown)) == len(shown) // MERGE * CLIP_TOKENS


def test_training_reads_the_same_tokens(parts, clip):
    model, processor = parts
    asked = processor.encode([about("video")], [clip])
    taught = processor.encode(
        [face_conversation("video", "How old?", (), "Age: 34 years.")], [clip], training=True
    )
    places = [(each["input_ids"] == model.config.video_token_id).sum() for each in (asked, taught)]
    assert places[0] == places[1] == 2 * CLIP_TOKENS
    model.train()
    model(**{name: taught[name] for name in taught}).loss.backward()
    assert model.face_encoder.mm_projector[0].weight.grad.abs().sum() > 0


def test_cached_features_and_beams_agree_with_pixels(parts, clip, other_face):
    model, processor = parts
    batch = processor.encode([about("image"), about("video")], [other_face, clip])
    with torch.inference_mode():
        expected = model(**batch).logits
        features = model.encode_frames(batch["input_ids"], batch["pixel_values"])
        rest = {name: value for name, value in batch.items() if name != "pixel_values"}
        assert torch.equal(model(**rest, image_features=features).logits, expected)
        settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        beams = model.generate(**batch, **settings, num_beams=2)
        again = model.generate(**batch, **settings, num_beams=2, use_cache=False)
    assert torch.equal(beams, again)


def test_labels_are_scored_as_alone(parts, clip, other_face):
    model, processor = parts
    scorer = LabelScorer(model, processor)
    age = Verdict("age", 34, "")
    talk, faces = [about("video"), about("image")], [clip[:3], other_face]
    together = scorer.score(talk, faces, [age, age])
    for row, wanted in enumerate(together):
        [alone] = scorer.score([talk[row]], [faces[row]], [age])
        assert alone == pytest.approx(wanted, rel=1e-3)


def test_an_encoder_for_clips_and_its_prefix_tokens(
    build_config, clip_vision, tiny_tokenizer, clip
):
    sizes = clip_vision.to_dict()
    del sizes["model_type"]
    config = build_config(
        clip_vision,
        video_config=LanguageBindVideoConfig(num_frames=4, **sizes),
        video_feature_select="full",
        clip_pool=POOL,
        clip_merge=MERGE,
    )
    assert (config.features_per_clip_frame, config.tokens_per_clip_frame) == (17, 5)
    model, processor = new_model(config, tiny_tokenizer)
    batch = processor.encode([about("video")], [clip])
    seen = model.encode_frames(batch["input_ids"], batch["pixel_values"])
    tokens = model.face_encoder(seen, batch["landmarks"]).tokens
    found = placed(model, batch)[batch["input_ids"] == config.video_token_id].unflatten(0, (2, 5))
    pairs = tokens[:, 0].unflatten(0, (2, 2)).mean(dim=1)
    torch.testing.assert_close(found[:, 0], pairs)
    torch.testing.assert_close(found[:, 1:].flatten(0, 1), by_hand(tokens[:, 1:]))


def test_a_checkpoint_is_changed_saved_and_read_again(
    build_config, clip_vision, tiny_tokenizer, clip, tmp_path
):
    model, processor = new_model(build_config(clip_vision), tiny_tokenizer)
    photo = processor.encode([about("image")], [clip[0]])
    before = placed(model, photo)
    set_clips(model, processor, frames=4, pool=POOL, merge=MERGE)
    assert torch.equal(placed(model, photo), before)
    again, its_processor = checkpoint.load(checkpoint.save(model, processor, tmp_path / "model"))
    assert (its_processor.clip_frames, its_processor.clip_merge) == (4, MERGE)
    batch = its_processor.encode([about("video")], [clip[:1]])
    assert len(batch["pixel_values"]) == 4
    assert int((batch["input_ids"] == again.config.video_token_id).sum()) == 2 * CLIP_TOKENS
    with torch.inference_mode():
        torch.testing.assert_close(
            again(**batch).logits, model(**batch).logits, atol=1e-3, rtol=0.0
        )
    file = tmp_path / "model" / "processor_config.json"
    file.write_text(file.read_text().replace('"clip_merge": 2', '"clip_merge": 4'))
    with pytest.raises(BadCheckpoint, match=r"merges 4 frame\(s\) of a clip and the model 2"):
        checkpoint.load(tmp_path / "model")


def test_the_command_copies_a_checkpoint(
    facellava, build_config, clip_vision, tiny_tokenizer, tmp_path
):
    whole = checkpoint.save(*new_model(build_config(clip_vision), tiny_tokenizer), tmp_path / "a")
    settings = ["--model", whole, "--frames", 8, "--merge", 2]
    done = facellava("train", "clips", "--out", tmp_path / "b", *settings, "--pool", 2)
    assert done.code == 0
    assert "8 frame(s) of a clip take 16 tokens" in " ".join(done.out.split())
    _, processor = checkpoint.load(tmp_path / "b")
    found = (processor.clip_frames, processor.clip_merge, processor.tokens_per_clip_frame)
    assert found == (8, MERGE, CLIP_TOKENS)
    refused = facellava("train", "clips", "--out", tmp_path / "c", *settings, "--pool", 3)
    assert refused.code == 1
    assert "clip_pool is 3, which does not divide the grid of 4 x 4 patches" in refused.err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip_pool": 3}, "does not divide the grid of 4 x 4"),
        ({"clip_merge": 0}, "clip_merge is 0; it must be a whole number from 1 to 1024"),
        ({"clip_frames": 8, "clip_merge": 3}, "does not divide the 8 frames"),
    ],
)
def test_values_that_do_not_fit(build_config, clip_vision, values, said):
    with pytest.raises(BadModelInput, match=said):
        build_config(clip_vision, **values)


def test_an_encoder_for_clips_fixes_their_length(build_config, clip_vision, tiny_tokenizer):
    sizes = clip_vision.to_dict()
    del sizes["model_type"]
    config = build_config(clip_vision, video_config=LanguageBindVideoConfig(num_frames=4, **sizes))
    model, processor = new_model(config, tiny_tokenizer)
    with pytest.raises(BadModelInput, match="video_config reads clips of 4 frames"):
        set_clips(model, processor, frames=8)
    assert (config.clip_frames, processor.clip_frames) == (4, 4)


def test_without_settings_clips_take_what_photos_take(build_config, clip_vision):
    config = build_config(clip_vision)
    assert (config.clips_differ, config.tokens_per_clip_frame) == (False, PHOTO_TOKENS)
    assert config.clip_frames is None
