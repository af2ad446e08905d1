"""The published layout, made small, becomes a checkpoint of ours; what does not fit is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from facellava import checkpoint
from facellava.conversation import face_conversation
from facellava.convert import convert
from facellava.errors import BadCheckpoint
from facellava.languagebind import LanguageBindVideoConfig, LanguageBindVideoModel

WIDTH, TOWER, FRAMES, LAYERS = 32, 128, 4, 3
REGION_POINTS = {
    "face": 17, "eyebrow1": 5, "eyebrow2": 5, "nose": 4, "nostril": 5,
    "eye1": 6, "eye2": 6, "lips": 12, "teeth": 8,
}  # fmt: skip
SENTENCES = [
    "Which expression does this face show? Expression: happiness.",
    "The lip corners are raised and the cheeks are lifted.",
    "How old is this person? Age: 34 years.",
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:",
] * 10
TOWER_SIZES = {
    "hidden_size": TOWER,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": 42,
    "patch_size": 14,
    "hidden_act": "gelu",
}


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name):
    return {
        key: shape
        for part in ("q", "k", "v", "out")
        for key, shape in linear(f"{name}.{part}_proj", TOWER, TOWER).items()
    }


def tower_shapes(prefix, *, over_time):
    shapes = {
        f"{prefix}.embeddings.class_embedding": (TOWER,),
        f"{prefix}.embeddings.patch_embedding.weight": (TOWER, 3, 14, 14),
        f"{prefix}.embeddings.position_embedding.weight": (10, TOWER),
        **norm(f"{prefix}.pre_layrnorm", TOWER),
        **norm(f"{prefix}.post_layernorm", TOWER),
    }
    for number in range(LAYERS):
        layer = f"{prefix}.encoder.layers.{number}"
        shapes |= attention(f"{layer}.self_attn")
        shapes |= norm(f"{layer}.layer_norm1", TOWER) | norm(f"{layer}.layer_norm2", TOWER)
        shapes |= linear(f"{layer}.mlp.fc1", TOWER, 96) | linear(f"{layer}.mlp.fc2", 96, TOWER)
        if over_time:
            shapes[f"{layer}.temporal_embedding"] = (1, FRAMES, TOWER)
            shapes |= attention(f"{layer}.temporal_attn")
            shapes |= norm(f"{layer}.temporal_layer_norm1", TOWER)
    return shapes


def released_shapes(words):
    """Every tensor of the published layout, as the published code names it."""
    shapes = {
        "model.embed_tokens.weight": (words, WIDTH),
        "lm_head.weight": (words, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for number in range(2):
        layer = f"model.layers.{number}"
        for part in ("q", "k", "v", "o"):
            shapes[f"{layer}.self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (48, WIDTH)
        shapes[f"{layer}.mlp.up_proj.weight"] = (48, WIDTH)
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, 48)
        shapes[f"{layer}.input_layernorm.weight"] = (WIDTH,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (WIDTH,)
        # Old transformers stored it.
        shapes[f"{layer}.self_attn.rotary_emb.inv_freq"] = (2,)
    shapes |= tower_shapes("model.image_tower.image_tower", over_time=False)
    shapes |= tower_shapes("model.video_tower.video_tower", over_time=True)
    shapes |= linear("model.mm_projector.0", TOWER, WIDTH)
    shapes |= linear("model.mm_projector.2", WIDTH, WIDTH)
    for region, points in REGION_POINTS.items():
        shapes |= linear(f"model.landmarks_projector.region_layers.{region}", 2 * points, WIDTH)
    shapes |= linear("model.global_landmarks_projector", 136, WIDTH)
    cross = "model.landmarks_cross_attn"
    shapes[f"{cross}.cross_attn.attn.in_proj_weight"] = (3 * WIDTH, WIDTH)
    shapes[f"{cross}.cross_attn.attn.in_proj_bias"] = (3 * WIDTH,)
    shapes |= linear(f"{cross}.cross_attn.attn.out_proj", WIDTH, WIDTH)
    shapes |= norm(f"{cross}.cross_attn.ln", WIDTH) | norm(f"{cross}.ln", WIDTH)
    shapes |= linear(f"{cross}.linear_proj", WIDTH, WIDTH)
    return shapes


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory):
    """A sentencepiece model as Llama's: byte fallback, split digits, a space before each text."""
    folder = tmp_path_factory.mktemp("vicuna")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator) * 0.1).half()
        for name, shape in released_shapes(320).items()
    }


