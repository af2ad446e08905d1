"""Tiny but complete parts: a tokenizer, configs, a model with its processor, a real face."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
)

from facellava.checkpoint import new_model, save
from facellava.cli import main
from facellava.config import FaceLlavaConfig
from facellava.faces import Face, find_faces
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from tests.facellava.command_line import Facellava, Outcome

SPECIAL_TOKENS = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<image>", "<video>"]
SENTENCES = [
    "Which expression does this face show?",
    "Expression: happiness. The lip corners are raised and the cheeks are lifted.",
    "How old is this person? Age: 34 years.",
]


@dataclass(frozen=True)
class CropOfFace:
    """What the processor needs of a face."""

    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


def plausible_landmarks() -> NDArray[np.float32]:
    """68 points of a frontal face in a canonical crop: (x, y) in [0, 1], made up, not measured."""

    def arc(cx: float, cy: float, rx: float, ry: float, degrees: NDArray) -> NDArray:
        angle = np.deg2rad(degrees)
        return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)

    points = [
        arc(0.50, 0.45, 0.32, 0.42, np.linspace(180, 0, 17)),
        arc(0.36, 0.36, 0.10, 0.05, np.linspace(180, 360, 5)),
        arc(0.64, 0.36, 0.10, 0.05, np.linspace(180, 360, 5)),
        np.stack([np.full(4, 0.50), np.linspace(0.42, 0.56, 4)], axis=1),
        np.stack([np.linspace(0.44, 0.56, 5), [0.60, 0.61, 0.62, 0.61, 0.60]], axis=1),
        arc(0.37, 0.43, 0.05, 0.02, np.linspace(180, 480, 6)),
        arc(0.63, 0.43, 0.05, 0.02, np.linspace(180, 480, 6)),
        arc(0.50, 0.72, 0.12, 0.05, np.linspace(180, 510, 12)),
        arc(0.50, 0.72, 0.09, 0.02, np.linspace(180, 495, 8)),
    ]
    return np.concatenate(points).astype(np.float32)


@pytest.fixture(scope="session")
def landmarks() -> NDArray[np.float32]:
    return plausible_landmarks()


@pytest.fixture(scope="session")
def astronaut_face(landmarks: NDArray[np.float32]) -> CropOfFace:
    """scikit-image's public-domain portrait, cut out by hand."""
    crop = Image.fromarray(data.astronaut()[10:200, 130:320]).resize((192, 192))
    return CropOfFace(np.asarray(crop), landmarks)


@pytest.fixture(scope="session")
def other_face(astronaut_face: CropOfFace) -> CropOfFace:
    """Another picture with other landmarks: the portrait upside down, its mouth moved."""
    moved = astronaut_face.landmarks.copy()
    moved[48:] += np.float32(0.05)
    return CropOfFace(np.ascontiguousarray(astronaut_face.crop[::-1]), moved)


@pytest.fixture(scope="session")
def trained_bpe() -> str:
    """Byte-level BPE of 300 entries with nano's special tokens, as JSON."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return bpe.to_str()


@pytest.fixture
def tiny_tokenizer(trained_bpe: str) -> PreTrainedTokenizerFast:
    """The trained BPE with one label as a single token."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained_bpe),
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=SPECIAL_TOKENS[2:],
    )
    tokenizer.add_tokens([" happiness"])
    return tokenizer


@pytest.fixture
def clip_vision() -> CLIPVisionConfig:
    """48 x 48 pixels to a CLS token and 4 x 4 patches."""
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=48,
        patch_size=12,
    )


@pytest.fixture
def resnet_vision() -> ResNetConfig:
    """Nano's kind of encoder: 96 x 96 pixels to 6 x 6 patches."""
    return ResNetConfig(
        num_channels=3,
        embedding_size=8,
        hidden_sizes=[8, 12, 16],
        depths=[1, 1, 1],
        layer_type="basic",
    )


ConfigBuilder = Callable[..., FaceLlavaConfig]
Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@pytest.fixture
def build_config(tiny_tokenizer: PreTrainedTokenizerFast) -> ConfigBuilder:
    """Called with a vision config and settings: a whole config with a tiny Llama inside."""

    def build(vision: PreTrainedConfig, **settings: object) -> FaceLlavaConfig:
        text = LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=320,
            max_position_embeddings=512,
            pad_token_id=tiny_tokenizer.pad_token_id,
            eos_token_id=tiny_tokenizer.eos_token_id,
            bos_token_id=None,
            # Wide enough that random weights give clearly different logits.
            initializer_range=0.2,
            tie_word_embeddings=bool(settings.pop("tied", False)),
        )
        placeholders = {
            f"{kind}_token_id": tiny_tokenizer.convert_tokens_to_ids(f"<{kind}>")
            for kind in ("image", "video")
        }
        return FaceLlavaConfig(
            vision_config=vision, text_config=text, **{**placeholders, **settings}
        )

    return build


