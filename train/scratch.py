"""A base made from the corpus, and both stages on it: how the embedded model comes about.

::

    OUT/train, aside                    the faces as arrays; those aside are never learned from
    OUT/tokenizer                       byte-level BPE of the corpus's questions and answers
    OUT/teacher_run                     a larger encoder, where the settings ask for a teacher
    OUT/encoder_run                     supervised pre-training of the convolutional encoder
    OUT/train_features, aside_features  its tokens of every face
    OUT/regions                         stage 1: projector, FRLP and FRGCA under the same heads;
                                        what its tokens tell of the faces, where settings ask
    OUT/instruct                        stage 2: the language model over the stored features
    OUT/model                           float16, one temperature a task fitted on the faces aside

A step whose result is there is not done again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from facellava import checkpoint
from facellava.config import IMAGE_TOKEN, VIDEO_TOKEN, FaceLlavaConfig
from facellava.corpus import read_faces, read_manifest, read_samples
from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord
from facellava.whole_files import open_to_others
from train.base_settings import ScratchSettings
from train.calibrate import fit_temperatures
from train.damage import undamaged
from train.encoder import train_encoder
from train.face_arrays import FaceArrays, face_arrays
from train.features import FeatureCache, cache_features
from train.heads import measured_scale
from train.held_out import set_aside
from train.instruct import (
    CachedCollator,
    InstructionRows,
    Twins,
    encode_rows,
    switching_rows,
)
from train.model_card import write_model_card, write_training_data
from train.processes import join, what_was_chosen
from train.rare_fakes import MixedFakes, rare_fakes
from train.region_stage import FaceRows, train_regions
from train.resting_faces import RestingFaces
from train.run_checks import check_free
from train.run_config import RunConfig
from train.run_report import HISTORY_FILE, REPORT_FILE, StageReport, write_report
from train.run_trainer import new_trainer
from train.shape_head import ShapeHead
from train.soft_labels import SoftLabels, soft_labels_of
from train.soft_targets import SoftTargets
from train.stage_trainer import last_whole_checkpoint
from train.sure_reasons import Readings
from train.tokenizer import train_tokenizer
from train.trainable import ShowTable, make_trainable, trainable_table
from train.twin_rows import clip_twins, further_json_twins, json_twins
from train.twins import Choices
from train.verdict_rows import mixed_rows, verdict_rows

logger = logging.getLogger(__name__)

IMAGE_SIZE = 96
SHAPE_FILE = "shape_head.safetensors"
READINGS_FILE = "readings.safetensors"
SOFT_LABELS_FILE = "soft_labels.safetensors"
LEARNED = "face_encoder.safetensors"
Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]


@dataclass(frozen=True)
class _Faces:
    """Faces of the training split: those that are learned from, or those that are not.

    Attributes:
        corpus: where they are.
        ids: of the faces, in the corpus's order.
        arrays: the same faces.
    """

    corpus: Path
    ids: tuple[str, ...]
    arrays: FaceArrays

    def records(self) -> Iterator[FaceRecord]:
        """The faces as the corpus has them."""
        wanted = set(self.ids)
        return (r for r in read_faces(self.corpus, "train") if r.face_id in wanted)


def train_from_scratch(config: RunConfig, show: ShowTable) -> Path:
    """Make a base, train it in both stages; returns the checkpoint's folder.

    Args:
        config: a run with a section scratch, whose folder is open.
        show: called before each stage with what learns in it.

    Raises:
        BadSettings: no section scratch, or too little disk.
        BadCorpus, BadSample: a corpus that holds nothing to train on, or too little text.
        BadCheckpoint: the folder holds another encoder's run, or something damaged.
        TrainingStopped: a loss that is no number, or a full disk.
    """
    scratch, out = config.scratch, config.out
    if scratch is None:
        raise BadSettings('A base from scratch needs a section scratch; use the preset "nano".')
    result = out / "model"
    if result.is_dir() and (out / REPORT_FILE).is_file():
        return result
    train, aside = _faces(config, scratch)
    # The tokenizer takes a minute and can refuse the corpus: before the hours of the encoder.
    tokenizer = _tokenizer(config.corpus, out / "tokenizer")
    teacher = None
    if scratch.teacher is not None:
        teacher = out / "teacher_run"
        # Not the student's draws once more.
        settings = replace(scratch.teacher, seed=config.seed + 1)
        train_encoder(train.arrays, aside.arrays, teacher, settings)
    settings = replace(scratch.encoder, seed=config.seed)
    train_encoder(train.arrays, aside.arrays, out / "encoder_run", settings, teacher)
    torch.manual_seed(config.seed)
    parts = new_base(out / "encoder_run" / "encoder", tokenizer, train.arrays, scratch)
    model, processor = parts
    features = cache_features(
        model.face_encoder, train.arrays, out / "train_features", variants=scratch.variants
    )
    shape = _teach_regions(config, model, train, features, aside, show)
    rows = _teach_answers(config, scratch, parts, train, features, shape, show)
    model.config.calibration = fit_temperatures(model, processor, list(aside.records()))
    checkpoint.save(model.to("cpu"), processor, result, dtype=torch.float16)
    write_model_card(result, out.name, read_manifest(config.corpus))
    write_training_data(result, config.corpus)
    remedy = f"remove '{out / 'regions' / LEARNED}', and the same command writes both again."
    with undamaged(out / "regions" / HISTORY_FILE, remedy):
        reports = [StageReport.read(out / stage, stage) for stage in config.stages]
    write_report(config, reports, rows.usable, [], what_was_chosen(config, model, join()))
    return result


def _faces(config: RunConfig, scratch: ScratchSettings) -> tuple[_Faces, _Faces]:
    """Those to learn from, and those aside."""
    ids: dict[bool, list[str]] = {False: [], True: []}
    for record in read_faces(config.corpus, "train"):
        ids[set_aside(record, config.aside_share)].append(record.face_id)
    if not (config.out / "train_features").exists():
        # Pixels, and 36 tokens of at most so many half-precision numbers.
        a_face = 3 * IMAGE_SIZE**2 + 36 * 256 * 2 * scratch.variants
        check_free(config.out, a_face * sum(map(len, ids.values())))

    def faces(name: str, wanted: list[str]) -> _Faces:
        chosen = set(wanted)
        records = (r for r in read_faces(config.corpus, "train") if r.face_id in chosen)
        folder = config.out / name
        arrays = face_arrays(records, folder, image_size=IMAGE_SIZE, count=len(wanted))
        return _Faces(config.corpus, tuple(wanted), arrays)

    return faces("train", ids[False]), faces("aside", ids[True])


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
    with undamaged(folder, "remove that folder, and the same command makes it again."):
        return PreTrainedTokenizerFast.from_pretrained(folder)


def new_base(
    encoder: Path, tokenizer: PreTrainedTokenizerBase, train: FaceArrays, scratch: ScratchSettings
) -> Parts:
    """The model with its trained encoder and everything else at random (seed torch first).

    Raises:
        BadCheckpoint: the encoder's folder is damaged.
    """
    points = train.landmarks
    remedy = f"remove '{encoder.parent}', and the same command trains that encoder from the start."
    with undamaged(encoder, remedy):
        # As a plain table without the folder's name, which is nobody's business later.
        vision = AutoConfig.from_pretrained(encoder).to_dict()
        weights = load_file(encoder / "model.safetensors")
    vision.pop("_name_or_path", None)
    config = base_config(
        scratch,
        vision,
        len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        face={
            "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
            "landmark_mean": points.mean(axis=0).round(5).tolist(),
            "landmark_std": float(np.round(points.std(axis=0).mean(), 5)),
        },
    )
    model, processor = checkpoint.new_model(config, tokenizer)
    model.face_encoder.vision_tower.load_state_dict(weights)
    return model, processor


def base_config(
    scratch: ScratchSettings,
    vision: dict[str, Any],
    vocabulary: int,
    face: dict[str, Any] | None = None,
    **special_tokens: int,
) -> FaceLlavaConfig:
    """The config of a base from scratch.

    Args:
        scratch: its language model's shape.
        vision: the encoder's config.
        vocabulary: entries of the tokenizer.
        face: what is known of the corpus: further values of FaceLlavaConfig.
        **special_tokens: ids, by their name in a language model's config.
    """
    return FaceLlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=scratch.width,
            intermediate_size=scratch.width * 5 // 2,
            num_hidden_layers=scratch.layers,
            num_attention_heads=scratch.heads,
            num_key_value_heads=scratch.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            **special_tokens,
        ),
        image_size=IMAGE_SIZE,
        mirror_average=scratch.mirror_average,
        region_variant="paper",
        region_heads=4,
        region_hidden=64,
        **(face or {}),
    )


def _teach_regions(
    config: RunConfig,
    model: FaceLlavaForConditionalGeneration,
    train: _Faces,
    features: FeatureCache,
    aside: _Faces,
    show: ShowTable,
) -> ShapeHead:
    folder = config.out / "regions"
    shape, learned = ShapeHead(model.config), folder / LEARNED
    if not learned.exists():
        table = trainable_table(make_trainable(model, config, "regions"))
        show("regions", table)
        held_out = cache_features(
            model.face_encoder, aside.arrays, config.out / "aside_features", variants=1
        )
        scale = measured_scale(train.arrays)
        history, readings = train_regions(
            model.face_encoder,
            shape,
            FaceRows(features, train.arrays, scale, vary=True),
            FaceRows(held_out, aside.arrays, scale, vary=False),
            folder,
            config,
        )
        StageReport("regions", history, table).write(folder)
        readings.save(folder / READINGS_FILE)
        partial = learned.with_suffix(".partial")
        for part, path in ((shape, folder / SHAPE_FILE), (model.face_encoder, learned)):
            save_file({k: v.contiguous() for k, v in part.state_dict().items()}, partial)
            open_to_others(partial)
            partial.replace(path)
    for part, path in ((shape, folder / SHAPE_FILE), (model.face_encoder, learned)):
        with undamaged(path, f"remove '{learned}', and the same command writes both parts again."):
            part.load_state_dict(load_file(path))
    return shape


def _teach_answers(
    config: RunConfig,
    scratch: ScratchSettings,
    parts: Parts,
    train: _Faces,
    features: FeatureCache,
    shape: ShapeHead,
    show: ShowTable,
) -> InstructionRows:
    model, processor = parts
    folder = config.out / "instruct"
    table = trainable_table(make_trainable(model, config, "instruct"))
    show("instruct", table)
    rows = _rows(config, scratch, parts, train, features)
    trainer = new_trainer(
        model,
        model,
        # Rows draw their variants in this process, so that a resumed run draws the same.
        config.model_copy(update={"workers": 0}),
        "instruct",
        folder,
        CachedCollator(processor),
        rows,
        None,
        None,
        shape,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    StageReport("instruct", trainer.state.log_history, table).write(folder)
    return rows


def _rows(
    config: RunConfig,
    scratch: ScratchSettings,
    parts: Parts,
    train: _Faces,
    features: FeatureCache,
) -> InstructionRows:
    """Stage 2's samples, and what is made of them besides."""
    model, processor = parts
    index = {face_id: number for number, face_id in enumerate(train.ids)}
    samples = list(read_samples(config.corpus, "train"))
    readings = None
    if scratch.most_doubt < 1:
        folder = config.out / "regions"
        remedy = f"remove '{folder / LEARNED}', and the same command writes both again."
        with undamaged(folder / READINGS_FILE, remedy):
            readings = Readings.load(folder / READINGS_FILE)
    rows = encode_rows(samples, index, processor, readings=readings, doubt=scratch.most_doubt)
    count, resting, soft, mixes = len(rows), None, None, None
    twins: list[Twins] = []
    decides = scratch.twins or scratch.expressive_clips or scratch.soft_labels
    choices = Choices(processor.tokenizer) if decides else None
    if choices and (scratch.expressive_clips or scratch.soft_labels):
        people = [record.subject or record.face_id for record in train.records()]
        resting = RestingFaces(train.arrays, people)
    if choices and resting and scratch.expressive_clips:
        clips = round(scratch.expressive_clips * count)
        twins += clip_twins(rows, resting, processor, choices, clips, config.seed)
    if choices and scratch.twins:
        more = round(scratch.further_json * count)
        twins += further_json_twins(rows, processor, choices, more, config.seed)
        rows, pairs = json_twins(rows, choices)
        twins += pairs
    rows += rare_fakes(rows, train.arrays.source)
    switches = round(scratch.switches * count)
    rows += switching_rows(samples, index, processor, switches, config.seed)
    if choices and resting and scratch.soft_labels:
        said = _soft_labels(config, model, train, features, people)
        said = said.with_labels(train.arrays, scratch.soft_labels)
        mixes = MixedFakes(train.arrays)
        soft = SoftTargets(said, train.arrays, choices, mixes.rare)
        more = round(scratch.verdict_rows * count)
        others = mixes.without(train.arrays)
        rows += verdict_rows(said, others, resting, processor, more, config.seed)
        rows += mixed_rows(mixes, processor, round(scratch.mixed_fakes * count), config.seed)
    return InstructionRows(
        rows, features, train.arrays.units, scratch.swapped, twins, resting, soft, mixes
    )


def _soft_labels(
    config: RunConfig,
    model: FaceLlavaForConditionalGeneration,
    train: _Faces,
    features: FeatureCache,
    people: Sequence[str],
) -> SoftLabels:
    """What stage 1's tokens say of the faces."""
    path = config.out / "regions" / SOFT_LABELS_FILE
    if not path.exists():
        soft_labels_of(model.face_encoder, features, train.arrays, people, config.seed).save(path)
    with undamaged(path, "remove it, and the same command makes it again."):
        return SoftLabels.load(path)
