"""Several processes of one run: the same loss as one, and every file written once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from safetensors.torch import load_file

from facellava import checkpoint
from facellava.errors import BadSettings
from facellava.model import FaceLlavaForConditionalGeneration
from facellava.processor import FaceLlavaProcessor
from train.run import train_run
from train.run_checks import check_machine
from train.run_config import load_config
from train.run_report import StageReport

Parts = tuple[FaceLlavaForConditionalGeneration, FaceLlavaProcessor]
LAUNCH = Path(str(files("train") / "accelerate"))


@pytest.fixture
def settings(new_parts: Callable[[], Parts], run_corpus: Path, tmp_path: Path) -> Path:
    """A run's file for one process: a batch of eight."""
    base = checkpoint.save(*new_parts(), tmp_path / "base")
    stage = "{max_steps = 3, batch = 8, learning_rate = 3e-3, warmup = 0.0}"
    lines = [
        f'base = "{base}"',
        f'corpus = "{run_corpus}"',
        f'out = "{tmp_path / "one"}"',
        'stage = "all"',
        f"regions = {stage}",
        f"instruct = {stage}",
        "lora = {r = 4, alpha = 8, dropout = 0.0}",
        "save_steps = 2",
        "log_steps = 1",
        "workers = 0",
        "eval_steps = 3",
        "eval_samples = 2",
        "eval_tokens = 3",
    ]
    file = tmp_path / "run.toml"
    file.write_text("\n".join(lines))
    return file


# accelerate offers FSDP on GPUs only: it is told that the processors are something else.
CPU_AS_ACCELERATOR = """
import torch.distributed
from accelerate import PartialState
from accelerate.utils import DistributedType

torch.distributed.init_process_group("gloo")
PartialState._prepare_backend = lambda *given, **more: ("gloo", DistributedType.MULTI_HPU)
PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
"""
DIED_IN_C = re.compile(r"exitcode\s*: -(6|11)\b")
COMMAND = "from facellava.cli import main\n\nmain()\n"


def launched(settings: Path, out: Path, before: str = "", **environment: str) -> str:
    """Two processes, each with a batch of four."""
    script = out.with_suffix(".py")
    script.write_text(before + COMMAND)
    words = ["run", str(settings), "--set", f"out={out}"]
    words += ["--set", "regions.batch=4", "--set", "instruct.batch=4"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            str(script),
            "train",
            *words,
        ],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def curves(out: Path) -> list[float]:
    """Training and held-out losses of both stages."""
    stages = [StageReport.read(out / stage, stage) for stage in ("regions", "instruct")]  # type: ignore[arg-type]
    return [
        value
        for stage in stages
        for name in ("loss", "eval_loss")
        for value in stage.curve(name)[1]
    ]


def test_two_processes_learn_what_one_does(settings: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    adapter = train_run(load_config(settings))
    said = launched(settings, two)
    assert said == f"What was learned is in {two / 'adapter'}, and a report beside it\n"
    assert curves(two) == pytest.approx(curves(one), rel=1e-4)
    wanted = load_file(adapter / "adapter_model.safetensors")
    found = load_file(two / "adapter" / "adapter_model.safetensors")
    assert found.keys() == wanted.keys()
    report = json.loads((two / "report.json").read_text())
    assert report["machine"]["processes"] == 2
    assert report["machine"]["attention"] == "sdpa"
    assert len(report["answers"]) == 2


def test_weights_that_are_spread_learn_the_same(settings: Path, tmp_path: Path) -> None:
    values = load_config_from_file(str(LAUNCH / "fsdp.yaml")).fsdp_config
    environment = {key.upper(): str(value).lower() for key, value in values.items()}
    environment["FSDP_AUTO_WRAP_POLICY"] = values["fsdp_auto_wrap_policy"]
    environment["FSDP_STATE_DICT_TYPE"] = values["fsdp_state_dict_type"]
    adapter = train_run(load_config(settings))
    environment["ACCELERATE_USE_FSDP"] = "true"
    try:
        launched(settings, tmp_path / "two", CPU_AS_ACCELERATOR, **environment)
    except AssertionError as error:
        # FSDP on processors is nobody's business: once in some hundred runs a process dies in C++,
        # with "malloc(): unaligned tcache chunk". Whatever Python has to say counts at once.
        if not DIED_IN_C.search(str(error)):
            raise
        shutil.rmtree(tmp_path / "two", ignore_errors=True)
        launched(settings, tmp_path / "two", CPU_AS_ACCELERATOR, **environment)
    assert curves(tmp_path / "two") == pytest.approx(curves(tmp_path / "one"), rel=1e-4)
    file = "adapter_model.safetensors"
    wanted, found = (load_file(folder / file) for folder in (adapter, tmp_path / "two" / "adapter"))
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-3, rtol=1e-3)
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["machine"]["sharding"] == "FSDP"


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_launcher_configs_are_read_whole(name: str, settings: Path) -> None:
    """accelerate's own parser refuses keys that it does not know."""
    words = ["--config_file", str(LAUNCH / f"{name}.yaml"), "-m", "facellava", "train", "run"]
    given = launch_command_parser().parse_args([*words, str(settings)])
    args, defaults, _ = _validate_launch_command(given)
    assert defaults is not None
    assert args.num_processes == 8
    assert (args.use_fsdp, args.use_deepspeed) == (name == "fsdp", name.startswith("zero"))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = list(defaults.deepspeed_config)
        _, environment = prepare_deepspeed_cmd_env(args)
        assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == name[-1]


def test_what_does_not_go_with_spread_weights(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(settings)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_machine(config)
    with pytest.raises(BadSettings, match="keeps the whole model on each GPU: leave out the FSDP"):
        check_machine(load_config(settings, ["quantise=nf4"]))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(BadSettings, match="Under DeepSpeed a command trains one stage"):
        check_machine(config)
