"""The embedded model from a corpus, step by step; a step whose result is there is not done again.

tokenizer   byte-level BPE of the corpus's questions and answers
encoder     supervised pre-training of the convolutional encoder
features    its tokens of every face, cached
regions     stage 1: projector, FRLP and FRGCA under supervised heads
instruct    stage 2: the language model over the cached features
calibrate   one temperature a task, on faces set aside
export      float16 safetensors, with tokenizer, processor and config
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from facellava import checkpoint
from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.corpus import read_faces, read_manifest, read_samples, sha256
from facellava.errors import BadCheckpoint
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord
from train.calibrate import fit_temperatures
from train.encoder import EncoderSettings, train_encoder
from train.face_arrays import FaceArrays, face_arrays
from train.features import cache_features
from train.heads import measured_scale
from train.instruct import InstructionRows, encode_rows, train_instructions
from train.model_card import write_model_card, write_training_data
from train.region_stage import FaceRows, train_regions
from train.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)

IMAGE_SIZE = 96


@dataclass(frozen=True)
class NanoSettings:
    """What makes this nano; the defaults made the one in the wheel."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    aside_share: float = 0.04
    """Of the training split, by person: never trained on, used to watch and to calibrate."""
    variants: int = 2
    """How often each face's features are cached, in other light and position."""
    region_epochs: float = 3.0
    instruct_epochs: float = 1.35
    width: int = 256
    layers: int = 4
    heads: int = 4
    seed: int = 0


def set_aside(record: FaceRecord, share: float) -> bool:
    """Whether a face of the training split is kept out of training.

    One person's faces stay together, and so do a face and what was blended from it.
    """
    made = record.source.endswith("self_blended")
    person = record.subject or (record.origin if made else record.face_id)
    digest = hashlib.sha256(person.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def train_nano(corpus: Path, out: Path, settings: NanoSettings | None = None) -> Path:
    """Train the embedded model from a corpus; returns the exported checkpoint's folder.

    Raises:
        BadCorpus: the corpus is not whole or holds nothing to train on.
        BadCheckpoint: `out` holds a run with other settings.
    """
    settings = settings or NanoSettings()
    _check_run(out, corpus, settings)
    train_ids, aside_ids = _split(corpus, settings.aside_share)

    def records(wanted: set[str]) -> chain[FaceRecord]:
        return chain(r for r in read_faces(corpus, "train") if r.face_id in wanted)

    train = face_arrays(
        records(set(train_ids)), out / "train", image_size=IMAGE_SIZE, count=len(train_ids)
    )
    aside = face_arrays(
        records(set(aside_ids)), out / "aside", image_size=IMAGE_SIZE, count=len(aside_ids)
    )
    # The tokenizer takes a minute and can refuse the corpus: before the hours of the encoder.
    tokenizer = _tokenizer(corpus, out / "tokenizer")
    train_encoder(train, aside, out / "encoder_run", settings.encoder)
    torch.manual_seed(settings.seed)
    model, processor = nano_model(out / "encoder_run" / "encoder", tokenizer, train, settings)
    train_cache = cache_features(
        model.face_encoder, train, out / "train_features", variants=settings.variants
    )
    aside_cache = cache_features(model.face_encoder, aside, out / "aside_features", variants=1)
    regions = out / "regions.safetensors"
    if not regions.exists():
        scale = measured_scale(train)
        figures = train_regions(
            model.face_encoder,
            FaceRows(train_cache, train, scale, vary=True),
            FaceRows(aside_cache, aside, scale, vary=False),
            out / "regions_run",
            epochs=settings.region_epochs,
            seed=settings.seed,
        )
        logger.info("stage 1: %s", figures)
        partial = regions.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in model.face_encoder.state_dict().items()}, partial)
        partial.replace(regions)
    model.face_encoder.load_state_dict(load_file(regions))
    index = {face_id: number for number, face_id in enumerate(train_ids)}
    rows = encode_rows(read_samples(corpus, "train"), index, processor)
    train_instructions(
        model,
        processor,
        InstructionRows(rows, train_cache, train.units),
        out / "instruct_run",
        epochs=settings.instruct_epochs,
        seed=settings.seed,
    )
    model.config.calibration = fit_temperatures(model, processor, list(records(set(aside_ids))))
    folder = checkpoint.save(model, processor, out / "nano", dtype=torch.float16)
    write_model_card(folder, "nano", read_manifest(corpus))
    write_training_data(folder, corpus)
    return folder


def _check_run(out: Path, corpus: Path, settings: NanoSettings) -> None:
    """Write down what the run is made of, or refuse a folder that holds another run's steps."""
    read_manifest(corpus)
    now = {"corpus": sha256(corpus / "manifest.json"), "settings": asdict(settings)}
    now = json.loads(json.dumps(now))
    note = out / "run.json"
    if note.exists():
        before = json.loads(note.read_text())
        if before != now:
            what = "settings" if before["corpus"] == now["corpus"] else "faces"
            raise BadCheckpoint(
                f"'{out}' holds a run with other {what}; give another --out, or remove it."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    partial = note.with_suffix(".partial")
    partial.write_text(json.dumps(now, indent=1))
    partial.replace(note)


def _split(corpus: Path, share: float) -> tuple[list[str], list[str]]:
    train: list[str] = []
    aside: list[str] = []
    for record in read_faces(corpus, "train"):
        (aside if set_aside(record, share) else train).append(record.face_id)
    return train, aside


def _tokenizer(corpus: Path, folder: Path) -> PreTrainedTokenizerBase:
    if not folder.exists():
        texts = (
            text
            for sample in read_samples(corpus, "train")
            for text in (sample.question, sample.answer)
        )
        partial = folder.with_name(folder.name + ".partial")
        train_tokenizer(texts).save_pretrained(partial)
        partial.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _without_path(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "_name_or_path"}


def nano_model(
    encoder: Path, tokenizer: PreTrainedTokenizerBase, train: FaceArrays, settings: NanoSettings
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """Nano with its trained encoder and everything else from scratch."""
    points = train.landmarks
    config = FaceLlavaConfig(
        # As a plain table without the folder's name, which is nobody's business later.
        vision_config=_without_path(AutoConfig.from_pretrained(encoder).to_dict()),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=settings.width * 5 // 2,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        image_size=IMAGE_SIZE,
        region_variant="paper",
        region_heads=4,
        region_hidden=64,
        landmark_mean=points.mean(axis=0).round(5).tolist(),
        landmark_std=float(np.round(points.std(axis=0).mean(), 5)),
    )
    model, processor = checkpoint.new_model(config, tokenizer)
    weights = load_file(encoder / "model.safetensors")
    model.face_encoder.vision_tower.load_state_dict(weights)
    return model, processor
