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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import set_seed

from facellava import checkpoint
from facellava.adapter import NOTE_FILE, adapted_model, clip_settings, weights_digest
from facellava.corpus import read_manifest, sha256, validate
from facellava.errors import BadCheckpoint, BadSettings, FacellavaError
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from facellava.records import FaceRecord
from facellava.whole_files import open_to_others
from train.clip_choices import ClipChoices, label_weights
from train.damage import undamaged
from train.dataset import Collator, CorpusTables, Reader, TrainingRows, scan
from train.device import training_device
from train.held_out import HeldOutAnswers, choose, set_aside
from train.model_card import write_model_card, write_training_data
from train.packed_attention import attend_by_sample
from train.packed_rows import PackingCollator
from train.processes import (
    attention_for,
    join,
    sharding,
    what_was_chosen,
    whole_state,
)
from train.quantise import load_nf4
from train.run_checks import (
    base_folder,
    check_apart,
    check_machine,
    check_one_process,
    check_space,
    check_start,
)
from train.run_config import RunConfig, Stage
from train.run_report import HISTORY_FILE, REPORT_FILE, StageReport, write_report, write_whole
from train.run_trainer import answer_loss, new_trainer
from train.scratch import train_from_scratch
from train.stage_trainer import last_whole_checkpoint
from train.trainable import ShowTable, make_trainable, trainable_table
from train.usable import Usable

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
# May differ when a run goes on: they change nothing that is learned.
FREE_TO_CHANGE = ("workers", "report_to", "save_steps", "out")


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
    if config.scratch is not None:
        check_one_process()
        _open_folder(config, _note(config, None))
        return train_from_scratch(config, show)
    processes = join()
    first = processes.is_main_process
    base = base_folder(config)
    set_seed(config.seed)
    model: FaceLlavaForConditionalGeneration | PeftModel
    model, processor = _loaded(config, base)
    machine = what_was_chosen(config, model, processes)
    note: dict[str, Any] = {}
    new = False
    if config.packing:
        check_apart(model)
        attend_by_sample(model.language_model)
    if first:
        note = _note(config, base)
        check_start(config, base)
        check_space(config, model)
        # Refuses a loss that does not go with the tokenizer.
        answer_loss(processor.tokenizer, config.loss)
        new = _open_folder(config, note)
        logger.info("%s", ", ".join(f"{key}: {value}" for key, value in machine.items()))
    processes.wait_for_everyone()
    learned = _result(config, config.stages[-1])
    if learned.is_dir() and (config.out / REPORT_FILE).is_file():
        return learned
    try:
        with processes.main_process_first():
            data = _data(config, processor)
    except FacellavaError:
        if new:
            # Or the folder would refuse the settings that the sentence asks for.
            shutil.rmtree(config.out)
        raise
    if config.start is not None:
        model = _with_learned(model, base, config.start, config)
    reports: list[StageReport] = []
    for stage in config.stages:
        result = _result(config, stage)
        if reports and sharding() is not None:
            # The stage before has spread its weights over the processes.
            earlier = _result(config, config.stages[0])
            model = _with_learned(_loaded(config, base)[0], base, earlier, config)
        before = model.merge_and_unload() if isinstance(model, PeftModel) else model
        if result.is_dir():
            model = _with_learned(before, base, result, config)
        else:
            model, state = _train_stage(config, stage, before, data, show if first else None)
            if first:
                _store(model, state, data.processor, result, note, config)
            join().wait_for_everyone()
        history = config.out / stage / HISTORY_FILE
        with undamaged(history, f"remove '{result}', and the same command writes both again."):
            reports.append(StageReport.read(config.out / stage, stage))
    answers = data.answers
    if first:
        if answers is not None and not answers.last and sharding() is None:
            # The last evaluation was before a stop.
            answers(model.to(training_device()))
        given = answers.last if answers else []
        write_report(config, reports, data.train.usable, given, machine)
    join().wait_for_everyone()
    return learned


def _loaded(
    config: RunConfig, folder: Path
) -> tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]:
    """A checkpoint in the type that it is trained in."""
    dtype = torch.bfloat16 if config.bf16 and config.tune == "lora" else torch.float32
    attention = attention_for(torch.bfloat16 if config.bf16 else torch.float32)
    if config.quantise == "nf4":
        model, processor = load_nf4(folder, dtype, training_device(), attention)
    else:
        model, processor = checkpoint.load(folder, dtype=dtype, attention=attention)
    # Small, and what a stage learned of them must not be rounded before the next.
    model.face_encoder.mm_projector.float()
    model.face_encoder.region_attention.float()
    return model, processor