@pytest.fixture
def tiny_config(build_config: ConfigBuilder, resnet_vision: ResNetConfig) -> FaceLlavaConfig:
    return build_config(resnet_vision, image_size=96)


@pytest.fixture
def tiny_parts(tiny_config: FaceLlavaConfig, tiny_tokenizer: PreTrainedTokenizerFast) -> Parts:
    """A seeded random model of the paper's variant on nano's kind of encoder, and its processor."""
    torch.manual_seed(0)
    return new_model(tiny_config, tiny_tokenizer)


@pytest.fixture
def tiny_model(tiny_parts: Parts) -> FaceLlavaForConditionalGeneration:
    return tiny_parts[0]


@pytest.fixture
def tiny_processor(tiny_parts: Parts) -> FaceLlavaProcessor:
    return tiny_parts[1]


# A word of the question, and the answer to it in pieces that are one token each.
RECITATIONS = {
    "expression": (
        "Expression:",
        " happiness",
        ". The lip corners are raised, and the eyes are narrowed.",
    ),
    "old": ("Age:", " 34", " years. The mouth is closed."),
    "glasses": ("Attributes:", " eyeglasses no. The picture is sharp."),
    "weather": ("Cannot answer: the question is not about the face.",),
    "song": ("La", " la", " la."),
}


@pytest.fixture(scope="session")
def reciting_checkpoint(trained_bpe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder that answers RECITATIONS, by which word of them it heard.

    Its weights are written, not trained: each piece calls the next, and attention, the same to all
    words, carries what was heard.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained_bpe),
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=SPECIAL_TOKENS[2:],
    )
    tokenizer.add_tokens([word for heard, said in RECITATIONS.items() for word in (heard, *said)])
    chains = [
        tokenizer.convert_tokens_to_ids(["<|assistant|>", *said, "</s>"])
        for said in RECITATIONS.values()
    ]
    spoken = sorted({token for chain in chains for token in chain[:-1]})
    heard = tokenizer.convert_tokens_to_ids(list(RECITATIONS))
    # A dimension for each piece, each word before it was heard, and after.
    width = len(spoken) + 2 * len(heard)
    width += -width % 4
    config = FaceLlavaConfig(
        vision_config=ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], layer_type="basic"
        ),
        text_config=LlamaConfig(
            hidden_size=width,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_size=96,
    )
    torch.manual_seed(0)
    model, processor = new_model(config, tokenizer)
    silent = [model.face_encoder.mm_projector, model.face_encoder.region_attention]
    with torch.no_grad():
        for module in (*silent, model.language_model):
            for name, parameter in module.named_parameters():
                parameter.fill_(1.0 if "norm" in name else 0.0)
        layer = model.language_model.model.layers[0].self_attn
        embedding = model.get_input_embeddings().weight
        output = model.get_output_embeddings().weight
        layer.o_proj.weight.copy_(torch.eye(width))
        for place, token in enumerate(spoken):
            embedding[token, place] = 1.0
        for number, (token, chain) in enumerate(zip(heard, chains, strict=True)):
            before, after = len(spoken) + number, len(spoken) + len(heard) + number
            embedding[token, before] = 1.0
            layer.v_proj.weight[after, before] = 10.0
            output[chain[1], after] = 2.0
            for this, following in zip(chain, chain[1:], strict=False):
                output[following, spoken.index(this)] = 6.0
    return save(model, processor, tmp_path_factory.mktemp("reciter") / "weights")


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """Head and shoulders of scikit-image's public-domain portrait."""
    return np.ascontiguousarray(data.astronaut()[:300, 60:390])


@pytest.fixture(scope="session")
def found_face(astronaut: NDArray[np.uint8]) -> Face:
    """The portrait's face as the finder gives it."""
    return find_faces(astronaut)[0]


@pytest.fixture
def facellava(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Facellava:
    """Runs a command in this process, as the installed script would."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["facellava", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def packs(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """A folder of datasets with FER2013 as Parquet: three happy faces and a sad one to ask about,
    and one of another part."""
    rows = []
    for number, label in enumerate([3, 3, 3, 4, 3]):
        crop = Image.fromarray(astronaut[60 + number : 190, 100:230]).resize((96, 96)).convert("L")
        buffer = io.BytesIO()
        crop.save(buffer, format="PNG")
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": None},
                "label": label,
                "split": "validation" if number < 4 else "test",
                "pixel_md5": f"{number:032d}",
            }
        )
    folder = tmp_path / "packs" / "fer2013"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "fer.parquet")
    return folder.parent
