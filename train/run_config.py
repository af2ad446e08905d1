"""What a training run is told: a TOML or YAML file, a preset by name, and --set KEY=VALUE.

::

    preset = "nano-lora"        # optional: the file says only what differs
    corpus = "corpus"
    out = "runs/first"
    [instruct]
    learning_rate = 1e-4

An unknown key is refused with the nearest known one, before anything is read or written.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from facellava.errors import BadSettings
from train.base_settings import MOST_SEED, Backbone, Count, ScratchSettings, Strict

Stage = Literal["regions", "instruct"]
STAGES: tuple[Stage, ...] = ("regions", "instruct")
PRESETS = Path(str(files("train") / "presets"))
EMBEDDED = "nano"
SCRATCH = "scratch"

Share = Annotated[float, Field(ge=0, lt=1)]


class StageSettings(Strict):
    """How one stage learns.

    Attributes:
        learning_rate: the highest.
        batch: samples of one forward pass on one device; with packing it is read for held-out
            samples only.
        accumulation: forward passes of one step.
        epochs: passes over the corpus; not read where max_steps is given.
        max_steps: steps in all.
        warmup: share of all steps in which the rate rises.
        schedule: how it falls afterwards.
        weight_decay: of weights other than biases and norms.
        optim: the optimiser.
        beta2: decay of the second moment, of adamw and adam.
        max_grad_norm: gradients are scaled down to this norm.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    batch: Count = 8
    accumulation: Count = 1
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    warmup: Share = 0.03
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optim: Literal["adamw", "adam", "rmsprop", "sgd"] = "adamw"
    beta2: Share = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