@pytest.fixture
def released(tensors, vicuna, tmp_path):
    """The folder as it is published, in two shards."""
    folder = tmp_path / "released"
    folder.mkdir()
    shutil.copy(vicuna, folder)
    write(folder, tensors)
    settings = {
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "vocab_size": 320,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "mm_image_tower": "LanguageBind/LanguageBind_Image",
        "mm_video_tower": "LanguageBind/LanguageBind_Video_merge",
        "mm_projector_type": "mlp2x_gelu",
        "landmarks_projector_type": "landmarks_region_projector",
        "global_landmarks_projector_type": "linear",
        "cross_attn_type": "simple",
        "use_landmark_tokens": False,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def write(folder, tensors):
    names = sorted(tensors)
    half = len(names) // 2
    weight_map = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / checkpoint.INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def converted(released, tmp_path):
    return convert(released, tmp_path / "ours", shard_bytes=200_000)


def test_every_tensor_has_come_to_its_place(converted, tensors):
    model, _ = checkpoint.load(converted)
    encoder, regions = model.face_encoder, model.face_encoder.region_attention
    homes = {
        "model.image_tower.image_tower.": encoder.vision_tower,
        "model.video_tower.video_tower.": encoder.video_tower,
        "model.mm_projector.": encoder.mm_projector,
        "model.landmarks_projector.": regions.landmarks_projector,
        "model.global_landmarks_projector.": regions.global_landmarks_projector,
        "model.landmarks_cross_attn.": regions.landmarks_cross_attn,
        "model.": model.language_model.model,
        "lm_head.": model.language_model.lm_head,
    }
    n_found = 0
    for name, value in tensors.items():
        if name.endswith("inv_freq"):
            continue
        prefix = next(prefix for prefix in homes if name.startswith(prefix))
        found = homes[prefix].state_dict()[name.removeprefix(prefix)]
        assert torch.equal(found[: len(value)], value.float()), name
        n_found += 1
    assert n_found == len(model.state_dict())
    # The two placeholders' rows, and nothing else, are new.
    assert len(model.get_input_embeddings().weight) == 322
    assert not model.get_input_embeddings().weight[320:].any()


def test_shards_are_small_and_stored_as_published(converted):
    index = json.loads((converted / checkpoint.INDEX_FILE).read_text())
    files = sorted(converted.glob("*.safetensors"))
    assert len(files) > 5
    assert set(index["weight_map"].values()) == {file.name for file in files}
    sizes = []
    for file in files:
        with safe_open(file, framework="pt") as opened:
            parts = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
        assert {part.dtype for part in parts} == {torch.float16}
        sizes.append(sum(part.nbytes for part in parts))
        assert sizes[-1] <= 200_000 or len(parts) == 1
    assert sum(sizes) == index["metadata"]["total_size"]
    assert json.loads((converted / "config.json").read_text())["dtype"] == "float16"


def test_the_settings_are_those_of_the_published_code(converted):
    model, processor = checkpoint.load(converted)
    config = model.config
    assert (config.region_variant, config.region_heads, config.branch_scale) == ("released", 8, 0.1)
    assert (config.vision_feature_layer, config.hidden_size) == (-2, WIDTH)
    # Photos without CLS, clips with it: 256 and 8 times 257 in the published one.
    assert (config.tokens_per_frame, config.tokens_per_clip_frame, config.clip_frames) == (9, 10, 4)
    assert config.vision_config.hidden_act == config.video_config.hidden_act == "gelu"
    assert config.vision_config.num_attention_heads == 2
    assert config.image_size == [42, 42]
    assert processor.image_processor.image_mean[0] == pytest.approx(0.48145466)
    assert model.generation_config.suppress_tokens == [320, 321]


def test_towers_see_what_languagebinds_saw(converted, tensors):
    model, _ = checkpoint.load(converted)
    pixels = torch.randn(FRAMES, 3, 42, 42, generator=torch.Generator().manual_seed(1))
    image = CLIPVisionModel(CLIPVisionConfig(**TOWER_SIZES)).eval()
    video = LanguageBindVideoModel(LanguageBindVideoConfig(num_frames=FRAMES, **TOWER_SIZES)).eval()
    for tower, kind in ((image, "image"), (video, "video")):
        prefix = f"model.{kind}_tower.{kind}_tower."
        tower.load_state_dict(
            {
                name.removeprefix(prefix): value.float()
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
        )
    with torch.inference_mode():
        expected = image(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(model.face_encoder.encode_pixels(pixels), expected)
        in_clip = torch.ones(FRAMES, dtype=torch.bool)
        expected = video(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(model.face_encoder.encode_frames(pixels, in_clip), expected)


def test_it_answers_about_a_photo_and_a_clip(converted, astronaut_face, other_face):
    model, processor = checkpoint.load(converted)
    talk = [face_conversation("image", "How old?"), face_conversation("video", "How old?")]
    batch = processor.encode(talk, [astronaut_face, [astronaut_face, other_face]])
    assert len(batch["pixel_values"]) == 1 + FRAMES
    said = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert not model.placeholder_mask(said[:, batch["input_ids"].shape[1] :]).any()
    before = model(**batch).logits[:, -1]
    batch["landmarks"][:, 48:] += 0.05
    assert (model(**batch).logits[:, -1] - before).abs().amax(dim=1).min() > 1e-6


def test_vicunas_words_and_turns(converted, vicuna):
    _, processor = checkpoint.load(converted)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(vicuna))
    history = [("Which expression?", "Expression: happiness.")]
    talk = face_conversation("image", "How old?", history)
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
    )
    question = "\nWhich expression? ASSISTANT: Expression: happiness."
    assert processor.render(talk) == (
        f"<s>{system}USER: <image>{question}</s>USER: How old? ASSISTANT:"
    )
    # As the published code encodes: <s>, and each piece of text by itself.
    ids = processor.encode_text(talk, [1]).input_ids
    assert ids == [
        1, *pieces.encode(f"{system}USER: "), *[320] * 9, *pieces.encode(question), 2,
        *pieces.encode("USER: How old? ASSISTANT:"),
    ]  # fmt: skip
    answered = face_conversation("image", "How old?", history, answer="Age: 34 years.")
    row = processor.encode_text(answered, [1], training=True)
    learnt = [label for label in row.labels if label != -100]
    assert processor.tokenizer.decode(learnt) == "Expression: happiness.</s> Age: 34 years.</s>"
    own = processor.render([{"role": "system", "content": "Be brief."}, *talk])
    assert own.startswith("<s>Be brief. USER: <image>\n")
    parts = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Hi"}]}]
    assert "USER: <video>\nHi ASSISTANT:" in processor.tokenizer.apply_chat_template(
        parts, tokenize=False, add_generation_prompt=True
    )


def test_leftovers_in_either_direction_are_named(released, tensors, tmp_path):
    write(released, {**tensors, "model.face_gate.weight": torch.zeros(2)})
    with pytest.raises(BadCheckpoint, match=r"has model\.face_gate\.weight that"):
        convert(released, tmp_path / "ours")
    missing = "model.video_tower.video_tower.encoder.layers.1.temporal_attn.q_proj.bias"
    write(released, {name: value for name, value in tensors.items() if name != missing})
    with pytest.raises(BadCheckpoint, match=rf"lacks {missing}\."):
        convert(released, tmp_path / "ours")
    write(released, {n: v for n, v in tensors.items() if "landmarks_cross_attn" not in n})
    with pytest.raises(BadCheckpoint, match=r"lacks model\.landmarks_cross_attn.* and 5 more"):
        convert(released, tmp_path / "ours")
    write(released, {n: v for n, v in tensors.items() if "image_tower" not in n})
    with pytest.raises(BadCheckpoint, match=r"lacks model\.image_tower\.image_tower\.embeddings"):
        convert(released, tmp_path / "ours")
    write(released, {**tensors, "model.norm.weight": torch.zeros(33)})
    with pytest.raises(BadCheckpoint, match=r"model\.norm\.weight has the shape \(33,\)"):
        convert(released, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["released"]


def test_nothing_is_left_of_a_broken_conversion(released, tensors, tmp_path):
    broken = tensors["lm_head.weight"].clone()
    broken[3, 3] = float("nan")
    write(released, {**tensors, "lm_head.weight": broken})
    with pytest.raises(BadCheckpoint, match=r"lm_head\.weight in .* is not finite"):
        convert(released, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["released"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cross_attn_type", "masked"),
        ("landmarks_projector_type", "linear"),
        ("use_landmark_tokens", True),
        ("mm_projector_type", "naive_face_mask_adapter"),
    ],
)
def test_other_settings_are_refused(released, tmp_path, setting, value):
    file = released / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), setting: value}))
    with pytest.raises(BadCheckpoint, match=f"{setting} is {value!r}"):
        convert(released, tmp_path / "ours")


