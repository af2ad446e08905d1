"""Checkpoint folders go there and back, and bad ones are refused with one sentence."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from facellava import checkpoint
from facellava.errors import BadCheckpoint, BadModelInput
from facellava.image_processor import FaceLlavaImageProcessor
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor

QUESTION = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How old?"}]},
]


@pytest.fixture
def folder(tiny_parts, tmp_path):
    return checkpoint.save(*tiny_parts, tmp_path / "model")


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip(
    build_config, resnet_vision, tiny_tokenizer, astronaut_face, tmp_path, variant, tied
):
    config = build_config(
        resnet_vision,
        image_size=96,
        region_variant=variant,
        tied=tied,
        calibration={"expression": 1.3},
    )
    model, processor = checkpoint.new_model(
        config, tiny_tokenizer, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6)
    )
    expected = model(**processor.encode([QUESTION], [astronaut_face])).logits
    checkpoint.save(model, processor, tmp_path / "model")
    again, again_processor = checkpoint.load(tmp_path / "model")
    batch = again_processor.encode([QUESTION], [astronaut_face])
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # Loaded weights lie differently in memory, which changes the last bits of matrix products.
    torch.testing.assert_close(again(**batch).logits, expected, atol=1e-3, rtol=0.0)
    assert not again.training
    assert again.config.calibration == {"expression": 1.3}
    assert again.generation_config.suppress_tokens == model.generation_config.suppress_tokens
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert ("language_model.lm_head.weight" in stored) is not tied


def test_auto_classes_find_it(folder, astronaut_face, tiny_parts):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(model, FaceLlavaForConditionalGeneration)
    assert isinstance(processor, FaceLlavaProcessor)
    assert isinstance(processor.image_processor, FaceLlavaImageProcessor)
    batch = processor.encode([QUESTION], [astronaut_face])
    expected = tiny_parts[0](**batch).logits
    torch.testing.assert_close(model.eval()(**batch).logits, expected, atol=1e-3, rtol=0.0)
    checkpoint.register_auto_classes()


def test_stored_in_half_loaded_in_full(tiny_parts, astronaut_face, tmp_path):
    model, processor = tiny_parts
    path = checkpoint.save(model, processor, tmp_path / "half", dtype=torch.float16)
    stored = load_file(path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16, torch.int64}
    assert model.dtype == torch.float32
    again, _ = checkpoint.load(path)
    assert again.dtype == torch.float32
    batch = processor.encode([QUESTION], [astronaut_face])
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, atol=0.05, rtol=0.0)
    assert checkpoint.load(path, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_saving_again_replaces_and_leaves_nothing_behind(folder, tiny_parts):
    model, processor = tiny_parts
    (folder / "stale.txt").write_text("from an older save")
    model.config.calibration = {"age": 2.0}
    checkpoint.save(model, processor, folder)
    assert checkpoint.load(folder)[0].config.calibration == {"age": 2.0}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert not (folder / "stale.txt").exists()


def test_a_failed_save_leaves_the_old_folder_whole(folder, tiny_parts):
    model, processor = tiny_parts
    before = (folder / "model.safetensors").read_bytes()
    model.face_encoder.mm_projector[0].weight.data[0, 0] = 1e6
    with pytest.raises(
        BadCheckpoint, match=r"mm_projector.0.weight is not finite in torch.float16"
    ):
        checkpoint.save(model, processor, folder, dtype=torch.float16)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_disk_that_fills_up_leaves_no_half_folder(tiny_parts, tmp_path, monkeypatch):
    model, processor = tiny_parts

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(processor), "save_pretrained", full)
    with pytest.raises(BadCheckpoint, match="cannot be written"):
        checkpoint.save(model, processor, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_save_never_overwrites_what_is_no_checkpoint(tiny_parts, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep")
    with pytest.raises(BadCheckpoint, match="not a checkpoint folder"):
        checkpoint.save(*tiny_parts, tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.txt").read_text() == "keep"
    with pytest.raises(BadCheckpoint, match="not a folder"):
        checkpoint.save(*tiny_parts, tmp_path / "absent" / "model")


@pytest.mark.parametrize("kept", [0, 4, 5000, -1])
def test_truncated_weights(folder, kept):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BadCheckpoint, match="truncated or not safetensors"):
        checkpoint.load(folder)


class Intruder:
    """A pickle that would write a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.pkl"])
def test_pickles_are_refused_unread(folder, tmp_path, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Intruder(tmp_path / "read")))
    with pytest.raises(BadCheckpoint, match=f"only {name}, a format that can run code"):
        checkpoint.load(folder)
    assert not (tmp_path / "read").exists()


def test_a_pickle_beside_the_weights_is_not_read(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Intruder(tmp_path / "read")))
    checkpoint.load(folder)
    assert not (tmp_path / "read").exists()


def test_a_pickle_in_disguise(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Intruder(tmp_path / "read")))
    with pytest.raises(BadCheckpoint, match="not safetensors"):
        checkpoint.load(folder)
    assert not (tmp_path / "read").exists()


def test_weights_that_do_not_fit_the_config(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    whole = dict(weights)
    name = "face_encoder.region_attention.landmarks_cross_attn.q_proj.weight"
    del weights[name]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(BadCheckpoint, match=f"missing keys, for instance {name}"):
        checkpoint.load(folder)
    save_file({**whole, "extra": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(BadCheckpoint, match="unexpected keys, for instance extra"):
        checkpoint.load(folder)
    save_file({**whole, name: torch.zeros(4, 4)}, file, {"format": "pt"})
    with pytest.raises(BadCheckpoint, match="mismatched keys, for instance .*q_proj"):
        checkpoint.load(folder)


def test_a_missing_shard(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / checkpoint.INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(BadCheckpoint, match="lacks model-00002-of-00002"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_damaged_json(folder, name):
    content = (folder / name).read_text()
    (folder / name).write_text(content[: len(content) // 2])
    with pytest.raises(BadCheckpoint, match=f"{name} cannot be read as JSON"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadCheckpoint, match=f"holds no {name}"):
        checkpoint.load(folder)


def test_other_models_and_no_folder(folder, tmp_path):
    with pytest.raises(BadCheckpoint, match="not a folder"):
        checkpoint.load(tmp_path / "nowhere")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(BadCheckpoint, match="'llava' model"):
        checkpoint.load(folder)


def test_bad_values_in_a_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "region_heads": 7}))
    with pytest.raises(BadCheckpoint, match="region_heads is 7"):
        checkpoint.load(folder)


def test_processor_of_another_model(folder):
    file = folder / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokens_per_frame": 49}))
    with pytest.raises(BadCheckpoint, match=r"49 placeholders.*36 image tokens"):
        checkpoint.load(folder)


def test_tokenizer_that_does_not_fit(build_config, resnet_vision, tiny_tokenizer):
    swapped = build_config(resnet_vision, image_size=96, image_token_id=6, video_token_id=5)
    with pytest.raises(BadModelInput, match="<image> has the id 6; the tokenizer says 5"):
        checkpoint.new_model(swapped, tiny_tokenizer)
    small = build_config(resnet_vision, image_size=96)
    small.text_config.vocab_size = 299
    with pytest.raises(BadModelInput, match=f"{len(tiny_tokenizer)} entries"):
        checkpoint.new_model(small, tiny_tokenizer)
