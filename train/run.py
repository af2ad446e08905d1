"""`facellava train run`: a base and a corpus to an adapter or a checkpoint, in one or two stages.

::

    OUT/run.json                    what the run is made of; another run's folder is refused
    OUT/tables/, OUT/*.npz          the corpus mapped into memory, and which samples can be used
    OUT/<stage>/checkpoint-N/       Trainer's checkpoints, the newest (and the best)
    OUT/regions/adapter/            what stage "regions" learned, where another stage follows
    OUT/adapter/ or OUT/model/      what the run learned
    OUT/report.json, report.md      curves, figures, answers

Run again after a stop, it goes on from the last whole checkpoint and learns the same.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import set_seed

from facellava import checkpoint
from facellava.corpus import read_manifest, sha256, validate
from facellava.errors import BadCheckpoint, BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord
from train.clip_choices import ClipChoices, label_weights
from train.dataset import Collator, CorpusTables, Reader, TrainingRows, Usable, scan
from train.held_out import HeldOutAnswers, choose
from train.merge import NOTE_FILE, adapted_model, weights_digest
from train.model_card import write_model_card, write_training_data
from train.nano import set_aside
from train.run_checks import base_folder, check_machine, check_space
from train.run_config import RunConfig, Stage
from train.run_report import REPORT_FILE, StageReport, write_report, write_whole
from train.run_trainer import last_whole_checkpoint, new_trainer
from train.trainable import PartRow, make_trainable, trainable_table

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
# May differ when a run goes on: they change nothing that is learned.
FREE_TO_CHANGE = ("workers", "report_to", "save_steps", "out")
ShowTable = Callable[[Stage, list[PartRow]], None]


@dataclass(frozen=True)
class _Data:
    """Both halves of the corpus, read by the base's processor."""

    processor: FaceLlavaProcessor
    train: TrainingRows
    held_out: TrainingRows | None
    answers: HeldOutAnswers | None


def train_run(config: RunConfig, show: ShowTable = lambda stage, rows: None) -> Path:
    """Train; returns the folder of what was learned.

    Args:
        config: the run.
        show: called before each stage with what learns in it.

    Raises:
        BadSettings: settings that do not fit each other, the machine or the base.
        BadCheckpoint: a base or adapter that cannot be used, or another run's folder.
        BadCorpus, BadSample: a corpus that is not whole, or a sample that cannot be used.
        TrainingStopped: a loss that is no number, or a full disk.
    """
    check_machine(config)
    base = base_folder(config)
    set_seed(config.seed)
    model, processor = _loaded(config, base)
    note = _note(config, base)
    check_space(config, model)
    _open_folder(config, note)
    learned = _result(config, config.stages[-1])
    if learned.is_dir() and (config.out / REPORT_FILE).is_file():
        return learned
    data = _data(config, processor)
    if config.start is not None:
        model = _with_learned(model, base, config.start, config)
    reports = []
    for stage in config.stages:
        result = _result(config, stage)
        if result.is_dir():
            model = _with_learned(model, base, result, config)
        else:
            model = _train_stage(config, stage, model, data, show)
            _store(model, data.processor, result, note, config)
            model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        reports.append(StageReport.read(config.out / stage, stage))
    answers = data.answers
    if answers is not None and not answers.last:
        # The last evaluation was before a stop.
        answers(model.to("cuda" if torch.cuda.is_available() else "cpu"))
    write_report(config, reports, data.train.usable, answers.last if answers else [])
    return learned


def _loaded(
    config: RunConfig, folder: Path
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """A checkpoint in the type that it is trained in."""
    dtype = torch.bfloat16 if config.bf16 and config.tune == "lora" else torch.float32
    model, processor = checkpoint.load(folder, dtype=dtype)
    # Small, and what a stage learned of them must not be rounded before the next.
    model.face_encoder.mm_projector.float()
    model.face_encoder.region_attention.float()
    return model, processor


def _note(config: RunConfig, base: Path) -> dict[str, Any]:
    return {
        "base_sha256": weights_digest(base),
        "corpus_sha256": sha256(config.corpus / "manifest.json")
        if (config.corpus / "manifest.json").is_file()
        else None,
        "settings": {
            key: value
            for key, value in config.model_dump(mode="json").items()
            if key not in (*FREE_TO_CHANGE, "corpus")
        },
    }


def _open_folder(config: RunConfig, note: dict[str, Any]) -> None:
    """Write down what the run is made of, or refuse a folder that holds another run."""
    file = config.out / RUN_FILE
    if file.is_file():
        before = json.loads(file.read_text("utf-8"))
        then = before["settings"]
        odd = [key for key, value in note["settings"].items() if value != then.get(key)]
        odd += [
            what
            for what, key in (("base", "base_sha256"), ("corpus", "corpus_sha256"))
            if note[key] != before[key]
        ]
        if odd:
            raise BadCheckpoint(
                f"'{config.out}' holds a run with another {odd[0]}; give another out folder, or "
                "remove it."
            )
        return
    if config.out.is_dir() and any(config.out.iterdir()):
        raise BadSettings(f"'{config.out}' holds other files; give a new folder as out.")
    validate(config.corpus)
    config.out.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(note, indent=1))