class LoraSettings(Strict):
    """LoRA on the language model.

    Attributes:
        r: rank.
        alpha: the update is scaled by alpha / r.
        dropout: on the adapter's input.
        targets: names of the linear layers inside the language model's blocks; "all" is every one.
    """

    r: Count = 64
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Share = 0.05
    targets: Literal["all"] | tuple[str, ...] = "all"

    @field_validator("targets", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """A name by itself is a list of one."""
        names = [value] if isinstance(value, str) and value != "all" else value
        named = isinstance(names, list | tuple) and all(isinstance(n, str) and n for n in names)
        if names != "all" and not (named and names):
            raise ValueError(
                f'lora.targets is {value!r}; give "all", or names such as ["q_proj", "v_proj"]'
            )
        return names


# They speak of LoRA, or of samples read from the corpus at each step.
NOT_FROM_SCRATCH: Final = (
    "lora_only", "start", "lora", "loss", "gradient_checkpointing", "max_length", "clip_frames",
    "bad_samples", "eval_samples", "eval_tokens", "eval_steps", "early_stopping", "backbone",
    "packing", "packed_length", "quantise",
)  # fmt: skip


class RunConfig(Strict):
    """A training run.

    Attributes:
        base: a Face-LLaVA checkpoint folder; "nano" is the embedded model, "scratch" one that is
            made from the corpus, as the section scratch says.
        corpus: a finished corpus.
        out: folder of the run. The same command goes on there after a stop.
        stage: "regions" teaches FRLP and FRGCA alone, "instruct" those, the projector and the
            language model, "all" one after the other.
        tune: what stage "instruct" changes of the language model: a LoRA adapter, or all of it.
        quantise: "nf4" keeps the frozen language model in 4 bits (QLoRA); the adapter is of the
            base as it is on disk.
        lora_only: the adapter holds LoRA on the language model and nothing else, so that a server
            can switch it per request.
        start: an adapter of the same base (stage "regions"'s, say) from which the run starts.
        regions: how stage "regions" learns.
        instruct: how stage "instruct" learns.
        lora: the adapter of stage "instruct".
        loss: "verdict" weighs label words, spreads years and forgives uncoded action units, for
            tokenizers with single label tokens; "plain" is cross-entropy; "auto" chooses.
        bf16: forward and backward passes in bfloat16; what learns is kept in float32.
        gradient_checkpointing: recompute activations instead of keeping them.
        max_length: longest sample in tokens, image tokens included. Longer ones are bad samples.
        packing: put several samples into one row, none of which sees another: a forward pass is one
            row without padding, in training.
        packed_length: most tokens of such a row; without it, max_length.
        clip_frames: frames taken of a clip, spread evenly, where the base fixes no number.
        clip_frame_augment: training draws a clip's frames at random places, other ones each
            epoch ("skip"), and covers a part of half of them ("skip_erase").
        clip_noise_weights: a clip whose label the model surely disagrees with counts less, and
            one with a rare label more (expression and deepfake; train/clip_weights.py); not with
            packing. It gained nothing for sure: benchmarks/RESULTS.md.
        bad_samples: stop at the first sample that cannot be used, or skip and count such samples.
        aside_share: share of the training split's people kept out of training, to measure on.
        eval_samples: how many held-out samples are answered at each evaluation.
        eval_tokens: longest of those answers.
        eval_steps: steps between evaluations on held-out samples; without it there are none.
        early_stopping: stop after so many evaluations without a lower loss, and keep the best.
        save_steps: steps between checkpoints.
        log_steps: steps between entries of the loss curve.
        workers: processes that prepare batches.
        report_to: where curves go besides the report.
        seed: of initial weights, order and dropout.
        backbone: see Backbone.
        scratch: see ScratchSettings.
    """

    base: str
    corpus: Path
    out: Path
    stage: Literal["regions", "instruct", "all"] = "instruct"
    tune: Literal["lora", "full"] = "lora"
    quantise: Literal["none", "nf4"] = "none"
    lora_only: bool = False
    start: Path | None = None
    regions: StageSettings = StageSettings()
    instruct: StageSettings = StageSettings()
    lora: LoraSettings = LoraSettings()
    loss: Literal["auto", "plain", "verdict"] = "auto"
    bf16: bool = False
    gradient_checkpointing: bool = False
    max_length: Count = 2048
    packing: bool = False
    packed_length: Count | None = None
    clip_frames: Count = 8
    clip_frame_augment: Literal["none", "skip", "skip_erase"] = "none"
    clip_noise_weights: bool = False
    bad_samples: Literal["stop", "skip"] = "stop"
    aside_share: Share = 0.0
    eval_samples: Annotated[int, Field(ge=0)] = 32
    eval_tokens: Count = 160
    eval_steps: Count | None = None
    early_stopping: Count | None = None
    save_steps: Count = 500
    log_steps: Count = 10
    workers: Annotated[int, Field(ge=0)] = 2
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    backbone: Backbone | None = None
    scratch: ScratchSettings | None = None

    @model_validator(mode="after")
    def _from_scratch(self) -> RunConfig:
        if (self.base == SCRATCH) != (self.scratch is not None):
            raise ValueError('base = "scratch" and a section scratch go together')
        if self.scratch is None:
            return self
        if (self.stage, self.tune) != ("all", "full"):
            raise ValueError('base = "scratch" goes with stage = "all" and tune = "full"')
        odd = [name for name in NOT_FROM_SCRATCH if name in self.model_fields_set]
        if odd:
            raise ValueError(f'base = "scratch" has no use for {odd[0]}; leave it out')
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.lora_only and (self.stage != "instruct" or self.tune != "lora"):
            raise ValueError(
                'lora_only leaves FRLP and FRGCA as they are: it goes with stage = "instruct" and '
                'tune = "lora"'
            )
        if self.lora_only and self.start is not None:
            raise ValueError(
                "start is an adapter of FRLP and FRGCA, which one with lora_only would not hold: "
                "merge it into its base first (facellava train merge), and leave start out"
            )
        if self.quantise != "none" and self.tune == "full":
            raise ValueError(
                f'quantise = "{self.quantise}" freezes the language model in 4 bits: it goes with '
                'tune = "lora"'
            )
        if self.packed_length is not None and self.packed_length < self.max_length:
            raise ValueError(
                f"packed_length is {self.packed_length} and max_length {self.max_length}; make it "
                "as large, so that every sample fits into a row"
            )
        if self.packing and self.clip_noise_weights:
            raise ValueError(
                "clip_noise_weights weighs whole rows, and a packed row holds several samples: set "
                "packing or clip_noise_weights to false"
            )
        if self.save_steps % self.log_steps:
            raise ValueError(
                f"save_steps is {self.save_steps}; make it a multiple of log_steps "
                f"({self.log_steps}), so that a resumed run has the same curve"
            )
        if self.early_stopping is not None and (
            self.eval_steps is None or self.save_steps % self.eval_steps
        ):
            raise ValueError(
                "early_stopping keeps the best checkpoint: give eval_steps, and save_steps as a "
                "multiple of it"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run, in order."""
        return STAGES if self.stage == "all" else (self.stage,)

    @property
    def row_length(self) -> int:
        """Most tokens of a packed row."""
        return self.packed_length or self.max_length

    def of_stage(self, stage: Stage) -> StageSettings:
        """How that stage learns."""
        return self.regions if stage == "regions" else self.instruct


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_config(
    source: str | Path, overrides: Sequence[str] = (), defaults: Sequence[str] = ()
) -> RunConfig:
    """The settings of a run.

    Args:
        source: a TOML or YAML file, or a preset's name.
        overrides: "key=value" with dotted keys; values as in TOML, other text as it stands.
        defaults: likewise, for what neither says.

    Raises:
        BadSettings: a file that cannot be read, an unknown key, or a value that cannot be used.
    """
    table = _read(source)
    if "preset" in table:
        preset = table.pop("preset")
        if preset not in preset_names():
            raise BadSettings(
                f"There is no preset {preset!r}; use one of {', '.join(preset_names())}."
            )
        table = _merged(_read(str(preset)), table)
    for default in defaults:
        table = _merged(_override(default), table)
    for override in overrides:
        table = _merged(table, _override(override))
    _check_keys(table, RunConfig, "")
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise BadSettings(_sentence(error, source)) from error


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if str(source) in preset_names() and not path.is_file():
        path = PRESETS / f"{source}.toml"
    try:
        text = path.read_text("utf-8")
        is_yaml = path.suffix in {".yaml", ".yml"}
        table = yaml.safe_load(text) if is_yaml else tomllib.loads(text)
    except FileNotFoundError as error:
        raise BadSettings(
            f"'{source}' is neither a file nor a preset; the presets are "
            f"{', '.join(preset_names())}."
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BadSettings(f"Settings file '{path}' cannot be read: {reason}.") from error
    if not isinstance(table, dict):
        raise BadSettings(f"Settings file '{path}' holds no table of keys and values.")
    return table


def _override(text: str) -> dict[str, Any]:
    """ "a.b=1" as {"a": {"b": 1}}."""
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise BadSettings(f"--set {text!r} is not KEY=VALUE, such as instruct.learning_rate=1e-4.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    table: dict[str, Any] = parsed
    return table


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _check_keys(table: Mapping[str, Any], section: type, prefix: str) -> None:
    known = _settings_of(section)
    for key, value in table.items():
        if key not in known:
            raise BadSettings(f"There is no setting {prefix}{key}; {_hint(prefix, str(key))}")
        inner = _table_of(known[key])
        if inner is not None and isinstance(value, Mapping):
            _check_keys(value, inner, f"{prefix}{key}.")


def _hint(prefix: str, key: str) -> str:
    """The nearest setting, of the same table rather than of another."""
    known = _dotted(RunConfig, "")
    here = [name for name in known if name.rpartition(".")[0] == prefix.rstrip(".")]
    for names, alike in ((here, 0.75), (known, 0.75), (here, 0.5)):
        # Of two settings of one name the one that lies less deep.
        deep_first = sorted(names, key=lambda name: -name.count("."))
        words = {name.rpartition(".")[2]: name for name in deep_first}
        nearest = difflib.get_close_matches(key, words, n=1, cutoff=alike)
        if nearest:
            return f"did you mean {words[nearest[0]]}?"
    return f"known are {', '.join(here)}."


def _dotted(section: type, prefix: str) -> list[str]:
    names = []
    for key, kind in _settings_of(section).items():
        inner = _table_of(kind)
        names += [f"{prefix}{key}"] if inner is None else _dotted(inner, f"{prefix}{key}.")
    return names


def _settings_of(section: type) -> dict[str, Any]:
    """Names of a section's settings, with their types."""
    if is_dataclass(section):
        return {field.name: field.type for field in fields(section)}
    model: type[BaseModel] = section
    return {key: field.annotation for key, field in model.model_fields.items()}


def _table_of(annotation: Any) -> type | None:
    """The section that a setting is, if it is one."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
            return kind
    return None


def _sentence(error: ValidationError, source: str | Path) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"'{source}' says no {key}; add it, or give --set {key}=..."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        # A setting's name is written as the user must write it.
        named = re.split(r"\W", message, maxsplit=1)[0] in RunConfig.model_fields
        return f"{message if named else message[0].upper() + message[1:]}."
    return f"The setting {key} is {first['input']!r}: {message[0].lower()}{message[1:]}."