def test_bad_folders(released, tmp_path):
    out = tmp_path / "ours"
    with pytest.raises(BadCheckpoint, match="not a folder"):
        convert(tmp_path / "absent", out)
    with pytest.raises(BadCheckpoint, match="make it first"):
        convert(released, tmp_path / "absent" / "ours")
    (released / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(BadCheckpoint, match="sentencepiece"):
        convert(released, out)
    (released / "tokenizer.model").unlink()
    with pytest.raises(BadCheckpoint, match="holds no tokenizer.model"):
        convert(released, out)
    shard = released / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="truncated"):
        convert(released, out)
    shard.unlink()
    with pytest.raises(BadCheckpoint, match="lacks model-00002-of-00002"):
        convert(released, out)
    for file in (*released.glob("*.safetensors"), released / checkpoint.INDEX_FILE):
        file.unlink()
    with pytest.raises(BadCheckpoint, match=r"no \*.safetensors"):
        convert(released, out)
    (released / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80")
    with pytest.raises(BadCheckpoint, match=r"00002\.bin, a format that can run code"):
        convert(released, out)


def test_too_little_disk(released, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("facellava.convert.shutil.disk_usage", lambda _: usage)
    with pytest.raises(BadCheckpoint, match="free some space"):
        convert(released, tmp_path / "ours")


def test_the_command(facellava, released, tmp_path):
    done = facellava("convert", released, tmp_path / "ours", "--branch-scale", "0.001")
    assert (done.code, done.out) == (0, f"The checkpoint is in {tmp_path / 'ours'}\n")
    model, _ = checkpoint.load(tmp_path / "ours")
    assert model.config.branch_scale == 0.001
    again = facellava("convert", tmp_path / "absent", tmp_path / "ours")
    assert again.code == 1
    assert again.trouble[-1].startswith(str(tmp_path / "absent"))