def _note(config: RunConfig, base: Path | None) -> dict[str, Any]:
    return {
        "base_sha256": None if base is None else weights_digest(base),
        "clips": None if base is None else clip_settings(base),
        "corpus_sha256": sha256(config.corpus / "manifest.json")
        if (config.corpus / "manifest.json").is_file()
        else None,
        "settings": {
            key: value
            for key, value in config.model_dump(mode="json").items()
            if key not in (*FREE_TO_CHANGE, "corpus")
        },
    }


def _open_folder(config: RunConfig, note: dict[str, Any]) -> bool:
    """Write down what the run is made of, or refuse a folder that holds another run.

    Returns:
        Whether the run is new.
    """
    file = config.out / RUN_FILE
    if file.is_file():
        with undamaged(file, f"give another out folder, or remove '{config.out}'."):
            before = json.loads(file.read_text("utf-8"))
            then = dict(before["settings"])
        odd = [key for key, value in note["settings"].items() if value != then.get(key)]
        odd += [
            what
            for what, key in (
                ("base", "base_sha256"),
                ("clip setting of the base", "clips"),
                ("corpus", "corpus_sha256"),
            )
            if note[key] != before.get(key)
        ]
        if odd:
            raise BadCheckpoint(
                f"'{config.out}' holds a run with another {odd[0]}; give another out folder, or "
                "remove it."
            )
        return False
    if config.out.is_dir() and any(config.out.iterdir()):
        raise BadSettings(f"'{config.out}' holds other files; give a new folder as out.")
    validate(config.corpus)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(note, indent=1))
    except OSError as error:
        raise BadSettings(
            f"'{config.out}' cannot be made ({error.strerror}); give another out folder."
        ) from error
    return True


def _data(config: RunConfig, processor: FaceLlavaProcessor) -> _Data:
    def reader(split: str) -> Reader:
        tables = CorpusTables(config.corpus, split, config.out / "tables")
        frames = processor.clip_frames or config.clip_frames
        return Reader(tables, processor, config.max_length, frames)

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
    show: ShowTable | None,
) -> tuple[FaceLlavaForConditionalGeneration | PeftModel, Mapping[str, Tensor] | None]:
    """The model with what the stage learned, in the form in which it learned it.

    With its weights, where the model itself has only this process's part of them.
    """
    # Initial weights of adapters do not depend on how many stages ran before in this process.
    set_seed(config.seed)
    prepared = make_trainable(model, config, stage)
    table = trainable_table(prepared)
    if show is not None:
        show(stage, table)
    folder = config.out / stage
    trainer = new_trainer(
        prepared,
        model,
        config,
        stage,
        folder,
        (PackingCollator if config.packing else Collator)(data.processor),
        data.train,
        data.held_out,
        data.answers,
    )
    with join().main_process_first():
        last = last_whole_checkpoint(folder)
    trainer.train(resume_from_checkpoint=last)
    if config.early_stopping is not None:
        # The figures and answers of what is kept, which is the best and not the last.
        trainer.evaluate()
    if trainer.is_world_process_zero():
        StageReport(stage, trainer.state.log_history, table).write(folder)
    return prepared, whole_state(trainer)


def _result(config: RunConfig, stage: Stage) -> Path:
    if stage != config.stages[-1]:
        return config.out / stage / "adapter"
    full = stage == "instruct" and config.tune == "full"
    return config.out / ("model" if full else "adapter")


def _with_learned(
    model: FaceLlavaForConditionalGeneration, base: Path, learned: Path, config: RunConfig
) -> FaceLlavaForConditionalGeneration | PeftModel:
    """The model with an adapter around it, or the checkpoint that was tuned as a whole."""
    if (learned / "config.json").is_file():
        return _loaded(config, learned)[0]
    return adapted_model(model, base, learned)


def _store(
    model: FaceLlavaForConditionalGeneration | PeftModel,
    state: Mapping[str, Tensor] | None,
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
                model.save_pretrained(draft, state_dict=state)
        else:
            whole = model if state is not None else model.to("cpu")
            checkpoint.save(whole, processor, draft, state=state)
        write_model_card(draft, result.parent.name, read_manifest(config.corpus))
        write_training_data(draft, config.corpus)
        write_whole(draft / NOTE_FILE, json.dumps(note, indent=1))
        open_to_others(draft)
        draft.rename(result)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