def _data(config: RunConfig, processor: FaceLlavaProcessor) -> _Data:
    def reader(split: str) -> Reader:
        tables = CorpusTables(config.corpus, split, config.out / "tables")
        return Reader(tables, processor, config.max_length, config.clip_frames)

    def aside(record: FaceRecord) -> bool:
        return set_aside(record, config.aside_share)

    def usable(of: Reader, name: str, wanted: Callable[[FaceRecord], bool] | None) -> Usable:
        file = config.out / f"{name}.npz"
        if not file.is_file():
            skip = config.bad_samples == "skip"
            scan(of, skip=skip, workers=config.workers, wanted=wanted).save(file)
        return Usable.load(file)

    training = reader("train")
    wanted = (lambda record: not aside(record)) if config.aside_share else None
    used = usable(training, "train", wanted)
    choices = _clip_choices(training, used) if config.clip_noise_weights else None
    rows = TrainingRows(training, used, config.clip_frame_augment, config.seed, choices)
    if config.eval_steps is None:
        return _Data(processor, rows, None, None)
    measured = training if config.aside_share else reader("validation")
    held_out = usable(measured, "held_out", aside if config.aside_share else None)
    answers = None
    if config.eval_samples:
        asked = choose(measured, held_out, config.eval_samples)
        answers = HeldOutAnswers(asked, processor, config.eval_tokens)
    return _Data(processor, rows, TrainingRows(measured, held_out), answers)


def _clip_choices(reader: Reader, usable: Usable) -> ClipChoices:
    """Rare labels among the clips count more, by their number in the corpus."""
    samples = [reader.tables.sample(row) for row in usable.rows[usable.frames > 1]]
    weights = label_weights([(sample.task, sample.label) for sample in samples])
    return ClipChoices(reader.processor.tokenizer, weights)


def _train_stage(
    config: RunConfig,
    stage: Stage,
    model: FaceLlavaForConditionalGeneration,
    data: _Data,
    show: ShowTable,
) -> FaceLlavaForConditionalGeneration | PeftModel:
    """The model with what the stage learned, in the form in which it learned it."""
    # Initial weights of adapters do not depend on how many stages ran before in this process.
    set_seed(config.seed)
    prepared = make_trainable(model, config, stage)
    table = trainable_table(prepared)
    show(stage, table)
    folder = config.out / stage
    trainer = new_trainer(
        prepared,
        model,
        config,
        stage,
        folder,
        Collator(data.processor),
        data.train,
        data.held_out,
        data.answers,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    if config.early_stopping is not None:
        # The figures and answers of what is kept, which is the best and not the last.
        trainer.evaluate()
    StageReport(stage, trainer.state.log_history, table).write(folder)
    return prepared


def _result(config: RunConfig, stage: Stage) -> Path:
    if stage != config.stages[-1]:
        return config.out / stage / "adapter"
    full = stage == "instruct" and config.tune == "full"
    return config.out / ("model" if full else "adapter")


def _with_learned(
    model: FaceLlavaForConditionalGeneration, base: Path, learned: Path, config: RunConfig
) -> FaceLlavaForConditionalGeneration:
    """The model with an adapter merged into it, or the checkpoint that was tuned as a whole."""
    if (learned / "config.json").is_file():
        return _loaded(config, learned)[0]
    merged: FaceLlavaForConditionalGeneration = adapted_model(
        model, base, learned
    ).merge_and_unload()
    return merged


def _store(
    model: FaceLlavaForConditionalGeneration | PeftModel,
    processor: FaceLlavaProcessor,
    result: Path,
    note: dict[str, Any],
    config: RunConfig,
) -> None:
    """Write what was learned, whole or not at all."""
    draft = Path(tempfile.mkdtemp(prefix=f".{result.name}-", dir=result.parent))
    try:
        if isinstance(model, PeftModel):
            with warnings.catch_warnings():
                # PEFT warns of tied embeddings, which no adapter here changes.
                warnings.simplefilter("ignore")
                model.save_pretrained(draft)
        else:
            checkpoint.save(model.to("cpu"), processor, draft)
        write_model_card(draft, result.parent.name, read_manifest(config.corpus))
        write_training_data(draft, config.corpus)
        write_whole(draft / NOTE_FILE, json.dumps(note, indent=1))
        draft.chmod(0o755)
        draft.rename(result)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
